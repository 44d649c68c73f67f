"""Progress of long work: a bar on a terminal, a few plain lines in a log."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Protocol

from likra.text import duration

MINUTE = 60.0  # seconds between two lines about one piece of work, at least
SHORT = 10.0  # seconds; of shorter work a log holds nothing


class _Shown(Enum):
    """What is shown of a piece of work."""

    ALL = "all"
    IN_CELL = "without its end: the line of the cell says it"
    NOTHING = "nothing"


_shown = ContextVar("_shown", default=_Shown.ALL)


class Advance(Protocol):
    """Is told of progress."""

    def __call__(self, count: int, note: str = "") -> None:
        """So many more units are done; the note is shown beside them."""


class Finished(Protocol):
    """Is told of finished cells."""

    def __call__(self, kind: str, what: str, count: int = 1) -> None:
        """So many more cells of a kind are done; what they are, in words."""


@contextmanager
def hidden() -> Iterator[None]:
    """Show no progress of what is done inside."""
    with _showing(_Shown.NOTHING):
        yield


@contextmanager
def _showing(shown: _Shown) -> Iterator[None]:
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


@contextmanager
def progress(total: int, name: str | None, unit: str) -> Iterator[Advance]:
    """Show how far a piece of work is, on stderr.

    A log holds a line a minute at most, and one at the end of work of ten seconds or more. The
    end of what belongs to a cell is left to the line of the cell: see `cell_progress`.

    Args:
        total: how many units the work has.
        name: of the work; None shows nothing.
        unit: what is counted, in the plural.

    Yields:
        ``advance(count, note="")``: ``count`` more units are done.

    """
    if name is None or _shown.get() is _Shown.NOTHING:
        yield lambda count, note="": None
    elif sys.stderr.isatty():
        yield from _bar(total, name, unit)
    else:
        yield from _lines(total, name, unit)


def _bar(total: int, name: str, unit: str) -> Iterator[Advance]:
    from tqdm import tqdm

    with tqdm(total=total, desc=name, unit=f" {unit}", leave=False) as bar:

        def advance(count: int, note: str = "") -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance


def _lines(total: int, name: str, unit: str) -> Iterator[Advance]:
    done, last_note = 0, ""
    start = last_time = time.monotonic()

    def show(left: str = "") -> None:
        parts = (f"{done} of {total} {unit}", last_note, left)
        note(f"{name}: {', '.join(filter(None, parts))}")

    def advance(count: int, note: str = "") -> None:
        nonlocal done, last_note, last_time
        done, last_note, now = done + count, note, time.monotonic()
        if 0 < done < total and now - last_time >= MINUTE:
            last_time = now
            show(_left((now - start) / done * (total - done)))

    yield advance
    if time.monotonic() - start >= SHORT and _shown.get() is _Shown.ALL:
        show()


@contextmanager
def cell_progress(name: str, to_do: Mapping[str, int]) -> Iterator[Finished]:
    """Show how many cells of a run are done: a bar on a terminal; in a log a line for each.

    The line says how much time is left, once a cell of each kind has been timed.

    Args:
        name: of the run.
        to_do: how many cells there are of each kind, such as heads and score tables.

    Yields:
        ``finished(kind, what, count=1)``: ``count`` more cells of a kind are done.

    """
    total = sum(to_do.values())
    if _shown.get() is _Shown.NOTHING or sys.stderr.isatty():
        with progress(total, name, "cells") as advance:
            yield lambda kind, what, count=1: advance(count)
        return
    with _showing(_Shown.IN_CELL):
        yield _cell_lines(to_do)


def _cell_lines(to_do: Mapping[str, int]) -> Finished:
    done, seconds = dict.fromkeys(to_do, 0), dict.fromkeys(to_do, 0.0)
    last_time = time.monotonic()

    def left() -> str:
        missing = {kind: count - done[kind] for kind, count in to_do.items() if count > done[kind]}
        if not missing or not all(done[kind] for kind in missing):
            return ""
        return _left(sum(seconds[kind] / done[kind] * count for kind, count in missing.items()))

    def finished(kind: str, what: str, count: int = 1) -> None:
        nonlocal last_time
        now = time.monotonic()
        done[kind] += count
        seconds[kind] += now - last_time
        last_time = now
        parts = (f"{sum(done.values())} of {sum(to_do.values())} cells", left())
        note(f"done   {', '.join(filter(None, parts))}: {what}")

    return finished


def _left(seconds: float) -> str:
    return f"about {duration(seconds)} left"


def note(line: str) -> None:
    """Write a line on stderr, unless progress is hidden."""
    if _shown.get() is _Shown.NOTHING:
        return
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
