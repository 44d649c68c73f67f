"""Tables of several studies: models x tasks, as the paper's table 1."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from likra.report.analysis import sources_of, weight_of, with_interval
from likra.report.tables import cell, latex, markdown
from likra.study.config import Study
from likra.study.run import run_study, write_text
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
    folder = folder or Path("runs") / study.name
    parts = table_studies(study)
    _check(parts)
    rows = []
    for part in parts:
        say(f"--- {part.model} on {part.task}")
        run, points = run_study(part, folder / part.name, say)
        rows.append(table_row(run.study, points))
    table = pd.DataFrame(rows)
    write_text(folder / "table.csv", table.to_csv(index=False))
    shown = _shown(table, study.modes)
    head, body = list(shown.columns), shown.to_numpy().tolist()
    write_text(folder / "table.md", markdown(head, body, names=2))
    write_text(folder / "table.tex", latex(head, body, names=2))
    return folder, shown


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


def table_row(study: Study, points: pd.DataFrame) -> dict[str, Any]:
    """One row of the table: what is not trained as it is, all else at the last snapshot."""
    row: dict[str, Any] = {"model": study.model, "task": study.task, "metric": study.metric}
    row["n"] = study.snapshots[-1]
    for mode in study.modes:
        chosen = points[(points["mode"] == mode) & (points.metric == study.metric)]
        chosen = chosen[chosen.weight == weight_of(mode, study)]
        chosen = chosen[chosen.source == sources_of(chosen, mode, study)[0]]
        last = with_interval(chosen).iloc[-1]
        row |= {mode: last.value, f"{mode}_low": last.ci_low, f"{mode}_high": last.ci_high}
    return row


def _shown(table: pd.DataFrame, modes: Sequence[str]) -> pd.DataFrame:
    shown = table[["model", "task", "n"]].astype(str)
    for mode in modes:
        estimates = table[[mode, f"{mode}_low", f"{mode}_high"]].itertuples(index=False, name=None)
        shown[mode] = [cell(estimate) for estimate in estimates]
    return shown
