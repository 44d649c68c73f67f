"""Workers that are processes on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from likra.errors import LikraError
from likra.launch.retry import Outcome, Submit
from likra.launch.worker import BAD_INPUT, Work, as_line

PATIENCE = 10.0  # seconds that a worker has to end by itself


@dataclass(frozen=True)
class Process:
    """A worker with its log."""

    process: subprocess.Popen[str]
    log: Path

    def done(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def result(self) -> Outcome:
        """How it ended: by its exit code, and the last line of its log."""
        code = self.process.wait()
        if not code:
            return Outcome()
        *_, last = ["", *self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        if code == BAD_INPUT:
            return Outcome(bad_input=last)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome(death=f"{how}; '{self.log}' ends with '{last}'")


@contextmanager
def workers(count: int, folder: Path, options: Mapping[str, object]) -> Iterator[Submit[Work]]:
    """Processes, each with its share of the cores, and of the GPUs if there are several.

    They end with this one. What a worker prints is in ``logs/part-N.log`` in the run's folder.

    Raises:
        LikraError: there are options.

    """
    if options:
        raise LikraError(f"--launcher local takes no option '{next(iter(options))}'")
    processes: list[Process] = []

    def submit(parts: Sequence[Work]) -> list[Process]:
        started = [_started(work, count, folder) for work in parts]
        processes.extend(started)
        return started

    try:
        yield submit
    finally:
        _end(processes)


def _started(work: Work, count: int, folder: Path) -> Process:
    path = folder / "logs" / f"part-{work.number}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "likra.launch.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | share_of(work.number, count),
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the workers
        )
    assert process.stdin is not None
    process.stdin.write(as_line(work))  # and it stays open: a worker ends when it is closed
    process.stdin.flush()
    return Process(process, path)


def share_of(number: int, count: int) -> dict[str, str]:
    """The environment in which a worker takes its share of the machine and no more."""
    from torch.cuda import device_count

    threads = str(max(1, (os.cpu_count() or 1) // count))
    share = {name: threads for name in ("OMP_NUM_THREADS",) if name not in os.environ}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(n) for n in range(device_count())]
    if len(devices) > 1:
        share["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return share


def _end(processes: Sequence[Process]) -> None:
    running = [own.process for own in processes if not own.done()]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for own in processes:
        if own.process.stdin is not None:
            own.process.stdin.close()
