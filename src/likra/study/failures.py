"""Cells that could not be computed: each one's reason, in a file of its own until it succeeds.

A file for each, since several processes may work in one folder. It counts while the score table is
missing and its inputs are the same.
"""

import errno
import gc
import json
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from likra.atomic import write_text
from likra.errors import LikraError, NotFiniteError
from likra.progress import Log
from likra.scores.table import HeadKey
from likra.study.cells import Cells
from likra.study.folder import Run, read_record

TRAINING, SCORING, WORKER = "training", "scoring", "worker"  # what failed
LONGEST = 300  # characters of a reason
_DISK_IS_FULL = os.strerror(errno.ENOSPC)


@dataclass(frozen=True)
class Failure:
    """Why a score table is missing.

    Attributes:
        digest: of the table's inputs.
        stage: what failed: "training", of the head whose scores these are, "scoring", or "worker",
            the process that was to do both.
        reason: one line.
        traceback: where it failed; "" where that is not known.

    """

    digest: str
    stage: str
    reason: str
    traceback: str = ""


class IncompleteError(LikraError):
    """Some cells of a study failed; the results are those of the others.

    Attributes:
        lines: which cells, and why.
        results: what the call would have returned, of the cells that are there; None where they
            are too few to draw anything.

    """

    def __init__(self, lines: Sequence[str], results: Any = None) -> None:
        super().__init__("; ".join(lines))
        self.lines = tuple(lines)
        self.results: Any = results


# --------------------------------------------------------------------------------------------
# Recording


class FailedCells:
    """Keeps the failures of one process, so that the other cells go on.

    Attributes:
        failures: the score tables that cannot be computed now, and why.

    """

    def __init__(self, cells: Cells, log: Log, *, recorded: bool = True) -> None:
        """Without ``recorded`` no file is written: there are no score tables, only heads."""
        self.cells, self.log, self.recorded = cells, log, recorded
        self.failures = dict[HeadKey, Failure]()

    @contextmanager
    def kept(self, stage: str, keys: Iterable[HeadKey]) -> Iterator[None]:
        """Record what fails inside, for those of the keys whose output is not there then.

        Bad input and what comes of files, such as a full disk, stop the run all the same; so does
        everything where several processes train a head together, for the others have stopped.
        """
        try:
            yield
            return
        except Exception as error:
            left = [key for key in keys if not self._is_trained(stage, key)]
            if not left or not _is_of_the_computation(error) or _train_together():
                raise
            reason, place = reason_of(error), "".join(traceback.format_exception(error))
            if self.recorded:
                found = record_failures(self.cells, left, stage, reason, place)
            else:
                found = {key: Failure("", stage, reason, place) for key in left}
        self.failures |= found
        for line in failure_lines(found):
            self.log(f"failed {line}")
        gc.collect()  # what ran out of memory must not hold on to it

    def _is_trained(self, stage: str, key: HeadKey) -> bool:
        return stage == TRAINING and self.cells.run.head_folder(key).is_dir()


def _train_together() -> bool:
    from likra.heads import parallel

    return parallel.count() > 1


def _is_of_the_computation(error: Exception) -> bool:
    if isinstance(error, NotFiniteError):
        return True
    return not isinstance(error, (LikraError, OSError)) and _DISK_IS_FULL not in str(error)


def reason_of(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, LikraError) else type(error).__name__
    line = ": ".join(filter(None, [kind, text]))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def record_failures(
    cells: Cells, keys: Iterable[HeadKey], stage: str, reason: str, place: str = ""
) -> dict[HeadKey, Failure]:
    """Write a file for each score table that is missing for one reason."""
    digests = cells.record.scores
    found = {key: Failure(digests[str(key)], stage, reason, place) for key in keys}
    for key, failure in found.items():
        write_text(_path(cells.run, key), json.dumps(asdict(failure), indent=1) + "\n")
    return found


def _path(run: Run, key: HeadKey) -> Path:
    return run.folder / "failures" / f"{key}.json"


# --------------------------------------------------------------------------------------------
# Reading


def read_failures(run: Run, missing: Iterable[HeadKey]) -> dict[HeadKey, Failure]:
    """Why score tables are missing, as far as it is known.

    Raises:
        LikraError: a file cannot be read.

    """
    digests, found = read_record(run.folder).scores, dict[HeadKey, Failure]()
    for key in missing:
        path = _path(run, key)
        if not path.is_file():
            continue
        try:
            failure = Failure(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise LikraError(
                f"cannot read '{path}' ({type(error).__name__}): delete it, and `likra run` tries "
                "that cell again"
            ) from error
        if failure.digest == digests.get(str(key)):
            found[key] = failure
    return found


def clear_failures(run: Run, keep: Iterable[HeadKey] = ()) -> None:
    """Forget what failed before, as all of it is tried again but what others do."""
    folder, kept = run.folder / "failures", {str(key) for key in keep}
    for path in folder.glob("*.json"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or it is not empty
        folder.rmdir()


def failure_lines(failures: Mapping[HeadKey, Failure]) -> list[str]:
    """A line for each head and reason: its numbers of examples, what failed, and why."""
    numbers: dict[tuple[HeadKey, str, str], list[int]] = {}
    for key, failure in failures.items():
        group = replace(key, n_train=0), failure.stage, failure.reason
        numbers.setdefault(group, []).append(key.n_train)
    return [
        f"{_called(key, own)}: {stage} failed: {reason}"
        for (key, stage, reason), own in numbers.items()
    ]


def _called(key: HeadKey, numbers: Sequence[int]) -> str:
    parts = [f"{key.head} ({key.source})" if key.source else key.head]
    parts += [] if key.seed is None else [f"seed {key.seed}"]
    trained = [str(n) for n in numbers if n]
    return ", ".join([*parts, *([f"n = {', '.join(trained)}"] if trained else [])])
