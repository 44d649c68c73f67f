"""Seconds of `import likra` and `likra --help`, and of the stages of pocket's study.

The stages are timed inside one process, from its start to the end of the study: by the clock, and
by the processor, which counts less what else the machine does. Needs no data.
"""

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import likra": ["-c", "import likra"],
    "likra --help": ["-m", "likra", "--help"],
    "likra run --help": ["-m", "likra", "run", "--help"],
}
LIBRARIES = (
    "likra.report.results",
    "likra.heads.preference",
    "likra.heads.train",
    "matplotlib.figure",
)
# Each function is the stage of a run.
STAGES = {
    "read the questions": "likra.study.run.prepare",
    "open the model": "likra.study.run.open_base",
    "train": "likra.study.compute._train_head",
    "score": "likra.study.compute._score",
    "read the tables": "likra.report.results.read_run_scores",
    "curves": "likra.report.results.all_points",
    "statistics": "likra.report.results.report_data",
    "sentences": "likra.report.results.findings",
    "figures": "likra.report.results.write_figures",
    "page": "likra.report.results.write_report",
}


def seconds_of(arguments: list[str]) -> float:
    """A new process of Python from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - start


def show_commands(repeats: int) -> None:
    """Run the commands in turn, and print their times."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds_of(arguments))
    for name, own in times.items():  # the first run reads files that are not in memory yet
        print(f"  {name:20} {np.median(own[1:]):.3f} s ({min(own[1:]):.3f} to {max(own[1:]):.3f})")


def now() -> np.ndarray:
    """Seconds of the clock, and of this process on a processor."""
    return np.array([time.perf_counter(), time.process_time()])


@contextmanager
def timed(name: str, place: str, seconds: dict[str, np.ndarray]) -> Iterator[None]:
    """Add the time of each call of a function to a stage's."""
    module, _, attribute = place.rpartition(".")
    work: Callable[..., Any] = getattr(import_module(module), attribute)

    def timing(*arguments: Any, **options: Any) -> Any:
        start = now()
        try:
            return work(*arguments, **options)
        finally:
            seconds[name] += now() - start

    with patch(place, timing):
        yield


def show_stages() -> None:
    """Run pocket's study, and print where its seconds go."""
    seconds = {name: np.zeros(2) for name in STAGES}
    start = now()
    from likra.cli.main import NEW_OBJECTS

    gc.set_threshold(NEW_OBJECTS)
    from likra.cli.terminal import quiet
    from likra.progress import hidden
    from likra.report.results import run_study
    from likra.study.config import read_study

    quiet()
    for name in LIBRARIES:  # which a run imports when it first needs them
        import_module(name)
    imported = now() - start
    with TemporaryDirectory(prefix="likra-benchmark-") as folder, hidden(), ExitStack() as stack:
        for name, place in STAGES.items():
            stack.enter_context(timed(name, place, seconds))
        study = read_study("pocket")
        start = now()
        run_study(study, Path(folder) / "run", lambda line: None)
        whole = now() - start
    rest = whole - sum(seconds.values(), np.zeros(2))
    stages = {"imports": imported, **seconds, "the rest": rest, "all": imported + whole}
    print(f"\n{'likra run pocket':20} {'seconds':>8} {'of the processor':>18}")
    for name, (clock, processor) in stages.items():
        print(f"{name:20} {clock:8.2f} {processor:18.2f}")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="of every command")
    arguments = parser.parse_args()
    show_commands(arguments.repeats)
    show_stages()


if __name__ == "__main__":
    main()
