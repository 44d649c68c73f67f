"""Progress of long work on stderr: a bar on a terminal; in a log, lines of text or of JSON.

Whatever a log holds is an `Event`, of which both forms of its line are made.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Protocol

from likra.text import duration, printable

MINUTE = 60.0  # seconds between two lines about one piece of work, at least
SHORT = 10.0  # seconds; of shorter work a log holds nothing
HEAD, TABLE = "head", "score_table"  # the kinds of a run's cells
_VERBS = {HEAD: "trained", TABLE: "scored"}


class LogFormat(StrEnum):
    """What a line on stderr is."""

    TEXT = "text"
    JSON = "json"


class _Shown(Enum):
    """What is shown of a piece of work."""

    ALL = "all"
    IN_CELL = "without its end: the line of the cell says it"
    NOTHING = "nothing"


_shown = ContextVar("_shown", default=_Shown.ALL)
_format = ContextVar("_format", default=LogFormat.TEXT)


class Advance(Protocol):
    """Is told of progress."""

    def __call__(self, count: int, **values: float) -> None:
        """So many more units are done; the values, such as a loss, are shown beside them."""


@dataclass(frozen=True)
class FinishedCells:
    """A head that is done at each of its numbers of examples; what is untrained has none.

    The kind says what of it: `HEAD`, it is trained, or `TABLE`, its scores.
    """

    kind: str
    head: str
    n: Sequence[int] = ()
    seed: int | None = None
    source: str | None = None

    def __len__(self) -> int:
        return len(self.n) or 1


Finished = Callable[[FinishedCells], object]
Log = Callable[[str], object]  # is given each line meant for the user


# --------------------------------------------------------------------------------------------
# Events and their lines


@dataclass(frozen=True)
class Event:
    """Something that a log holds.

    Attributes:
        name: "progress", "cell", "note", "warning", "error" or "stopped".
        fields: what is known about it, by name; values of JSON.

    """

    name: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> str:
        """One JSON object: time (ISO 8601, UTC), event, and the fields."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": now, "event": self.name, **self.fields}, ensure_ascii=False)

    def as_text(self) -> str:
        """One line for people."""
        if self.name == "progress":
            values = self.fields["values"]
            assert isinstance(values, Mapping)
            shown = (f"{name} {value:.3f}" for name, value in values.items())
            return f"{self.fields['work']}: {', '.join([self._done(), *shown, *self._left()])}"
        if self.name == "cell":
            return f"done   {', '.join([self._done(), *self._left()])}: {self._cell()}"
        message = str(self.fields["message"])
        return f"error: {message}" if self.name == "error" else message

    def _done(self) -> str:
        return f"{self.fields['done']} of {self.fields['total']} {self.fields['unit']}"

    def _left(self) -> list[str]:
        seconds = self.fields["seconds_left"]
        return [f"about {duration(seconds)} left"] if isinstance(seconds, float) else []

    def _cell(self) -> str:
        kind, head, source, seed, n = (
            self.fields[name] for name in ("kind", "head", "source", "seed", "n")
        )
        parts = [f"{_VERBS[str(kind)]} {head}{f' ({source})' if source else ''}"]
        parts += [] if seed is None else [f"seed {seed}"]
        parts += [f"n = {', '.join(map(str, n))}"] if isinstance(n, list) and n else []
        return ", ".join(parts)


def emit(event: Event) -> None:
    """Write an event's line on stderr."""
    line = event.as_json() if _format.get() is LogFormat.JSON else printable(event.as_text())
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def note(line: str) -> None:
    """Write a line on stderr, unless progress is hidden."""
    if _shown.get() is not _Shown.NOTHING:
        emit(Event("note", {"message": line}))


def write_as(log_format: LogFormat) -> None:
    """Write events in this form from now on; as JSON, likra's warnings are events, too."""
    _format.set(log_format)
    add = _logger.addHandler if log_format is LogFormat.JSON else _logger.removeHandler
    add(_events)


class _Events(logging.Handler):
    """Writes the records of a logger as events."""

    def emit(self, record: logging.LogRecord) -> None:
        emit(Event(record.levelname.lower(), {"message": record.getMessage()}))


_logger, _events = logging.getLogger("likra"), _Events()


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


def _has_bars() -> bool:
    return sys.stderr.isatty() and _format.get() is LogFormat.TEXT


# --------------------------------------------------------------------------------------------
# A piece of work


@contextmanager
def progress(total: int, name: str | None, unit: str, *, initial: int = 0) -> Iterator[Advance]:
    """Show how far a piece of work is, on stderr.

    A log holds a line a minute at most, and one at the end of work of ten seconds or more. The
    end of what belongs to a cell is left to the line of the cell: see `cell_progress`.

    Args:
        total: how many units the work has.
        name: of the work; None shows nothing.
        unit: what is counted, in the plural.
        initial: how many units were done before, in other time.

    Yields:
        ``advance(count, **values)``: ``count`` more units are done.

    """
    if name is None or _shown.get() is _Shown.NOTHING:
        yield lambda count, **values: None
    elif _has_bars():
        yield from _bar(total, name, unit, initial)
    else:
        yield from _lines(total, name, unit, initial)


def _bar(total: int, name: str, unit: str, initial: int) -> Iterator[Advance]:
    from tqdm import tqdm

    with tqdm(total=total, initial=initial, desc=name, unit=f" {unit}", leave=False) as bar:

        def advance(count: int, **values: float) -> None:
            shown = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
            bar.set_postfix_str(shown, refresh=False)
            bar.update(count)

        yield advance


def _lines(total: int, name: str, unit: str, initial: int) -> Iterator[Advance]:
    done, last_values = initial, dict[str, float]()
    start = last_time = time.monotonic()

    def show(seconds_left: float | None) -> None:
        count = {"work": name, "done": done, "total": total, "unit": unit}
        emit(Event("progress", {**count, "values": last_values, "seconds_left": seconds_left}))

    def advance(count: int, **values: float) -> None:
        nonlocal done, last_values, last_time
        done, last_values, now = done + count, values, time.monotonic()
        if initial < done < total and now - last_time >= MINUTE:
            last_time = now
            show(round((now - start) / (done - initial) * (total - done), 1))

    yield advance
    if time.monotonic() - start >= SHORT and _shown.get() is _Shown.ALL:
        show(None)


# --------------------------------------------------------------------------------------------
# The cells of a run


@contextmanager
def cell_progress(name: str, to_do: Mapping[str, int]) -> Iterator[Finished]:
    """Show how many cells of a run are done: a bar on a terminal; in a log a line for each.

    The line says how much time is left, once a cell of each kind has been timed.

    Args:
        name: of the run.
        to_do: how many cells there are of each kind, `HEAD` and `TABLE`.

    Yields:
        ``finished(cells)``: these are done.

    """
    total = sum(to_do.values())
    if _shown.get() is _Shown.NOTHING or _has_bars():
        with progress(total, name, "cells") as advance:
            yield lambda cells: advance(len(cells))
        return
    with _showing(_Shown.IN_CELL):
        yield _cell_lines(to_do)


def _cell_lines(to_do: Mapping[str, int]) -> Finished:
    done, seconds = dict.fromkeys(to_do, 0), dict.fromkeys(to_do, 0.0)
    last_time = time.monotonic()

    def left() -> float | None:
        missing = {kind: count - done[kind] for kind, count in to_do.items() if count > done[kind]}
        if not missing or not all(done[kind] for kind in missing):
            return None
        return round(sum(seconds[kind] / done[kind] * own for kind, own in missing.items()), 1)

    def finished(cells: FinishedCells) -> None:
        nonlocal last_time
        now = time.monotonic()
        done[cells.kind] += len(cells)
        seconds[cells.kind] += now - last_time
        last_time = now
        cell = {**asdict(cells), "n": list(cells.n)}
        count = {"done": sum(done.values()), "total": sum(to_do.values()), "unit": "cells"}
        emit(Event("cell", {**cell, **count, "seconds_left": left()}))

    return finished
