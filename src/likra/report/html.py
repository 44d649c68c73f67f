"""``report.html``: one self-contained page: the question, the answer, curves and all numbers."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from likra.atomic import write_text
from likra.report.analysis import ReportData
from likra.report.curves import LearningCurve, by_n, learning_curves
from likra.report.groups import group_title, mode_groups, source_groups
from likra.report.paper import opening
from likra.report.sentences import (
    accuracies,
    best_snapshot,
    drawn_over,
    estimate,
    factor,
    findings,
    headline,
    in_short,
    p_value,
    question,
    shared_snapshots,
    signed,
    unit,
)
from likra.report.style import Style, mode_style, source_text
from likra.report.tables import Row, cell, formats
from likra.scores.ratio import METRICS
from likra.study.config import FIGURES, Study

_TEMPLATE_ONLY = ("examples", "comparisons", "efficiency", "cost")  # not for the page's script


def write_report(folder: Path, study: Study, about: Mapping[str, Any], data: ReportData) -> None:
    """Write ``report.html`` into the run's folder.

    The figures in the folder are for readers without JavaScript; ``about`` is what ``study.yaml``
    says beside the settings.
    """
    numbers, options = [0, *study.snapshots], picks(study, data)
    best = best_snapshot(data) or study.snapshots[-1]
    first = opening(study, data)
    groups = {
        "curves": mode_groups([mode["name"] for mode in data["modes"]]),
        "sources": source_groups([source["name"] for source in data["sources"]]),
    }
    selection = selected(options, first.n if first else best)
    page = render(
        "report.html.j2",
        study=study,
        about=about,
        incomplete=about.get("incomplete", []),
        figures=_figures(folder),
        opening=first,
        data=data,
        numbers=numbers,
        rows={metric: estimates(data["curves"][metric], numbers) for metric in METRICS},
        model=study.model.rstrip("/").rsplit("/", 1)[-1],
        question=question(study, about, data),
        headline=headline(study, data),
        over=drawn_over(study),
        tiles=tiles(data, best),
        in_short=in_short(study, data),
        findings=findings(study, data),
        n_shared=len(shared_snapshots(data)),
        panels=list({p["slot"]: p["title"] for p in data["separation"]}.items()),
        efficiency_columns=list(
            dict.fromkeys((r["mode"], r["source"]) for r in data["efficiency"])
        ),
        colors={mode: mode_style(mode) for mode in ("likra", "sft")},
        has_texts=any(item["stem"] for item in data["examples"]),
        settings=flat(study.model_dump()),
        defaults=dict(flat(Study(name=study.name).model_dump())),
        selected=selection,
        titles={
            "curves": [group_title(group) for group in groups["curves"]],
            "sources": [source_text(group[0]) for group in groups["sources"]],
        },
        picks=options,
        snapshots=[{"name": n, "label": f"n = {n:,}"} for n in study.snapshots],
        payload=payload(
            {key: value for key, value in data.items() if key not in _TEMPLATE_ONLY}
            | selection
            | {"groups": groups}
        ),
    )
    write_text(folder / "report.html", page)


def _inline_svg(path: Path) -> str:
    """An SVG without XML header, metadata and fixed size, and shorter; its ids are unique."""
    svg = path.read_text(encoding="utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r">\s+<", "><", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
    svg = re.sub(r'\bd="[^"]*"', _shortened, svg)
    ids = {name: f"{path.stem}-{i}" for i, name in enumerate(re.findall(r'\bid="([^"]+)"', svg))}
    svg = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{ids[match[1]]}"', svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', lambda match: f'href="#{ids[match[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{ids[match[1]]})", svg)


def _shortened(outline: re.Match[str]) -> str:
    """An outline to a tenth of a point, which is fine enough for a screen."""
    rounded = re.sub(r"(\d\.\d)\d+", r"\1", outline[0])
    return re.sub(r"\s*([A-Za-z])\s+", r"\1", rounded)


def _figures(folder: Path) -> dict[str, str]:
    paths = {name: folder / "figures" / f"{name}.svg" for name in FIGURES}
    return {name: _inline_svg(path) for name, path in paths.items() if path.is_file()}


Picks = dict[str, list[tuple[str | int, str]]]


def picks(study: Study, data: ReportData) -> Picks:
    """The values that each control of the report offers, with their texts."""
    weighted = dict.fromkeys(c["mode"] for c in data["weight_curves"][study.metric])
    trained = dict.fromkeys(c["mode"] for c in data["curves"][study.metric] if c["source"])
    return {
        "metric": [(metric, metric) for metric in data["metrics"]],
        "n": [(n, f"{n:,}") for n in study.snapshots],
        "source": [(source["name"], source["name"]) for source in data["sources"]],
        "weight_mode": [(m, mode_style(m).short) for m in weighted],
        "source_mode": [(m, mode_style(m).short) for m in trained],
    }


def selected(options: Picks, n: int) -> dict[str, str | int]:
    """What the controls of the report show at first: the n of the headline, and so on.

    A mode is "" where there is none.
    """
    weighted, trained = ([m for m, _ in options[key]] for key in ("weight_mode", "source_mode"))
    return {
        "n": n,
        "source": options["source"][0][0],
        "weight_mode": next((m for m in ("likra", "base-likra", *weighted) if m in weighted), ""),
        "source_mode": next((m for m in ("base-likra", *trained) if m in trained), ""),
    }


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
        thousands="{:,}".format,
        score=lambda value: f"{value:+.2f}".replace("-", "\u2212"),
        p_value=p_value,
        factor=factor,
        formats=formats,
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


def estimates(curves: Iterable[LearningCurve], numbers: Sequence[int]) -> list[Row]:
    """(label, estimates) for each mode and source, at each number of examples."""
    return [(curve["label"], list(map(by_n(curve).get, numbers))) for curve in curves]


def accuracy_rows(points: pd.DataFrame, study: Study, metric: str) -> list[tuple[str, list[str]]]:
    """(label, cells) for each mode and source: mean over seeds and half its interval.

    For a single seed, and for what is not trained, the interval is over questions.
    """
    rows = estimates(learning_curves(points, study, metric), [0, *study.snapshots])
    return [(label, list(map(cell, cells))) for label, cells in rows]


def tiles(data: ReportData, best: int) -> list[tuple[Style, int, float, float, float]]:
    """The main accuracies where Likra is best, and the base's: style, n, value and interval."""
    return [
        (mode_style(mode), n, *estimate)
        for mode in ("likra", "base-likra", "sft", "base")
        for n, estimate in accuracies(data, mode).items()
        if n in (0, best)
    ]


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
