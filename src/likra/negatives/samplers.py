"""Samplers of wrong answers: pure, seeded functions (paper, section 4.3, and more).

Every draw depends on the seed, the question's id and the material alone, so the wrong answers of a
question are the same whatever the order of the questions and however many of them are trained on.

A sampler is named by a text: ``random_choice``; with an argument ``contaminated:0.2``; or a mixture
``0.5 random_choice + 0.5 generated``, of which each question draws one part.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from likra.data.pool import Answers
from likra.errors import LikraError
from likra.negatives.near_right import likeness
from likra.questions import Choice, Question
from likra.text import comparable, normalised, shuffled


@dataclass(frozen=True)
class Material:
    """What samplers draw from, beside the question itself.

    Attributes:
        pool: the whole training set.
        scores: for `hardest` and `easiest`, by question id the base's score of each choice.
        others: for `other_task`, answers of another task.
        candidates: by sampler, by question id, texts that may be wrong answers (`generated`,
            `file`).
        match: what counts as the right answer among texts of `generated` and `other_task`:
            "exact", the same up to case and punctuation; "near", also another spelling, its
            beginning, or a text that contains it.

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


@dataclass(frozen=True)
class Draw:
    """What a sampler is given for one question; it counts in ``refused`` what it refuses."""

    question: Question
    material: Material
    generator: random.Random
    refused: Counter[str]


Sampler = Callable[[Draw], list[Choice]]  # the wrong answers, none where there are none


# --------------------------------------------------------------------------------------------
# Samplers


def random_choice(draw: Draw) -> list[Choice]:
    """A wrong choice of the same question, drawn at random: a near-miss (the paper's main one)."""
    wrong = draw.question.wrong
    return [draw.generator.choice(wrong)] if wrong else []


def all_choices(draw: Draw) -> list[Choice]:
    """All wrong choices of the same question, in order."""
    return list(draw.question.wrong)


def hardest(draw: Draw) -> list[Choice]:
    """The wrong choice that the base scores highest; of equal ones the first."""
    return _by_score(draw, 1.0)


def easiest(draw: Draw) -> list[Choice]:
    """The wrong choice that the base scores lowest; of equal ones the first."""
    return _by_score(draw, -1.0)


def _by_score(draw: Draw, sign: float) -> list[Choice]:
    question = draw.question
    if not question.wrong:
        return []
    scores = draw.material.scores.get(question.id)
    if scores is None or len(scores) != len(question.choices):
        raise LikraError(f"no scores of the choices of {question.where}")
    scored = zip(question.choices, scores, strict=True)
    wrong = [(sign * score, choice) for choice, score in scored if not choice.is_right]
    return [max(wrong, key=lambda item: item[0])[1]]


def other_question(draw: Draw) -> list[Choice]:
    """The right answer of another training question: irrelevant, but in domain."""
    return list(itertools.islice(draw.material.answers.of_others(draw.question, draw.generator), 1))


def other_task(draw: Draw) -> list[Choice]:
    """An answer of another task: irrelevant, out of domain."""
    others = draw.material.others
    for index in shuffled(len(others), draw.generator):
        if fault := _fault(others[index], draw.question, draw.material.match):
            draw.refused[fault] += 1
        else:
            return [_wrong(draw.question, others[index])]
    return []


def generated(draw: Draw) -> list[Choice]:
    """One of the base model's own answers that is not right: for who has right answers only."""
    match = draw.material.match
    return _candidate(draw, "generated", lambda text: _fault(text, draw.question, match))


def file(draw: Draw) -> list[Choice]:
    """A wrong answer from a file, by the question's id or its text."""
    return _candidate(draw, "file", lambda text: _fault_of_listed(text, draw.question))


def _candidate(draw: Draw, sampler: str, fault_of: Callable[[str], str | None]) -> list[Choice]:
    """One of the question's candidates without a fault."""
    good: dict[str, None] = {}  # each text once, in order
    for text in draw.material.candidates.get(sampler, {}).get(draw.question.id, ()):
        if fault := fault_of(text):
            draw.refused[fault] += 1
        else:
            good[text] = None
    return [_wrong(draw.question, draw.generator.choice(list(good)))] if good else []


def right(draw: Draw) -> list[Choice]:
    """A right answer in the place of a wrong one: label noise. Only within ``contaminated``."""
    choices = draw.question.right
    return [draw.generator.choice(choices)] if choices else []


def _fault_of_listed(text: str, question: Question) -> str | None:
    """Why a text from the user's own file is not a wrong answer. The file is trusted."""
    if not text.strip():
        return "empty"
    same = any(comparable(text) == comparable(choice.text) for choice in question.right)
    return "right" if same else None


def _fault(text: str, question: Question, match: str) -> str | None:
    """Why a text that nobody has checked is not a wrong answer to a question.

    What is a right answer in another spelling, contains one, or is cut off within one is refused.
    A text with another number, a negation or another word is not: it is a near-miss, the most
    valuable wrong answer there is.
    """
    plain = normalised(text)
    if not plain:
        return "empty"
    for choice in question.right:
        truth = comparable(choice.text)
        if plain == truth:
            return "right"
        if match == "near" and (fault := likeness(plain, truth)):
            return fault
    return None


def _wrong(question: Question, text: str) -> Choice:
    """A text as a wrong answer, set off as the question's own answers are."""
    own = (question.right or question.choices)[0]
    gap = own.continuation[: len(own.continuation) - len(own.continuation.lstrip())]
    return Choice(own.context, f"{gap}{text.strip()}", text.strip(), is_right=False)


SAMPLERS: dict[str, Sampler] = {
    "random_choice": random_choice,
    "all_choices": all_choices,
    "hardest": hardest,
    "easiest": easiest,
    "other_question": other_question,
    "other_task": other_task,
    "generated": generated,
    "file": file,
}
