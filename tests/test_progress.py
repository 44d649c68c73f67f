"""Progress: a bar on a terminal, a few plain lines in a log."""

import io
import sys

import pytest

from likra import progress as module
from likra.progress import progress


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


def test_long_work_is_ten_lines_in_a_log(capsys, clock):
    with progress(2000, "train", "examples") as advance:
        for step in range(1000):
            clock[0] += 1
            advance(2, f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "train: 200 of 2000 examples, loss 99"
    assert lines[-1] == "train: 2000 of 2000 examples, loss 999"


def test_lines_are_ten_seconds_apart(capsys, clock):
    with progress(100, "train", "examples") as advance:
        for _ in range(100):
            clock[0] += 0.25
            advance(1)
    shown = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["40", "80", "100"]


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
