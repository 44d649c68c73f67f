"""What the commands print."""

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from likra.progress import Event, emit, hidden, note
from likra.text import printable

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes

if TYPE_CHECKING:
    import pandas as pd

    from likra.study.config import Study
    from likra.study.folder import Run


def log(line: str) -> None:
    """Print a line for the user."""
    typer.echo(printable(line))


class StoppedError(SystemExit):
    """A command was stopped; what it has done is in a folder."""

    def __init__(self, code: int, folder: Path) -> None:
        super().__init__(code)
        self.folder = folder


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Let a signal that stops the work name the folder of what is done."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise StoppedError(INTERRUPTED, folder) from stop
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        raise StoppedError(TERMINATED, folder) from stop


def quiet() -> None:
    """Turn off the messages and progress bars of libraries; their errors are still shown."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    for library in ("lm_eval", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)


@contextmanager
def silent() -> Iterator[Callable[[str], None]]:
    """Show neither progress nor warnings; what it yields takes the lines for the user, unseen."""
    logger = logging.getLogger("likra")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with hidden():
            yield lambda line: None
    finally:
        logger.setLevel(level)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    caption: str | None = None,
    numbers: bool = False,
    width: int = 160,
) -> None:
    """Print a table whose first column stays in one line, and with numbers the others too.

    The width, in characters, is that of an output that is not a terminal.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption)
    first, *others = columns
    table.add_column(first, overflow="fold", no_wrap=True)
    for column in others:
        table.add_column(
            column, overflow="fold", no_wrap=numbers, justify="right" if numbers else "left"
        )
    for row in rows:
        table.add_row(*map(printable, row))
    # people's own texts may look like markup
    Console(width=None if sys.stdout.isatty() else width, markup=False).print(table)


def say_failed(lines: Iterable[str]) -> None:
    """Say on stderr which cells failed, and how to go on."""
    for line in lines:
        emit(Event("error", {"message": line}))
    note("the same command tries again what failed")


def show_run(run: "Run", points: "pd.DataFrame", output: Path | None = None) -> None:
    """Print the accuracies of a run, and where its report is."""
    folder = output or run.folder
    from likra.report.html import accuracy_rows
    from likra.report.sentences import drawn_over

    study = run.study
    rows = accuracy_rows(points, study, study.metric)
    filled = [any(column) for column in zip(*(cells for _, cells in rows), strict=True)]
    print_table(
        ["mode", *(f"n = {n}" for n in compress((0, *study.snapshots), filled))],
        [[label, *compress(cells, filled)] for label, cells in rows],
        title=f"{study.metric} on {study.task}, weight {study.weight}: "
        f"mean ± half of the 95% interval {drawn_over(study)}",
        numbers=True,
        width=200,
    )
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for sentence in summary["sentences"]:
        log(sentence)
    log(f"report {folder / 'report.html'}")


def show_grid(study: "Study", folder: Path, rows: "pd.DataFrame") -> None:
    """Print the accuracies of each model on each task, and where the table is."""
    from likra.report.sentences import drawn_over

    print_table(
        list(rows.columns),
        rows.to_numpy().tolist(),
        title=f"{study.metric}: mean ± half of the 95% interval {drawn_over(study)}",
    )
    log(f"table  {folder / 'table.md'} (and .csv, .tex)")
