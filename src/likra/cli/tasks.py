"""The commands that describe tasks and samplers of wrong answers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from likra.cli.options import with_settings
from likra.cli.terminal import log, print_table, quiet
from likra.data.card import CARDS, card_names
from likra.study.config import Study, parse_study, replaced

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from likra.questions import Question

tasks_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Task cards: list them, or show the questions of a task.",
)


@tasks_app.callback()
def tasks(context: typer.Context) -> None:
    """List the task cards: data set, splits, number of choices, form of the prompt."""
    if context.invoked_subcommand is not None:
        return
    print_table(
        ("task", "trained on / evaluated on", "choices", "prompt"),
        map(_summary, card_names()),
        caption="Also lm_eval:NAME, for any multiple-choice task of lm-evaluation-harness.",
    )


@tasks_app.command()
@with_settings(
    "data columns answer_base prompt_template num_fewshot fewshot on_bad_row apply_chat_template "
    "allow_code",
    defaults=True,
    example="split_seed=1",
)
def show(
    overrides: dict[str, object],
    name: Annotated[str, typer.Argument(metavar="TASK", help="As in `likra run --task`.")],
    split: Annotated[
        str | None, typer.Option(help="Split of the data; by default what is evaluated.")
    ] = None,
    count: Annotated[int, typer.Option("-n", help="Number of questions to show.")] = 3,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Also show the tokens of this model's tokenizer."),
    ] = None,
) -> None:
    """Show questions as a model sees them, with right and wrong marked."""
    quiet()
    chosen = {"task": name, **overrides} | ({"model": model} if model else {})
    study = parse_study(replaced({"name": "show"}, chosen), f"task '{name}'")
    for line in _show_task(study, split, count, tokens=model is not None):
        log(line)


def negatives() -> None:
    """Describe the samplers of wrong answers."""
    from likra.negatives.mixture import described_samplers

    print_table(
        ("sampler", "gives"),
        described_samplers(),
        caption="Mixtures: --negatives '0.5 random_choice + 0.5 generated'",
        width=120,
    )


def _summary(name: str) -> tuple[str, str, str, str]:
    """A card that comes with likra as a row of the table, read without opening any data."""
    card = _card(f"{name}.yaml")
    metadata = card.get("metadata") or {}
    dataset = "with likra" if "data_files" in str(card) else card["dataset_path"]
    train = " + ".join(metadata.get("splits", {}).get("train", [])) or card.get("training_split")
    evaluated = card.get("test_split") or card.get("validation_split")
    prompt = metadata.get("prompt", card["doc_to_text"])
    for old, new in (("\n", "\\n"), ("{{", "{"), ("}}", "}")):
        prompt = prompt.replace(old, new)
    return name, f"{dataset}: {train} / {evaluated}", str(metadata.get("choices", "")), prompt


def _card(file: str) -> dict[str, Any]:
    """A card, without the harness, whose import takes seconds."""
    card: dict[str, Any] = yaml.safe_load((CARDS / file).read_text(encoding="utf-8"))
    return {**_card(card["include"]), **card} if "include" in card else card


def _show_task(study: Study, split: str | None, count: int, *, tokens: bool) -> Iterator[str]:
    """Questions as a model sees them, in lines."""
    from likra.heads.base import open_tokenizer
    from likra.study.prepare import open_task, rendering

    task = open_task(study, study.task, study.data)
    split = split or task.eval_split or task.train_split or task.splits[0]
    questions = task.questions(split, study.num_fewshot, rendering(study, task))
    shown = [questions[number] for number in range(min(count, len(questions)))]
    evaluated = task.eval_split or "what a run holds out"
    yield (
        f"{task.name}: splits {', '.join(task.splits)}; trained on {task.train_split or 'none'}, "
        f"evaluated on {evaluated}. {split}: {len(questions):,} questions."
    )
    yield from task.notes
    tokenizer = open_tokenizer(study.model) if tokens else None
    for question in shown:
        yield from _lines(question, tokenizer)


def _lines(question: "Question", tokenizer: "PreTrainedTokenizerBase | None") -> Iterator[str]:
    contexts = dict.fromkeys(choice.context for choice in question.choices)
    yield f"\n--- {question.id}"
    if len(contexts) == 1:
        yield next(iter(contexts))
    for choice in question.choices:
        before = repr(choice.context[-60:]) + " + " if len(contexts) > 1 else ""
        yield f"  {'right' if choice.is_right else 'wrong'}  {before}{choice.continuation!r}"
        if tokenizer is not None:
            from likra.engine.tokens import encode

            (pair,) = encode(tokenizer, [choice], 10**9)
            pieces = tokenizer.convert_ids_to_tokens(pair.continuation)
            yield f"         {len(pair.context)} tokens + {len(pieces)}: {' '.join(pieces)}"
