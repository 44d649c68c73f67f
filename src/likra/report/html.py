"""``report.html``: one self-contained page: the question, the answer, curves and all numbers."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from likra.report.analysis import lines
from likra.report.style import mode_style, source_text
from likra.report.svg import inline_svg
from likra.report.tables import Row, cell, formats
from likra.scores.ratio import METRICS
from likra.study.config import Study

_COLUMNS = ("n", "value", "low", "high")
_TEMPLATE_ONLY = ("examples", "comparisons", "worth", "cost")
FIGURES = ("learning_curve", "sources", "weight_curve", "densities", "reliability")


def write_report(
    folder: Path, study: Study, points: pd.DataFrame, about: dict[str, Any], data: dict[str, Any]
) -> None:
    """Write ``report.html`` into the run's folder.

    Args:
        folder: of the run; its figures are what a reader without JavaScript sees.
        study: its settings.
        points: its curves.
        about: what ``study.yaml`` says beside the settings.
        data: see `likra.report.analysis.report_data`.

    """
    from likra.study.run import write_text

    figures = {
        name: inline_svg(folder / "figures" / f"{name}.svg")
        for name in FIGURES
        if (folder / "figures" / f"{name}.svg").is_file()
    }
    numbers = [0, *study.snapshots]
    rows = {metric: estimates(points, study, metric) for metric in METRICS}
    chosen = choices(study, data)
    shipped = {key: value for key, value in data.items() if key not in _TEMPLATE_ONLY}
    page = render(
        "report.html.j2",
        study=study,
        about=about,
        figures=figures,
        data=data,
        numbers=numbers,
        rows=rows,
        copies={metric: formats(numbers, rows[metric]) for metric in METRICS},
        model=study.model.rstrip("/").rsplit("/", 1)[-1],
        question=question(study, about, data),
        headline=headline(points, study, data["chance"]),
        tiles=tiles(points, study),
        findings=findings(points, study, data),
        picked_from=len(shared(points, study)),
        panels=list({p["slot"]: p["title"] for p in data["separation"]}.items()),
        worth_columns=list(dict.fromkeys((r["mode"], r["source"]) for r in data["worth"])),
        colors={mode: mode_style(mode) for mode in ("likra", "sft")},
        has_texts=any(item["stem"] for item in data["examples"]),
        settings=flat(study.model_dump()),
        defaults=dict(flat(Study(name=study.name).model_dump())),
        **chosen,
        payload=payload(
            shipped
            | {
                "n": chosen["last"],
                "source": chosen["source"],
                "weightMode": chosen["weight_mode"],
                "sourceMode": chosen["source_mode"],
            }
        ),
    )
    write_text(folder / "report.html", page)


def choices(study: Study, data: dict[str, Any]) -> dict[str, Any]:
    """What the controls of the report offer, and what is chosen at first."""
    modes = list(dict.fromkeys(line["mode"] for line in data["weights"][study.metric]))
    names = [source["name"] for source in data["sources"]]
    taught = list(dict.fromkeys(x["mode"] for x in data["lines"][study.metric] if x["source"]))
    return {
        "last": study.snapshots[-1],
        "source": names[0],
        "weight_modes": modes,
        "weight_mode": next((m for m in ("likra", "base-likra", *modes) if m in modes), ""),
        "source_mode": next((m for m in ("base-likra", *taught) if m in taught), ""),
        "picks": {
            "source_mode": [(mode, mode_style(mode).short) for mode in taught],
            "n": [(n, f"{n:,}") for n in study.snapshots],
            "source": [(name, name) for name in names],
            "metric": [(metric, metric) for metric in data["metrics"]],
            "mode": [(mode, mode_style(mode).short) for mode in modes],
        },
        "legend": legend(data),
    }


def legend(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The entries of the legends."""
    return {
        "modes": data["modes"],
        "sources": data["sources"],
        "snapshots": [
            shade | {"name": n, "label": f"n = {n:,}"}
            for n, shade in zip(data["snapshots"], data["shades"], strict=True)
        ],
    }


def render(template: str, **values: Any) -> str:
    """A page from a template, with the style, the scripts and the library for charts in it."""
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


def payload(data: dict[str, Any]) -> str:
    """Data for a script: JSON in which nothing can end the script."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


# --------------------------------------------------------------------------------------------
# Accuracies


def estimates(
    points: pd.DataFrame, study: Study, metric: str, numbers: Sequence[int] = ()
) -> list[Row]:
    """(label, estimates) for each mode and source, at each number of examples.

    Args:
        points: the curves.
        study: its settings.
        metric: "acc" or "acc_norm".
        numbers: 0, the base, and the snapshots if not said otherwise.

    """
    rows: list[Row] = []
    for line in lines(points, study, metric):
        values = zip(line["value"], line["low"], line["high"], strict=True)
        known = dict(zip(line["n"], values, strict=True))
        rows.append((line["label"], [known.get(n) for n in numbers or (0, *study.snapshots)]))
    return rows


def accuracy_rows(points: pd.DataFrame, study: Study, metric: str) -> list[tuple[str, list[str]]]:
    """(label, cells) for each mode and source: mean over seeds and half its interval.

    Of a single seed, and of what is not trained, the interval is over questions.
    """
    return [(label, list(map(cell, cells))) for label, cells in estimates(points, study, metric)]


def best_snapshot(points: pd.DataFrame, study: Study) -> int | None:
    """Where Likra is farthest above SFT; None where one of them was not asked for."""
    likra, sft = (_means(points, study, mode) for mode in ("likra", "sft"))
    return max(shared(points, study), key=lambda n: likra[n] - sft[n], default=None)


def shared(points: pd.DataFrame, study: Study) -> list[int]:
    """The numbers of examples that both Likra and SFT have."""
    likra, sft = (_means(points, study, mode) for mode in ("likra", "sft"))
    return [n for n in study.snapshots if n in likra and n in sft]


def _line(points: pd.DataFrame, study: Study, mode: str) -> dict[str, Any]:
    """The learning curve of a mode, with its first source of negatives; {} where it has none."""
    found = lines(points[points["mode"] == mode], study, study.metric)
    return found[0] if found else {}


def _means(points: pd.DataFrame, study: Study, mode: str) -> dict[int, float]:
    """Accuracy by number of examples, with the first source of negatives."""
    line = _line(points, study, mode)
    return dict(zip(line.get("n", []), line.get("value", []), strict=True))


# --------------------------------------------------------------------------------------------
# Sentences


def question(study: Study, about: dict[str, Any], data: dict[str, Any]) -> str:
    """What was asked, of what, with how many examples."""
    first, last = study.snapshots[0], study.snapshots[-1]
    span = f"{first:,} to {last:,}" if first != last else f"{last:,}"
    seeds = f"{len(study.seeds)} seeds" if len(study.seeds) > 1 else "one seed"
    leaks = len({test for _, test, _ in about["leaks"]})
    seen = f"; {leaks:,} of them stand, or nearly, in training too" if leaks else ""
    return (
        "A positive head is trained on right answers and a negative head on wrong ones, each on "
        f"{span} examples with {seeds}. Then they answer {data['cost']['questions']:,} questions "
        f"of {study.task}{seen}."
    )


def tiles(points: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """The main accuracies where Likra is farthest above SFT, with intervals and colours."""
    n = best_snapshot(points, study) or study.snapshots[-1]
    found = []
    for mode in ("likra", "base-likra", "sft", "base"):
        line = _line(points, study, mode)
        for number, *values in zip(*(line.get(k, []) for k in _COLUMNS), strict=True):
            if number in (0, n):
                style = mode_style(mode)
                look = {"label": style.label, "color": style.color, "dark": style.dark}
                found.append(look | dict(zip(_COLUMNS, (number, *values), strict=True)))
    return found


def headline(points: pd.DataFrame, study: Study, chance: float) -> str:
    """The largest difference between Likra and SFT, in a sentence computed from the data."""
    n = best_snapshot(points, study)
    if n is None:
        return ""
    likra, sft = (_means(points, study, mode) for mode in ("likra", "sft"))
    base = _means(points, study, "base")
    untouched = f"; the untouched base {base[0]:.1%}" if base else ""
    return (
        f"With {n} examples, Likra answers {likra[n]:.1%} of the questions, "
        f"fine-tuning on right answers alone {sft[n]:.1%}{untouched}; a blind guess {chance:.1%} "
        f"({study.metric}, mean of {len(study.seeds)} "
        f"{'seeds' if len(study.seeds) > 1 else 'seed'}; "
        f"negatives: {source_text(study.negatives[0])})."
    )


def findings(points: pd.DataFrame, study: Study, data: dict[str, Any]) -> list[str]:
    """Further sentences, each computed from the data, and left out where they say nothing."""
    n = best_snapshot(points, study) or study.snapshots[-1]
    source = study.negatives[0]
    found = []
    here = {"source": source, "n": n}
    if row := _first(data["comparisons"], {"first": "likra", "second": "sft"} | here):
        tries = len(shared(points, study))  # n is where they differ most: Bonferroni
        p = p_value(min(1.0, tries * row["p_value"]), equals=True)
        note = ", corrected for the choice of n" if tries > 1 else ""
        found.append(
            f"On the same questions Likra and SFT differ by {signed(row['difference'])} at n = {n} "
            f"(p {p}{note}): {row['first_better']} questions fall to Likra, "
            f"{row['second_better']} to SFT."
        )
    likra = _line(points, study, "likra")
    low = dict(zip(likra.get("n", []), likra.get("low", []), strict=True))
    if n in low and low[n] <= data["chance"]:
        return [
            *found,
            f"Likra is not clearly above a blind guess ({data['chance']:.1%}): what differs here "
            "says little about right and wrong.",
        ]
    alone = _means(points, study, "base-likra")
    if n in alone:
        found.append(
            f"The negative head alone, which saw wrong answers only, answers {alone[n]:.1%} "
            f"with {n} of them."
        )
    if row := _first(data["worth"], {"mode": "base-likra"} | here):
        found.append(
            f"There, {unit('base-likra', source)} is worth "
            f"{factor(row).replace('> ', 'more than ')} right answers in fine-tuning."
            if row["k"][0]
            else "There, wrong answers alone do no better than the untouched base."
        )
    return found


def unit(mode: str, source: str) -> str:
    """What one example of a mode is, in words."""
    if "all_choices" in source:
        return "one question" if mode == "likra" else "one question's wrong answers"
    return "one pair" if mode == "likra" else "one wrong answer"


def _first(rows: Sequence[dict[str, Any]], values: dict[str, Any]) -> dict[str, Any] | None:
    """The first row that has those values."""
    return next((row for row in rows if values.items() <= row.items()), None)


def estimate(values: Sequence[float], digits: int = 3) -> str:
    """A value and its interval: "0.957 [0.914, 0.992]"."""
    value, low, high = values
    text = f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return text.replace("-", "\u2212")


def signed(values: Sequence[float]) -> str:
    """A difference of accuracies in points: "+51.6 points [+42.2, +60.9]"."""
    value, low, high = (100 * v for v in values)
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]".replace("-", "\u2212")


def p_value(p: float, *, equals: bool = False) -> str:
    """A p-value with two digits, not below what 100,000 flips can tell."""
    if p < 1e-4:
        return "< 0.0001"
    text = f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    return f"= {text}" if equals else text


def factor(row: dict[str, Any]) -> str:
    """How many right answers one example is worth: "2.4 [1.9, > 3]"."""
    flags = row["is_bound"], row["low_is_bound"], row["high_is_bound"]
    texts = [("> " if flag else "") + f"{k:.3g}" for flag, k in zip(flags, row["k"], strict=True)]
    if row["low_is_bound"]:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as (key, text); those of a section as "section.key"."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            rows += flat(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((prefix + key, "" if value in (None, {}) else shown))
    return rows
