"""The table of a grid of studies: models x tasks, as the paper's table 1."""

from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path

import pandas as pd

from likra.atomic import write_text
from likra.report.curves import sources_of, weight_of, with_interval
from likra.report.tables import cell, latex, markdown
from likra.study.config import Study
from likra.study.folder import Run
from likra.text import spreadsheet_cell


def write_grid(results: Iterable[tuple[Run, pd.DataFrame]], folder: Path) -> pd.DataFrame:
    """Write the table of several finished runs as ``table.csv``, ``table.md`` and ``table.tex``.

    The studies have the same modes, but those that could not be computed.

    Returns:
        A row for each model and task, with the accuracies of the modes at the last snapshot, with
        the first sampler of negatives: means over seeds with half their intervals, over
        questions and seeds (for a single seed, over questions).

    """
    pairs = [(run.study, points) for run, points in results]
    rows = pd.DataFrame([_row(study, points) for study, points in pairs])
    shown = _shown(rows, list(dict.fromkeys(mode for study, _ in pairs for mode in study.modes)))
    head, body = list(shown.columns), shown.to_numpy().tolist()
    names = rows[["model", "task"]].map(spreadsheet_cell)
    write_text(folder / "table.csv", rows.assign(**names).to_csv(index=False))
    write_text(folder / "table.md", markdown(head, body, names=2))
    write_text(folder / "table.tex", latex(head, body, names=2))
    return shown


def _row(study: Study, points: pd.DataFrame) -> dict[str, str | float]:
    """Each mode with the ends of its interval: at the last snapshot, if it is trained."""
    row: dict[str, str | float] = {"model": study.model, "task": study.task, "metric": study.metric}
    row["n"] = study.snapshots[-1]
    for mode in study.modes:
        curve = points[(points["mode"] == mode) & (points.metric == study.metric)]
        curve = curve[curve.weight == weight_of(mode, study)]
        curve = curve[curve.source == sources_of(curve, mode, study)[0]]
        last = with_interval(curve).iloc[-1]
        row |= {mode: last.value, f"{mode}_low": last.ci_low, f"{mode}_high": last.ci_high}
    return row


def _shown(rows: pd.DataFrame, modes: Sequence[str]) -> pd.DataFrame:
    shown = rows[["model", "task", "n"]].astype(str)
    for mode in modes:
        estimates = rows[[mode, f"{mode}_low", f"{mode}_high"]].itertuples(index=False, name=None)
        shown[mode] = ["" if isnan(estimate[0]) else cell(estimate) for estimate in estimates]
    return shown
