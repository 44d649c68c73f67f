"""The commands. Heavy imports happen inside them: ``likra --help`` needs no torch."""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from likra.errors import LikraError

app = typer.Typer(
    name="likra",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learn from wrong answers as well as right ones: two LoRA heads on one frozen language "
    "model, and candidates ranked by the likelihood ratio L+ - w L- (arXiv:2503.14391).",
    epilog="Start with: likra run pocket",
)

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="'pocket', a local folder, or a name on the hub."),
]
TaskName = Annotated[
    str | None, typer.Option("--task", "-t", help="A task card: a built-in name, or a YAML file.")
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Folder with local data for the task: files named SPLIT.jsonl or NAME.SPLIT.jsonl "
        "(also json, csv, parquet)."
    ),
]
Snapshots = Annotated[
    str | None, typer.Option(help="Numbers of training examples, such as 8,16,32.")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or float16. The checkpoint's own, on a CPU float32."),
]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate of the heads.")]
BatchSize = Annotated[int | None, typer.Option(help="Examples of one optimizer step.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting, such as lora.r=16; repeatable."
    ),
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from likra import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="pocket, arc-challenge, or a YAML file.")
    ],
    model: Model = None,
    task: TaskName = None,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the results. [runs/NAME]")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, such as 0,1,2.")] = None,
    snapshots: Snapshots = None,
    negatives: Annotated[
        str | None,
        typer.Option(help="Sources of wrong answers: random_choice, other_question."),
    ] = None,
    modes: Annotated[
        str | None, typer.Option(help="Any of base,sft,likra,base-likra,positive-base.")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="Weight w of the negative term.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Solved examples before each evaluation question.")
    ] = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    long_prompts: Annotated[
        str | None,
        typer.Option(help="Of prompts longer than the model's context: error or truncate."),
    ] = None,
    dtype: Dtype = None,
    settings: Settings = None,
) -> None:
    """Run a study: train both heads at every seed and source, score, and draw the curves.

    Leaves heads, scores, curve.csv, summary.json, figures and report.html in the results' folder.
    What is there already is not computed again: a run that was stopped goes on.
    """
    overrides = _overrides(
        settings,
        model=model,
        task=task,
        data=data,
        seeds=_numbers("--seeds", seeds),
        snapshots=_numbers("--snapshots", snapshots),
        negatives=_names(negatives),
        modes=_names(modes),
        weight=weight,
        num_fewshot=num_fewshot,
        long_prompts=long_prompts,
        **{"training.learning_rate": lr, "training.batch_size": batch_size},
        dtype=dtype,
    )
    from likra.settings import read_study

    chosen = read_study(study, overrides)
    _quiet()
    from likra.study import run_study

    finished, points = run_study(chosen, output, typer.echo)
    _show(finished, points)


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the heads.")],
    model: Model = "pocket",
    task: TaskName = "pocket",
    data: Data = None,
    split: Annotated[
        str | None, typer.Option(help="Split to train on. [the card's training split]")
    ] = None,
    negatives: Annotated[
        str, typer.Option(help="Source of wrong answers: random_choice or other_question.")
    ] = "random_choice",
    snapshots: Annotated[
        str, typer.Option(help="Numbers of training examples, such as 32 or 8,16,32.")
    ] = "32",
    seed: Annotated[int, typer.Option(help="Of the order, the negatives and the heads.")] = 0,
    lr: LearningRate = 1e-3,
    batch_size: BatchSize = 8,
    dtype: Dtype = None,
    settings: Settings = None,
) -> None:
    """Train the positive and the negative head alone, on any base model.

    Leaves plain PEFT folders: heads/positive/seed=S/n=N and heads/negative/seed=S/source=K/n=N.
    """
    from likra.settings import parse_study

    chosen: dict[str, Any] = {"name": "train", "seeds": [seed], "negatives": [negatives]}
    overrides = _overrides(
        settings,
        model=model,
        task=task,
        data=data,
        train_split=split,
        snapshots=_numbers("--snapshots", snapshots),
        **{"training.learning_rate": lr, "training.batch_size": batch_size},
        dtype=dtype,
    )
    from likra.settings import override

    for key, value in overrides.items():
        override(chosen, key, value)
    study = parse_study(chosen, "the options")
    _quiet()
    from likra.study import train_heads

    finished = train_heads(study, output, typer.echo)
    for keys in finished.trainings:
        for head in keys:
            typer.echo(f"head   {finished.head_folder(head)}")


@app.command()
def plot(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
) -> None:
    """Compute curves, figures and report of a finished run again, from its score tables."""
    from likra.study import read_run, write_results

    finished = read_run(run_folder)
    _show(finished, write_results(finished))


def _overrides(settings: list[str] | None, **options: Any) -> dict[str, Any]:
    """The options that were given, and what ``--set`` adds."""
    import yaml

    given = {key: value for key, value in options.items() if value is not None}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise LikraError(f"--set takes KEY=VALUE, not '{setting}'")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise LikraError(f"--set {key}: '{value}' is not a YAML value") from error
    return given


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise LikraError(f"{option} takes whole numbers such as 8,16,32, not '{text}'") from error


def _show(finished: Any, points: Any) -> None:
    """The accuracies as a table on the terminal, and where everything is."""
    from rich.console import Console
    from rich.table import Table

    from likra.report.page import accuracy_rows, headline

    study = finished.study
    table = Table(title=f"{study.metric} on {study.task}: mean ± half of the 95% interval")
    table.add_column("mode", no_wrap=True)
    for n in (0, *study.snapshots):
        table.add_column(f"n = {n}", justify="right", no_wrap=True)
    for label, cells in accuracy_rows(points, study, study.metric):
        table.add_row(label, *cells)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if sentence := headline(points, study):
        console.print(sentence)
    typer.echo(f"report {finished.folder / 'report.html'}")


def _quiet() -> None:
    """Keep the libraries' chatter off the terminal; their errors still come."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def main() -> None:
    """The console script: a fault that the user can mend is one line and exit code 2."""
    try:
        app()
    except LikraError as error:
        _stop(str(error))
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        _stop(f"cannot read or write{where}: {error.strerror or error}")
    except KeyboardInterrupt:
        typer.echo("\nstopped: the same command goes on where this one was", err=True)
        sys.exit(130)


def _stop(message: str) -> None:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
