"""Launchers: parts for workers, workers that die, and the bytes of a single process."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import likra
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import simulate

from likra.errors import LikraError
from likra.launch import local
from likra.launch.retry import TRIES, Outcome, run_parts
from likra.launch.worker import Work, as_line

# --------------------------------------------------------------------------------------------
# Parts and retries


@given(st.integers(1, 200), st.integers(1, 20), st.floats(0, 0.5), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_workers_that_die_leave_nothing_out_and_compute_nothing_twice(n, workers, deaths, seed):
    found = simulate(4 * n, workers, deaths, failures=0.05, seed=seed)
    assert len(found.folder.done) + len(found.folder.failed) == 4 * n
    assert set(found.folder.done.values()) <= {1}
    assert not found.folder.done.keys() & found.folder.failed


@dataclass
class Scripted:
    """A worker that is done at once: it takes so many cells off its part, and ends so."""

    outcome: Outcome | Exception

    def done(self) -> bool:
        return True

    def result(self) -> Outcome:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def scripted(progress: list[int], outcome: Outcome | Exception) -> tuple[dict[str, str], list[str]]:
    """Parts, of which one has workers that get so many cells done before they all end so."""
    lines, left, script = [], {"part 0": 10, "part 1": 0}, iter(progress)

    def submit(parts):
        jobs = []
        for part in parts:
            left[part] -= next(script) if part == "part 0" else 0
            jobs.append(Scripted(outcome if part == "part 0" else Outcome()))
        return jobs

    return run_parts(list(left), submit, left.__getitem__, lines.append, pause=0), lines


DEAD = Outcome(death="signal 9")


@pytest.mark.parametrize(
    ("progress", "n_workers"),
    [
        ([0, 0, 0], 3),
        ([0, 0, 1, 0, 0, 0], 6),  # what was new gives it three tries again
        ([1, 1, 1, 1, 0, 0, 0], 7),
        ([2, -1, 0, 0], 4),  # less done than before is nothing new
    ],
)
def test_a_part_is_given_up_after_three_deaths_without_anything_new(progress, n_workers):
    assert TRIES == 3
    given_up, lines = scripted(progress, DEAD)
    assert given_up == {"part 0": "signal 9"}
    assert len(lines) == n_workers
    assert lines[-1] == "died   part 0, given up: signal 9"
    assert lines[0] == "died   part 0, started again: signal 9"


def test_bad_input_ends_the_launch():
    with pytest.raises(LikraError, match="no such layer"):
        scripted([0], Outcome(bad_input="no such layer"))


def test_a_worker_that_the_launcher_lost_is_dead():
    given_up, _ = scripted([0, 0, 0], TimeoutError("no\nanswer"))
    assert given_up == {"part 0": "TimeoutError: no answer"}


# --------------------------------------------------------------------------------------------
# Processes of this machine


def ended(tmp_path: Path, code: str) -> local.Process:
    log = tmp_path / "part-0.log"
    with log.open("w") as file:
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, stdout=file, stderr=file, text=True)
    process.wait()
    return local.Process(process, log)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("pass", Outcome()),
        ("print('working'); print('no such task'); exit(2)", Outcome(bad_input="no such task")),
        (
            "1 / 0",
            Outcome(death="exit code 1; '{log}' ends with 'ZeroDivisionError: division by zero'"),
        ),
        ("import os; os.kill(os.getpid(), 9)", Outcome(death="signal 9; '{log}' ends with ''")),
    ],
)
def test_how_a_process_ended(tmp_path, code, outcome):
    process = ended(tmp_path, code)
    expected = Outcome(outcome.bad_input, outcome.death.format(log=process.log))
    assert process.done()
    assert process.result() == expected


@pytest.mark.parametrize(
    ("environment", "n_gpus", "number", "share"),
    [
        ({}, 0, 1, {"OMP_NUM_THREADS": "4"}),
        ({"OMP_NUM_THREADS": "8"}, 1, 1, {}),  # as asked for; and one GPU is for all
        ({"OMP_NUM_THREADS": "8"}, 2, 3, {"CUDA_VISIBLE_DEVICES": "1"}),
        (
            {"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "5,7"},
            2,
            2,
            {"CUDA_VISIBLE_DEVICES": "5"},
        ),
        ({"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": ""}, 0, 2, {}),  # none, as asked for
    ],
)
def test_a_worker_takes_its_share(monkeypatch, environment, n_gpus, number, share):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert local.share_of(number, 3) == share


SLOW = """
import time
from likra.launch import worker
worker.compute = lambda work: print("computing", flush=True) or time.sleep(60)
worker.main()
"""


def test_a_worker_ends_with_its_parent():
    """However that one ended: its end of the pipe is closed then."""
    command = [sys.executable, "-c", SLOW]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker.stdin.write(as_line(Work(0, "{}", "run", ".", ("base",))))
    worker.stdin.flush()
    assert worker.stdout.readline() == "computing\n"
    worker.stdin.close()
    assert worker.wait(30) == 128 + signal.SIGTERM
    worker.stdout.close()


def test_workers_end_with_the_launcher(tmp_path):
    with local.workers(2, tmp_path, {}) as submit:
        processes = submit([Work(n, "{}", str(tmp_path), ".", ("base",)) for n in range(2)])
    assert all(one.done() for one in processes)


# --------------------------------------------------------------------------------------------
# As a user


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--launcher slurm --workers 2", "unknown launcher 'slurm'"),
        ("--launcher local", "--launcher takes --workers N as well"),
        ("--launcher local --workers 0", "--workers takes a number of at least 1, not 0"),
        ("--workers 2", "--workers and --launcher-option need --launcher"),
        ("--launcher local --workers 2 --shard 0/2", "give --shard or --launcher, not both"),
        ("--launcher local --workers 2 --launcher-option x", "takes KEY=VALUE, not 'x'"),
        ("--launcher local --workers 2 --launcher-option x=1", "local takes no option 'x'"),
        ("--launcher submitit --workers 2 --launcher-option gpus=1", "need to be prefixed"),
        ("--launcher submitit --workers 2 --launcher-option timeout_min=a", "expected type"),
        ("--launcher submitit --workers 2 --launcher-option cluster=moon", "moon"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_computed(tmp_path, options, message):
    if "submitit" in options:
        pytest.importorskip("submitit")
    result = likra("run", "pocket", "-o", "run", *options.split(), cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("library", ["submitit", "ray"])
def test_a_missing_library_is_named_with_its_command(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    result = likra(
        "run", "pocket", "-o", "run", "--launcher", library, "--workers", "2", cwd=tmp_path
    )
    assert result.returncode == 2
    assert f"pip install 'likra[{library}]'" in result.stderr
