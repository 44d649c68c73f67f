"""``report.html``: one self-contained page: figures, numbers, and how they came about."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from likra.ratio import MODES
from likra.report.figures import STYLES, source_name
from likra.settings import Study


def write_report(folder: Path, study: Study, points: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write ``report.html`` into the run's folder, from its figures and curves."""
    from jinja2 import Environment

    from likra.study import write_text

    source = files("likra.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    figures = [
        (title, _inline(folder / "figures" / f"{name}.svg"))
        for title, name in (("Learning curves", "learning_curve"), ("Weight", "weight_curve"))
        if (folder / "figures" / f"{name}.svg").is_file()
    ]
    page = template.render(
        study=study,
        about=about,
        figures=figures,
        tables=[(metric, accuracy_rows(points, study, metric)) for metric in ("acc", "acc_norm")],
        headline=headline(points, study),
        settings=_flat(study.model_dump()),
    )
    write_text(folder / "report.html", page)


def accuracy_rows(points: pd.DataFrame, study: Study, metric: str) -> list[tuple[str, list[str]]]:
    """(label, cells) for each mode and source: the base's accuracy, then one for each snapshot."""
    rows = []
    for mode in [name for name in STYLES if name in study.modes]:
        for source in study.negatives if MODES[mode].negative == "negative" else [""]:
            weight = study.weight if MODES[mode].weighted else 0.0
            line = points[
                (points["mode"] == mode)
                & (points.source == source)
                & (points.weight == weight)
                & (points.metric == metric)
            ]
            label = mode + (f" ({source})" if source else "")
            numbers = [0] if mode == "base" else study.snapshots
            cells = [_cell(line[line.n_train == n]) for n in numbers]
            empty = [""] * (len(study.snapshots) + 1 - len(cells))
            rows.append((label, cells + empty if mode == "base" else empty + cells))
    return rows


def _cell(group: pd.DataFrame) -> str:
    """Mean over seeds and half its interval over seeds; of a single seed, over questions."""
    mean = group[group.seed == "all"].iloc[0]
    if not pd.isna(mean.ci_low):
        return f"{mean.value:.3f} ±{(mean.ci_high - mean.ci_low) / 2:.3f}"
    single = group[group.seed != "all"].iloc[0]
    return f"{single.value:.3f} ±{(single.ci_high - single.ci_low) / 2:.3f}"


def headline(points: pd.DataFrame, study: Study) -> str:
    """The largest difference between Likra and SFT, in a sentence computed from the data."""
    if not {"likra", "sft"} <= set(study.modes):
        return ""
    means = points[(points.seed == "all") & (points.metric == study.metric)]
    likra = means[(means["mode"] == "likra") & (means.weight == study.weight)]
    likra = likra[likra.source == study.negatives[0]]
    sft = means[means["mode"] == "sft"]
    of_likra, of_sft = (dict(zip(t.n_train, t.value, strict=True)) for t in (likra, sft))
    n = max(study.snapshots, key=lambda number: of_likra[number] - of_sft[number])
    base = means[means["mode"] == "base"].value
    untouched = f"; the untouched base {base.iloc[0]:.1%}" if len(base) else ""
    return (
        f"With {n} examples, Likra answers {of_likra[n]:.1%} of the questions, "
        f"fine-tuning on right answers alone {of_sft[n]:.1%}{untouched} "
        f"({study.metric}, mean of {len(study.seeds)} "
        f"{'seeds' if len(study.seeds) > 1 else 'seed'}; {source_name(study.negatives[0])})."
    )


def _inline(path: Path) -> str:
    """An SVG for use within a page: without XML header, metadata and fixed size."""
    svg = path.read_text(encoding="utf-8")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + key, shown))
    return rows
