"""``likra compare``: several runs on one page, and paired differences where they can be had."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from likra.errors import LikraError
from likra.report.analysis import (
    Bench,
    chance,
    lines,
    named,
    ordered_modes,
    paired_row,
    read_questions,
)
from likra.report.html import estimates, flat, payload, render
from likra.report.style import mode_style, source_text
from likra.report.tables import Row, formats
from likra.scores.curves import curve
from likra.scores.ratio import METRICS
from likra.scores.table import Scores
from likra.scores.weights import split_validation
from likra.study.config import Study

# Okabe and Ito's, for light and for dark paper
COLORS = (
    ("#0072B2", "#58AEEB"),
    ("#D55E00", "#FF8E4F"),
    ("#00875F", "#34C79B"),
    ("#B0558E", "#E79AC9"),
    ("#8A6D00", "#DDBB45"),
    ("#6A51A3", "#B7A1E8"),
    ("#1B7F8C", "#5CC6D3"),
    ("#7A4B2A", "#C99A74"),
)
STROKES = ("solid", "dashed", "dotted")  # of modes, as page.js draws them
OPEN = ("\u25cf", "\u25cb", "\u25c9", "\u25ce")  # markers of sources, as page.js draws them
SHOWN = ("likra", "base-likra", "sft", "base")  # other modes, and other sources, are off at first


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    name: str
    study: Study
    scores: Scores
    points: pd.DataFrame
    texts: dict[str, Any]


def write_comparison(folders: Sequence[Path], output: Path) -> list[str]:
    """Write one page about several finished runs.

    Args:
        folders: of the runs.
        output: the page.

    Returns:
        For each pair without paired differences, a line that says why.

    Raises:
        LikraError: fewer than two runs, one of them twice, or a folder without a finished run.

    """
    from likra.study.run import write_text

    runs = read_runs(folders)
    data = comparison_data(runs)
    common = [n for n in data["snapshots"] if all(n in run.study.snapshots for run in runs)]
    numbers = [0, *(common or data["snapshots"])]
    rows = {metric: _rows(runs, metric, numbers) for metric in METRICS}
    pairs = [pair_of(one, two, data["metric"]) for one, two in itertools.combinations(runs, 2)]
    counts = sorted({row["n"] for pair in pairs for row in pair["rows"]} - {0})
    data |= {"n": counts[-1] if counts else 0, "source": "", "weightMode": ""}
    page = render(
        "compare.html.j2",
        names=[run.name for run in runs],
        runs=[_about(run) for run in runs],
        differing=_differing(runs),
        data=data,
        headline=headline(runs, common),
        common=common,
        numbers=numbers,
        rows=rows,
        copies={metric: formats(numbers, rows[metric]) for metric in METRICS},
        pairs=pairs,
        picks={
            "metric": [(metric, metric) for metric in METRICS],
            "n": [(n, f"{n:,}") for n in counts],
        },
        legend=_legend(data),
        payload=payload(data),
    )
    write_text(output, page)
    return [f"{p['first']} and {p['second']}: {p['reason']}" for p in pairs if p["reason"]]


def headline(runs: Sequence[Compared], common: Sequence[int]) -> str:
    """The accuracies of all runs in a sentence: of Likra if all have it, where all have most."""
    mode = next((m for m in SHOWN if all(m in run.study.modes for run in runs)), None)
    if mode is None:
        return ""
    n = common[-1] if common and mode != "base" else 0
    metric, found = runs[0].study.metric, []
    for run in runs:
        line = next(x for x in lines(run.points, run.study, metric) if x["mode"] == mode)
        if n not in line["n"]:
            return ""
        found.append(f"{line['value'][line['n'].index(n)]:.1%} ({run.name})")
    shown = f"{', '.join(found[:-1])} and {found[-1]}"
    examples = f"With {n:,} examples, " if n else "Untrained, "
    return f"{examples}{mode_style(mode).short} answers {shown} of the questions ({metric})."


def read_runs(folders: Sequence[Path]) -> list[Compared]:
    """Read finished runs; each is named by as much of its path as tells it from the others."""
    from likra.study.run import read_run, read_run_scores

    places = [folder.resolve() for folder in folders]
    if len(places) < 2:
        raise LikraError("name at least two runs to compare")
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise LikraError(f"'{folder}' is named twice")
    runs = []
    for folder, name in zip(folders, _names(places), strict=True):
        run = read_run(folder)
        scores, study = read_run_scores(run), run.study
        if study.validation_fraction is not None:  # what was set aside is not reported
            scores = scores.of(~split_validation(scores.question_ids, study.validation_fraction))
        points = pd.DataFrame(curve(scores, study.task, study.modes, [study.weight]))
        runs.append(Compared(name, study, scores, points, read_questions(folder)))
    return runs


def _names(places: Sequence[Path]) -> list[str]:
    for depth in range(1, max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]


def comparison_data(runs: Sequence[Compared]) -> dict[str, Any]:
    """What the page's charts show, as plain values; see `likra.report.analysis.report_data`."""
    modes = ordered_modes(pd.concat([run.points for run in runs]))
    sources = list(dict.fromkeys(s for run in runs for s in run.study.negatives))
    tasks = {run.study.task for run in runs}
    found: dict[str, list[dict[str, Any]]] = {metric: [] for metric in METRICS}
    for metric in METRICS:
        for number, run in enumerate(runs):
            several = len(run.study.negatives) > 1
            for line in lines(run.points, run.study, metric):
                found[metric].append(line | {"run": number, "many": several})
    return {
        "runs": [
            {"name": run.name, "color": color, "dark": dark}
            for run, (color, dark) in zip(runs, itertools.cycle(COLORS), strict=False)
        ],
        "modes": [named(mode, mode_style(mode)) for mode in modes],
        "sources": [{"name": source, "label": source_text(source)} for source in sources],
        "metrics": list(METRICS),
        "metric": runs[0].study.metric,
        "snapshots": sorted({n for run in runs for n in run.study.snapshots}),
        "chance": round(chance(runs[0].scores), 4) if len(tasks) == 1 else None,
        "lines": found,
        "off": [f"modes/{mode}" for mode in modes if mode not in SHOWN]
        + [f"sources/{source}" for source in sources[1:]],
    }


def _legend(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Runs have the colours here, modes the line styles and markers."""
    return {
        "runs": [
            run | {"name": number, "label": run["name"]} for number, run in enumerate(data["runs"])
        ],
        "modes": [
            {
                "name": mode["name"],
                "label": mode["label"],
                "glyph": mode["glyph"],
                "stroke": STROKES[place % len(STROKES)],
            }
            for place, mode in enumerate(data["modes"])
        ],
        "sources": [
            source | {"glyph": OPEN[place % len(OPEN)]}
            for place, source in enumerate(data["sources"])
        ],
    }


def _rows(runs: Sequence[Compared], metric: str, numbers: Sequence[int]) -> list[Row]:
    return [
        (f"{run.name}: {label}", cells)
        for run in runs
        for label, cells in estimates(run.points, run.study, metric, numbers)
    ]


def _about(run: Compared) -> dict[str, Any]:
    study = run.study
    return {
        "name": run.name,
        "model": study.model,
        "task": study.task,
        "questions": f"{len(run.scores.question_ids):,}",
        "seeds": len(study.seeds),
        "snapshots": ", ".join(f"{n:,}" for n in study.snapshots),
        "negatives": ", ".join(study.negatives),
        "weight": study.weight,
    }


def _differing(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs, beside those that the page's table has."""
    known = {"name", "model", "task", "snapshots", "negatives", "weight"}
    all_settings = [dict(flat(run.study.model_dump())) for run in runs]
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    values = [(key, [settings.get(key, "") for settings in all_settings]) for key in keys]
    return [(key, each) for key, each in values if key not in known and len(set(each)) > 1]


# --------------------------------------------------------------------------------------------
# Pairs


def pair_of(one: Compared, two: Compared, metric: str) -> dict[str, Any]:
    """The paired differences of two runs, or why there are none.

    Has ``first``, ``second`` (names), ``reason`` ("" if there are differences) and ``rows`` with
    ``mode``, ``source``, ``n`` and what `likra.report.analysis.paired_row` gives.
    """
    found: dict[str, Any] = {"first": one.name, "second": two.name, "rows": []}
    reason = why_not(one, two)
    if not reason:
        found["rows"] = _differences(one, two, metric)
        reason = "" if found["rows"] else "they have no mode at the same number of examples"
    return found | {"reason": reason}


def why_not(one: Compared, two: Compared) -> str:
    """Why two runs cannot be compared question by question; "" where they can."""
    tasks = [Path(run.study.task).name for run in (one, two)]
    if tasks[0] != tasks[1]:
        return f"their tasks differ ({tasks[0]}, {tasks[1]})"
    ids = [set(run.scores.question_ids) for run in (one, two)]
    if ids[0] != ids[1]:
        return (
            f"their questions differ ({len(ids[0]):,} and {len(ids[1]):,}, of which "
            f"{len(ids[0] & ids[1]):,} are the same)"
        )
    for run in (one, two):
        if not ids[0] <= run.texts.keys():
            return f"the questions of {run.name} are not in its questions.jsonl"
    for row, column in enumerate(_order(one, two)):
        name = one.scores.question_ids[row]
        if one.texts[name].get("stem") != two.texts[name].get("stem"):
            return f"their questions differ, first '{name}'"
        if _choices(one, row) != _choices(two, int(column)):
            return f"their choices differ, first at question '{name}'"
    return ""


def _order(one: Compared, two: Compared) -> np.ndarray:
    """Where the first run's questions stand in the second."""
    places = {name: place for place, name in enumerate(two.scores.question_ids)}
    return np.array([places[name] for name in one.scores.question_ids])


def _choices(run: Compared, row: int) -> tuple[Any, list[bool]]:
    """The texts of a question's choices, and which are right."""
    is_right = run.scores.is_right[row, run.scores.exists[row]]
    return run.texts[run.scores.question_ids[row]].get("choices"), is_right.tolist()


def _differences(one: Compared, two: Compared, metric: str) -> list[dict[str, Any]]:
    first, second = (
        Bench(run.scores, run.study.model_copy(update={"metric": metric})) for run in (one, two)
    )
    order = _order(one, two)
    rows = []
    for mode in [m for m in ordered_modes(one.points) if m in two.study.modes]:
        for source in [s for s in first.sources(mode) if s in second.sources(mode)]:
            counts = [set(bench.ratios(mode)[source]) for bench in (first, second)]
            for n in sorted(counts[0] & counts[1]):
                pair = first.correct(mode, source, n), second.correct(mode, source, n)[order]
                place = {"mode": mode, "source": source, "n": n}
                if n or one.study.model != two.study.model:
                    rows.append(place | paired_row(*pair))
    return rows
