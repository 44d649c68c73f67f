"""The score tables of a run, checked against what the run says that it computed."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from likra.errors import LikraError
from likra.scores.packed import PackedScores
from likra.scores.table import HeadKey, Scores, combine, key_of, read_scores, read_stamp
from likra.study.examples import heads_of, untrained_of
from likra.study.folder import Run, read_record


def read_run_scores(run: Run) -> Scores:
    """The scores of all heads that the modes of a run need.

    Raises:
        LikraError: a table is missing, damaged, of another head than its name says, or not the one
            that the run computed.

    """
    return combine(_tables(run))


def score_keys(run: Run) -> list[HeadKey]:
    """The heads whose scores the modes of a run need."""
    study, own = run.study, read_record(run.folder).own_positives
    keys = [
        HeadKey(head, n, seed, source)
        for seed in study.seeds
        for head, source in heads_of(study)
        for n in study.snapshots
    ]
    if "likra" in study.modes:
        pairs = [HeadKey("positive", key.n_train, key.seed, key.source) for key in keys]
        keys += dict.fromkeys(pair for pair in pairs if pair.source and str(pair) in own)
    return [*untrained_of(study), *keys]


def _tables(run: Run) -> Iterator[pa.Table]:
    stored, digests = StoredTables(run), read_record(run.folder).scores
    for key in score_keys(run):
        name = str(key)
        if stored.path(name) is None or name not in digests:
            raise LikraError(
                f"'{run.folder}' has no scores of {name} ('{name}.parquet'): `likra run` with "
                "these settings computes what is missing"
            )
        table = stored.recorded(name, digests)
        _check_settings(run, key, stored.stamp(name))
        yield table


def _check_settings(run: Run, key: HeadKey, stamp: Mapping[str, Any]) -> None:
    """Refuse settings that are not those of the tables, as of a run stopped by one beside it.

    Raises:
        LikraError: names the section that differs.

    """
    head = stamp.get("inputs", {}).get("head")
    trained = head if isinstance(head, Mapping) else {}  # of the base it is a name
    own = {"training": run.study.training_of(key.head), "lora": run.study.lora}
    for section, settings in own.items():
        if section in trained and trained[section] != settings.stamped():
            raise LikraError(
                f"'{run.study_path}' does not go with the score tables of {key}, which have other "
                f"settings of {section}: `likra run` with the settings of the tables draws them"
            )


class StoredTables:
    """The score tables in a run's folder: single files, and those of the packed file.

    A head's name is its `HeadKey` as text. A head may be in both, as when packing was stopped
    before the single files were removed; then both stamps must be the same, and with them the
    scores, and the single file is read.
    """

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "scores"
        self.packed_path = run.packed_path

    @cached_property
    def _packed(self) -> PackedScores | None:
        return PackedScores(self.packed_path) if self.packed_path.is_file() else None

    @property
    def packed(self) -> Mapping[str, Mapping[str, Any]]:
        """The stamps of the tables in the packed file."""
        return self._packed.stamps if self._packed else {}

    @property
    def single(self) -> list[Path]:
        """The files that hold one table each."""
        return sorted(self.folder.glob("*.parquet"))

    @property
    def names(self) -> list[str]:
        """The heads that have a table, in the order of the packed file, then by name."""
        return list(dict.fromkeys([*self.packed, *(path.stem for path in self.single)]))

    def path(self, name: str) -> Path | None:
        """The file that holds the scores of a head; None where none does."""
        single = self.folder / f"{name}.parquet"
        if single.is_file():
            return single
        return self.packed_path if name in self.packed else None

    def stamp(self, name: str) -> Mapping[str, Any]:
        """The stamp of a table that exists.

        Raises:
            LikraError: the table is damaged, or a single file and the packed one disagree.

        """
        path = self.path(name)
        if path is None or path == self.packed_path:
            return self.packed[name]
        stamp = read_stamp(path)
        if self.packed.get(name, stamp) != stamp:
            raise LikraError(
                f"'{path}' and '{self.packed_path}' both hold scores of {name}, with different "
                "stamps: delete the one that is here by mistake"
            )
        return stamp

    def recorded(self, name: str, digests: Mapping[str, str]) -> pa.Table:
        """A table that exists, if it is the one that the run computed.

        Args:
            name: of the head.
            digests: of the run's tables (`likra.study.folder.Record`).

        Raises:
            LikraError: it is another one, or damaged.

        """
        path = self.path(name)
        if self.stamp(name)["digest"] != digests.get(name):
            raise LikraError(
                f"'{path}' is not the table that this run computed{self._of(name)}: it was scored "
                "with other settings, data or heads; delete it, and `likra run` computes it again"
            )
        if self._packed is not None and path == self.packed_path:
            return self._packed.table(name)
        table = read_scores(self.folder / f"{name}.parquet")
        if str(key_of(table)) != name:
            raise LikraError(f"'{path}' does not hold the scores of {name}")
        return table

    def _of(self, name: str) -> str:
        return f" for {name}" if self.path(name) == self.packed_path else ""
