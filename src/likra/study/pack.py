"""``likra pack``: a run's score tables in one file, and a small copy of the run to keep."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likra.atomic import replacing
from likra.errors import LikraError
from likra.negatives.mixture import parse_source
from likra.scores.packed import write_packed
from likra.study.config import Study
from likra.study.folder import Run, read_about, read_record, read_run, write_about
from likra.study.tables import StoredTables

HERE_ALONE = "started_in"  # in study.yaml: a path of this machine
# settings that may be a path
PATHS = ("model", "task", "data", "train_task", "train_data", "other_data", "chat_template")


@dataclass(frozen=True)
class PackedRun:
    """What was packed.

    Attributes:
        path: the packed file.
        n_tables: score tables in it.
        n_bytes: its size.
        local: settings that hold an absolute path, which another machine lacks.

    """

    path: Path
    n_tables: int
    n_bytes: int
    local: dict[str, str]


def pack_run(folder: Path, output: Path | None = None) -> PackedRun:
    """Write all score tables of a run to one file.

    Args:
        folder: of the run, finished or not.
        output: for a copy with all that `likra plot`, `compare`, `verdict` and the rest of
            `likra run` need, without heads and texts of questions. By default the run itself is
            packed, and the single files are removed once the packed one is complete.

    Raises:
        LikraError: no run, no scores, a table that is not the run's or is damaged, or an output
            folder that holds something else.

    """
    run = read_run(folder)
    stored, digests = StoredTables(run), read_record(folder).scores
    in_place = output is None or output.resolve() == folder.resolve()
    target = Run(run.study, folder if output is None or in_place else output)
    if not in_place:
        _check_target(target, stored)
    tables = {name: (stored.recorded(name, digests), stored.stamp(name)) for name in stored.names}
    write_packed(target.packed_path, tables)
    if in_place:
        for path in stored.single:
            path.unlink()
        with suppress(OSError):  # scores of training questions are there, and stay
            stored.folder.rmdir()
    else:
        _copy_rest(run, target)
    size = target.packed_path.stat().st_size
    return PackedRun(target.packed_path, len(tables), size, _local_paths(run.study))


def _check_target(target: Run, stored: StoredTables) -> None:
    """Refuse to replace anything but an older packed copy of the same run."""
    before, folder = StoredTables(target), target.folder
    if before.single or (folder / "heads").exists():
        raise LikraError(f"'{folder}' is the folder of a run that is not packed: name another one")
    for name in before.names:
        if name not in stored.names or stored.stamp(name) != before.stamp(name):
            raise LikraError(
                f"'{folder}' already holds scores of {name} that '{stored.folder.parent}' does not "
                "have: name another folder"
            )


def _copy_rest(run: Run, target: Run) -> None:
    """What a copy has beside the scores; study.yaml last, without which there is no run."""
    for path in (
        run.record_path,
        run.folder / "curve.csv",
        run.folder / "summary.json",
        run.train_scores_path,
        run.samples_path,
    ):
        if path.is_file():
            with replacing(target.folder / path.relative_to(run.folder)) as temporary:
                shutil.copyfile(path, temporary)
    about = read_about(run.folder)
    facts: dict[str, Any] = {k: v for k, v in about.items() if k not in {"study", HERE_ALONE}}
    write_about(target, facts)


def _local_paths(study: Study) -> dict[str, str]:
    values = [(key, getattr(study, key)) for key in PATHS]
    parts = [part for source in study.negatives for part in parse_source(source)]
    values += [("negatives", part.argument) for part in parts]
    return {key: str(value) for key, value in values if value and Path(value).is_absolute()}
