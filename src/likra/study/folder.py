"""The folder of a run: where its files lie, and its settings."""

import functools
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from likra.atomic import write_text
from likra.checksum import ChecksumError, checked, with_checksum
from likra.errors import LikraError
from likra.plain_yaml import parse_yaml
from likra.scores.table import HeadKey, file_name
from likra.study.config import Study, parse_study

FACTS = {  # in study.yaml beside the settings
    "versions": dict,
    "layout": str,
    "layout_reason": str,
    "n_train_questions": int,
    "notes": list,
    "leaks": list,
}
LIBRARIES = ("likra", "torch", "transformers", "peft", "lm_eval", "datasets", "pyarrow")


@dataclass(frozen=True)
class Run:
    """A study and the folder of its results."""

    study: Study
    folder: Path

    def head_folder(self, key: HeadKey) -> Path:
        """The plain PEFT folder of one snapshot."""
        return self.training_folder(key) / f"n={key.n_train}"

    def training_folder(self, key: HeadKey) -> Path:
        """What one training run leaves: its snapshots, losses and examples."""
        folder = self.folder / "heads" / key.head / f"seed={key.seed}"
        return folder / f"source={file_name(key.source)}" if key.source else folder

    def state_folder(self, key: HeadKey) -> Path:
        """The state of one training run while it is under way (`likra.heads.resume`)."""
        return self.training_folder(key) / ".training"

    def examples_path(self, key: HeadKey) -> Path:
        """What one training run was trained on (`likra.study.about.write_examples`)."""
        return self.training_folder(key) / "examples.jsonl"

    def scores_path(self, key: HeadKey) -> Path:
        """The score table of one head."""
        return self.folder / "scores" / f"{key}.parquet"

    @property
    def packed_path(self) -> Path:
        """Many score tables in one file (`likra.scores.packed`), beside the single ones."""
        return self.folder / "scores.parquet"

    @property
    def train_scores_path(self) -> Path:
        """The base model's scores of the training choices, for the samplers that use them."""
        return self.folder / "scores" / "train" / "base.parquet"

    @property
    def samples_path(self) -> Path:
        """The base model's own answers to the training questions."""
        return self.folder / "generated.jsonl"

    @property
    def questions_path(self) -> Path:
        """The texts of the evaluation questions, for the report: score tables hold none."""
        return self.folder / "questions.jsonl"

    @property
    def record_path(self) -> Path:
        """Which cells the folder holds: see `Record`."""
        return self.folder / "cells.json"

    @property
    def study_path(self) -> Path:
        """The settings, with versions and what is known about the data."""
        return self.folder / "study.yaml"


def longest_snapshot(folder: Path) -> int:
    """The last snapshot of a training run that exists, whatever the study asks for; 0 for none."""
    numbers = [path.name.removeprefix("n=") for path in folder.glob("n=*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


@dataclass(frozen=True)
class Record:
    """The cells of a folder by their keys (`HeadKey` as text), each with its digest.

    Attributes:
        heads: digests of the heads.
        scores: digests of the score tables.
        own_positives: the positive heads that likra needs beside the usual ones, whether they are
            trained or not; see `likra.study.examples.trainings`.

    """

    heads: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)
    own_positives: Collection[str] = ()

    def merged(self, new: "Record") -> "Record":
        """This record with what is new."""
        own = sorted({*self.own_positives, *new.own_positives})
        return Record({**self.heads, **new.heads}, {**self.scores, **new.scores}, own)


def write_record(run: Run, record: Record) -> None:
    """Write ``cells.json``."""
    text = json.dumps(with_checksum(asdict(record)), indent=1, sort_keys=True)
    write_text(run.record_path, f"{text}\n")


def read_record(folder: Path) -> Record:
    """The content of ``cells.json``; an empty record where there is no such file.

    Raises:
        LikraError: the file cannot be read.

    """
    path = folder / "cells.json"
    if not path.is_file():
        return Record()
    try:
        record = Record(**checked(json.loads(path.read_text(encoding="utf-8"))))
        return Record(dict(record.heads), dict(record.scores), list(record.own_positives))
    except (ValueError, TypeError) as error:
        raise LikraError(
            f"cannot read '{path}' ({type(error).__name__}): delete it, and `likra run` writes it "
            "again"
        ) from error


_version = functools.cache(version)  # which reads the library's metadata each time


def library_versions() -> dict[str, str]:
    """The versions of what computes the numbers."""
    names = [*LIBRARIES, "trl"] if find_spec("trl") else LIBRARIES
    return {name: _version(name) for name in names} | {"python": platform.python_version()}


def write_about(run: Run, facts: Mapping[str, Any]) -> None:
    """Write ``study.yaml``: the settings, and facts about the run."""
    content = with_checksum({"study": run.study.model_dump(mode="json")} | dict(facts))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(run.study_path, text)


def read_about(folder: Path) -> dict[str, Any]:
    """The content of ``study.yaml``.

    Raises:
        LikraError: there is no such file, it cannot be read, or was changed since.

    """
    path = folder / "study.yaml"
    if not path.is_file():
        raise LikraError(f"no run in '{folder}': there is no study.yaml")
    content = parse_yaml(path.read_bytes(), f"'{path}'")
    if not isinstance(content, dict) or not isinstance(content.get("study"), dict):
        raise LikraError(f"cannot read '{path}': it has no settings under 'study'")
    try:
        return checked(content)
    except ChecksumError as error:
        raise LikraError(
            f"'{path}' is not as likra wrote it: it is damaged, or was changed by hand; delete it, "
            "and `likra run` writes it again, or take out its 'checksum' to keep the change"
        ) from error


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of ``study.yaml`` of a run that was computed, with all that is known about it.

    Raises:
        LikraError: as `read_about`; or something is missing.

    """
    content, path = read_about(folder), folder / "study.yaml"
    for key, kind in FACTS.items():
        if not isinstance(content.get(key), kind):
            raise LikraError(f"cannot read '{path}': '{key}' is missing, or of another type")
    incomplete = content.get("incomplete", [])
    if not isinstance(incomplete, list) or not all(isinstance(line, str) for line in incomplete):
        raise LikraError(f"cannot read '{path}': 'incomplete' is not a list of lines")
    if not all(isinstance(leak, list) and len(leak) == 3 for leak in content["leaks"]):
        raise LikraError(
            f"cannot read '{path}': 'leaks' is not a list of two ids and a number each"
        )
    return content


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        LikraError: there is none, or its settings cannot be read.

    """
    content = read_about(folder)
    return Run(parse_study(content["study"], f"'{folder / 'study.yaml'}'"), folder)


def usable_path(name: str, folder: Path) -> str:
    """A path in the settings of the run in ``folder``, from wherever this process was started.

    A relative path counts from where the run was started, which ``study.yaml`` says.
    """
    started_in = read_about(folder).get("started_in")
    moved = Path(str(started_in)) / name if started_in else Path(name)
    return str(moved) if not Path(name).exists() and moved.exists() else name
