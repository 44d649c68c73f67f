"""Sources of wrong answers: pure, seeded functions (paper, section 4.3, and more).

Every draw depends on the seed, the question's id and the material alone, so the wrong answers of a
question are the same whatever the order of the questions and however many of them are trained on.

A source is named by a text: ``random_choice``; with an argument ``contaminated:0.2``; or a mixture
``0.5 random_choice + 0.5 generated``, of which each question draws one part.
"""

import difflib
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from likra.data.pool import Answers
from likra.errors import LikraError
from likra.questions import Choice, Question
from likra.text import normalised, shuffled

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


# --------------------------------------------------------------------------------------------
# Names, mixtures


# --------------------------------------------------------------------------------------------
# Drawing
