"""Each change of a file fails, one at a time, until the study runs through without a fault."""

import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from tests.chaos.changes import Act, disk_full, fails, watching
from tests.chaos.study import STUDY, contents, difference, error, hidden
from tests.commands import likra

ACTS: Mapping[str, Act] = {
    "ENOSPC": fails(errno.ENOSPC),
    "EIO": fails(errno.EIO),
    "EACCES": fails(errno.EACCES),
    "full": disk_full(0),
    "full after 8 kB": disk_full(8000),
}


def of_each(numbers: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Two faults of each change: a call fails, and the disk is full. Kinds take turns."""
    calls, disks = cycle(list(ACTS)[:3]), cycle(list(ACTS)[3:])
    for number in numbers:
        yield number, next(calls)
        yield number, next(disks)


@dataclass(frozen=True)
class Fault:
    """A change that failed.

    Attributes:
        change: what failed.
        kind: one of `ACTS`.
        message: what likra said; "" where it went on.
        wrong: what should not have happened; "" where all is well.

    """

    change: str
    kind: str
    message: str
    wrong: str


def undisturbed(folder: Path) -> tuple[list[str], dict[str, bytes]]:
    """The changes that the study makes, and the files that it leaves."""
    with _scratch_in(folder), watching(folder) as watch:
        result = likra(*STUDY, cwd=folder)
    assert result.returncode == 0, result.stderr
    return watch.seen, contents(folder / "run")


def faults(
    place: Path, expected: Mapping[str, bytes], chosen: Iterable[tuple[int, str]]
) -> Iterator[Fault]:
    """Run the study with one fault each.

    Args:
        place: a folder for all of them.
        expected: the files of the undisturbed study.
        chosen: numbers of changes, from 0, each with a kind of `ACTS`.

    """
    for number, kind in chosen:
        folder = place / "fault"
        folder.mkdir()
        with _scratch_in(folder), watching(folder, number, ACTS[kind]) as watch:
            result = likra(*STUDY, cwd=folder)
        if len(watch.seen) > number:
            message = error(result)
            names_it = not message or "'run" in message or str(folder) in message
            wrong = _damage(folder, expected) if names_it else "the line names no file"
            yield Fault(watch.seen[number], kind, message, wrong)
        shutil.rmtree(folder)


def _damage(folder: Path, expected: Mapping[str, bytes]) -> str:
    """What is wrong with the files, or with those of the next run."""
    if left := hidden(folder):
        return f"left {left}"
    there = contents(folder / "run")
    if half := [name for name, own in there.items() if own != expected.get(name)]:
        return f"wrong or half-written: {half}"
    with _scratch_in(folder):
        result = likra(*STUDY, cwd=folder)
    if result.returncode:
        return f"does not go on: {result.stderr}"
    return difference(contents(folder / "run"), expected)


@contextmanager
def _scratch_in(folder: Path) -> Iterator[None]:
    """Temporary files lie below the folder, too."""
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        yield
    assert not list(scratch.glob("likra-*"))
