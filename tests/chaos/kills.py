"""Real runs are killed or stopped, at random moments and while they write, and go on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.study import STUDY, contents, difference, hidden

REPOSITORY = Path(__file__).parents[2]
SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}  # with exit codes
STOPPED = "stopped: the same command continues where this one stopped, in 'run'"


@dataclass(frozen=True)
class Kill:
    """How a run is stopped.

    Attributes:
        seconds: after which it gets the signal.
        number: of the signal.
        change: the change, from 0, at which it is killed instead.
        n_bytes: of a file, written after the change, at which it is killed.

    """

    seconds: float | None = None
    number: signal.Signals = signal.SIGKILL
    change: int | None = None
    n_bytes: int | None = None

    def __str__(self) -> str:
        if self.seconds is not None:
            return f"{self.number.name} after {self.seconds:.2f} s"
        torn = "" if self.n_bytes is None else f", as a file grows beyond {self.n_bytes} bytes"
        return f"SIGKILL at change {self.change}{torn}"


def drawn(count: int, seconds: float, n_changes: int, seed: int) -> Iterator[Kill]:
    """Kills of all kinds in turn, at random moments of a run that takes so long."""
    random_ = random.Random(seed)
    for number in range(count):
        moment, change = random_.uniform(0.2, seconds), random_.randrange(n_changes)
        yield (
            Kill(moment, signal.SIGKILL),
            Kill(change=change),
            Kill(moment, signal.SIGTERM),
            Kill(change=change, n_bytes=random_.choice([0, 100, 1000, 5000])),
            Kill(moment, signal.SIGINT),
        )[number % 5]


def started(folder: Path, kill: Kill | None = None) -> subprocess.Popen[str]:
    """The study in a process of its own."""
    kill = kill or Kill()
    where = ["-" if value is None else str(value) for value in (kill.change, kill.n_bytes)]
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.child", *where, *STUDY],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def undisturbed(folder: Path) -> tuple[float, dict[str, bytes]]:
    """The seconds that the study takes, and the files that it leaves."""
    start, process = time.monotonic(), started(folder)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return time.monotonic() - start, contents(folder / "run")


def killed(place: Path, kill: Kill, expected: Mapping[str, bytes]) -> tuple[int, str]:
    """Stop the study once and run it again: its exit code, and what was wrong ("" for nothing)."""
    folder = place / "killed"
    folder.mkdir()
    try:
        process = started(folder, kill)
        if kill.seconds is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(kill.seconds)
            process.send_signal(kill.number)  # nothing, where it has ended
        _, stderr = process.communicate()
        return process.returncode, _wrong(folder, kill, process.returncode, stderr, expected)
    finally:
        shutil.rmtree(folder)


def _wrong(folder: Path, kill: Kill, code: int, stderr: str, expected: Mapping[str, bytes]) -> str:
    # Python gives up its handlers at its end, when there is nothing left to stop
    ended = code == -kill.number and not difference(contents(folder / "run"), expected)
    if kill.number != signal.SIGKILL and code and not ended:
        last = (stderr.splitlines() or [""])[-1]
        if code != SIGNALS[kill.number] or last != STOPPED or "Traceback" in stderr:
            return f"exit code {code}: {stderr}"
        if left := [*hidden(folder), *(folder / "tmp").glob("likra-*")]:
            return f"left {left}"
    there = contents(folder / "run")
    whole = {name: own for name, own in there.items() if "/." not in f"/{name}"}
    if half := [name for name, own in whole.items() if own != expected.get(name)]:
        return f"wrong or half-written: {half}"
    again = started(folder)
    _, stderr = again.communicate()
    if again.returncode:
        return f"does not go on: {stderr}"
    return difference(contents(folder / "run"), expected)
