"""The first stage of a study: questions, splits, leaks and notes, from the settings alone."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from likra.data.files import FileTask, read_wrong_answers
from likra.data.harness import HarnessTask
from likra.data.leakage import Leak, find_leaks
from likra.data.load import Task, read_task
from likra.data.rendering import ChatTemplate, Rendering, chat_template_of
from likra.errors import LikraError
from likra.negatives.mixture import parse_source
from likra.questions import Question, Subset
from likra.study.config import Study
from likra.study.examples import sources_of
from likra.text import comparable, shuffled

EVAL_FRACTION = 0.2  # held out of a task that has one split


@dataclass(frozen=True)
class Data:
    """The questions of a study, and what is known about them.

    Attributes:
        task: the name of the evaluated task.
        train_task: the name of the task that is trained on.
        eval_split: the evaluated split; "" where nothing is evaluated.
        train: the training questions, in the order of their split.
        evaluation: the evaluation questions that can be ranked, or those drawn of them.
        leaks: training questions that occur, or nearly occur, in the evaluation.
        notes: what the user should know about the data.
        others: the answers that the sampler ``other_task`` draws from.
        listed: the answers that the sampler ``file`` draws from, by question id.

    """

    task: str
    train_task: str
    eval_split: str
    train: Sequence[Question]
    evaluation: Sequence[Question] = ()
    leaks: tuple[Leak, ...] = ()
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)


def prepare(study: Study, *, evaluates: bool = True) -> Data:
    """Read the questions of a study.

    Args:
        study: its settings.
        evaluates: whether questions will be scored; without, only the training data are read.

    Raises:
        LikraError: what is wrong with the task, its data or their splits.

    """
    task = open_task(study, study.task, study.data)
    divided = ""
    if evaluates and study.train_task is None:
        task, divided = _with_evaluation(study, task)
    train_task = task
    if study.train_task is not None:
        train_task = open_task(study, study.train_task, study.train_data or study.data)
    train = _training_questions(study, train_task)
    eval_split, evaluation, notes = "", Subset((), ()), list[str]()
    if evaluates:
        eval_split = _eval_split(study, task)
        evaluation, notes = _evaluation_questions(study, task, eval_split)
    leaks = tuple(find_leaks(train, evaluation)) if evaluates else ()
    if study.on_leakage == "error" and leaks:
        raise LikraError(
            f"{leakage_summary(leaks)} (--on-leakage report continues, drop leaves them out)"
        )
    if study.on_leakage == "drop" and leaks:
        train = _without_leaks(train, leaks)
    return Data(
        task=task.name,
        train_task=train_task.name,
        eval_split=eval_split,
        train=train,
        evaluation=evaluation,
        leaks=leaks,
        notes=tuple(dict.fromkeys(filter(None, [*train_task.notes, *task.notes, divided, *notes]))),
        others=tuple(_other_answers(study)),
        listed=_listed_answers(study, train),
    )


def rendering(study: Study, task: Task) -> Rendering:
    """How the study renders the questions of a task.

    Raises:
        LikraError: a chat template is needed, and there is none.

    """
    asked = study.apply_chat_template
    needs_chat = task.needs_chat_template if asked is None else asked
    template = _chat_template(study) if needs_chat else None
    return Rendering(study.fewshot, template, study.on_bad_row)


def open_task(study: Study, name: str, data: str | None) -> Task:
    """Open a task as the study reads it."""
    return read_task(name, data, study.reading, allow_code=study.allow_code)


def _with_evaluation(study: Study, task: Task) -> tuple[Task, str]:
    """The task; where it has one split, with a part of it held out, and a note about that."""
    if None not in {task.train_split, task.eval_split} or study.train_split or study.eval_split:
        if study.eval_fraction is not None:
            raise LikraError(
                f"task '{task.name}' has splits of its own ({', '.join(task.splits)}): "
                "eval_fraction is for a task with one"
            )
        return task, ""
    if isinstance(task, HarnessTask) and task.lacks_training and study.eval_fraction is None:
        raise LikraError(f"{task.lacks_training}; with eval_fraction what there is is divided")
    fraction = EVAL_FRACTION if study.eval_fraction is None else study.eval_fraction
    # what is asked does not depend on the form of the prompt
    form = Rendering(on_bad_row=study.on_bad_row)
    return task.held_out(fraction, study.split_seed, form), (
        f"one split: {fraction:.0%} of its questions are held out for evaluation "
        f"(eval_fraction; split_seed {study.split_seed})"
    )


def _training_questions(study: Study, task: Task) -> Sequence[Question]:
    split = study.train_split or task.train_split
    if split is None:
        is_card = isinstance(task, HarnessTask)
        other = f", or name another configuration: {task.name}:CONFIGURATION" if is_card else ""
        raise LikraError(
            f"task '{task.name}' has no training split here: set train_split "
            f"(it has {', '.join(task.splits)}){other}"
        )
    return task.questions(split, 0, rendering(study, task))


def _without_leaks(train: Sequence[Question], leaks: Sequence[Leak]) -> Sequence[Question]:
    leaking = {leak.train_id for leak in leaks}
    kept = Subset.where(train, lambda question: question.id not in leaking)
    if not kept:
        raise LikraError(
            f"all {len(train):,} training questions also occur in the evaluation, and "
            "--on-leakage drop leaves none"
        )
    return kept


def _eval_split(study: Study, task: Task) -> str:
    split = study.eval_split or task.eval_split
    if split is None and study.train_task is not None and len(task.splits) == 1:
        return task.splits[0]  # a file of evaluation questions
    if split is None:
        raise LikraError(
            f"task '{task.name}' has no split to evaluate: set eval_split "
            f"(it has {', '.join(task.splits)})"
        )
    return split


def _evaluation_questions(study: Study, task: Task, split: str) -> tuple[Subset, list[str]]:
    """The questions that can be ranked, and notes."""
    form = rendering(study, task)
    if study.num_fewshot:
        task = _with_fewshot_pool(study, task, split, form)
    asked = task.questions(split, study.num_fewshot, form)
    ranked = Subset.where(asked, lambda question: question.can_be_ranked)
    if not ranked:
        raise LikraError(
            f"none of the {len(asked):,} questions of '{split}' has both a right and a wrong "
            "answer, so none can be ranked (`likra train` needs no evaluation)"
        )
    notes = []
    if len(ranked) < len(asked):
        notes.append(
            f"{split}: {len(asked) - len(ranked):,} of {len(asked):,} questions have only right "
            "or only wrong answers, and are not evaluated"
        )
    if study.eval_questions is None:
        return ranked, notes
    drawn, note = _drawn(ranked, study.eval_questions, study.split_seed)
    return drawn, [*notes, f"{split}: {note}"]


def _drawn(questions: Subset, count: int, seed: int) -> tuple[Subset, str]:
    """So many of the questions, in their order, and a note; more of them contain the fewer."""
    if count >= len(questions):
        return questions, f"all {len(questions):,} questions, where eval_questions is {count:,}"
    places = itertools.islice(shuffled(len(questions), random.Random(seed)), count)
    return (
        replace(questions, numbers=[questions.numbers[place] for place in sorted(places)]),
        f"{count:,} of {len(questions):,} questions, drawn by split_seed {seed}",
    )


def _with_fewshot_pool(study: Study, task: Task, split: str, form: Rendering) -> Task:
    """The task, its solved examples checked; with ``on_leakage: drop`` none of them leaks."""
    if isinstance(task, FileTask) and task.splits == [split]:
        raise LikraError(
            f"'{task.name}' has evaluation questions alone, and examples (num_fewshot) come from "
            "its training split: give a folder with both"
        )
    if study.on_leakage != "drop" or task.train_split is None:
        return task
    pool = task.questions(task.train_split, 0, form)
    leaks = find_leaks(pool, task.questions(split, 0, form))
    return task.without_examples({leak.train_id for leak in leaks})


def _chat_template(study: Study) -> ChatTemplate:
    """The tokenizer's chat template, or the one in the study's file."""
    from likra.heads.base import open_tokenizer

    tokenizer = open_tokenizer(study.model)
    if study.chat_template is not None:
        try:
            text = Path(study.chat_template).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise LikraError(f"'{study.chat_template}' is not UTF-8") from error
        tokenizer.chat_template = text
    if not tokenizer.chat_template:
        raise LikraError(
            f"task '{study.task}' needs a chat template, and the tokenizer of '{study.model}' has "
            "none: use an instruct model, or name a Jinja file with --set chat_template=FILE"
        )
    return chat_template_of(tokenizer)


def leakage_summary(leaks: Sequence[Leak]) -> str:
    """The leaks in one line."""
    if not leaks:
        return "none: no evaluation question is also a training question"
    exact = {leak.eval_id for leak in leaks if leak.exact}
    near = {leak.eval_id for leak in leaks} - exact
    shown = ", ".join(
        f"{leak.train_id} {'=' if leak.exact else '~'} {leak.eval_id}" for leak in leaks[:3]
    )
    more = ", ..." if len(leaks) > 3 else ""
    return (
        f"{len(exact):,} questions are in training and evaluation, and {len(near):,} nearly: "
        f"{shown}{more}"
    )


# --------------------------------------------------------------------------------------------
# What samplers draw from, beside the training questions


def arguments_of(study: Study, sampler: str) -> list[str]:
    """The arguments that the study's samplers of that name have."""
    parts = [part for source in sources_of(study) for part in parse_source(source)]
    return [part.argument for part in parts if part.source == sampler]


def uses(study: Study, *samplers: str) -> bool:
    """Whether a head draws from one of these samplers."""
    parts = [part for source in sources_of(study) for part in parse_source(source)]
    return any(part.source in samplers for part in parts)


def _other_answers(study: Study) -> list[str]:
    texts = []
    for name in arguments_of(study, "other_task"):
        task = read_task(name, study.other_data, allow_code=study.allow_code)
        split = task.train_split or task.eval_split or task.splits[0]
        for question in task.questions(split, 0, rendering(study, task)):
            texts += [choice.text for choice in question.right[:1]]
    return texts


def _listed_answers(study: Study, train: Sequence[Question]) -> dict[str, list[str]]:
    names = arguments_of(study, "file")
    by_key: dict[str, list[str]] = {}
    for name in names:
        for key, texts in read_wrong_answers(name):
            by_key.setdefault(key, []).extend(texts)
    return {
        question.id: by_key.get(question.id, by_key.get(comparable(question.stem), []))
        for question in (train if names else ())
    }
