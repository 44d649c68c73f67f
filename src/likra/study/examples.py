"""What each head is trained on: pure functions of the questions, the samplers' material and a seed.

The examples of a head follow from (training questions, sampler, seed, n), and from nothing else in
the study. For each seed and sampler there is one written order of questions, the same for both
heads of the pair, so that at every n they have seen answers to the same n questions.
"""

import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

from likra.errors import LikraError
from likra.negatives.mixture import Drawn, draw, parse_source
from likra.negatives.samplers import Material
from likra.questions import Choice, Question
from likra.scores.ratio import MODES
from likra.scores.table import BASE, BASELINES, PRIOR, HeadKey
from likra.study.config import Study
from likra.text import shuffled

USUAL = "random_choice"  # whose order the positive head has where nothing else asks for another
# Samplers that give an answer exactly where a question has a wrong choice of its own.
OWN_CHOICES = {"random_choice", "all_choices", "hardest", "easiest"}
RIGHT_ALONE = {"positive", "trl-sft"}  # heads that learn nothing from wrong answers


@dataclass(frozen=True)
class Example:
    """A question with the right answer and the wrong answers that were drawn for it, if any."""

    question: Question
    right: Choice | None
    wrong: tuple[Choice, ...]

    def answers(self, head: str) -> tuple[Choice, ...]:
        """What a head learns from this example; nothing where an answer is missing.

        The positive head and SFT learn the right answer, the negative head the wrong ones, and the
        other methods the right and the first wrong one.
        """
        if not learns(head, has_right=self.right is not None, has_wrong=bool(self.wrong)):
            return ()
        if self.right is None or head == "negative":
            return self.wrong
        return (self.right,) if head in RIGHT_ALONE else (self.right, self.wrong[0])


def learns(head: str, *, has_right: bool, has_wrong: bool) -> bool:
    """Whether a head learns from an example with a right answer, or with wrong ones."""
    if head == "negative":
        return has_wrong
    return has_right and (has_wrong or head in RIGHT_ALONE)


@dataclass(frozen=True)
class Examples(Sequence[Example]):
    """Examples of some questions, each drawn when it is asked for.

    A draw is a function of the question, the sampler, the seed and the material, so it is the same
    each time, and only the questions' numbers are in memory.
    """

    questions: Sequence[Question]
    source: str
    seed: int
    material: Material
    numbers: "array[int]"

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        return self.drawn(self.numbers[index])[0]

    def drawn(self, number: int) -> tuple[Example, Drawn]:
        """The example of a question, with what was refused for it and taken."""
        question = self.questions[number]
        drawn = draw(self.source, [question], self.seed, self.material)
        return Example(question, _right(question, self.seed), tuple(drawn.answers[0])), drawn


@dataclass(frozen=True)
class PairedOrder:
    """The questions of a seed and a sampler in the order in which both heads see them.

    Attributes:
        examples: those with a right and a wrong answer first; then the others.
        has_right: whether each has a right answer.
        has_wrong: whether each has a wrong one.
        refused: candidates for wrong answers that were refused, by reason.
        taken: questions by the part of a mixture that gave their wrong answers.

    """

    examples: Examples
    has_right: Sequence[int]
    has_wrong: Sequence[int]
    refused: Counter[str]
    taken: Counter[str]

    def of(self, head: str, n: int) -> Examples:
        """The first n examples that a head can learn from; fewer where there are fewer."""
        kinds = zip(self.examples.numbers, self.has_right, self.has_wrong, strict=True)
        numbers = array(
            "Q",
            (
                number
                for number, right, wrong in kinds
                if learns(head, has_right=bool(right), has_wrong=bool(wrong))
            ),
        )
        return replace(self.examples, numbers=numbers[:n])


def paired_order(
    questions: Sequence[Question], material: Material, *, seed: int, source: str, n: int
) -> PairedOrder:
    """The first questions of the order, as far as n complete examples reach.

    One seeded shuffle of the questions. Those with a right and a wrong answer come first, so the
    order of n questions is the beginning of the order of more.
    """
    refused: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    examples = Examples(questions, source, seed, material, array("Q"))
    complete, incomplete = array("Q"), array("Q")
    has_right, has_wrong = bytearray(), bytearray()  # of the incomplete ones
    for number in shuffled(len(questions), random.Random(seed)):
        if len(complete) == n:
            break
        example, drawn = examples.drawn(number)
        refused.update(drawn.refused)
        taken.update(drawn.taken)
        if example.right is not None and example.wrong:
            complete.append(number)
        else:
            incomplete.append(number)
            has_right.append(example.right is not None)
            has_wrong.append(bool(example.wrong))
    both = bytearray([True]) * len(complete)
    examples = replace(examples, numbers=complete + incomplete)
    return PairedOrder(examples, both + has_right, both + has_wrong, refused, taken)


def _right(question: Question, seed: int) -> Choice | None:
    """The right answer; one of several is chosen by the seed."""
    if len(question.right) < 2:
        return question.right[0] if question.right else None
    return random.Random(f"{seed}/right/{question.id}").choice(question.right)


def sampler_report(source: str, order: PairedOrder) -> str:
    """What the parts of a mixture gave, and which candidates were refused; "" where neither."""
    parts = list(dict.fromkeys(part.source for part in parse_source(source)))
    taken = ", ".join(f"{part} {order.taken[part]:,}" for part in parts)
    refused = ", ".join(f"{why} ({count:,})" for why, count in order.refused.most_common())
    texts = [f"drawn from {taken}"] if len(parts) > 1 else []
    texts += [f"candidates refused: {refused}"] if refused else []
    return "; ".join(texts)


# --------------------------------------------------------------------------------------------
# The training runs of a study


@dataclass(frozen=True)
class Training:
    """One training run: a head that sees the examples in order, with snapshots on the way.

    Attributes:
        head: "positive", "negative" or a baseline.
        seed: of the order, the wrong answers and the head's initialisation.
        source: the sampler of wrong answers; of a positive head, None where it has the usual order.
        snapshots: numbers of examples, ascending.
        examples: as many as the last snapshot.
        report: what the sampler drew and refused, in words.

    """

    head: str
    seed: int
    source: str | None
    snapshots: tuple[int, ...]
    examples: Sequence[Example]
    report: str = ""

    @property
    def keys(self) -> list[HeadKey]:
        """The snapshots' keys."""
        return [HeadKey(self.head, n, self.seed, self.source) for n in self.snapshots]

    @property
    def is_own_positive(self) -> bool:
        """Whether it is the positive head of a single sampler's pair."""
        return self.head == "positive" and self.source is not None

    def answers(self) -> Iterator[tuple[Choice, ...]]:
        """The answers of each example, in order."""
        return (example.answers(self.head) for example in self.examples)


def heads_of(study: Study) -> list[tuple[str, str | None]]:
    """The heads that the modes need, each with its sampler; None for the usual order."""
    terms = {head for mode in study.modes for head in (MODES[mode].positive, MODES[mode].negative)}
    heads: list[tuple[str, str | None]] = [("positive", None)] if "positive" in terms else []
    heads += [("negative", source) for source in study.negatives if "negative" in terms]
    for name in BASELINES:
        if name in terms:
            heads.append((name, None if name == "trl-sft" else study.negatives[0]))
    return heads


def untrained_of(study: Study) -> list[HeadKey]:
    """What is scored without training."""
    needs_prior = any(MODES[mode].negative == "prior" for mode in study.modes)
    return [BASE, PRIOR] if needs_prior else [BASE]


def sources_of(study: Study) -> list[str]:
    """The samplers that the heads use."""
    return list(dict.fromkeys(source for _, source in heads_of(study) if source is not None))


def trainings(
    study: Study, questions: Sequence[Question], material: Material
) -> Iterator[Training]:
    """The training runs of a study, for each seed the positive heads first.

    A sampler may lack wrong answers to some questions. Likra compares heads that saw the same
    questions, so where such a sampler's pair saw others than the usual positive head, it has a
    positive head of its own. These are among the runs whatever the modes: see `needed`.
    """
    n = study.snapshots[-1]
    for seed in study.seeds:
        orders = {
            source: paired_order(questions, material, seed=seed, source=source, n=n)
            for source in dict.fromkeys([USUAL, *sources_of(study)])
        }
        for head, source, snapshots in _with_own_positives(study, orders):
            order = orders[source or USUAL]
            report = sampler_report(source, order) if source and head != "positive" else ""
            examples = order.of(head, snapshots[-1])
            yield Training(head, seed, source, snapshots, examples, report)


def _with_own_positives(
    study: Study, orders: Mapping[str, PairedOrder]
) -> list[tuple[str, str | None, tuple[int, ...]]]:
    """The heads and their snapshots, with the positive heads of single samplers."""
    heads = [(head, source, tuple(study.snapshots)) for head, source in heads_of(study)]
    usual = _with_right(orders[USUAL])
    own: list[tuple[str, str | None, tuple[int, ...]]] = []
    for head, source, snapshots in heads:
        if head == "negative" and source:
            seen = _with_right(orders[source])
            if others := tuple(n for n in snapshots if seen[:n] != usual[:n]):
                own.append(("positive", source, others))
    first = 1 if heads and heads[0][0] == "positive" else 0
    return [*heads[:first], *own, *heads[first:]]


def _with_right(order: PairedOrder) -> "array[int]":
    return order.of("positive", len(order.examples)).numbers


def needed(study: Study, runs: Iterable[Training]) -> tuple[Training, ...]:
    """The training runs that the modes of a study need.

    Raises:
        LikraError: one has fewer examples than its last snapshot.

    """
    kept = tuple(run for run in runs if not run.is_own_positive or "likra" in study.modes)
    for run in kept:
        if len(run.examples) < run.snapshots[-1]:
            raise _too_few(run)
    return kept


def _too_few(training: Training) -> LikraError:
    n = training.snapshots[-1]
    why = f" ({training.report})" if training.report else ""
    return LikraError(
        f"{training.source or training.head} has answers to {len(training.examples):,} questions "
        f"(seed {training.seed}), and a snapshot at {n:,} needs as many: give fewer "
        f"--snapshots{why}"
    )


# --------------------------------------------------------------------------------------------
# How many examples there are


def available(
    questions: Sequence[Question], material: Material, study: Study
) -> dict[tuple[str, str | None], int]:
    """How many training questions each head can learn from, whatever the seed."""
    heads = heads_of(study)
    counts = dict.fromkeys(heads, 0)
    own = [head for head in heads if head[1] is None or _needs_own_choice(head[1])]
    for question in questions:
        for head, source in own:
            has_right = bool(question.right) or head == "negative"
            counts[head, source] += has_right and (source is None or bool(question.wrong))
    for head, source in heads:
        if source is not None and (head, source) not in own:
            counts[head, source] = min(
                sum(
                    (bool(question.right) or head == "negative")
                    and bool(draw(source, [question], seed, material).answers[0])
                    for question in questions
                )
                for seed in study.seeds
            )
    return counts


def _needs_own_choice(source: str) -> bool:
    return {part.source for part in parse_source(source)} <= OWN_CHOICES


def with_snapshots(study: Study, counts: Mapping[tuple[str, str | None], int]) -> Study:
    """The study with its numbers of training examples: its own, or powers of two batches and all.

    Raises:
        LikraError: a head has nothing to learn from.

    """
    for (head, source), count in counts.items():
        if not count:
            raise _nothing_to_train_on(head, source)
    if study.snapshots:
        return study
    if not counts:  # nothing is trained
        return study.model_copy(update={"snapshots": [study.training.batch_size]})
    most, step, steps = min(counts.values()), study.training.batch_size, []
    while step < most:
        steps.append(step)
        step *= 2
    return study.model_copy(update={"snapshots": [*steps, most]})


def _nothing_to_train_on(head: str, source: str | None) -> LikraError:
    if source is None:
        return LikraError(
            "no training question has a right answer: with --modes base,base-likra (likra train: "
            "--heads negative) the negative head is trained alone"
        )
    return LikraError(
        f"no training question has a wrong answer of source {source} for the {head} head: "
        "other_question and generated need no wrong choices"
    )
