"""Progress: a bar on a terminal, a few plain lines in a log."""

import io
import sys

import pytest

from likra import progress as module
from likra.progress import cell_progress, hidden, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that passes; a test sets it."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "line"), [(9, ""), (10, "score base: 40 of 40 answers\n")])
def test_short_work_leaves_no_line_in_a_log(capsys, clock, seconds, line):
    with progress(40, "score base", "answers") as advance:
        clock[0] += seconds
        advance(39)
        advance(1)
    shown = capsys.readouterr().err
    assert shown.endswith(line)
    assert bool(shown) == bool(line)


def test_long_work_is_a_line_a_minute_in_a_log(capsys, clock):
    with progress(600, "train", "examples") as advance:
        for step in range(300):
            clock[0] += 1
            advance(2, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == "train: 120 of 600 examples, loss 59, about 4 min left"
    assert lines[3] == "train: 480 of 600 examples, loss 239, about 60 s left"
    assert lines[4] == "train: 600 of 600 examples, loss 299"


def test_a_log_has_a_line_for_each_cell(capsys, clock):
    """With the time left, as soon as a cell of each missing kind has been timed."""
    with cell_progress("study", {"heads": 4, "tables": 3}) as finished:
        clock[0] += 100
        finished("tables", "scored base")
        with progress(40, "train", "examples") as advance:
            clock[0] += 30
            advance(40)
        finished("heads", "trained positive", 2)
        clock[0] += 40
        finished("tables", "scored positive")
        clock[0] += 10
        finished("heads", "trained negative", 2)
        finished("tables", "scored negative")
    assert capsys.readouterr().err.splitlines() == [
        "done   1 of 7 cells: scored base",
        "done   3 of 7 cells, about 4 min left: trained positive",
        "done   4 of 7 cells, about 2 min left: scored positive",
        "done   6 of 7 cells, about 70 s left: trained negative",
        "done   7 of 7 cells: scored negative",
    ]


def test_a_very_long_cell_has_a_line_a_minute(capsys, clock):
    with cell_progress("study", {"heads": 1}) as finished:
        with progress(150, "train", "examples") as advance:
            for _ in range(150):
                clock[0] += 1
                advance(1)
        finished("heads", "trained")
    assert capsys.readouterr().err.splitlines() == [
        "train: 60 of 150 examples, about 90 s left",
        "train: 120 of 150 examples, about 30 s left",
        "done   1 of 1 cells: trained",
    ]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_hidden_work_shows_nothing(monkeypatch, clock, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    with hidden(), cell_progress("study", {"heads": 1}) as finished:
        with progress(2, "train", "examples") as advance:
            clock[0] += 100
            advance(1)
        finished("heads", "trained")
    assert not sys.stderr.getvalue()


def test_a_terminal_gets_a_bar_of_cells(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with cell_progress("study", {"heads": 2}) as finished:
        finished("heads", "trained", 2)
    shown = sys.stderr.getvalue()
    assert "study:" in shown
    assert "cells" in shown
    assert "trained" not in shown


def test_work_that_fails_does_not_say_that_it_ended(capsys, clock):
    def killed() -> None:
        with progress(3, "train", "examples") as advance:
            advance(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert not capsys.readouterr().err


def test_work_without_a_name_is_quiet_and_none_at_all_is_done(capsys, clock):
    with progress(3, None, "examples") as advance:
        advance(3, "loss 1")
    with progress(0, "score", "answers") as advance:
        advance(0)
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(3, "train", "examples") as advance:
        advance(3, "loss 0.123")
    shown = terminal.getvalue()
    assert "train:" in shown
    assert "3/3" in shown or "0/3" in shown
    assert "\n" not in shown
    assert not shown.split("\r")[-1].strip()
