"""Progress of long work: a bar on a terminal, a few plain lines in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINES = 10  # of one piece of work in a log, at most
PAUSE = 10.0  # seconds between two of them, at least


class Advance(Protocol):
    """Is told of progress."""

    def __call__(self, count: int, note: str = "") -> None:
        """So many more units are done; the note is shown beside them."""


@contextmanager
def progress(total: int, name: str | None, unit: str) -> Iterator[Advance]:
    """Show how far a piece of work is, on stderr.

    A log holds nothing about work of less than ten seconds. Of longer work it holds one line at the
    end, and before it at most nine, ten seconds or more apart.

    Args:
        total: how many units the work has.
        name: of the work; None shows nothing.
        unit: what is counted, in the plural.

    Yields:
        ``advance(count, note="")``: ``count`` more units are done.

    """
    if name is None:
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
    done, shown, last_note = 0, 0, ""
    start = last_time = time.monotonic()

    def show() -> None:
        note = f", {last_note}" if last_note else ""
        sys.stderr.write(f"{name}: {done} of {total} {unit}{note}\n")
        sys.stderr.flush()

    def advance(count: int, note: str = "") -> None:
        nonlocal done, shown, last_note, last_time
        done, last_note = done + count, note
        tenth, now = done * LINES // max(total, 1), time.monotonic()
        if shown < tenth < LINES and now - last_time >= PAUSE:
            shown, last_time = tenth, now
            show()

    yield advance
    if time.monotonic() - start >= PAUSE:
        show()
