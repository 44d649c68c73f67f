"""Sources of wrong answers: pure, seeded functions (paper, section 4.3, and more).

Every draw depends on the seed, the question's id and the material alone, so the wrong answers of a
question are the same whatever the order of the questions and however many of them are trained on.

A source is named by a text: ``random_choice``; with an argument ``contaminated:0.2``; or a mixture
``0.5 random_choice + 0.5 generated``, of which each question draws one part.
"""

import difflib
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from likra.errors import LikraError, unknown
from likra.leakage import normalised
from likra.questions import Choice, Question

NEAR_RIGHT = 0.8  # from this similarity of characters on, a text is a near-duplicate of the right


@dataclass(frozen=True)
class Material:
    """What sources draw from, beside the question itself.

    Attributes:
        pool: the whole training set.
        scores: for `hardest` and `easiest`, by question id the base's score of each choice.
        others: for `other_task`, answers of another task.
        candidates: by source, by question id, texts that may be wrong answers (`generated`,
            `file`).
        match: what counts as the right answer among texts from elsewhere: "exact", the same up to
            case and punctuation; "near", also a near-duplicate, its beginning, or a text that
            contains it.

    """

    pool: Sequence[Question] = ()
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    others: Sequence[str] = ()
    candidates: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    match: str = "near"

    @cached_property
    def answers(self) -> "Answers":
        """The right answers of the pool."""
        return Answers(self.pool)


class Answers:
    """The first right answer to each question of a pool, as wrong answers to the others.

    Reads the pool once and keeps numbers; a draw reads the questions that it takes.
    """

    def __init__(self, pool: Sequence[Question]) -> None:
        self.pool = pool
        numbers: dict[str, int] = {}

        def number(text: str) -> int:
            return numbers.setdefault(text, len(numbers))

        self._numbers = numbers
        self._stems: list[int] = []
        self._texts: list[int | None] = []  # None where there is no right answer
        for question in pool:
            answers = [normalised(choice.continuation) for choice in question.right[:1]]
            self._stems.append(number(normalised(question.stem)))
            self._texts.append(number(answers[0]) if answers and answers[0] else None)
        self._distinct = {text for text in self._texts if text is not None}

    def of_others(self, question: Question, generator: random.Random) -> Iterator[Choice]:
        """Right answers of other questions as wrong ones of this one, each text once, shuffled.

        Texts are the same up to case and punctuation. A question with the same stem gives none:
        its answers may be right here, too.
        """
        right = {self._numbers.get(normalised(choice.continuation)) for choice in question.right}
        left = self._distinct - right
        stem = self._numbers.get(normalised(question.stem))
        context = (question.right or question.choices)[0].context
        for index in shuffled(len(self.pool), generator):
            if not left:
                return
            text = self._texts[index]
            if text in left and self._stems[index] != stem:
                left.discard(text)
                yield replace(self.pool[index].right[0], context=context, is_right=False)


# Gives the wrong answers of one question, none where it has none; counts what it refused, and why.
Source = Callable[[Question, Material, random.Random, Counter[str]], list[Choice]]


# --------------------------------------------------------------------------------------------
# Sources


def random_choice(
    question: Question, _material: Material, generator: random.Random, _refused: Counter[str]
) -> list[Choice]:
    """A wrong choice of the same question, drawn at random: a near-miss (the paper's main one)."""
    return [generator.choice(question.wrong)] if question.wrong else []


def all_choices(
    question: Question, _material: Material, _generator: random.Random, _refused: Counter[str]
) -> list[Choice]:
    """All wrong choices of the same question, in order."""
    return list(question.wrong)


def hardest(
    question: Question, material: Material, _generator: random.Random, _refused: Counter[str]
) -> list[Choice]:
    """The wrong choice that the base scores highest; of equal ones the first."""
    return _by_score(question, material, 1.0)


def easiest(
    question: Question, material: Material, _generator: random.Random, _refused: Counter[str]
) -> list[Choice]:
    """The wrong choice that the base scores lowest; of equal ones the first."""
    return _by_score(question, material, -1.0)


def _by_score(question: Question, material: Material, sign: float) -> list[Choice]:
    if not question.wrong:
        return []
    scores = material.scores.get(question.id)
    if scores is None or len(scores) != len(question.choices):
        raise LikraError(f"there are no scores of the choices of {question.where}")
    scored = zip(question.choices, scores, strict=True)
    wrong = [(sign * score, choice) for choice, score in scored if not choice.is_right]
    return [max(wrong, key=lambda item: item[0])[1]]


def other_question(
    question: Question, material: Material, generator: random.Random, _refused: Counter[str]
) -> list[Choice]:
    """The right answer of another training question: irrelevant, but in domain."""
    return list(itertools.islice(material.answers.of_others(question, generator), 1))


def other_task(
    question: Question, material: Material, generator: random.Random, refused: Counter[str]
) -> list[Choice]:
    """An answer of another task: irrelevant, out of domain."""
    for index in shuffled(len(material.others), generator):
        if fault := _fault(material.others[index], question, material.match):
            refused[fault] += 1
        else:
            return [_wrong(question, material.others[index])]
    return []


def generated(
    question: Question, material: Material, generator: random.Random, refused: Counter[str]
) -> list[Choice]:
    """One of the base model's own answers that is not right: for who has right answers only."""
    return _candidate("generated", question, material, generator, refused)


def file(
    question: Question, material: Material, generator: random.Random, refused: Counter[str]
) -> list[Choice]:
    """A wrong answer from a file, by the question's id or its text."""
    return _candidate("file", question, material, generator, refused)


def _candidate(
    source: str,
    question: Question,
    material: Material,
    generator: random.Random,
    refused: Counter[str],
) -> list[Choice]:
    good = []
    for text in material.candidates.get(source, {}).get(question.id, ()):
        if fault := _fault(text, question, material.match):
            refused[fault] += 1
        elif text not in good:
            good.append(text)
    return [_wrong(question, generator.choice(good))] if good else []


def right(
    question: Question, _material: Material, generator: random.Random, _refused: Counter[str]
) -> list[Choice]:
    """A right answer in the place of a wrong one: label noise. Only within ``contaminated``."""
    return [generator.choice(question.right)] if question.right else []


def _fault(text: str, question: Question, match: str) -> str | None:
    """Why a text is no wrong answer to a question."""
    plain = normalised(text)
    if not plain:
        return "empty"
    for choice in question.right:
        truth = normalised(choice.text)
        if plain == truth:
            return "right"
        if match == "exact":
            continue
        if difflib.SequenceMatcher(None, plain, truth).ratio() >= NEAR_RIGHT:
            return "nearly right"
        if _contains(plain, truth):
            return "contains the right answer"
        if truth.startswith(plain) and (" " in plain or truth.startswith(f"{plain} ")):
            return "beginning of the right answer"  # a sample may be cut
    return None


_UNSPACED = re.compile(  # scripts without spaces between words: Thai to Khmer, Japanese, Chinese
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)


def _contains(plain: str, truth: str) -> bool:
    """Whether a normalised text has another in it, word by word."""
    if _UNSPACED.search(truth):
        return truth in plain
    return bool(truth) and f" {truth} " in f" {plain} "


def _wrong(question: Question, text: str) -> Choice:
    """A text as a wrong answer, set off as the question's own answers are."""
    own = (question.right or question.choices)[0]
    gap = own.continuation[: len(own.continuation) - len(own.continuation.lstrip())]
    return Choice(own.context, f"{gap}{text.strip()}", text.strip(), is_right=False)


def shuffled(count: int, generator: random.Random) -> Iterator[int]:
    """``generator.sample(range(count), count)``, drawn only as far as it is read."""
    moved: dict[int, int] = {}
    for left in range(count, 0, -1):
        place = generator.randrange(left)
        yield moved.get(place, place)
        moved[place] = moved.get(left - 1, left - 1)


SOURCES: dict[str, Source] = {
    "random_choice": random_choice,
    "all_choices": all_choices,
    "hardest": hardest,
    "easiest": easiest,
    "other_question": other_question,
    "other_task": other_task,
    "generated": generated,
    "file": file,
}
TAKES_ARGUMENT = {"other_task": "TASK", "file": "PATH", "contaminated": "FRACTION"}


# --------------------------------------------------------------------------------------------
# Names, mixtures


@dataclass(frozen=True)
class Part:
    """One part of a mixture: with that probability, a question draws from that source."""

    fraction: float
    source: str
    argument: str = ""


def parse_source(text: str) -> tuple[Part, ...]:
    """The parts of a source: "hardest", "contaminated:0.2", "0.5 random_choice + 0.5 hardest".

    Raises:
        LikraError: an unknown source, a missing argument, or fractions that do not sum to 1.

    """
    parts: list[Part] = []
    for piece in text.split("+"):
        match = re.fullmatch(r"\s*(?:([\d.]+)\s*\*?\s*)?([a-z_]+)(?::(.+?))?\s*", piece)
        if match is None:
            raise LikraError(f"'{text}' is no source of negatives (try 'random_choice')")
        fraction = _fraction(match[1] or "1", text)
        parts += _parts(fraction, match[2], match[3] or "", text)
    if not math.isclose(sum(part.fraction for part in parts), 1.0, abs_tol=1e-9):
        raise LikraError(f"the fractions of '{text}' do not sum to 1")
    return tuple(parts)


def _parts(fraction: float, name: str, argument: str, text: str) -> list[Part]:
    if name not in {*SOURCES, "contaminated"}:
        raise unknown("source of negatives", name, [*SOURCES, "contaminated"])
    if bool(argument) != (name in TAKES_ARGUMENT):
        wanted = f"{name}:{TAKES_ARGUMENT[name]}" if name in TAKES_ARGUMENT else name
        raise LikraError(f"source of negatives '{text}': write {wanted}")
    if name != "contaminated":
        return [Part(fraction, name, argument)]
    noise = _fraction(argument, text)
    return [Part(fraction * (1 - noise), "random_choice"), Part(fraction * noise, "right")]


def _fraction(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise LikraError(f"source of negatives '{where}': '{text}' is no fraction of 1")
    return number


def canonical(text: str) -> str:
    """A source's name as it stands in files: "0.5*random_choice+0.5*hardest"."""
    parse_source(text)
    pieces = [re.sub(r"^\s*([\d.]+)\s*\*?\s*", r"\1*", piece).strip() for piece in text.split("+")]
    return "+".join(pieces)


def described_sources() -> list[tuple[str, str]]:
    """Each source as it is written, and what it gives."""
    lines = [
        (f"{name}:{TAKES_ARGUMENT[name]}" if name in TAKES_ARGUMENT else name, _first_line(source))
        for name, source in SOURCES.items()
    ]
    noise = "As random_choice, but a fraction of right answers: label noise."
    return [*lines, ("contaminated:FRACTION", noise)]


def _first_line(source: Source) -> str:
    return (source.__doc__ or "").splitlines()[0]


# --------------------------------------------------------------------------------------------
# Drawing


@dataclass(frozen=True)
class Drawn:
    """Wrong answers of questions, and what did not become one.

    Attributes:
        answers: for each question its wrong answers; empty where the source has none for it.
        refused: how many candidates were refused, by reason.
        taken: how many questions have answers, by the part of a mixture that gave them.

    """

    answers: list[list[Choice]]
    refused: Counter[str]
    taken: Counter[str]


def draw(source: str, questions: Sequence[Question], seed: int, material: Material) -> Drawn:
    """The wrong answers of each question, in their order.

    Args:
        source: see `parse_source`.
        questions: those that need wrong answers.
        seed: the same seed gives the same answers.
        material: what the source draws from.

    Raises:
        LikraError: no such source, or it lacks what it draws from.

    """
    parts = parse_source(source)
    refused: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    answers = []
    for question in questions:
        part = _pick(parts, seed, question)
        generator = random.Random(f"{seed}/{question.id}")
        found = ({**SOURCES, "right": right})[part.source](question, material, generator, refused)
        if found:
            taken[part.source] += 1
        else:
            refused[f"{part.source}: nothing for a question"] += 1
        answers.append(found)
    return Drawn(answers, refused, taken)


def _pick(parts: Sequence[Part], seed: int, question: Question) -> Part:
    if len(parts) == 1:
        return parts[0]
    place = random.Random(f"{seed}/part/{question.id}").random()
    for part in parts:
        place -= part.fraction
        if place < 0:
            return part
    return parts[-1]


def draw_negatives(
    source: str,
    questions: Sequence[Question],
    seed: int,
    material: Material | None = None,
) -> list[Choice]:
    """The first wrong answer of each of the questions, in their order.

    Args:
        source: see `parse_source`.
        questions: those that need a wrong answer.
        seed: the same seed gives the same answers.
        material: what the source draws from; by default the questions themselves.

    Raises:
        LikraError: no such source, or one that finds no wrong answer for a question.

    """
    drawn = draw(source, questions, seed, material or Material(pool=questions))
    for question, found in zip(questions, drawn.answers, strict=True):
        if not found:
            raise LikraError(f"{source}: there is no wrong answer for {question.where}")
    return [found[0] for found in drawn.answers]
