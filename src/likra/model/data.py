"""The data that a model is fitted, taught or measured on: opened, and its questions read."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from likra.data.files import is_data_file, open_rows
from likra.data.load import Task, is_hub_name, read_task
from likra.data.reading import USUAL, Reading
from likra.data.rendering import Rendering, chat_template_of
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.model.prompt import Prompt, prompt_of
from likra.questions import Question, check_questions


def open_data(
    data: Any,
    reading: Reading = USUAL,
    source: str | None = None,
    *,
    of_its_own: bool = False,
) -> Task:
    """A task of whatever people have: a name, a path, rows or a `datasets.Dataset`.

    With ``of_its_own``, ``reading`` and ``source`` were given for other data, and are used as far
    as they mean something here.

    Raises:
        LikraError: it cannot be read.

    """
    if of_its_own:
        reading, source = (USUAL, source) if _is_card(data) else (reading, None)
    if isinstance(data, str | Path):
        return read_task(str(data), source, reading)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise LikraError(
            f"data is of type {type(data).__name__}: give a path, a datasets.Dataset or a list of "
            "dictionaries"
        )
    return open_rows(data, reading)


def read_for(prompt: Prompt, data: Any, reading: Reading = USUAL) -> Reading:
    """How data are read for a model: by the template of its prompts, if they are given no other.

    A card has a form of its own.
    """
    if reading.prompt_template is not None or _is_card(data):
        return reading
    return replace(reading, prompt_template=prompt.template)


def _is_card(data: Any) -> bool:
    """Whether data are a card or a task of the harness, and no file, data set or rows."""
    if not isinstance(data, str | Path):
        return False
    return not (is_data_file(str(data)) or is_hub_name(str(data)))


def read_questions(
    base: BaseModel, task: Task, chat: bool | None, on_bad_row: str = "error"
) -> tuple[list[Question], Prompt]:
    """The questions to train on, and the form of their prompts.

    Raises:
        LikraError: there are none.

    """
    is_chat = task.needs_chat_template if chat is None else chat
    rendering = rendering_of(base, is_chat, on_bad_row)
    questions = questions_of(task, rendering, task.train_split)
    check_questions(questions)
    return questions, prompt_of(task, questions, rendering)


def rendering_of(base: BaseModel, chat: bool, on_bad_row: str) -> Rendering:
    """How questions are rendered for a base model.

    Raises:
        LikraError: as turns of a chat, and its tokenizer has no chat template.

    """
    if not chat:
        return Rendering(on_bad_row=on_bad_row)
    if not base.tokenizer.chat_template:
        raise LikraError(
            f"the questions are chat messages, and the tokenizer of '{base.name}' has no chat "
            "template"
        )
    return Rendering(chat_template=chat_template_of(base.tokenizer), on_bad_row=on_bad_row)


def questions_of(task: Task, rendering: Rendering, split: str | None) -> list[Question]:
    """The questions of a split, or of the training split where it is None.

    Raises:
        LikraError: there is none.

    """
    split = split or task.train_split
    if split is None:
        raise LikraError(f"'{task.name}' has no training split: it has {', '.join(task.splits)}")
    return list(task.questions(split, rendering=rendering))
