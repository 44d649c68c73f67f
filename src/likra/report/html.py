"""``report.html``: one self-contained page: the question, the answer, curves and all numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from likra.atomic import write_text
from likra.report.analysis import ReportData
from likra.report.curves import learning_curves
from likra.report.sentences import (
    best_snapshot,
    estimate,
    factor,
    findings,
    first_curve,
    headline,
    p_value,
    question,
    shared_snapshots,
    signed,
    unit,
)
from likra.report.style import mode_style, source_text
from likra.report.svg import inline_svg
from likra.report.tables import Row, cell, formats
from likra.scores.ratio import METRICS
from likra.study.config import FIGURES, Study


@dataclass(frozen=True)
class Tile:
    """One accuracy in large type, with its interval and colours."""

    label: str
    color: str
    dark: str
    n: int
    value: float
    low: float
    high: float


_TEMPLATE_ONLY = ("examples", "comparisons", "efficiency", "cost")  # not for the page's script


def write_report(
    folder: Path,
    study: Study,
    points: pd.DataFrame,
    about: Mapping[str, Any],
    data: ReportData,
) -> None:
    """Write ``report.html`` into the run's folder.

    Args:
        folder: of the run; its figures are for readers without JavaScript.
        study: its settings.
        points: its curves.
        about: what ``study.yaml`` says beside the settings.
        data: see `likra.report.analysis.report_data`.

    """
    numbers = [0, *study.snapshots]
    rows = {metric: estimates(points, study, metric) for metric in METRICS}
    selection = selected(study, data, best_snapshot(points, study) or study.snapshots[-1])
    page = render(
        "report.html.j2",
        study=study,
        about=about,
        figures=_figures(folder),
        data=data,
        numbers=numbers,
        rows=rows,
        copies={metric: formats(numbers, rows[metric]) for metric in METRICS},
        model=study.model.rstrip("/").rsplit("/", 1)[-1],
        question=question(study, about, data),
        headline=headline(points, study, data["chance"]),
        tiles=tiles(points, study),
        findings=findings(points, study, data),
        n_shared=len(shared_snapshots(points, study)),
        panels=list({p["slot"]: p["title"] for p in data["separation"]}.items()),
        efficiency_columns=list(
            dict.fromkeys((r["mode"], r["source"]) for r in data["efficiency"])
        ),
        colors={mode: mode_style(mode) for mode in ("likra", "sft")},
        has_texts=any(item["stem"] for item in data["examples"]),
        settings=flat(study.model_dump()),
        defaults=dict(flat(Study(name=study.name).model_dump())),
        selected=selection,
        picks=picks(study, data),
        snapshots=[{"name": n, "label": f"n = {n:,}"} for n in study.snapshots],
        payload=payload(
            {key: value for key, value in data.items() if key not in _TEMPLATE_ONLY} | selection
        ),
    )
    write_text(folder / "report.html", page)


def _figures(folder: Path) -> dict[str, str]:
    paths = {name: folder / "figures" / f"{name}.svg" for name in FIGURES}
    return {name: inline_svg(path) for name, path in paths.items() if path.is_file()}


def selected(study: Study, data: ReportData, n: int) -> dict[str, str | int]:
    """What the controls of the report show at first: the n of the headline, and so on.

    A mode is "" where there is none.
    """
    modes = _weighted_modes(study, data)
    trained = _modes_with_sources(study, data)
    return {
        "n": n,
        "source": data["sources"][0]["name"],
        "weight_mode": next((m for m in ("likra", "base-likra", *modes) if m in modes), ""),
        "source_mode": next((m for m in ("base-likra", *trained) if m in trained), ""),
    }


def picks(study: Study, data: ReportData) -> dict[str, list[tuple[str | int, str]]]:
    """The values that each control of the report offers, with their texts."""
    return {
        "metric": [(metric, metric) for metric in data["metrics"]],
        "n": [(n, f"{n:,}") for n in study.snapshots],
        "source": [(source["name"], source["name"]) for source in data["sources"]],
        "weight_mode": [(m, mode_style(m).short) for m in _weighted_modes(study, data)],
        "source_mode": [(m, mode_style(m).short) for m in _modes_with_sources(study, data)],
    }


def _weighted_modes(study: Study, data: ReportData) -> list[str]:
    return list(dict.fromkeys(curve["mode"] for curve in data["weight_curves"][study.metric]))


def _modes_with_sources(study: Study, data: ReportData) -> list[str]:
    curves = data["curves"][study.metric]
    return list(dict.fromkeys(curve["mode"] for curve in curves if curve["source"]))


def render(template: str, **values: Any) -> str:
    """A page from a template, with its style and scripts inside."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def source(name: str) -> str:
        return files("likra.report").joinpath("templates", name).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(source),
    )
    environment.filters.update(
        cell=cell,
        estimate=estimate,
        signed=signed,
        score=lambda value: f"{value:+.2f}".replace("-", "\u2212"),
        p_value=p_value,
        factor=factor,
        unit=unit,
        label=lambda mode: mode_style(mode).label,
        short=lambda mode: mode_style(mode).short,
        source_text=source_text,
    )
    environment.globals["part"] = source
    return environment.get_template(template).render(**values) + "\n"


def payload(data: Mapping[str, Any]) -> str:
    """Data for a script: JSON in which nothing can end the script."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def estimates(
    points: pd.DataFrame, study: Study, metric: str, numbers: Sequence[int] = ()
) -> list[Row]:
    """(label, estimates) for each mode and source, at each number of examples.

    Args:
        points: the curves.
        study: its settings.
        metric: "acc" or "acc_norm".
        numbers: by default 0, the base, and the snapshots.

    """
    rows: list[Row] = []
    for curve in learning_curves(points, study, metric):
        values = zip(curve["value"], curve["low"], curve["high"], strict=True)
        by_n = dict(zip(curve["n"], values, strict=True))
        rows.append((curve["label"], [by_n.get(n) for n in numbers or (0, *study.snapshots)]))
    return rows


def accuracy_rows(points: pd.DataFrame, study: Study, metric: str) -> list[tuple[str, list[str]]]:
    """(label, cells) for each mode and source: mean over seeds and half its interval.

    For a single seed, and for what is not trained, the interval is over questions.
    """
    return [(label, list(map(cell, cells))) for label, cells in estimates(points, study, metric)]


def tiles(points: pd.DataFrame, study: Study) -> list[Tile]:
    """The main accuracies where Likra is farthest above SFT."""
    best = best_snapshot(points, study) or study.snapshots[-1]
    rows = []
    for mode in ("likra", "base-likra", "sft", "base"):
        curve, style = first_curve(points, study, mode), mode_style(mode)
        if curve is None:
            continue
        values = zip(curve["n"], curve["value"], curve["low"], curve["high"], strict=True)
        rows += [
            Tile(style.label, style.color, style.dark, n, *estimate)
            for n, *estimate in values
            if n in (0, best)
        ]
    return rows


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as (key, text); those of a section as "section.key"."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            rows += flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + key, "" if value in (None, {}) else shown))
    return rows
