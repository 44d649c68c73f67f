"""The commands that plan studies, train heads alone, and draw results; `run` has its own module."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from likra.cli.options import LogFormatOption, Output, with_settings
from likra.cli.terminal import log, print_table, quiet, results_in, say_failed, show_run
from likra.errors import LikraError, unknown
from likra.progress import LogFormat, write_as
from likra.study.config import (
    AnalysisSettings,
    Study,
    parse_study,
    read_study,
    replaced,
    with_analysis,
)

Overrides = dict[str, object]
StudyName = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY",
        help="A study (pocket, arc-challenge, paper/arc-llama3.2-3b ..., or a YAML file); or a "
        "task or data file as in --task, with the settings' defaults.",
    ),
]

with_study_settings = with_settings(
    "model task data train_task train_data columns answer_base prompt_template seeds snapshots "
    "negatives modes weight metric num_fewshot fewshot eval_fraction eval_questions on_leakage "
    "on_bad_row apply_chat_template allow_code training.learning_rate training.batch_size "
    "training.epochs training.report_to long_prompts dtype"
)


Seed = Annotated[
    int | None, typer.Option("--seed", help="One training seed; --seeds takes several.")
]


def _one_seed(overrides: Overrides, seed: int | None) -> Overrides:
    """The settings with --seed among them."""
    if seed is None:
        return overrides
    if "seeds" in overrides:
        raise LikraError("give --seed or --seeds, not both")
    return {**overrides, "seeds": [seed]}


def chosen_study(study: str | None, overrides: Overrides, seed: int | None) -> Study:
    """The study that a command names, with the settings that it gives."""
    overrides = _one_seed(overrides, seed)
    name = study or overrides.get("task")
    if not isinstance(name, str):
        raise LikraError("name a study, a task or a data file, such as: likra run pocket")
    return read_study(name, overrides)


@with_study_settings
def plan(
    overrides: Overrides,
    study: StudyName = None,
    output: Output = None,
    seed: Seed = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Time a few batches, for an estimate of the time. Without it the model's weights "
            "are not read.",
        ),
    ] = True,
) -> None:
    """Show what `likra run` would compute with the same options: heads, tokens, disk and time.

    Writes nothing. What is in the results' folder, or in another run beside it, counts as done.
    """
    chosen = chosen_study(study, overrides, seed)
    quiet()
    from likra.study.plan import plan_lines, plan_study

    cells = [(chosen, output)]
    if chosen.models or chosen.tasks:
        from likra.study.grid import grid_studies

        folder = output or Path("runs") / chosen.name
        cells = [(cell, folder / cell.name) for cell in grid_studies(chosen)]
    for cell, place in cells:
        for line in plan_lines(plan_study(cell, place, log, calibrate=calibrate)):
            log(line)


@with_settings(
    "model task data train_split columns answer_base prompt_template seeds snapshots negatives "
    "on_bad_row apply_chat_template allow_code training.learning_rate training.batch_size "
    "training.epochs training.report_to long_prompts dtype",
    defaults=True,
)
def train(
    overrides: Overrides,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the heads.")],
    heads: Annotated[
        str,
        typer.Option(
            help="Heads to train: positive, negative, or both, on the same questions as far as "
            "enough of them have a right and a wrong answer.",
        ),
    ] = "both",
    seed: Seed = None,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Train the positive and the negative head on any base model, without evaluating them.

    Writes plain PEFT folders: heads/positive/seed=S/n=N and heads/negative/seed=S/source=K/n=N.
    """
    write_as(log_format)
    modes = {"both": ["likra"], "positive": ["sft"], "negative": ["base-likra"]}
    if heads not in modes:
        raise unknown("choice of heads", heads, modes)
    settings = {"name": "train", "modes": modes[heads]}
    study = parse_study(replaced(settings, _one_seed(overrides, seed)), "the options")
    with results_in(output):
        quiet()
        from likra.study.failures import IncompleteError
        from likra.study.run import train_heads

        failed: Sequence[str] = ()
        try:
            folders = train_heads(study, output, log)
        except IncompleteError as error:
            folders, failed = error.results, error.lines
    for folder in folders:
        log(f"head   {folder}")
    if failed:
        say_failed(failed)
        raise typer.Exit(1)


@with_settings(" ".join(AnalysisSettings.model_fields), example="weight=0.5")
def plot(
    overrides: Overrides,
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the results; by default the run's own."),
    ] = None,
) -> None:
    """Draw curves, figures and report of a finished run again, with other analysis settings.

    Reads the score tables only: nothing is trained or scored. The run keeps the new settings; with
    --output it stays as it is.
    """
    from likra.report.results import write_results
    from likra.study.folder import read_run

    finished = read_run(run_folder)
    if overrides:
        finished = replace(finished, study=with_analysis(finished.study, overrides))
    show_run(finished, write_results(finished, output), output)


def compare(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="Folders of finished runs.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path(
        "compare.html"
    ),
) -> None:
    """Put several runs on one page: curves, accuracies, paired differences on shared questions."""
    from likra.report.compare import write_comparison

    for line in write_comparison(run_folders, output):
        log(f"no paired differences of {line}")
    log(f"report {output}")


def pack(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for a small copy of the run, to keep under version control or to take to "
            "another machine; by default the run's own score tables are packed where they are.",
        ),
    ] = None,
) -> None:
    """Pack the score tables of a run into one file, scores.parquet: some 4 bytes for each score.

    Nothing is lost: plot, compare and verdict read the file, and run computes only what is neither
    in it nor beside it. A copy has no heads and no texts of questions: study.yaml, cells.json,
    curve.csv, summary.json and scores.parquet.

    To continue on another machine: likra pack runs/NAME -o kept/NAME, and there the same likra run
    on a copy of that folder (--output), with more seeds, snapshots or modes; then pack it again.
    """
    from likra.study.pack import pack_run

    packed = pack_run(run_folder, output)
    for setting, path in packed.local.items():
        log(f"note   the study's {setting} is a path of this machine: {path}")
    log(f"packed {packed.n_tables:,} score tables, {packed.n_bytes / 1000:,.0f} kB: {packed.path}")


def verdict(
    run_folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [RUN ...]", help="Folders of finished or packed runs."),
    ],
    mode: Annotated[str, typer.Option(help="The mode that is judged.")] = "likra",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODE,...", help="The modes it is compared with; by default all of the run."
        ),
    ] = None,
    samplers: Annotated[
        bool,
        typer.Option(
            "--samplers",
            help="Compare the mode with itself: the run's first sampler of wrong answers against "
            "each other one.",
        ),
    ] = False,
    metric: Annotated[
        str | None, typer.Option(help="acc or acc_norm; by default the run's own.")
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(help="Weight w of every negative term; by default the run's own."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A .md or .csv file for all intervals and p-values as well."
        ),
    ] = None,
) -> None:
    """Say where a mode wins, ties or loses against each other mode, by number of examples.

    Each cell is the difference in accuracy on the same questions, mean over seeds. It wins or
    loses where the 95% interval, over questions and seeds together, excludes 0, and ties where it
    does not. A star: the verdict holds after Holm's correction for all comparisons of the run.
    Reads the score tables only.

    Such as: likra verdict runs/arc runs/sciq --against sft,dpo-reward,pmi --metric acc -o wins.csv
    """
    from likra.report.verdicts import (
        METHOD,
        read_sampler_verdicts,
        read_verdicts,
        summary,
        write_verdicts,
    )

    if samplers and against:
        raise LikraError("--samplers compares a mode with itself: leave out --against")
    others = [name.strip() for name in against.split(",")] if against else []
    given = {"metric": metric, "weight": weight}
    settings = {key: value for key, value in given.items() if value is not None}
    if samplers:
        runs = read_sampler_verdicts(run_folders, mode, settings)
    else:
        runs = read_verdicts(run_folders, mode, others, settings)
    if output is not None:
        write_verdicts(runs, output)
    for one in runs:
        columns = [f"{one.judged} against", *(f"n = {n}" for n in one.numbers)]
        print_table(columns, one.grid(), title=one.title, numbers=True, width=200)
        log(one.summary())
    if len(runs) > 1:
        log(f"all {len(runs)} runs: {summary(runs)}")
    log(METHOD)
    if output is not None:
        log(f"table  {output}")
