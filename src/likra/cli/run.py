"""``likra run``: a study in this process, as one of several, or on several workers."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from likra.cli.options import LogFormatOption, Output, values_of
from likra.cli.studies import Overrides, Seed, StudyName, chosen_study, with_study_settings
from likra.cli.terminal import log, quiet, results_in, say_failed, show_grid, show_run, silent
from likra.errors import LikraError
from likra.progress import Log, LogFormat, write_as
from likra.study.config import Study
from likra.text import duration

if TYPE_CHECKING:
    import pandas as pd

    from likra.report.results import RunStudy
    from likra.study.folder import Run


@with_study_settings
def run(  # noqa: PLR0913, PLR0917 - one for each option
    overrides: Overrides,
    study: StudyName = None,
    output: Output = None,
    seed: Seed = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Compute part I of N, 0/N to (N-1)/N, as one of several processes or machines "
            "that write into one folder. The last one draws the results.",
        ),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Start --workers that compute the study, and draw the results: local (processes "
            "of this machine), submitit (SLURM jobs) or ray.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="How many workers --launcher starts.")
    ] = None,
    launcher_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="For the launcher, such as slurm_partition=gpu (submitit) or num_gpus=1 (ray); "
            "repeatable.",
        ),
    ] = None,
    only_results: Annotated[
        bool, typer.Option("--quiet", help="Print the results and errors alone.")
    ] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Run a study: train both heads for each seed and sampler, score them, and draw the curves.

    Writes heads, scores, curve.csv, summary.json, figures and report.html to the results' folder.
    What is in the folder is not computed again: a run that was stopped continues. Heads and scores
    that another run beside the folder has are taken from there. A head or a scoring that fails
    does not stop the others; then the exit code is 1.

    Your own right and wrong answers: likra run answers.jsonl
    """
    started = perf_counter()
    write_as(log_format)
    chosen = chosen_study(study, overrides, seed)
    is_grid, folder = bool(chosen.models or chosen.tasks), output or Path("runs") / chosen.name
    options = values_of("--launcher-option", launcher_option or [])
    _check_one_way(shard, launcher, workers, options, is_grid=is_grid)
    failed: Sequence[str] = ()
    with results_in(folder), silent() if only_results else nullcontext(log) as told:
        quiet()
        from likra.report.results import run_grid, run_shard, run_study
        from likra.study.failures import IncompleteError
        from likra.study.shards import Shard

        run_one: RunStudy = run_study
        if launcher is not None and workers is not None:
            run_one = _launching(launcher, workers, options)
        results: Any = None  # what is shown
        try:
            if is_grid:
                results = run_grid(chosen, folder, told, run_one)
            elif shard is not None:
                results = run_shard(chosen, Shard.parse(shard), folder, told)
            else:
                results = run_one(chosen, folder, told)
        except IncompleteError as error:
            results, failed = error.results, error.lines
        told(f"time   {duration(perf_counter() - started)}")
        if results is not None and results[1] is not None:
            show_grid(chosen, *results) if is_grid else show_run(*results)
    if failed:
        say_failed(failed)
        raise typer.Exit(1)


def _check_one_way(
    shard: str | None,
    launcher: str | None,
    workers: int | None,
    options: dict[str, object],
    *,
    is_grid: bool,
) -> None:
    if shard is not None and is_grid:
        raise LikraError("--shard takes a study of one model on one task")
    if shard is not None and launcher is not None:
        raise LikraError(
            "give --shard or --launcher, not both: a launcher divides the study itself"
        )
    if launcher is not None and workers is None:
        raise LikraError("--launcher takes --workers N as well")
    if launcher is None and (workers is not None or options):
        raise LikraError("--workers and --launcher-option need --launcher local, submitit or ray")


def _launching(launcher: str, workers: int, options: dict[str, object]) -> "RunStudy":
    from likra.launch.run import launch_study

    def run_one(study: Study, folder: Path, told: Log) -> "tuple[Run, pd.DataFrame]":
        return launch_study(study, launcher, workers, folder, told, options)

    return run_one
