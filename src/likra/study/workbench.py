"""What the cells of a study share: questions, answers, the opened base; checked and described."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from likra.data.card import CARDS
from likra.data.files import FileTask, read_wrong_answers
from likra.data.harness import HarnessTask
from likra.data.leakage import Leak, find_leaks
from likra.data.load import Task, load_task
from likra.data.rendering import ChatTemplate, Rendering, chat_template_of
from likra.errors import LikraError
from likra.negatives.mixture import Drawn, Part, draw, parse_source
from likra.negatives.samplers import Material
from likra.questions import Choice, Question
from likra.scores.weights import split_validation
from likra.study.config import Study
from likra.study.digests import card_digest, file_digest, model_digest
from likra.text import comparable, shuffled

OWN = {"random_choice", "all_choices", "hardest", "easiest"}  # sources of a question's own choices
VALIDATION = 20  # so few questions can choose nothing, and tell nothing
EVAL_FRACTION = 0.2  # held out of a task that has one split


@dataclass(frozen=True)
class Examples:
    """What one head is trained on: for each question its right answer and its wrong ones."""

    questions: list[Question]
    right: list[Choice]
    wrong: list[list[Choice]]
    refused: Counter[str]  # candidates for wrong answers, by reason
    taken: Counter[str]  # questions, by the part of a mixture that gave their wrong answers


def _drawn_right(question: Question, seed: int) -> Choice:
    """The right answer, of several one by the seed; any answer where there is no right one."""
    answers = question.right or question.choices[:1]
    if len(answers) == 1:
        return answers[0]
    return random.Random(f"{seed}/right/{question.id}").choice(answers)


def account(source: str, examples: Examples) -> str:
    """What the parts of a source gave, and which candidates were refused; "" where that is all."""
    parts = list(dict.fromkeys(part.source for part in parse_source(source)))
    taken = ", ".join(f"{part} {examples.taken[part]:,}" for part in parts)
    refused = ", ".join(f"{why} {count:,}" for why, count in examples.refused.most_common())
    said = [f"drawn from {taken}"] if len(parts) > 1 else []
    said += [f"candidates refused: {refused}"] if refused else []
    return "; ".join(said)


class Workbench:
    """The data and the model of a study, each made when first used.

    All input is checked before anything is computed or written.
    """

    def __init__(
        self, study: Study, say: Callable[[str], Any] = print, *, evaluates: bool = True
    ) -> None:
        """Take the settings; ``evaluates`` is whether any question will be scored."""
        self.study, self.say, self.evaluates = study, say, evaluates
        self.train_scores: dict[str, list[float]] = {}  # of training choices, under the base
        self.generated: dict[str, list[str]] = {}  # the base's own answers, by question
        self._orders: dict[tuple[int, int, bool, bool], tuple[list[int], list[int]]] = {}
        self._counts: dict[tuple[str, str | None], int] = {}

    # ----------------------------------------------------------------------------------------
    # Questions

    @cached_property
    def task(self) -> Task:
        """The opened task that is evaluated."""
        study = self.study
        task = load_task(study.task, study.data, columns=study.columns, on_bad_row=study.on_bad_row)
        if self.evaluates and study.train_task is None:
            return self._held_out(task)
        return task

    def _held_out(self, task: Task) -> Task:
        """The task; of one that has one split a part is evaluated."""
        study = self.study
        if None not in {task.train_split, task.eval_split} or study.train_split or study.eval_split:
            if study.eval_fraction is not None:
                raise LikraError(
                    f"task '{task.name}' has splits of its own ({', '.join(task.splits)}): "
                    "eval_fraction is for a task with one"
                )
            return task
        if isinstance(task, HarnessTask) and task.lacks_training and study.eval_fraction is None:
            raise LikraError(f"{task.lacks_training}; eval_fraction divides what there is")
        fraction = EVAL_FRACTION if study.eval_fraction is None else study.eval_fraction
        rendering = Rendering(on_bad_row=study.on_bad_row)
        divided = task.held_out(fraction, study.split_seed, rendering)
        divided.notes.append(
            f"one split: {fraction:.0%} of its questions are held out for evaluation "
            f"(eval_fraction; split_seed {study.split_seed})"
        )
        return divided

    @cached_property
    def train_task(self) -> Task:
        """The opened task that is trained on."""
        study = self.study
        if study.train_task is None:
            return self.task
        return load_task(
            study.train_task,
            study.train_data or study.data,
            columns=study.columns,
            on_bad_row=study.on_bad_row,
        )

    @cached_property
    def _all_train(self) -> Sequence[Question]:
        task = self.train_task
        split = self.study.train_split or task.train_split
        if split is None:
            is_card = isinstance(task, HarnessTask)
            other = f", or name another configuration: {task.name}:CONFIGURATION" if is_card else ""
            raise LikraError(
                f"task '{task.name}' has no training split here: set train_split "
                f"(it has {', '.join(task.splits)}){other}"
            )
        return task.questions(split, 0, self.rendering(task))

    @cached_property
    def train(self) -> Sequence[Question]:
        """The training questions, in the order of their split."""
        if self.study.on_leakage != "drop" or not self.leaks:
            return self._all_train
        leaking = {leak.train_id for leak in self.leaks}
        left = [question for question in self._all_train if question.id not in leaking]
        if not left:
            raise LikraError(
                f"all {len(self._all_train):,} training questions stand in the evaluation, too, "
                "and --on-leakage drop leaves none"
            )
        return left

    @cached_property
    def eval_split(self) -> str:
        """The name of the split that is evaluated.

        Raises:
            LikraError: there is none.

        """
        split = self.study.eval_split or self.task.eval_split
        if split is None and self.study.train_task is not None and len(self.task.splits) == 1:
            (split,) = self.task.splits  # a file of evaluation questions
        if split is None:
            raise LikraError(
                f"task '{self.task.name}' has no split to evaluate: set eval_split "
                f"(it has {', '.join(self.task.splits)})"
            )
        return split

    @cached_property
    def evaluation(self) -> list[Question]:
        """The evaluation questions that can be ranked."""
        rendering = self.rendering(self.task)
        alone = isinstance(self.task, FileTask) and self.task.splits == [self.eval_split]
        if self.study.num_fewshot and alone:
            raise LikraError(
                f"'{self.task.name}' has evaluation questions alone, and examples (num_fewshot) "
                "come from its training split: give a folder with both"
            )
        task = self.task
        if self.study.num_fewshot and self.study.on_leakage == "drop":
            task = self._without_leaking_examples(rendering)
        asked = task.questions(self.eval_split, self.study.num_fewshot, rendering)
        ranked = [question for question in asked if question.can_be_ranked]
        if not ranked:
            raise LikraError(
                f"none of the {len(asked):,} questions of '{self.eval_split}' has both a right "
                "and a wrong answer, so none can be ranked (`likra train` needs no evaluation)"
            )
        if len(ranked) < len(asked):
            self.task.notes.append(
                f"{self.eval_split}: {len(asked) - len(ranked):,} of {len(asked):,} questions have "
                "only right or only wrong answers, and are not evaluated"
            )
        return ranked

    def _without_leaking_examples(self, rendering: Rendering) -> Task:
        """Keep questions that leak from standing, solved, before the ones that they give away."""
        split = self.task.train_split
        if split is None:
            return self.task
        pool = self.task.questions(split, 0, rendering)
        asked = self.task.questions(self.eval_split, 0, rendering)
        return self.task.without_examples({leak.train_id for leak in find_leaks(pool, asked)})

    def rendering(self, task: Task) -> Rendering:
        """How the study wants a task's questions put."""
        study = self.study
        asked = study.apply_chat_template
        uses_chat = task.needs_chat_template if asked is None else asked
        template = self.chat_template if uses_chat else None
        return Rendering(study.fewshot, template, study.on_bad_row)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The tokenizer's chat template, or the one in the study's file."""
        tokenizer = self.base.tokenizer
        if self.study.chat_template is not None:
            try:
                text = Path(self.study.chat_template).read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise LikraError(f"'{self.study.chat_template}' is not UTF-8") from error
            tokenizer.chat_template = text
        if not tokenizer.chat_template:
            raise LikraError(
                f"task '{self.study.task}' needs a chat template, and the tokenizer of "
                f"'{self.study.model}' has none: use an instruct model, or name a Jinja file with "
                "--set chat_template=FILE"
            )
        return chat_template_of(tokenizer)

    @cached_property
    def leaks(self) -> list[Leak]:
        """What stands, or nearly stands, in both training and evaluation."""
        return find_leaks(self._all_train, self.evaluation)

    @cached_property
    def teaches(self) -> list[tuple[int, int]]:
        """For each training question, the numbers of its right and of its wrong answers."""
        return [(len(question.right), len(question.wrong)) for question in self.train]

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file of the user's that decides the numbers, by path (`likra.study.digests`).

        Of a local model, that of its folder; likra's own files and the hub's are left out.
        """
        study = self.study
        tasks = [self.task, self.train_task, *self._other_tasks]
        files = {file for task in tasks for file in task.files}
        files |= {Path(name) for name in self._arguments("file")}
        files |= {Path(study.chat_template)} if study.chat_template else set()
        files = {file for file in files if not file.is_relative_to(CARDS.parent)}
        found = {str(file): file_digest(file) for file in sorted(files)}
        for name in [study.task, study.train_task or study.task, *self._arguments("other_task")]:
            card = Path(name.rpartition(":")[0] or name)
            if card.suffix in {".yaml", ".yml"} and card.is_file():
                found[str(card)] = card_digest(card)
        if study.model != "pocket" and Path(study.model).is_dir():  # a folder hides no pocket
            found[study.model] = model_digest(Path(study.model))
        return found

    # ----------------------------------------------------------------------------------------
    # Answers

    @cached_property
    def material(self) -> Material:
        """What the sources of negatives draw from. The study fills in scores and samples."""
        return Material(
            self.train,
            self.train_scores,
            self._others,
            {"generated": self.generated, "file": self._listed},
            self.study.generation.match,
        )

    @cached_property
    def source_parts(self) -> list[Part]:
        """The parts of all sources that a trained head draws from."""
        sources = {source: None for _, source in self.study.trained if source is not None}
        return [part for source in sources for part in parse_source(source)]

    def uses(self, *names: str) -> bool:
        """Whether a trained head draws from one of these sources."""
        return any(part.source in names for part in self.source_parts)

    def _arguments(self, source: str) -> list[str]:
        return [part.argument for part in self.source_parts if part.source == source]

    @cached_property
    def _other_tasks(self) -> list[Task]:
        return [load_task(name, self.study.other_data) for name in self._arguments("other_task")]

    @cached_property
    def _others(self) -> list[str]:
        texts = []
        for task in self._other_tasks:
            split = task.train_split or task.eval_split or task.splits[0]
            for question in task.questions(split, 0, self.rendering(task)):
                texts += [choice.text for choice in question.right[:1]]
        return texts

    @cached_property
    def _listed(self) -> dict[str, list[str]]:
        named = self._arguments("file")
        by_key: dict[str, list[str]] = {}
        for name in named:
            for key, texts in read_wrong_answers(name):
                by_key.setdefault(key, []).extend(texts)
        return {
            question.id: by_key.get(question.id, by_key.get(comparable(question.stem), []))
            for question in (self.train if named else ())
        }

    def examples(self, seed: int, head: str, source: str | None, n: int) -> Examples:
        """What a head is trained on, in order.

        One seeded shuffle of the questions, made before any head. Those with answers for every
        head of the study come first, so that at every n all heads of a seed have seen answers to
        the same n questions, as far as there are as many; the others follow.

        Args:
            seed: of the order and the wrong answers.
            head: "positive", "negative" or a baseline.
            source: of the wrong answers.
            n: how many questions; fewer where fewer have what the head needs.

        """
        found = Examples([], [], [], Counter(), Counter())
        first, later = self._order(seed, n)
        for number, place in enumerate([*first, *later]):
            if len(found.questions) == n:
                if source and number >= len(first):  # passed over, and not in silence
                    found.refused.update(self._draw(self.train[place], seed, source).refused)
                continue
            question = self.train[place]
            if head != "negative" and not question.right:
                continue
            drawn = self._draw(question, seed, source) if source else None
            if drawn is not None:
                found.refused.update(drawn.refused)
            if drawn is None or drawn.answers[0]:
                found.taken.update(drawn.taken if drawn is not None else ())
                found.questions.append(question)
                found.right.append(_drawn_right(question, seed))
                found.wrong.append(drawn.answers[0] if drawn is not None else [])
        return found

    def _draw(self, question: Question, seed: int, source: str) -> Drawn:
        return draw(source, [question], seed, self.material)

    def _order(self, seed: int, n: int) -> tuple[list[int], list[int]]:
        """The places of questions with answers for every head, and of those passed over for them.

        As far as n examples of any head reach.
        """
        most = max([n, *self.study.snapshots])
        # samples and scores come later, and decide which questions have what
        key = (seed, most, bool(self.generated), bool(self.train_scores))
        if key not in self._orders:
            first: list[int] = []
            later: list[int] = []
            for place in shuffled(len(self.train), random.Random(seed)):
                if len(first) == most:
                    break
                question = self.train[place]
                serves = all(self._serves(question, seed, *head) for head in self.study.trained)
                (first if serves else later).append(place)
            self._orders[key] = first, later
        return self._orders[key]

    def _serves(self, question: Question, seed: int, head: str, source: str | None) -> bool:
        """Whether a question has what the head needs; of what is yet to be made, it may."""
        if head != "negative" and not question.right:
            return False
        if source is None or self._is_unmade(source):
            return True
        return bool(self._draw(question, seed, source).answers[0])

    def count(self, head: str, source: str | None) -> int:
        """At most how many training questions have what the head needs, whatever the seed."""
        if (head, source) not in self._counts:
            parts = {part.source for part in parse_source(source)} if source else set()
            if parts <= OWN or (source and self._is_unmade(source)):
                needs_wrong = bool(parts) and parts <= OWN
                counts = [
                    sum(
                        (right > 0 or head == "negative") and (wrong > 0 or not needs_wrong)
                        for right, wrong in self.teaches
                    )
                ]
            else:
                counts = [
                    sum(self._serves(question, seed, head, source) for question in self.train)
                    for seed in self.study.seeds
                ]
            self._counts[head, source] = min(counts)
        return self._counts[head, source]

    def _is_unmade(self, source: str) -> bool:
        """Whether the source draws from samples or scores that the study has yet to compute."""
        names = {part.source for part in parse_source(source)}
        return bool(
            ("generated" in names and not self.generated)
            or (names & {"hardest", "easiest"} and not self.train_scores)
        )

    @cached_property
    def snapshots(self) -> list[int]:
        """The numbers of training examples: the study's, or powers of two of batches up to all."""
        if self.study.snapshots:
            return self.study.snapshots
        counts = [self.count(head, source) for head, source in self.study.trained]
        most = min(counts, default=len(self.train))
        step, steps = self.study.training.batch_size, []
        while step < most:
            steps.append(step)
            step *= 2
        return [*steps, most] if most else []

    # ----------------------------------------------------------------------------------------
    # The model

    @cached_property
    def base(self) -> Any:
        """The opened base model."""
        from likra.heads.base import open_model, settle_threads

        base = open_model(self.study.model, dtype=self.study.dtype)
        settle_threads(base)
        return base

    @cached_property
    def encoded(self) -> Any:
        """The token pairs of the evaluation's choices."""
        from likra.heads.score import encode_questions

        truncate = self.study.long_prompts == "truncate"
        return encode_questions(self.base, self.evaluation, truncate=truncate)

    @cached_property
    def encoded_alone(self) -> Any:
        """The token pairs of the evaluation's choices without their questions."""
        from likra.heads.score import encode_answers

        asked = [question for question in self.evaluation for _ in question.choices]
        alone = [replace(c, context="") for q in self.evaluation for c in q.choices]
        return encode_answers(self.base, asked, alone)

    @property
    def lora(self) -> Any:
        """The shape of the heads."""
        from likra.heads.settings import LoraSettings

        settings = self.study.lora.model_dump()
        if isinstance(settings["target_modules"], list):
            settings["target_modules"] = tuple(settings["target_modules"])
        return LoraSettings(**settings)

    def encode(self, examples: Examples, head: str) -> Any:
        """The token pairs of each example that a head is trained on; an error names its question.

        For the negative head all wrong answers of a question are one example.
        """
        from likra.heads.score import encode_answers

        truncate = self.study.long_prompts == "truncate"
        answers = examples.wrong if head == "negative" else [[choice] for choice in examples.right]
        asked = [q for q, own in zip(examples.questions, answers, strict=True) for _ in own]
        flat = [choice for own in answers for choice in own]
        pairs = iter(encode_answers(self.base, asked, flat, truncate=truncate))
        return [[next(pairs) for _ in own] for own in answers]

    # ----------------------------------------------------------------------------------------
    # Checks, and what the user is told

    def check(self) -> None:
        """Refuse bad input before anything is written.

        Raises:
            LikraError: whatever is wrong with the model, the task, the questions or the snapshots.

        """
        from likra.heads.lora import fresh_head
        from likra.heads.sample import check_room

        self.check_answers()
        self.check_examples()
        if self.uses("generated"):
            check_room(self.base, self.study.generation.max_new_tokens)
        with fresh_head(self.base, self.lora, seed=0):
            pass  # the layers that it adapts are there

    def check_answers(self) -> None:
        """Refuse what can be refused without the model.

        Raises:
            LikraError: there are not enough answers to train on, or a snapshot is out of place.

        """
        from likra.heads.train import check_snapshots

        for head, source in self.study.trained:
            count = self.count(head, source)
            if not count:
                raise LikraError(self.nothing_to_train_on(head, source))
            check_snapshots(self.snapshots, self.study.training.batch_size, count)

    def check_examples(self) -> None:
        """Refuse a head that has too few examples, or one that does not fit, whatever the seed.

        What draws from samples or scores that are not there yet is passed over.

        Raises:
            LikraError: naming the source or the question.

        """
        for head, source in self.study.trained:
            if source is not None and self._is_unmade(source):
                continue
            for seed in self.study.seeds:
                examples = self.examples(seed, head, source, self.snapshots[-1])
                if len(examples.questions) < self.snapshots[-1]:
                    why = f" ({account(source, examples)})" if source else ""
                    raise LikraError(
                        f"{source or head} has answers to {len(examples.questions)} questions "
                        f"(seed {seed}), and a snapshot at {self.snapshots[-1]} needs as many: "
                        f"give fewer --snapshots{why}"
                    )
                self.encode(examples, head)

    @property
    def lacking(self) -> tuple[str, str | None]:
        """The head for which the fewest training questions have an answer."""
        return min(self.study.trained, key=lambda trained: self.count(*trained))

    def nothing_to_train_on(self, head: str, source: str | None) -> str:
        """What to say where no training question has an answer for a head."""
        if source is None:
            return (
                "no training question has a right answer: with --modes base,base-likra (likra "
                "train: --heads negative) the negative head is trained alone"
            )
        return (
            f"no training question has a wrong answer of source {source} for the {head} head: "
            "other_question and generated need none of the question's own"
        )

    def describe(self) -> None:
        """Say what will be computed with what."""
        base = self.base
        size = base.model.num_parameters()
        where = "" if base.device.type == "meta" else f" on {base.device}"  # meta: no weights
        self.say(f"model  {base.name}: {size:,} parameters{where}, {base.model.dtype}")
        self.say(f"layout {base.layout} ({base.layout_reason})")

    def describe_train(self) -> None:
        """Say what is trained on."""
        task, total = self.train_task, len(self.train)
        right = sum(n_right > 0 for n_right, _ in self.teaches)
        wrong = sum(n_wrong > 0 for _, n_wrong in self.teaches)
        several = sum(n_right > 1 for n_right, _ in self.teaches)
        self.say(f"task   {task.name}: {total:,} training questions")
        if min(right, wrong) < total:
            self.say(f"       {right:,} with a right answer, {wrong:,} with a wrong one")
        if several:
            self.say(f"       {several:,} have several right answers: each seed trains on one")

    def describe_evaluation(self) -> None:
        """Say what is evaluated, and what of it leaks."""
        n_cut = sum(pair.n_cut > 0 for pair in self.encoded)
        of = "" if self.train_task is self.task else f"task {self.task.name}, "
        self.say(f"       {len(self.evaluation):,} evaluation questions ({of}{self.eval_split})")
        if (fraction := self.study.validation_fraction) is not None:
            aside = self._validation(fraction)
            self.say(f"       {aside:,} of these set aside to choose the weight on, not reported")
        if n_cut:
            self.say(
                f"       {n_cut:,} of {len(self.encoded):,} prompts are cut from the left "
                f"to the model's context of {self.base.max_length} tokens"
            )
        self.say(self._leakage_line())

    def _validation(self, fraction: float) -> int:
        """How many questions are set aside.

        Raises:
            LikraError: too few on either side.

        """
        aside = int(split_validation([q.id for q in self.evaluation], fraction).sum())
        left = len(self.evaluation) - aside
        if min(aside, left) < VALIDATION:
            raise LikraError(
                f"validation_fraction {fraction} sets {aside} questions aside and leaves {left}: "
                f"either side needs {VALIDATION}"
            )
        return aside

    def describe_notes(self) -> None:
        """Say what there is to know about the data."""
        for note in dict.fromkeys([*self.train_task.notes, *self.task.notes]):
            self.say(f"data   {note}")

    def _leakage_line(self) -> str:
        leaks = self.leaks
        if not leaks:
            return "leaks  none: no evaluation question stands in the training split"
        exact = {leak.eval_id for leak in leaks if leak.exact}
        near = {leak.eval_id for leak in leaks} - exact
        shown = ", ".join(
            f"{leak.train_id} {'=' if leak.exact else '~'} {leak.eval_id}" for leak in leaks[:3]
        )
        more = ", ..." if len(leaks) > 3 else ""
        line = (
            f"{len(exact):,} questions stand in training and evaluation, and {len(near):,} "
            f"nearly: {shown}{more}"
        )
        if self.study.on_leakage == "error":
            raise LikraError(f"{line} (--on-leakage report goes on, drop leaves them out)")
        dropped = "; they are not trained on" if self.study.on_leakage == "drop" else ""
        return f"leaks  {line}{dropped}"
