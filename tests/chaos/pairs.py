"""Two runs at once on one folder: the second runs whole in the middle of the first."""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from tests.chaos.changes import watching
from tests.chaos.study import STUDY, contents, difference, error
from tests.commands import likra

OTHERS: Mapping[
    str, tuple[str, ...]
] = {  # what the second run has beside the settings of the first
    "same": (),
    "learning rate": ("--lr", "2e-3"),
    "seed": ("--seeds", "1"),
    "weight": ("--weight", "0.5"),
}

Both = tuple[CompletedProcess[str], CompletedProcess[str]]


@dataclass(frozen=True)
class Pair:
    """Two runs, of which the second began and ended before a change of the first.

    Attributes:
        change: of the first.
        other: one of `OTHERS`.
        messages: of both; "" where one ended well.
        wrong: what should not have happened; "" where all is well.

    """

    change: str
    other: str
    messages: tuple[str, str]
    wrong: str


def pairs(
    place: Path, expected: Mapping[str, Mapping[str, bytes]], chosen: Iterable[tuple[int, str]]
) -> Iterator[Pair]:
    """Run the study with another in the middle.

    Args:
        place: a folder for all of them.
        expected: the files of each of `OTHERS` alone.
        chosen: numbers of changes, from 0, each with one of `OTHERS`.

    """
    for number, other in chosen:
        folder = place / "pair"
        folder.mkdir()
        change, both = _together(folder, number, other)
        if both is not None:
            first, second = map(error, both)
            yield Pair(change, other, (first, second), _mixed(folder, both, other, expected))
        shutil.rmtree(folder)


def _together(folder: Path, number: int, other: str) -> tuple[str, Both | None]:
    """The change, and both commands; None where the first makes fewer changes."""
    second: list[CompletedProcess[str]] = []

    def act(_: str) -> None:
        second.append(likra(*STUDY, *OTHERS[other], cwd=folder))

    with watching(folder, number, act) as watch:
        first = likra(*STUDY, cwd=folder)
    return (watch.seen[number], (first, second[0])) if second else ("", None)


def _mixed(
    folder: Path,
    both: Both,
    other: str,
    expected: Mapping[str, Mapping[str, bytes]],
) -> str:
    """What does not belong to the run that ended last and well, or to none if neither did.

    A run that is refused may have left its settings. They do not go with the tables, so no results
    are drawn of them, and the other run's command puts its own in their place.
    """
    first, second = both
    if first.returncode and second.returncode:
        return "neither ends well"
    last = "same" if first.returncode == 0 else other
    changed = _changed(folder, other, expected[last])
    if changed and (not first.returncode or likra("plot", "run", cwd=folder).returncode != 2):
        return f"not the files of the run that ended well: {changed}"
    again = likra(*STUDY, *OTHERS[last], cwd=folder)
    if again.returncode:
        return f"does not go on: {again.stderr}"
    changed = _changed(folder, other, expected[last])
    return f"the next run does not put it right: {changed}" if changed else ""


def _changed(folder: Path, other: str, expected: Mapping[str, bytes]) -> str:
    there = contents(folder / "run")
    if other == "seed":  # the cells of both are there
        there = {name: own for name, own in there.items() if name in expected}
        there["cells.json"] = expected["cells.json"]
    return difference(there, expected)
