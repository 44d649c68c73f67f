"""``likra compare``: several runs on one page, with paired differences where possible."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from likra.atomic import write_text
from likra.errors import LikraError
from likra.report.analysis import Look, chance, look
from likra.report.comparisons import PairedResult, paired_result
from likra.report.curves import first_by_n, learning_curves, ordered_modes
from likra.report.disagreements import QuestionText, read_questions
from likra.report.html import estimates, flat, payload, render
from likra.report.modes import ModeScores, reported_scores
from likra.report.style import mode_style, source_text
from likra.report.tables import Row
from likra.scores.curves import curve
from likra.scores.ratio import METRICS
from likra.scores.table import Scores
from likra.study.config import Study
from likra.study.folder import read_run

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
SHOWN = ("likra", "base-likra", "sft", "base")  # other modes, and other sources, are off at first


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs."""

    name: str
    study: Study
    scores: Scores
    points: pd.DataFrame
    texts: dict[str, QuestionText]


class ComparisonData(TypedDict):
    """What the charts of the page show; see `likra.report.analysis.ReportData`.

    A curve also has ``run``, its number, and ``many``, whether its run has several sources.
    ``off`` names what the legends have switched off at first.
    """

    runs: list[dict[str, str]]
    modes: list[Look]
    sources: list[dict[str, str]]
    metrics: list[str]
    metric: str
    snapshots: list[int]
    chance: float | None
    curves: dict[str, list[dict[str, Any]]]
    off: list[str]


class PairedRow(PairedResult):
    """The difference of two runs in one mode, source and number of examples."""

    mode: str
    source: str
    n: int


class Pair(TypedDict):
    """The paired differences of two runs, by name; ``reason`` says why there are none."""

    first: str
    second: str
    reason: str
    rows: list[PairedRow]


def write_comparison(folders: Sequence[Path], output: Path) -> list[str]:
    """Write one page about several finished runs.

    Returns:
        For each pair without paired differences, a line that says why.

    Raises:
        LikraError: fewer than two runs, one of them twice, or a folder without a finished run.

    """
    runs = read_runs(folders)
    data = comparison_data(runs)
    common = [n for n in data["snapshots"] if all(n in run.study.snapshots for run in runs)]
    numbers = [0, *(common or data["snapshots"])]
    pairs = [pair_of(one, two, data["metric"]) for one, two in itertools.combinations(runs, 2)]
    counts = sorted({row["n"] for pair in pairs for row in pair["rows"]} - {0})
    n = counts[-1] if counts else 0
    page = render(
        "compare.html.j2",
        names=[run.name for run in runs],
        runs=runs,
        differing=_differing(runs),
        data=data,
        n=n,
        headline=headline(runs, common),
        common=common,
        numbers=numbers,
        rows={metric: _rows(runs, metric, numbers) for metric in METRICS},
        pairs=pairs,
        picks={
            "metric": [(metric, metric) for metric in METRICS],
            "n": [(number, f"{number:,}") for number in counts],
        },
        named_runs=[{"name": i, "label": run.name} for i, run in enumerate(runs)],
        payload=payload({**data, "n": n}),
    )
    write_text(output, page)
    return [f"{p['first']} and {p['second']}: {p['reason']}" for p in pairs if p["reason"]]


def headline(runs: Sequence[ComparedRun], common: Sequence[int]) -> str:
    """The accuracies of all runs, of Likra if all have it, at the largest n that all have."""
    mode = next((m for m in SHOWN if all(m in run.study.modes for run in runs)), None)
    if mode is None:
        return ""
    n = common[-1] if common and mode != "base" else 0
    metric, texts = runs[0].study.metric, []
    for run in runs:
        by_n = first_by_n(learning_curves(run.points, run.study, metric), mode)
        if n not in by_n:
            return ""
        texts.append(f"{by_n[n][0]:.1%} ({run.name})")
    shown = f"{', '.join(texts[:-1])} and {texts[-1]}"
    examples = f"With {n:,} examples, the" if n else "The untrained"
    return f"{examples} accuracy ({metric}) of {mode_style(mode).short} is {shown}."


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read finished runs; each is named by as much of its path as tells it from the others."""
    if len(folders) < 2:
        raise LikraError("name at least two runs to compare")
    return [_read_run(*pair) for pair in zip(folders, run_names(folders), strict=True)]


def _read_run(folder: Path, name: str) -> ComparedRun:
    run = read_run(folder)
    scores, study = reported_scores(run), run.study
    points = pd.DataFrame(curve(scores, study.task, study.modes, [study.weight]))
    return ComparedRun(name, study, scores, points, read_questions(folder))


def run_names(folders: Sequence[Path]) -> list[str]:
    """A name for each run: as much of its path as tells it from the others.

    Raises:
        LikraError: a folder is named twice.

    """
    paths = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, paths, strict=True):
        if paths.count(path) > 1:
            raise LikraError(f"'{folder}' is named twice")
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def comparison_data(runs: Sequence[ComparedRun]) -> ComparisonData:
    """What the charts of the page show, as plain values."""
    modes = ordered_modes(pd.concat([run.points for run in runs]))
    sources = list(dict.fromkeys(s for run in runs for s in run.study.negatives))
    tasks = {run.study.task for run in runs}
    return ComparisonData(
        runs=[
            {"name": run.name, "color": color, "dark": dark}
            for run, (color, dark) in zip(runs, itertools.cycle(COLORS), strict=False)
        ],
        modes=[look(mode, mode_style(mode)) for mode in modes],
        sources=[{"name": source, "label": source_text(source)} for source in sources],
        metrics=list(METRICS),
        metric=runs[0].study.metric,
        snapshots=sorted({n for run in runs for n in run.study.snapshots}),
        chance=round(chance(runs[0].scores), 4) if len(tasks) == 1 else None,
        curves={
            metric: [
                {**line, "run": number, "many": len(run.study.negatives) > 1}
                for number, run in enumerate(runs)
                for line in learning_curves(run.points, run.study, metric)
            ]
            for metric in METRICS
        },
        off=[f"modes/{mode}" for mode in modes if mode not in SHOWN]
        + [f"sources/{source}" for source in sources[1:]],
    )


def _rows(runs: Sequence[ComparedRun], metric: str, numbers: Sequence[int]) -> list[Row]:
    return [
        (f"{run.name}: {label}", cells)
        for run in runs
        for label, cells in estimates(learning_curves(run.points, run.study, metric), numbers)
    ]


def _differing(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    """Settings that differ between the runs, other than those in the page's table."""
    known = {"name", "model", "task", "snapshots", "negatives", "weight"}
    all_settings = [dict(flat(run.study.model_dump())) for run in runs]
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    values = [(key, [settings.get(key, "") for settings in all_settings]) for key in keys]
    return [(key, each) for key, each in values if key not in known and len(set(each)) > 1]


# --------------------------------------------------------------------------------------------
# Pairs


def pair_of(one: ComparedRun, two: ComparedRun, metric: str) -> Pair:
    """The paired differences of two runs, or why there are none."""
    reason = why_not(one, two)
    rows = [] if reason else _differences(one, two, metric)
    if not rows and not reason:
        reason = "they have no mode at the same number of examples"
    return Pair(first=one.name, second=two.name, reason=reason, rows=rows)


def why_not(one: ComparedRun, two: ComparedRun) -> str:
    """Why two runs cannot be compared question by question; "" where they can."""
    task, other_task = (Path(run.study.task).name for run in (one, two))
    if task != other_task:
        return f"their tasks differ ({task}, {other_task})"
    ids, others = (set(run.scores.question_ids) for run in (one, two))
    if ids != others:
        return (
            f"their questions differ ({len(ids):,} and {len(others):,}, of which "
            f"{len(ids & others):,} are the same)"
        )
    for run in (one, two):
        if not ids <= run.texts.keys():
            return f"the questions of {run.name} are not in its questions.jsonl"
    for row, other in enumerate(_order(one, two)):
        name = one.scores.question_ids[row]
        if one.texts[name]["stem"] != two.texts[name]["stem"]:
            return f"their questions differ, first '{name}'"
        if _choices(one, row) != _choices(two, int(other)):
            return f"their choices differ, first at question '{name}'"
    return ""


def _order(one: ComparedRun, two: ComparedRun) -> np.ndarray:
    """The row in the second run of each question of the first."""
    rows = {name: row for row, name in enumerate(two.scores.question_ids)}
    return np.array([rows[name] for name in one.scores.question_ids])


def _choices(run: ComparedRun, row: int) -> tuple[list[str], list[bool]]:
    """The texts of a question's choices, and which are right."""
    is_right = run.scores.is_right[row, run.scores.exists[row]]
    return run.texts[run.scores.question_ids[row]]["choices"], is_right.tolist()


def _differences(one: ComparedRun, two: ComparedRun, metric: str) -> list[PairedRow]:
    first, second = (
        ModeScores(run.scores, run.study.model_copy(update={"metric": metric}))
        for run in (one, two)
    )
    order = _order(one, two)
    rows = []
    for mode in [m for m in ordered_modes(one.points) if m in two.study.modes]:
        for source in [s for s in first.sources(mode) if s in second.sources(mode)]:
            for n in sorted(first.ratios(mode)[source].keys() & second.ratios(mode)[source].keys()):
                if n or one.study.model != two.study.model:  # or both are the same base
                    result = paired_result(
                        first.correct(mode, source, n), second.correct(mode, source, n)[order]
                    )
                    rows.append(PairedRow(mode=mode, source=source, n=n, **result))
    return rows
