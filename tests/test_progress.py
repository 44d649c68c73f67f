"""Progress: a bar on a terminal; in a log, a few lines of text or of JSON."""

import io
import json
import logging
import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from likra import progress as module
from likra.cli.main import main
from likra.progress import (
    HEAD,
    TABLE,
    FinishedCells,
    LogFormat,
    cell_progress,
    hidden,
    note,
    progress,
    write_as,
)


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
            advance(2, loss=step)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == "train: 120 of 600 examples, loss 59.000, about 4 min left"
    assert lines[3] == "train: 480 of 600 examples, loss 239.000, about 60 s left"
    assert lines[4] == "train: 600 of 600 examples, loss 299.000"


def study_of_four_heads(clock: list[float]) -> None:
    with cell_progress("study", {HEAD: 4, TABLE: 3}) as finished:
        clock[0] += 100
        finished(FinishedCells(TABLE, "base"))
        with progress(40, "train", "examples") as advance:
            clock[0] += 30
            advance(40)
        finished(FinishedCells(HEAD, "positive", n=[8, 16], seed=0))
        clock[0] += 40
        finished(FinishedCells(TABLE, "positive", n=[8], seed=0))
        clock[0] += 10
        finished(FinishedCells(HEAD, "negative", n=[8, 16], seed=0, source="random_choice"))
        finished(FinishedCells(TABLE, "negative", n=[16], seed=0, source="random_choice"))


def test_a_log_has_a_line_for_each_cell(capsys, clock):
    """With the time left, as soon as a cell of each missing kind has been timed."""
    study_of_four_heads(clock)
    assert capsys.readouterr().err.splitlines() == [
        "done   1 of 7 cells: scored base",
        "done   3 of 7 cells, about 4 min left: trained positive, seed 0, n = 8, 16",
        "done   4 of 7 cells, about 2 min left: scored positive, seed 0, n = 8",
        "done   6 of 7 cells, about 70 s left: trained negative (random_choice), seed 0, n = 8, 16",
        "done   7 of 7 cells: scored negative (random_choice), seed 0, n = 16",
    ]


@pytest.fixture
def text_afterwards() -> Iterator[None]:
    yield
    write_as(LogFormat.TEXT)


@pytest.fixture
def as_json(text_afterwards) -> None:
    write_as(LogFormat.JSON)


def events(text: str) -> list[dict[str, object]]:
    """The events of a log, their times checked and taken off."""
    found = [json.loads(line) for line in text.splitlines()]
    times = [datetime.fromisoformat(event.pop("time")) for event in found]
    assert all(time.utcoffset() == timedelta(0) for time in times)
    assert times == sorted(times)
    return found


def test_a_log_of_json_has_an_object_for_each_cell(capsys, clock, as_json):
    study_of_four_heads(clock)
    found = events(capsys.readouterr().err)
    assert found[3] == {
        "event": "cell",
        "kind": "head",
        "head": "negative",
        "source": "random_choice",
        "seed": 0,
        "n": [8, 16],
        "done": 6,
        "total": 7,
        "unit": "cells",
        "seconds_left": 70.0,  # one table; the two so far took 100 s and 40 s
    }
    assert [event["done"] for event in found] == [1, 3, 4, 6, 7]
    assert [event["seconds_left"] for event in found] == [None, 230.0, 100.0, 70.0, None]


def test_long_work_is_an_object_a_minute_even_on_a_terminal(monkeypatch, clock, as_json):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress(100, "train", "examples") as advance:
        for _ in range(100):
            clock[0] += 1
            advance(1, loss=0.5)
    counted = {"event": "progress", "work": "train", "total": 100, "unit": "examples"}
    assert events(sys.stderr.getvalue()) == [
        {**counted, "done": 60, "values": {"loss": 0.5}, "seconds_left": 40.0},
        {**counted, "done": 100, "values": {"loss": 0.5}, "seconds_left": None},
    ]


def test_an_error_of_a_command_is_an_object(capsys, monkeypatch, text_afterwards):
    command = ["likra", "train", "-o", "x", "--heads", "three", "--log-format", "json"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr()
    (error,) = events(shown.err)
    assert error["event"] == "error"
    assert error["message"].startswith("unknown choice of heads 'three'")
    assert not shown.out


def test_notes_and_warnings_are_objects_as_well(capsys, as_json):
    note('reading "x"')
    logging.getLogger("likra.heads.base").warning("'%s' uses the padded layout", "x")
    assert events(capsys.readouterr().err) == [
        {"event": "note", "message": 'reading "x"'},
        {"event": "warning", "message": "'x' uses the padded layout"},
    ]


def test_a_very_long_cell_has_a_line_a_minute(capsys, clock):
    with cell_progress("study", {HEAD: 1}) as finished:
        with progress(150, "train", "examples") as advance:
            for _ in range(150):
                clock[0] += 1
                advance(1)
        finished(FinishedCells(HEAD, "positive", n=[8]))
    assert capsys.readouterr().err.splitlines() == [
        "train: 60 of 150 examples, about 90 s left",
        "train: 120 of 150 examples, about 30 s left",
        "done   1 of 1 cells: trained positive, n = 8",
    ]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_hidden_work_shows_nothing(monkeypatch, clock, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    with hidden(), cell_progress("study", {HEAD: 1}) as finished:
        with progress(2, "train", "examples") as advance:
            clock[0] += 100
            advance(1)
        finished(FinishedCells(HEAD, "positive", n=[8]))
    assert not sys.stderr.getvalue()


def test_a_terminal_gets_a_bar_of_cells(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with cell_progress("study", {HEAD: 2}) as finished:
        finished(FinishedCells(HEAD, "positive", n=[8, 16]))
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
        advance(3, loss=1.0)
    with progress(0, "score", "answers") as advance:
        advance(0)
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(3, "train", "examples") as advance:
        advance(3, loss=0.123)
    shown = terminal.getvalue()
    assert "train:" in shown
    assert "3/3" in shown or "0/3" in shown
    assert "\n" not in shown
    assert not shown.split("\r")[-1].strip()
