"""The commands. Heavy imports happen inside them: ``likra --help`` needs no torch."""

import json
import os
import sys
import warnings
from collections.abc import Callable
from inspect import Signature, signature
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from likra.errors import LikraError, unknown

if TYPE_CHECKING:
    from likra.study.config import Study

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
    str | None,
    typer.Option(
        "--task",
        "-t",
        help="A card (`likra tasks` lists them, or your own YAML file), lm_eval:NAME for a task of "
        "lm-evaluation-harness, a data file (jsonl, json, csv, parquet), a folder of them, or "
        "OWNER/NAME on the hub.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Folder with local data for a card: files named SPLIT.jsonl or NAME.SPLIT.jsonl "
        "(also json, csv, parquet)."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE=NAME,...",
        help="Your file's own column names, such as prompt=frage,choices=A+B+C,answer=key. Roles: "
        "id, prompt, chosen, rejected, completion, label, choices, answer.",
    ),
]
OnBadRow = Annotated[
    str | None, typer.Option(help="Of rows that cannot be used: error, or skip and count them.")
]
ChatTemplate = Annotated[
    bool | None,
    typer.Option(
        "--apply-chat-template/--no-chat-template",
        help="Put prompts as a user's turn in the tokenizer's chat template. "
        "[where the data are chat messages]",
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
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of the results. [runs/NAME]")
]
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


def _chosen_study(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY",
            help="A study (pocket, arc-challenge, paper/arc-llama3.2-3b ..., or a YAML file); or a "
            "task or data file as in --task, with the settings' defaults.",
        ),
    ] = None,
    model: Model = None,
    task: TaskName = None,
    data: Data = None,
    train_task: Annotated[
        str | None,
        typer.Option(help="Train on another task or file than is evaluated. [the task]"),
    ] = None,
    train_data: Annotated[
        str | None, typer.Option(help="Folder with local data for --train-task. [--data]")
    ] = None,
    columns: Columns = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, such as 0,1,2.")] = None,
    snapshots: Snapshots = None,
    negatives: Annotated[
        str | None,
        typer.Option(help="Sources of wrong answers; `likra negatives` describes them."),
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(
            help="Any of base,sft,likra,base-likra,positive-base,pmi and, by TRL, dpo,dpo-reward,"
            "nca,kto,trl-sft. Only the heads that they need are trained: with base,base-likra the "
            "negative one alone."
        ),
    ] = None,
    weight: Annotated[float | None, typer.Option(help="Weight w of the negative term.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="Solved examples before each evaluation question.")
    ] = None,
    fewshot: Annotated[
        str | None,
        typer.Option(
            help="per-question, as lm-evaluation-harness draws them, or fixed: the same for all."
        ),
    ] = None,
    eval_fraction: Annotated[
        float | None,
        typer.Option(help="Of a task with one split, the part held out for evaluation. [0.2]"),
    ] = None,
    on_leakage: Annotated[
        str | None,
        typer.Option(
            help="Of training questions that stand, or nearly, in the evaluation: report, drop "
            "(not trained on) or error."
        ),
    ] = None,
    on_bad_row: OnBadRow = None,
    apply_chat_template: ChatTemplate = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    long_prompts: Annotated[
        str | None,
        typer.Option(help="Of prompts longer than the model's context: error or truncate."),
    ] = None,
    dtype: Dtype = None,
    settings: Settings = None,
) -> "Study":
    """The study that these options choose."""
    overrides = _overrides(
        settings,
        model=model,
        task=task,
        data=data,
        train_task=train_task,
        train_data=train_data,
        columns=_pairs("--columns", columns),
        seeds=_numbers("--seeds", seeds),
        snapshots=_numbers("--snapshots", snapshots),
        negatives=_names(negatives),
        modes=_names(modes),
        weight=weight,
        num_fewshot=num_fewshot,
        fewshot=fewshot,
        eval_fraction=eval_fraction,
        on_leakage=on_leakage,
        on_bad_row=on_bad_row,
        apply_chat_template=apply_chat_template,
        long_prompts=long_prompts,
        **{"training.learning_rate": lr, "training.batch_size": batch_size},
        dtype=dtype,
    )
    from likra.study.config import read_study

    if study is None and task is None:
        raise LikraError("name a study, a task or a data file, such as: likra run pocket")
    return read_study(study or task or "", overrides)


def _takes_a_study(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_chosen_study`; it gets the study as its first argument."""
    choosing = signature(_chosen_study).parameters
    own = list(signature(command).parameters.values())[1:]

    def with_options(**options: Any) -> None:
        study = _chosen_study(**{name: options.pop(name) for name in choosing})
        command(study, **options)

    parameters = [*choosing.values(), *own]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


@app.command()
@_takes_a_study
def run(study: "Study", output: Output = None) -> None:
    """Run a study: train both heads at every seed and source, score, and draw the curves.

    Leaves heads, scores, curve.csv, summary.json, figures and report.html in the results' folder.
    What is there already is not computed again: a run that was stopped goes on.

    Your own right and wrong answers: likra run answers.jsonl
    """
    _quiet()
    if study.models or study.tasks:
        _run_table(study, output)
        return
    from likra.study.run import run_study

    finished, points = run_study(study, output, typer.echo)
    _show(finished, points)


@app.command()
@_takes_a_study
def plan(
    study: "Study",
    output: Output = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Time a few batches, for an estimate of the time. Without, the model's weights "
            "are not read.",
        ),
    ] = True,
) -> None:
    """Show what `likra run` would compute, with the same options: heads, tokens, disk and time.

    Writes nothing. What is in the results' folder already counts as done.
    """
    _quiet()
    from likra.study.plan import plan_lines, plan_study

    cells = [(study, output)]
    if study.models or study.tasks:
        from likra.study.grid import table_studies

        folder = output or Path("runs") / study.name
        cells = [(cell, folder / cell.name) for cell in table_studies(study)]
    for cell, place in cells:
        for line in plan_lines(plan_study(cell, place, typer.echo, calibrate=calibrate)):
            typer.echo(line)


@app.command()
def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the heads.")],
    model: Model = "pocket",
    task: TaskName = "pocket",
    data: Data = None,
    split: Annotated[
        str | None, typer.Option(help="Split to train on. [the card's training split]")
    ] = None,
    heads: Annotated[
        str,
        typer.Option(
            help="positive, negative, or both: then on the same questions, as far as enough of "
            "them have a right and a wrong answer."
        ),
    ] = "both",
    negatives: Annotated[
        str, typer.Option(help="Source of wrong answers; `likra negatives` describes them.")
    ] = "random_choice",
    snapshots: Annotated[
        str | None,
        typer.Option(
            help="Numbers of training examples, such as 32 or 8,16,32. [powers of two, and all]"
        ),
    ] = None,
    columns: Columns = None,
    on_bad_row: OnBadRow = None,
    apply_chat_template: ChatTemplate = None,
    long_prompts: Annotated[
        str | None,
        typer.Option(help="Of prompts longer than the model's context: error or truncate."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order, the negatives and the heads.")] = 0,
    lr: LearningRate = 1e-3,
    batch_size: BatchSize = 8,
    dtype: Dtype = None,
    settings: Settings = None,
) -> None:
    """Train the positive and the negative head, without evaluating them, on any base model.

    Leaves plain PEFT folders: heads/positive/seed=S/n=N and heads/negative/seed=S/source=K/n=N.
    """
    from likra.study.config import parse_study

    modes = {"both": ["likra"], "positive": ["sft"], "negative": ["base-likra"]}
    if heads not in modes:
        raise unknown("choice of heads", heads, modes)
    chosen: dict[str, Any] = {"name": "train", "seeds": [seed], "negatives": [negatives]}
    chosen["modes"] = modes[heads]
    overrides = _overrides(
        settings,
        model=model,
        task=task,
        data=data,
        train_split=split,
        columns=_pairs("--columns", columns),
        on_bad_row=on_bad_row,
        apply_chat_template=apply_chat_template,
        long_prompts=long_prompts,
        snapshots=_numbers("--snapshots", snapshots),
        **{"training.learning_rate": lr, "training.batch_size": batch_size},
        dtype=dtype,
    )
    from likra.study.config import override

    for key, value in overrides.items():
        override(chosen, key, value)
    study = parse_study(chosen, "the options")
    _quiet()
    from likra.study.run import train_heads

    finished = train_heads(study, output, typer.echo)
    for keys in finished.trainings:
        for head in keys:
            typer.echo(f"head   {finished.head_folder(head)}")


@app.command()
def plot(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
) -> None:
    """Compute curves, figures and report of a finished run again, from its score tables."""
    from likra.report.results import write_results
    from likra.study.run import read_run

    finished = read_run(run_folder)
    _show(finished, write_results(finished))


@app.command()
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
        typer.echo(f"no paired differences of {line}")
    typer.echo(f"report {output}")


@app.command(
    name="eval",
    add_help_option=False,  # the harness has a help of its own, which comes after this one
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def evaluate(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(help="Folder with local data, for those of the tasks that are likra's cards."),
    ] = None,
) -> None:
    """Evaluate heads, or any model, with lm-evaluation-harness, its options unchanged.

    To the harness's models come two. What is in brackets is the default.

    \b
    --model likra: the heads that `likra train` or `likra run` left
      --model_args path=DIR           their folder
                   mode=MODE          likra, base-likra, positive-base, sft,
                                      base, or a baseline such as dpo (likra)
                   weight=W           of the negative term (1.0)
                   seed=S,n=N         which heads, where there are several
                   source=K           likewise, of the negative head
                   pretrained=MODEL   the base model (the folder's own)
                   ...                any argument of `--model hf`
    --model likra-base: a base model, scored by likra
      --model_args pretrained=MODEL   and any argument of `--model hf`

    Among the tasks may be likra's own cards.

    \b
    likra eval --model likra --model_args path=heads,n=32 --tasks arc_easy
    likra eval --model likra-base --model_args pretrained=pocket --tasks pocket
    """  # noqa: D301  (Click keeps the lines of a paragraph that begins with a backspace)
    if not context.args or {"-h", "--help"} & set(context.args):
        typer.echo(context.get_help())
        typer.echo("\nThe harness's own options:\n")
        _harness_help()
        return
    from likra.integrations.lm_eval_run import run_harness

    run_harness(context.args, data)


def _harness_help() -> None:
    from lm_eval._cli import HarnessCLI

    sys.argv = ["lm-eval", "run", "--help"]
    HarnessCLI().parse_args()


tasks_app = typer.Typer(
    invoke_without_command=True, help="Task cards: list them, or show how one puts its questions."
)
app.add_typer(tasks_app, name="tasks")


@tasks_app.callback()
def tasks(context: typer.Context) -> None:
    """List the task cards: data set, splits, number of choices, form of the prompt."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from likra.cli.tasks import card_summaries

    table = Table(caption="And lm_eval:NAME for any multiple-choice task of lm-evaluation-harness.")
    for column in ("task", "trained on / evaluated on", "choices", "prompt"):
        table.add_column(column, overflow="fold", no_wrap=column == "task")
    for card in card_summaries():
        splits = f"{card.train_split or 'none of its own'} / {card.eval_split}"
        table.add_row(card.name, f"{card.dataset}: {splits}", card.choices, card.prompt)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@tasks_app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="TASK", help="As in `likra run --task`.")],
    data: Data = None,
    columns: Columns = None,
    split: Annotated[str | None, typer.Option(help="Of the data. [what is evaluated]")] = None,
    count: Annotated[int, typer.Option("-n", help="How many questions to show.")] = 3,
    num_fewshot: Annotated[int, typer.Option(help="Solved examples before each question.")] = 0,
    fewshot: Annotated[str | None, typer.Option(help="per-question or fixed.")] = None,
    on_bad_row: OnBadRow = None,
    apply_chat_template: ChatTemplate = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Show the tokens of this model's tokenizer, too."),
    ] = None,
    settings: Settings = None,
) -> None:
    """Show questions as a model sees them, with the right and the wrong choices marked."""
    _quiet()
    from likra.cli.tasks import show_task
    from likra.study.config import read_study

    overrides = _overrides(
        settings,
        model=model,
        data=data,
        columns=_pairs("--columns", columns),
        num_fewshot=num_fewshot,
        fewshot=fewshot,
        on_bad_row=on_bad_row,
        apply_chat_template=apply_chat_template,
    )
    study = read_study(name, {"task": name, **overrides})
    for line in show_task(study, split, count, tokens=model is not None):
        typer.echo(line)


@app.command()
def negatives() -> None:
    """Describe the sources of wrong answers."""
    from rich.console import Console
    from rich.table import Table

    from likra.negatives.mixture import described_sources

    table = Table(caption="Mixtures: --negatives '0.5 random_choice + 0.5 generated'")
    for column in ("source", "gives"):
        table.add_column(column, overflow="fold", no_wrap=column == "source")
    for name, text in described_sources():
        table.add_row(name, text)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


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


def _pairs(option: str, text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(key and value for key, _, value in pairs):
        raise LikraError(f"{option} takes pairs such as prompt=frage,answer=key, not '{text}'")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise LikraError(f"{option} takes whole numbers such as 8,16,32, not '{text}'") from error


def _run_table(study: Any, output: Path | None) -> None:
    """Run every model on every task, and show their table."""
    from rich.console import Console
    from rich.table import Table

    from likra.study.grid import run_table

    folder, rows = run_table(study, output, typer.echo)
    table = Table(title=f"{study.metric}: mean ± half of the 95% interval")
    for column in rows.columns:
        table.add_column(column, overflow="fold")
    for row in rows.to_numpy().tolist():
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    typer.echo(f"table  {folder / 'table.md'} (and .csv, .tex)")


def _show(finished: Any, points: Any) -> None:
    """The accuracies as a table on the terminal, and where everything is."""
    from rich.console import Console
    from rich.table import Table

    from likra.report.html import accuracy_rows
    from likra.report.sentences import headline

    study = finished.study
    table = Table(title=f"{study.metric} on {study.task}: mean ± half of the 95% interval")
    table.add_column("mode", no_wrap=True)
    rows = accuracy_rows(points, study, study.metric)
    filled = [any(column) for column in zip(*(cells for _, cells in rows), strict=True)]
    for n in compress((0, *study.snapshots), filled):
        table.add_column(f"n = {n}", justify="right", no_wrap=True)
    for label, cells in rows:
        table.add_row(label, *compress(cells, filled))
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    summary = json.loads((finished.folder / "summary.json").read_text(encoding="utf-8"))
    if sentence := headline(points, study, summary["chance"]):
        console.print(sentence)
    typer.echo(f"report {finished.folder / 'report.html'}")


def _quiet() -> None:
    """Keep the libraries' chatter off the terminal; their errors still come."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    import logging

    import datasets
    from transformers.utils import logging as transformers_logging

    datasets.utils.logging.disable_progress_bar()
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
