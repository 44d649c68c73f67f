"""Tables of several studies: models x tasks, as the paper's table 1."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from likra.settings import Study
from likra.study import run_study, write_text

MODES = ("base", "sft", "likra")  # the columns of the paper's table 1


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
        The folder; and a row for each model and task, with the accuracies of `MODES` at the last
        snapshot: means over seeds with half their intervals (of a single seed, over questions).

    """
    folder = folder or Path("runs") / study.name
    rows = []
    for cell in table_studies(study):
        say(f"--- {cell.model} on {cell.task}")
        run, points = run_study(cell, folder / cell.name, say)
        rows.append(table_row(run.study, points))
    table = pd.DataFrame(rows)
    write_text(folder / "table.csv", table.to_csv(index=False))
    shown = _shown(table)
    write_text(folder / "table.md", _markdown(shown))
    write_text(folder / "table.tex", _latex(shown))
    return folder, shown


def table_row(study: Study, points: pd.DataFrame) -> dict[str, Any]:
    """One row of the table: the base, and SFT and Likra at the last snapshot."""
    row: dict[str, Any] = {"model": study.model, "task": study.task, "metric": study.metric}
    row["n"] = study.snapshots[-1]
    for mode in MODES:
        chosen = points[(points["mode"] == mode) & (points.metric == study.metric)]
        chosen = chosen[chosen.n_train == (0 if mode == "base" else row["n"])]
        if mode == "likra":
            chosen = chosen[chosen.weight == study.weight]
            chosen = chosen[chosen.source == study.negatives[0]]
        mean = chosen[chosen.seed == "all"].iloc[0]
        if pd.isna(mean.ci_low):
            mean = chosen[chosen.seed != "all"].iloc[0]
        row |= {mode: mean.value, f"{mode}_low": mean.ci_low, f"{mode}_high": mean.ci_high}
    return row


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[["model", "task", "n"]].astype(str)
    for mode in MODES:
        half = (table[f"{mode}_high"] - table[f"{mode}_low"]) / 2
        pairs = zip(table[mode], half, strict=True)
        shown[mode] = [f"{value:.3f} ±{width:.3f}" for value, width in pairs]
    return shown


def _markdown(shown: pd.DataFrame) -> str:
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(shown: pd.DataFrame) -> str:
    lines = [list(shown.columns), *shown.to_numpy().tolist()]
    rows = [
        " & ".join(cell.replace("_", r"\_").replace("±", r"$\pm$") for cell in r) for r in lines
    ]
    head, *body = [f"{row} \\\\" for row in rows]
    columns = "ll" + "r" * (len(shown.columns) - 2)
    text = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", head, r"\hline", *body, r"\hline"]
    return "\n".join([*text, r"\end{tabular}"]) + "\n"
