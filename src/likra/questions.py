"""The values that all else speaks of: a question, its choices, and which of them are right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from likra.errors import LikraError


@dataclass(frozen=True)
class Choice:
    """One candidate answer, as a language model sees it.

    ``log p(continuation | context)`` is what is scored. The space at the border belongs to the
    continuation, as in lm-evaluation-harness. ``text`` is the answer without that delimiter:
    its number of characters is what acc_norm divides by.
    """

    context: str
    continuation: str
    text: str
    is_right: bool


@dataclass(frozen=True)
class Question:
    """A question with its candidate answers, in the order in which they are indexed everywhere.

    ``stem`` is what is asked, without answers or few-shot examples; it serves to find leakage.
    """

    id: str
    stem: str
    choices: tuple[Choice, ...]

    @property
    def right(self) -> tuple[Choice, ...]:
        """The right choices, in order."""
        return tuple(choice for choice in self.choices if choice.is_right)

    @property
    def wrong(self) -> tuple[Choice, ...]:
        """The wrong choices, in order."""
        return tuple(choice for choice in self.choices if not choice.is_right)


def check_question(question: Question) -> None:
    """Refuse a question that cannot be ranked.

    Raises:
        LikraError: no right or no wrong choice, an empty choice, or a text both right and wrong.

    """
    where = f"question '{question.id}'"
    if not question.right:
        raise LikraError(f"{where} has no right answer")
    if not question.wrong:
        raise LikraError(f"{where} has no wrong answer")
    for number, choice in enumerate(question.choices):
        if not choice.continuation.strip() or not choice.text.strip():
            raise LikraError(f"{where}: choice {number} is empty")
    # Partial evaluation puts the choice into the context, so both strings make the candidate.
    scored = [(c.context + c.continuation).strip() for c in question.wrong]
    for choice in question.right:
        if (choice.context + choice.continuation).strip() in scored:
            raise LikraError(f"{where}: '{choice.text}' is both a right and a wrong answer")


def check_questions(questions: Sequence[Question]) -> None:
    """Refuse an unusable list of questions.

    Raises:
        LikraError: the list is empty, an id stands twice, or `check_question` refuses one.

    """
    if not questions:
        raise LikraError("there are no questions")
    seen: set[str] = set()
    for question in questions:
        check_question(question)
        if question.id in seen:
            raise LikraError(f"two questions have the id '{question.id}'")
        seen.add(question.id)


def normalised(text: str) -> str:
    """Lower case, letters and digits only, single spaces: what two leaking stems have in common."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def leaks(train: Sequence[Question], evaluation: Sequence[Question]) -> list[tuple[str, str]]:
    """Pairs (training id, evaluation id) of questions with the same normalised stem."""
    by_stem: dict[str, list[str]] = {}
    for question in train:
        by_stem.setdefault(normalised(question.stem), []).append(question.id)
    return [
        (train_id, question.id)
        for question in evaluation
        for train_id in by_stem.get(normalised(question.stem), ())
    ]
