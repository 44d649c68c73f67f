"""Seconds of `import likra` and `likra --help`, and of the stages of pocket's study.

The stages are timed inside one process, from its start to the end of the study. Needs no data.
"""

import argparse
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


@contextmanager
def timed(name: str, place: str, seconds: dict[str, float]) -> Iterator[None]:
    """Add the time of each call of a function to a stage's."""
    module, _, attribute = place.rpartition(".")
    work: Callable[..., Any] = getattr(import_module(module), attribute)

    def timing(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*arguments, **options)
        finally:
            seconds[name] += time.perf_counter() - start

    with patch(place, timing):
        yield


def show_stages() -> None:
    """Run pocket's study, and print where its seconds go."""
    seconds = dict.fromkeys(STAGES, 0.0)
    start = time.perf_counter()
    from likra.cli.terminal import quiet
    from likra.progress import hidden
    from likra.report.results import run_study
    from likra.study.config import read_study

    quiet()
    imported = time.perf_counter() - start
    with TemporaryDirectory(prefix="likra-benchmark-") as folder, hidden(), ExitStack() as stack:
        for name, place in STAGES.items():
            stack.enter_context(timed(name, place, seconds))
        study = read_study("pocket")
        start = time.perf_counter()
        run_study(study, Path(folder) / "run", lambda line: None)
        whole = time.perf_counter() - start
    print(f"\nlikra run pocket: {imported + whole:.1f} s, in it")
    print(f"  {'imports at the start':20} {imported:.2f} s")
    for name in STAGES:
        print(f"  {name:20} {seconds[name]:.2f} s")
    print(f"  {'the rest':20} {whole - sum(seconds.values()):.2f} s")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="of every command")
    arguments = parser.parse_args()
    show_commands(arguments.repeats)
    show_stages()


if __name__ == "__main__":
    main()
