"""The commands that describe tasks and samplers of wrong answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from likra.cli.options import with_settings
from likra.cli.terminal import log, print_table, quiet
from likra.data.card import CARDS, card_names
from likra.study.config import Study, read_study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from likra.data.load import Task
    from likra.questions import Question

tasks_app = typer.Typer(
    invoke_without_command=True, help="Task cards: list them, or show the questions of a task."
)


@tasks_app.callback()
def tasks(context: typer.Context) -> None:
    """List the task cards: data set, splits, number of choices, form of the prompt."""
    if context.invoked_subcommand is not None:
        return
    print_table(
        ("task", "trained on / evaluated on", "choices", "prompt"),
        (
            (card.name, f"{card.dataset}: {card.splits}", card.choices, card.prompt)
            for card in card_summaries()
        ),
        caption="Also lm_eval:NAME, for any multiple-choice task of lm-evaluation-harness.",
    )


@tasks_app.command()
@with_settings(
    "data",
    "columns",
    "num_fewshot",
    "fewshot",
    "on_bad_row",
    "apply_chat_template",
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
    """Show questions as a model sees them, with the right and the wrong choices marked."""
    quiet()
    chosen = {"task": name, **overrides} | ({"model": model} if model else {})
    study = read_study(name, chosen)
    for line in show_task(study, split, count, tokens=model is not None):
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


@dataclass(frozen=True)
class CardSummary:
    """A card in a few words."""

    name: str
    dataset: str
    splits: str
    choices: str
    prompt: str


def card_summaries() -> Iterator[CardSummary]:
    """All cards that come with likra, read without opening any data."""
    for name in card_names():
        card = _card(f"{name}.yaml")
        metadata = card.get("metadata") or {}
        train = " + ".join(metadata.get("splits", {}).get("train", [])) or card.get(
            "training_split"
        )
        evaluated = card.get("test_split") or card.get("validation_split")
        yield CardSummary(
            name,
            str(card["dataset_path"]) if "data_files" not in str(card) else "with likra",
            f"{train} / {evaluated}",
            str(metadata.get("choices", "")),
            _plain(metadata.get("prompt", card["doc_to_text"])),
        )


def _plain(prompt: str) -> str:
    return prompt.replace("\n", "\\n").replace("{{", "{").replace("}}", "}")


def _card(file: str) -> dict[str, Any]:
    """A card, without the harness, whose import takes seconds."""
    card: dict[str, Any] = yaml.safe_load((CARDS / file).read_text(encoding="utf-8"))
    return {**_card(card["include"]), **card} if "include" in card else card


def show_task(study: Study, split: str | None, count: int, *, tokens: bool) -> Iterator[str]:
    """Questions as a model sees them, in lines.

    Args:
        study: its task, data and rendering are used, and with ``tokens`` its model.
        split: of the task; by default what is evaluated.
        count: how many questions.
        tokens: whether to show the tokens of the choices.

    Raises:
        LikraError: as `likra.data.load.load_task` and `Task.questions`.

    """
    from likra.heads.base import open_tokenizer
    from likra.study.prepare import open_task, rendering

    task = open_task(study, study.task, study.data)
    split = split or task.eval_split or task.train_split or task.splits[0]
    questions = task.questions(split, study.num_fewshot, rendering(study, task))
    shown = [questions[number] for number in range(min(count, len(questions)))]
    yield from _describe(task, split, len(questions))
    tokenizer = open_tokenizer(study.model) if tokens else None
    for question in shown:
        yield from _lines(question, tokenizer)


def _describe(task: "Task", split: str, count: int) -> Iterator[str]:
    yield f"{task.name}: splits {', '.join(task.splits)}; trained on {task.train_split or 'none'}, "
    yield f"evaluated on {task.eval_split or 'what a run holds out'}. {split}: {count:,} questions."
    yield from task.notes


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
