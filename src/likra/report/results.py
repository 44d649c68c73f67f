"""Everything that follows from a run's score tables: curves, summary, figures and report."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from likra.atomic import write_text
from likra.errors import LikraError
from likra.progress import Log
from likra.report.analysis import report_data
from likra.report.curves import with_interval
from likra.report.disagreements import read_questions
from likra.report.figures import write_figures
from likra.report.grid import write_grid
from likra.report.html import write_report
from likra.report.paper import opening
from likra.report.sentences import findings, headline, in_short
from likra.scores.curves import curve
from likra.scores.ratio import MODES
from likra.scores.table import Scores
from likra.scores.weights import choose_weight, validation_questions
from likra.study.about import write_incomplete
from likra.study.complete import complete_part, left_out, missing_tables
from likra.study.config import AnalysisSettings, Study, parse_study
from likra.study.failures import IncompleteError, failure_lines, read_failures
from likra.study.folder import Run, read_facts, write_about
from likra.study.grid import check_grid, grid_studies
from likra.study.run import run_cells
from likra.study.shards import Shard
from likra.study.tables import read_run_scores, score_keys
from likra.text import spreadsheet_cell

RunStudy = Callable[[Study, Path, Log], tuple[Run, pd.DataFrame]]


def run_study(
    study: Study, folder: Path | None = None, log: Log = print
) -> tuple[Run, pd.DataFrame]:
    """Compute what is missing of a study, and write its results.

    Args:
        study: what to run (`likra.study.config.read_study`).
        folder: of the results; ``runs/NAME`` by default.
        log: is given each line meant for the user.

    Returns:
        The run, and its curves (see `likra.scores.curves.Point` for the columns).

    Raises:
        LikraError: bad input, or the folder holds cells of other settings or other data.
        IncompleteError: cells failed; the results are drawn of the others.

    """
    return draw(run_cells(study, folder, log))


def run_shard(
    study: Study, shard: Shard, folder: Path | None = None, log: Log = print
) -> tuple[Run, pd.DataFrame | None]:
    """Compute what is missing of a shard, and write the results if the study is complete then.

    Args:
        study: what to run (`likra.study.config.read_study`).
        shard: the part to compute.
        folder: of the results, shared by all shards; ``runs/NAME`` by default.
        log: is given each line meant for the user.

    Returns:
        The run, and its curves as from `run_study`; None while other shards have work left.

    Raises:
        LikraError: as `run_study`.
        IncompleteError: likewise; while other shards have work left, it has no results.

    """
    run = run_cells(study, folder, log, shard)
    missing = missing_tables(run)
    failures = read_failures(run, missing)
    left = len(missing) - len(failures)
    if not left:
        return draw(run)
    log(
        f"left   {left:,} score tables for the other shards; the last one draws the results, "
        "or the same command without --shard"
    )
    if failures:
        raise IncompleteError(failure_lines(failures))
    return run, None


def draw(run: Run) -> tuple[Run, pd.DataFrame]:
    """Write the results of a run, of whatever part of it could be computed.

    Returns:
        As `run_study`.

    Raises:
        IncompleteError: score tables are missing; its results are of the part that has all of
            its own (`likra.study.complete`), with a run that asks for no more.

    """
    missing = missing_tables(run)
    if not missing:
        return run, write_results(run)
    failures = read_failures(run, missing)
    lines = failure_lines(failures)
    lines += [f"{key}: not computed" for key in missing if key not in failures]
    part = complete_part(run)
    if part is None:
        raise IncompleteError([*lines, f"too little of '{run.folder}' is there to draw results"])
    write_incomplete(part, [_incomplete(run, part, len(missing)), *lines])
    raise IncompleteError(lines, (part, write_results(part)))


def _incomplete(run: Run, part: Run, n_missing: int) -> str:
    n = len(score_keys(run))
    return (
        f"Incomplete: {n_missing:,} of {n:,} score tables could not be computed, so these results "
        f"leave out {left_out(run.study, part.study)}."
    )


def run_grid(
    study: Study, folder: Path | None = None, log: Log = print, run: RunStudy | None = None
) -> tuple[Path, pd.DataFrame]:
    """Run each model on each task, each in its own folder, and write their table.

    Args:
        study: with ``models`` and ``tasks``.
        folder: for the runs and ``table.{csv,md,tex}``; ``runs/NAME`` by default.
        log: is given each line meant for the user.
        run: runs one of the studies, by default `run_study`.

    Returns:
        The folder, and the table: see `likra.report.grid.write_grid`.

    Raises:
        LikraError: as `run_study`.
        IncompleteError: likewise; the other studies go on.

    """
    folder = folder or Path("runs") / study.name
    studies = grid_studies(study)
    check_grid(studies)
    results, lines = list[tuple[Run, pd.DataFrame]](), list[str]()
    for one in studies:
        log(f"--- {one.model} on {one.task}")
        try:
            results.append((run or run_study)(one, folder / one.name, log))
        except IncompleteError as error:
            results += [] if error.results is None else [error.results]
            lines += [f"{one.name}: {line}" for line in error.lines]
    if not results:
        raise IncompleteError(lines)
    table = folder, write_grid(results, folder)
    if lines:
        raise IncompleteError(lines, table)
    return table


def write_results(run: Run, output: Path | None = None) -> pd.DataFrame:
    """Write ``curve.csv``, ``summary.json``, the figures and the report of a finished run.

    The study's analysis settings decide what is drawn.

    Args:
        run: a finished run.
        output: folder of the results; by default the run's, whose ``study.yaml`` then keeps the
            settings.

    Returns:
        The curves; see `likra.scores.curves.Point` for the columns.

    Raises:
        LikraError: a score table is missing or damaged, or questions.jsonl is; or the folder is
            that of another run, or became it meanwhile.

    """
    study, folder = run.study, output or run.folder
    facts, written = read_facts(run.folder), run.study_path.read_bytes()
    _check_settings(run, facts)
    if folder.resolve() != run.folder.resolve() and (folder / "study.yaml").exists():
        raise LikraError(f"'{folder}' is the folder of another run: name another one")
    scores = read_run_scores(run)
    validation = None
    if study.validation_fraction is not None:
        chosen = validation_questions(scores.question_ids, study.validation_fraction)
        validation, scores = scores.of(chosen), scores.of(~chosen)
    points = all_points(scores, study)
    data = report_data(study, scores, points, read_questions(run.folder))
    summary = _summary(study, points, facts, len(scores.question_ids))
    if validation is not None:
        summary["n_validation_questions"] = len(validation.question_ids)
        summary["chosen_weights"] = _chosen_weights(
            all_points(validation, study), points, study.metric
        )
    summary["chance"] = data["chance"]
    first = opening(study, data)
    sentences = [
        *facts.get("incomplete", [])[:1],
        first.sentence if first else "",
        headline(study, data),
        *in_short(study, data),
        *findings(study, data),
    ]
    summary["sentences"] = [sentence for sentence in sentences if sentence]
    about = {**facts, "chosen_weights": summary.get("chosen_weights", [])}
    names = points[["task", "source"]].map(spreadsheet_cell)
    write_text(folder / "curve.csv", points.assign(**names).to_csv(index=False))
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_figures(study, data, folder / "figures")
    write_report(folder, study, about, data)
    if folder.resolve() == run.folder.resolve():
        if run.study_path.read_bytes() != written:
            raise _of_another_run(folder, "it was written while the results were drawn")
        rest = {key: value for key, value in facts.items() if key != "study"}
        write_about(run, rest)  # the settings that these results have
    return points


def _check_settings(run: Run, about: Mapping[str, Any]) -> None:
    """Refuse a folder whose cells other settings decide than those of the run."""
    there = parse_study(about["study"], f"'{run.study_path}'")
    for name in Study.model_fields:
        if name not in AnalysisSettings.model_fields:
            old, new = getattr(there, name), getattr(run.study, name)
            if old != new:
                raise _of_another_run(run.folder, f"'{name}' is {old} there, and {new} here")


def _of_another_run(folder: Path, why: str) -> LikraError:
    return LikraError(
        f"the study.yaml in '{folder}' is that of another run ({why}): what was computed stays; "
        "when the other run has ended, the same command draws the results"
    )


def all_points(scores: Scores, study: Study) -> pd.DataFrame:
    """The rows of ``curve.csv``: each mode, weight, metric, source, seed and n."""
    return pd.DataFrame(curve(scores, study.task, study.modes, study.all_weights))


def _summary(
    study: Study, points: pd.DataFrame, about: Mapping[str, Any], n_questions: int
) -> dict[str, Any]:
    at_weight = points[(points.weight == study.weight) | ~points["mode"].isin(_weighted())]
    curves = at_weight.groupby(["mode", "source", "n_train", "metric"], sort=False)
    estimates = pd.concat([with_interval(rows) for _, rows in curves])
    accuracy = json.loads(estimates.drop(columns=["task", "seed"]).to_json(orient="records"))
    return {
        "study": study.name,
        "task": study.task,
        "model": study.model,
        "n_questions": n_questions,
        "n_seeds": len(study.seeds),
        "weight": study.weight,
        "leaks": about["leaks"],
        "versions": about["versions"],
        "accuracy": accuracy,
    }


def _chosen_weights(
    validation: pd.DataFrame, points: pd.DataFrame, metric: str
) -> list[dict[str, Any]]:
    """The best weight of each curve on the validation questions, and its accuracy on the others."""
    cell = ["mode", "source", "n_train"]

    def weighted(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows.metric == metric) & rows["mode"].isin(_weighted())]

    reported = dict(list(weighted(points).groupby([*cell, "weight"])))
    chosen = []
    for key, rows in weighted(validation).groupby(cell):
        means = rows[rows.seed == "all"]
        weight = choose_weight(means.weight.tolist(), means.value.tolist())
        estimate = with_interval(reported[*key, weight]).iloc[0]
        chosen.append(
            dict(zip(cell, key, strict=True))
            | {"weight": weight, "validation": means[means.weight == weight].value.iloc[0].item()}
            | {name: float(estimate[name]) for name in ("value", "ci_low", "ci_high")}
        )
    return chosen


def _weighted() -> list[str]:
    return [name for name, mode in MODES.items() if mode.weighted]
