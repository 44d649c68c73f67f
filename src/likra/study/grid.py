"""Tables of several studies: models x tasks, as the paper's table 1."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from likra.study.config import Study
from likra.study.run import run_study
from likra.study.workbench import Workbench


def table_studies(study: Study) -> list[Study]:
    """The study of each of its models on each of its tasks."""
    return [
        study.model_copy(
            update={
                "name": f"{study.name}-{_short(model)}-{_short(task)}",
                "model": model,
                "task": task,
                "models": [],
                "tasks": [],
            }
        )
        for model in study.models or [study.model]
        for task in study.tasks or [study.task]
    ]


def _short(name: str) -> str:
    """A model or task as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", name.strip("./"))


def run_table(
    study: Study, folder: Path | None = None, say: Callable[[str], Any] = print
) -> tuple[Path, pd.DataFrame]:
    """Run the studies, each in its own folder, and write their table as CSV, Markdown and LaTeX.

    Args:
        study: with ``models`` and ``tasks``.
        folder: for the runs and ``table.{csv,md,tex}``; ``runs/NAME`` by default.
        say: is given each line meant for the user.

    Returns:
        The folder; and a row for each model and task, with the accuracies of the study's modes at
        the last snapshot, with the first source of negatives: means over seeds with half their
        intervals (of a single seed, over questions).

    """
    from likra.report.grid import write_grid

    folder = folder or Path("runs") / study.name
    parts = table_studies(study)
    _check(parts)
    results = []
    for part in parts:
        say(f"--- {part.model} on {part.task}")
        results.append(run_study(part, folder / part.name, say))
    return folder, write_grid(results, folder)


def _check(parts: Sequence[Study]) -> None:
    """Refuse a model or task of the last cell before the first one has been computed.

    Raises:
        LikraError: naming it.

    """
    from likra.heads.base import open_without_weights

    models = {part.model: open_without_weights(part.model, dtype=part.dtype) for part in parts}
    for part in {part.task: part for part in parts}.values():
        bench = Workbench(part)
        bench.base = models[part.model]
        bench.check_answers()
