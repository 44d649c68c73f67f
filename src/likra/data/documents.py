"""The harness's tasks: opened, and their documents as questions, rendered by the harness itself."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from likra.data.card import data_files
from likra.data.rendering import Rendering
from likra.errors import LikraError
from likra.hub import hub_or_cache, reason
from likra.questions import Choice, Question, check_question
from likra.text import common_length, one_line

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

    from likra.data.sandbox import Sandbox

Config = dict[str, Any]  # what the harness's ``ConfigurableTask`` takes
Document = dict[str, Any]


@contextmanager
def sandboxed_templates() -> Iterator[None]:
    """Within it, the harness renders cards in Jinja's sandbox, for a card's text is not code.

    Templates are compiled once each; the harness compiles them for each use, which takes nine
    tenths of its rendering time.
    """
    from lm_eval import utils

    saved, utils.env = utils.env, _sandbox()
    try:
        yield
    finally:
        utils.env = saved


@functools.cache
def _sandbox() -> "Sandbox":
    """The harness's environment, sandboxed."""
    from lm_eval.utils import regex_replace

    from likra.data.sandbox import Sandbox

    sandbox = Sandbox()
    sandbox.add_filter("regex_replace", regex_replace)
    compiled: Any = functools.lru_cache(1024)(sandbox.from_string)
    sandbox.from_string = compiled  # type: ignore[method-assign]
    return sandbox


def configurable_task(config: Config) -> "ConfigurableTask":
    """The harness's task of a configuration, its data loaded.

    The harness wants something to evaluate, so a task that has only training data evaluates them;
    `HarnessTask.eval_split` does not count this.

    Raises:
        LikraError: the data cannot be read, or the card does not fit them.

    """
    import datasets
    from lm_eval.api.task import ConfigurableTask, eval_logger

    training = config.get("training_split")
    if training and not (config.get("test_split") or config.get("validation_split")):
        config = {**config, "test_split": training, "fewshot_split": training}
    is_local = _is_local(config)
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    eval_logger.addFilter(_is_no_advice)
    try:
        with sandboxed_templates(), nullcontext() if is_local else hub_or_cache():
            return ConfigurableTask(config=dict(config))
    except Exception as error:  # whatever the data set's reader or the card's templates raise
        hint = f"{config.get('dataset_path')}: with --data FOLDER it is read from local files"
        local = [file for own in data_files(config).values() for file in own if "://" not in file]
        source = ", ".join(local) or hint
        why = one_line(error) if is_local else reason(error)
        raise LikraError(
            f"cannot open the data of task '{config['task']}' ({source}): {why}"
        ) from error
    finally:
        eval_logger.removeFilter(_is_no_advice)
        if bars:
            datasets.utils.logging.enable_progress_bar()


def _is_local(config: Config) -> bool:
    """Whether the data are files here, or what a function makes of them."""
    files = [file for own in data_files(config).values() for file in own]
    return "custom_dataset" in config or bool(files and all("://" not in file for file in files))


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Whether it is not what the harness logs for every ``custom_dataset``, which is no fault."""
    return "Custom kwargs can be passed" not in record.msg


def render(
    part: "ConfigurableTask",
    document: Document,
    name: str,
    where: str,
    num_fewshot: int,
    rendering: Rendering,
) -> Question:
    """A document of a harness's task as the question of that name; ``where`` is for messages.

    Raises:
        LikraError: the card's templates do not fit the document, or the question is unusable.

    """
    chat: dict[str, Any] = {}
    if rendering.chat_template is not None:
        chat = {"apply_chat_template": True, "chat_template": rendering.chat_template}
    try:
        context = part.fewshot_context(
            document,
            num_fewshot,
            gen_prefix=part.doc_to_prefix(document),
            fewshot_as_multiturn=bool(chat),
            **chat,
        )
        requests = part.construct_requests(document, context, **chat)
        texts = part.doc_to_choice(document)
        gold = part.doc_to_text(document) if part.multiple_input else part.doc_to_target(document)
        stem = _stem(part, document, texts)
    except Exception as error:  # a card's template may raise anything at all
        raise LikraError(f"{where}: the card does not fit the data ({one_line(error)})") from error
    if not all(isinstance(text, str | int | float) for text in texts):
        raise LikraError(f"{where}: the card's doc_to_choice gives what is no list of texts")
    texts = list(map(str, texts))
    golds = _gold_indices(gold, texts, where)
    choices = tuple(
        Choice(request.args[0], request.args[1], text, is_right=number in golds)
        # where the harness also asks for the answers alone (acc_mutual_info), those come last
        for number, (request, text) in enumerate(zip(requests, texts, strict=False))
    )
    question = Question(name, stem, choices, origin=where)
    check_question(question)
    return question


def _gold_indices(gold: object, texts: list[str], where: str) -> set[int]:
    """The places of the right choices, which a card gives as places or as texts."""
    places: set[int] = set()
    for item in gold if isinstance(gold, list) else [gold]:
        place = texts.index(item) if isinstance(item, str) and item in texts else item
        if not isinstance(place, int) or not 0 <= place < len(texts):
            raise LikraError(f"{where}: gold is {gold!r}, and there are {len(texts)} choices")
        places.add(place)
    return places


def _stem(part: "ConfigurableTask", document: Document, texts: list[str]) -> str:
    """What is asked, without answers: the one value of the document that the prompt shows.

    Where it shows more than one, as with a passage, the whole prompt: the same words about
    something else are another question.
    """
    # with choices in the context, the text is the gold's number, and the target what they share
    form = part.config.doc_to_target if part.multiple_input else part.config.doc_to_text
    fields: frozenset[str] = frozenset()
    if isinstance(form, str):
        fields = frozenset({form}) if form in document else _fields(form)
    values = [document[name] for name in fields if document.get(name) not in (None, "")]
    shown = [value for value in values if not _are_choices(value, len(texts))]
    if len(shown) == 1 and isinstance(shown[0], str):
        return shown[0]
    if part.multiple_input:
        return f"{texts[0][: common_length(texts)]}_ {part.doc_to_target(document)}"
    return str(part.doc_to_text(document))


@functools.lru_cache(1024)
def _fields(template: str) -> frozenset[str]:
    """What a template takes from a document."""
    from jinja2 import meta

    return frozenset(meta.find_undeclared_variables(_sandbox().parse(template)))


def _are_choices(value: object, count: int) -> bool:
    """Whether a value is a list of as many items as there are choices, or columns of such."""
    columns = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(column, list) and len(column) == count for column in columns)
