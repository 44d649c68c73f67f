"""Cells of the other runs beside a run, which are taken instead of computed again.

A cell is a pure function of what its stamp says, so a head or a score table with the same stamp is
the same in every run. What is taken is checked as any cell is. What another run lacks, or what
cannot be read there, is computed: whatever happens to that run, this one is complete.
"""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from likra.atomic import link_or_copy, replacing, write_text
from likra.errors import LikraError
from likra.scores.table import HeadKey, write_scores
from likra.study.about import write_examples
from likra.study.cells import Cells, Inputs, check_stamp
from likra.study.examples import Training
from likra.study.folder import Run, longest_snapshot, read_record
from likra.study.material import check_file, is_complete, material_files
from likra.study.prepare import Data
from likra.study.tables import StoredTables

UNREADABLE = (LikraError, OSError)  # of another run: as if it were not there


def neighbours(run: Run) -> list[Run]:
    """The other runs in the folder that a run's folder lies in, by name."""
    own = Path(os.path.abspath(run.folder))  # unlike `resolve`, keeps links
    parent = own.parent if run.folder.is_absolute() else Path(os.path.relpath(own.parent))
    folders = sorted(path.parent for path in parent.glob("*/cells.json"))
    return [Run(run.study, folder) for folder in folders if folder.name != own.name]


@dataclass(frozen=True)
class Shared:
    """Cells that are missing in a run, and that another one has."""

    heads: Sequence[HeadKey] = ()
    tables: Sequence[HeadKey] = ()

    def __bool__(self) -> bool:
        return bool(self.heads or self.tables)

    def __str__(self) -> str:
        counts = [(len(self.heads), "head"), (len(self.tables), "score table")]
        return " and ".join(f"{n:,} {name}{'s' * (n > 1)}" for n, name in counts if n)


def missing_cells(cells: Cells) -> Shared:
    """The cells that a run would compute: where a score table exists, its head is not needed."""
    run, stored = cells.run, StoredTables(cells.run)
    tables = [key for key in cells.scores if stored.path(str(key)) is None]
    wanted = [key for key in tables if key.n_train] if cells.data.evaluation else cells.heads
    heads = [key for key in wanted if not run.head_folder(key).is_dir()]
    return Shared(heads, tables if cells.data.evaluation else [])


def shared_cells(cells: Cells) -> Shared:
    """The missing cells that are in one or the other of the runs beside a run."""
    missing, others = missing_cells(cells), neighbours(cells.run)
    offers = [_offer(cells, other, missing) for other in others]
    return Shared(
        [key for key in missing.heads if any(key in offer.heads for offer in offers)],
        [key for key in missing.tables if any(key in offer.tables for offer in offers)],
    )


def _offer(cells: Cells, other: Run, missing: Shared) -> Shared:
    """What another run has of the missing cells, as its record says."""
    own, stored = cells.record, StoredTables(other)
    with suppress(*UNREADABLE):
        record = read_record(other.folder)
        return Shared(
            [
                key
                for key in missing.heads
                if record.heads.get(str(key)) == own.heads[str(key)]
                and other.head_folder(key).is_dir()
            ],
            [
                key
                for key in missing.tables
                if record.scores.get(str(key)) == own.scores[str(key)]
                and stored.path(str(key)) is not None
            ],
        )
    return Shared()


def take_cells(cells: Cells, log: Callable[[str], object]) -> list[Run]:
    """Take what is missing in a run from the runs beside it.

    Files of heads are linked, so that they take no space twice; on another file system copied.

    Returns:
        The runs that gave something.

    """
    givers = []
    for other in neighbours(cells.run):
        offer = _offer(cells, other, missing_cells(cells))
        for training in cells.trainings:
            if own := [key for key in training.keys if key in offer.heads]:
                write_examples(cells.run, training)
                _take_losses(cells, other, training, own[-1])
        stored = StoredTables(other)
        taken = Shared(
            [key for key in offer.heads if _take_head(cells, other, key)],
            [key for key in offer.tables if _take_table(cells, stored, key)],
        )
        if taken:
            log(f"taken  {taken} from '{other.folder}'")
            givers.append(other)
    return givers


def _take_head(cells: Cells, other: Run, key: HeadKey) -> bool:
    from likra.heads.stamp import read_stamp

    target = cells.run.head_folder(key)
    with suppress(*UNREADABLE), replacing(target, keep=True) as temporary:
        shutil.copytree(other.head_folder(key), temporary, copy_function=link_or_copy)
        check_stamp(temporary, read_stamp(temporary), cells.heads[key])
        return True
    return False


def _take_losses(cells: Cells, other: Run, training: Training, last: HeadKey) -> None:
    """The losses up to the last snapshot that is taken, unless a longer run left its own here.

    A longer run is of use as far as it begins as a shorter one does: up to a full batch, and in one
    pass at a constant learning rate.
    """
    from likra.heads.stamp import LOSSES, read_stamp, text_digest

    folder, source, n = cells.run.training_folder(last), other.training_folder(last), last.n_train
    settings = cells.run.study.training_of(training.head)
    begins_alike = settings.is_one_pass and n % settings.batch_size == 0
    if n < longest_snapshot(folder) or not (begins_alike or n == longest_snapshot(source)):
        return
    if settings.early_stopping_patience:
        return  # how many steps there were is not known
    steps = settings.epochs * math.ceil(n / settings.batch_size)
    with suppress(*UNREADABLE):
        lines = (source / "losses.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        own, digest = "".join(lines[: 1 + steps]), read_stamp(other.head_folder(last)).get(LOSSES)
        # of a training under way they are not there yet; older versions wrote no digest
        if len(lines) > steps and digest in {None, text_digest(own)}:
            write_text(folder / "losses.csv", own)


def _take_table(cells: Cells, stored: StoredTables, key: HeadKey) -> bool:
    name = str(key)
    with suppress(*UNREADABLE):
        table = stored.recorded(name, cells.record.scores)
        write_scores(cells.run.scores_path(key), table, stored.stamp(name))
        return True
    return False


# --------------------------------------------------------------------------------------------
# What the base computes first


def take_material(run: Run, data: Data, base: Inputs, log: Callable[[str], object]) -> None:
    """Take what the base would have to compute first from the runs beside a run."""
    for path, inputs in material_files(run, data, base):
        for other in () if path.is_file() else neighbours(run):
            if _take_file(other.folder / path.relative_to(run.folder), path, inputs):
                log(f"taken  {path.relative_to(run.folder)} from '{other.folder}'")
                break


def _take_file(source: Path, target: Path, inputs: Inputs) -> bool:
    if not source.is_file():
        return False
    with suppress(*UNREADABLE), replacing(target) as temporary:
        link_or_copy(source, temporary)
        check_file(temporary, inputs)
        return True
    return False


def with_material(run: Run, data: Data, base: Inputs) -> Run | None:
    """The run itself, or one beside it, that has all that the base computes first.

    Raises:
        LikraError: the run has a file that was computed with other settings or other data.

    """
    if is_complete(run, data, base):
        return run
    for other in neighbours(run):
        with suppress(*UNREADABLE):
            if is_complete(other, data, base):
                return other
    return None
