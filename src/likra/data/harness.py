"""Tasks that lm-evaluation-harness renders: cards, and its own."""

import functools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.data.card import card_config, card_path, read_card
from likra.data.pool import Answers
from likra.data.rendering import PLAIN, Rendering
from likra.data.splits import HELD_OUT, TRAIN, hold_out
from likra.errors import LikraError, unknown
from likra.questions import Choice, Question, check_question, check_questions
from likra.text import common_length, one_line

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

FEWSHOT_SEED = 1234  # the harness's own default


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
def _sandbox() -> "SandboxedEnvironment":
    """The harness's environment, sandboxed."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval.utils import regex_replace

    sandbox = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters["regex_replace"] = regex_replace
    compiled: Any = functools.lru_cache(1024)(sandbox.from_string)
    sandbox.from_string = compiled  # type: ignore[method-assign]
    return sandbox


@dataclass
class _FixedExamples:
    """A sampler that gives every question the same examples, but never the question itself."""

    documents: list[Any]

    def sample(self, n: int, eval_doc: Any = None, **_: Any) -> list[Any]:
        return [document for document in self.documents if document != eval_doc][:n]


@dataclass
class HarnessTask:
    """A task that lm-evaluation-harness renders: a card, or a task or group of its own.

    Attributes:
        name: as in results.
        open_part: opens the harness's ``ConfigurableTask`` of one part of the data set.
        part_names: the parts that make up the evaluation; ("",) where there is one.
        metadata: of the card.
        use_ids: whether the documents' own ids name the questions.
        notes: what the user should know about the data, said once.
        held_out: ids of the divided split's questions, by part.
        left_out: ids of questions that are never shown as examples.
        lacks_training: what to say where the card has training data and the local folder none.

    """

    name: str
    open_part: Callable[[str], Any]
    part_names: tuple[str, ...] = ("",)
    metadata: dict[str, Any] = field(default_factory=dict)
    use_ids: bool = True
    notes: list[str] = field(default_factory=list)
    held_out: dict[str, set[str]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    lacks_training: str = ""

    def __post_init__(self) -> None:
        self._parts: dict[str, Any] = {}
        self._whole = ""  # the split that is divided

    def part(self, name: str) -> Any:
        """The harness's task of one part, opened when first asked for."""
        if name not in self._parts:
            self._parts[name] = self.open_part(name)
        return self._parts[name]

    @property
    def files(self) -> list[Path]:
        """The local files that the opened parts read."""
        found = []
        for part in self._parts.values():
            data_files = (part.config.dataset_kwargs or {}).get("data_files")
            if isinstance(data_files, dict):
                found += [Path(file) for paths in data_files.values() for file in paths]
        return sorted(set(found))

    @property
    def harness_task(self) -> Any:
        """The harness's own ``ConfigurableTask`` of the first part."""
        return self.part(self.part_names[0])

    @property
    def needs_chat_template(self) -> bool:
        """Whether the card asks for the tokenizer's chat template."""
        return bool(self.metadata.get("apply_chat_template"))

    @cached_property
    def composed(self) -> dict[str, list[tuple[str, str]]]:
        """The (part, split) pairs of each split that the card makes of others."""
        composed: dict[str, list[tuple[str, str]]] = {}
        for split, members in self.metadata.get("splits", {}).items():
            pairs = [member.rpartition("/")[::2] for member in members]
            composed[split] = [
                (part, source)
                for name, source in pairs
                for part in (self.part_names if name == "*" else (name,))
            ]
        return composed

    @property
    def train_split(self) -> str | None:
        """The card's training split."""
        split: str | None = self.harness_task.config.training_split
        return TRAIN if TRAIN in {*self.composed, *self.held_out} else split

    @property
    def eval_split(self) -> str | None:
        """The split that the harness evaluates: test, else validation."""
        config = self.harness_task.config
        split: str | None = config.test_split or config.validation_split
        if self.held_out:
            return HELD_OUT
        return None if split == config.training_split else split

    @property
    def splits(self) -> list[str]:
        """All splits that can be asked for."""
        return sorted({*self.held_out, *self.composed, *map(str, self.harness_task.dataset)})

    def hold_out(self, fraction: float, seed: int, rendering: Rendering = PLAIN) -> None:
        """Divide the only split: a fraction of its questions, drawn by the seed, is held out.

        Raises:
            LikraError: there is nothing left on one side, or a question is no question.

        """
        self._whole = self.eval_split or self.train_split or self.splits[0]
        rendered = self._rendered(self._whole, 0, rendering)
        parts = hold_out((question.stem for question in rendered), fraction, seed)
        self.held_out = {
            name: {rendered[number].id for number in numbers} for name, numbers in parts.items()
        }

    def questions(
        self,
        split: str,
        num_fewshot: int = 0,
        rendering: Rendering = PLAIN,
    ) -> list[Question]:
        """All questions of a split, rendered as the harness renders them.

        Args:
            split: a split of the data set, or one that the card makes of others.
            num_fewshot: solved examples before each question.
            rendering: how examples are chosen, the chat template, what is done with bad rows.

        Raises:
            LikraError: no such split, or a question that is no question.

        """
        divided = self.held_out.get(split)
        rendered = self._rendered(split if divided is None else self._whole, num_fewshot, rendering)
        if divided is not None:
            rendered = [question for question in rendered if question.id in divided]
        if count := int(self.metadata.get("distractors", 0)):
            # by what they ask and answer, so that the order of the rows does not matter
            ordered = sorted(rendered, key=lambda q: (q.stem, [c.continuation for c in q.choices]))
            pool = Answers(ordered)
            rendered = [_with_distractors(question, pool, count) for question in rendered]
        check_questions(rendered)
        return rendered

    def _rendered(self, split: str, num_fewshot: int, rendering: Rendering) -> list[Question]:
        """The questions of a split of the data set or the card, without distractors."""
        rendered: list[Question] = []
        dropped: list[str] = []
        with sandboxed_templates():
            for name, source, prefix in self._members(split):
                for question in self._render(name, source, prefix, num_fewshot, rendering):
                    try:
                        rendered.append(_checked(question))
                    except LikraError as error:
                        if rendering.on_bad_row == "error":
                            raise
                        dropped.append(str(error))
        if dropped:
            self._note(f"{split}: {len(dropped)} rows left out ({dropped[0]})")
        return rendered

    def _members(self, split: str) -> Iterator[tuple[str, str, str]]:
        """The parts and their splits that make up a split, and a prefix for ids."""
        if split in self.composed:
            missing = []
            for name, source in self.composed[split]:
                try:
                    part = self.part(name)
                except LikraError as error:
                    if "holds no data" not in str(error):
                        raise
                    missing.append(f"{name}/{source}")
                    continue
                if source in part.dataset:
                    yield name, source, f"{name}/{source}/"
                else:
                    missing.append(f"{name}/{source}")
            if missing:
                self._note(f"{split}: not in the data, so left out: {', '.join(missing)}")
            return
        for name in self.part_names:
            if split not in self.part(name).dataset:
                raise unknown(f"split of task '{self.name}'", split, self.splits)
            yield name, split, f"{name}/" if len(self.part_names) > 1 else ""

    def _id(self, prefix: str, split: str, row: int, document: dict[str, Any]) -> str:
        identity = document.get("id") if self.use_ids else None
        return f"{prefix}{identity or f'{split}-{row}'}"

    def _examples_pool(self, name: str) -> list[Any] | None:
        """A part's documents for examples without those held out or left out; None if it has all.

        Without a split for them, the harness takes examples from the evaluated one.
        """
        part = self.part(name)
        away = self.left_out | self.held_out.get(HELD_OUT, set())
        split = part.fewshot_cfg.split
        if split is None and part.fewshot_cfg.samples is None:
            config = part.config
            split = config.training_split or config.validation_split or config.test_split
        if not away or split is None:
            return None
        prefixes = ("", f"{name}/", f"{name}/{split}/")  # those of `_members`
        return [
            document
            for row, document in enumerate(part.fewshot_docs())
            if away.isdisjoint(self._id(prefix, split, row, document) for prefix in prefixes)
        ]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _render(
        self, name: str, split: str, prefix: str, num_fewshot: int, rendering: Rendering
    ) -> Iterator[Question | LikraError]:
        part = self.part(name)
        documents = part.dataset[split]
        if part.config.process_docs is not None:
            documents = part.config.process_docs(documents)
        part.set_fewshot_seed(FEWSHOT_SEED)
        sampler = getattr(part, "sampler", None)
        pool = self._examples_pool(name) if num_fewshot else None
        if pool is not None and len(pool) < num_fewshot:
            raise LikraError(f"task '{self.name}' has {len(pool)} examples, not {num_fewshot}")
        if pool is not None and sampler is not None:
            part.sampler = type(sampler)(pool, rnd=None).set_rnd(FEWSHOT_SEED)
        if num_fewshot and rendering.fewshot == "fixed" and sampler is not None:
            pool = list(sampler.fewshot_docs()) if pool is None else pool
            wanted = min(num_fewshot + 1, len(pool))  # one more, should a question be among them
            part.sampler = _FixedExamples(random.Random(FEWSHOT_SEED).sample(pool, wanted))
        try:
            for row, document in enumerate(documents):
                identity = self._id(prefix, split, row, document)
                where = f"task '{self.name}', {prefix}{split} row {row}"
                try:
                    yield _question(part, document, identity, where, num_fewshot, rendering)
                except LikraError as error:
                    yield error
        finally:
            if sampler is not None:
                part.sampler = sampler


def _question(
    part: Any,
    document: dict[str, Any],
    name: str,
    where: str,
    num_fewshot: int,
    rendering: Rendering,
) -> Question:
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
    golds = _gold_indices(gold, texts, where)
    choices = tuple(
        Choice(request.args[0], request.args[1], text, is_right=number in golds)
        # where the harness also asks for the answers alone (acc_mutual_info), those come last
        for number, (request, text) in enumerate(zip(requests, texts, strict=False))
    )
    return Question(name, stem, choices, origin=where)


def _checked(question: Question | LikraError) -> Question:
    if isinstance(question, LikraError):
        raise question
    check_question(question)
    return question


def _gold_indices(gold: Any, texts: list[str], where: str) -> set[int]:
    golds = gold if isinstance(gold, list) else [gold]
    places = [texts.index(g) if isinstance(g, str) and g in texts else g for g in golds]
    for place in places:
        if not isinstance(place, int) or not 0 <= place < len(texts):
            raise LikraError(f"{where}: gold is {gold!r}, and there are {len(texts)} choices")
    return set(places)


def _stem(part: Any, document: dict[str, Any], texts: list[str]) -> str:
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


def _are_choices(value: Any, count: int) -> bool:
    """Whether a value is a list of as many items as there are choices, or columns of such."""
    columns = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(column, list) and len(column) == count for column in columns)


def _with_distractors(question: Question, pool: Answers, count: int) -> Question:
    generator = random.Random(f"distractors/{question.stem}")
    drawn = pool.of_others(question, generator)
    wrong = [choice for choice, _ in zip(drawn, range(count), strict=False)]
    return Question(question.id, question.stem, (*question.choices, *wrong), question.origin)


# --------------------------------------------------------------------------------------------
# Opening


def open_card(name: str, data: str | None = None, *, allow_code: bool = False) -> HarnessTask:
    """Open a card, or one configuration of its data set (``NAME:CONFIGURATION``).

    Args:
        name: a card's name or path.
        data: a local folder to read instead of the card's data set.
        allow_code: whether a card that comes from a path may run Python code.

    Raises:
        LikraError: no such card or configuration, a card that the harness does not understand or
            that runs code, or no such data.

    """
    card, _, configuration = (name, "", "") if Path(name).is_file() else name.partition(":")
    config = read_card(card_path(card), allow_code)
    metadata = config.get("metadata") or {}
    parts = tuple(metadata.get("configurations", ())) or (config.get("dataset_name") or "",)
    if configuration:
        if "configurations" in metadata and configuration not in parts:
            raise unknown(f"configuration of task '{card}'", configuration, parts)
        parts = (configuration,)

    def open_part(part: str) -> Any:
        config = card_config(card, data, part or None, allow_code=allow_code)
        return configurable_task(training_only(config))

    task = HarnessTask(f"{config['task']}{f':{configuration}' if configuration else ''}", open_part)
    task.part_names, task.metadata = parts, metadata
    task.notes += [metadata["overlaps"]] if "overlaps" in metadata else []
    task.part(parts[0])  # what is wrong with the card or its data is said now
    task.lacks_training = lacking(task, config, data)
    return task


def lacking(task: HarnessTask, config: dict[str, Any], data: str | None) -> str:
    """What to say where the configuration names training data that the folder does not hold.

    Without it, the evaluation split would be divided and trained on, unasked.
    """
    if data is None or not config.get("training_split") or task.train_split is not None:
        return ""
    files = ", ".join(sorted(p.name for p in Path(data).iterdir() if p.is_file())[:8])
    return (
        f"'{data}' holds no training data for task '{task.name}' (it holds {files}); another "
        "configuration of the data set is named as TASK:CONFIGURATION"
    )


def training_only(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration, where it has only training data so that the harness opens it.

    The harness wants something to evaluate. `HarnessTask.eval_split` does not count this one.
    """
    if config.get("training_split") and not (
        config.get("test_split") or config.get("validation_split")
    ):
        split = config["training_split"]
        return {**config, "test_split": split, "fewshot_split": split}
    return config


def configurable_task(config: dict[str, Any]) -> Any:
    """The harness's task of a configuration, its data loaded.

    Raises:
        LikraError: the data cannot be had, or the card does not fit them.

    """
    import datasets
    from lm_eval.api.task import ConfigurableTask

    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        with sandboxed_templates():
            return ConfigurableTask(config=dict(config))
    except Exception as error:  # whatever the data set's reader or the card's templates raise
        source = (config.get("dataset_kwargs") or {}).get("data_files")
        where = (
            ", ".join(os.fspath(p) for paths in source.values() for p in paths)
            if isinstance(source, dict)
            else f"{config.get('dataset_path')}: with --data FOLDER it is read from local files"
        )
        raise LikraError(
            f"cannot open the data of task '{config['task']}' ({where}): {one_line(error)}"
        ) from error
    finally:
        if bars:
            datasets.utils.logging.enable_progress_bar()
