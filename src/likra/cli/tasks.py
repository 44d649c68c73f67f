"""What there is to know about tasks, in lines for a person."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from likra.data.card import CARDS, card_names
from likra.data.load import Task
from likra.questions import Question
from likra.study.config import Study
from likra.study.workbench import Workbench


@dataclass(frozen=True)
class CardSummary:
    """A card in a few words."""

    name: str
    dataset: str
    train_split: str | None
    eval_split: str | None
    choices: str
    prompt: str


def card_summaries() -> list[CardSummary]:
    """All cards that come with likra, read without opening any data."""
    summaries = []
    for name in card_names():
        card = _card(f"{name}.yaml")
        metadata = card.get("metadata") or {}
        composed = metadata.get("splits", {})
        train = card.get("training_split")
        summaries.append(
            CardSummary(
                name,
                str(card["dataset_path"]) if "data_files" not in str(card) else "with likra",
                " + ".join(composed["train"]) if "train" in composed else train,
                card.get("test_split") or card.get("validation_split"),
                str(metadata.get("choices", "")),
                _plain(metadata.get("prompt", card["doc_to_text"])),
            )
        )
    return summaries


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
    bench = Workbench(study, evaluates=False)
    task = bench.task
    split = split or task.eval_split or task.train_split or task.splits[0]
    questions = task.questions(split, study.num_fewshot, bench.rendering(task))
    shown = [questions[number] for number in range(min(count, len(questions)))]
    yield from _describe(task, split, len(questions))
    for question in shown:
        yield from _lines(question, bench.base.tokenizer if tokens else None)


def _describe(task: Task, split: str, count: int) -> Iterator[str]:
    yield f"{task.name}: splits {', '.join(task.splits)}; trained on {task.train_split or 'none'}, "
    yield f"evaluated on {task.eval_split or 'none'}. {split}: {count:,} questions."
    yield from task.notes


def _lines(question: Question, tokenizer: Any) -> Iterator[str]:
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
