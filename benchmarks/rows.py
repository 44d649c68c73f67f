"""Peak memory of commands by the rows of the file that they read.

A file of multiple-choice questions of four choices each, some 250 bytes a row, is read by a command
in a process of its own. Each is measured at two numbers of rows, so that what a row adds can be
told from what the libraries take:

    python -m benchmarks.rows [--rows 10000 100000] [--commands show plan few run]

``run`` scores a fifth of the rows with three heads, which takes most of its time; ``few`` scores
200 of them, and does all else with all rows.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import SEED, positive

WORDS = 20_000  # of the questions' vocabulary
RUN = ("run", "{file}", "--snapshots", "8", "--modes", "base,likra", "--quiet")
OPTIONS = {
    "show": ("tasks", "show", "{file}"),
    "plan": ("plan", "{file}", "--no-calibrate"),
    # one short training each, so that a run takes minutes
    "few": (*RUN, "--set", "eval_questions=200"),
    "run": RUN,
}


def write_rows(path: Path, count: int) -> None:
    """Write so many questions as CSV, none like another."""
    draw = random.Random(SEED)

    def text(length: int) -> str:
        return " ".join(f"word{draw.randrange(WORDS)}" for _ in range(length))

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "A", "B", "C", "D", "answer"])
        for _ in range(count):
            writer.writerow([text(12), *(text(2) for _ in range(4)), draw.choice("ABCD")])


def peak(command: list[str], folder: Path) -> int:
    """The peak of a process's resident memory, in bytes."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S603
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs=2, type=positive, default=[10_000, 100_000])
    parser.add_argument("--commands", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    given = parser.parse_args()
    few, many = sorted(given.rows)
    print(f"{'':6} {few:>10,} rows {many:>10,} rows {'a row':>12}")
    for name in given.commands:
        peaks = []
        for count in (few, many):
            with TemporaryDirectory(prefix="likra-benchmark-") as scratch:
                write_rows(Path(scratch) / "rows.csv", count)
                options = [option.format(file="rows.csv") for option in OPTIONS[name]]
                peaks.append(peak([sys.executable, "-m", "likra", *options], Path(scratch)))
        a_row = (peaks[1] - peaks[0]) / (many - few)
        columns = [f"{bytes_ / 1e6:>12,.0f} MB" for bytes_ in peaks]
        print(f"{name:6} {' '.join(columns)} {a_row:>6,.0f} bytes", flush=True)


if __name__ == "__main__":
    main()
