"""The values that everything else is about: a question, its choices, and which are right."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import overload

from likra.errors import LikraError


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its candidate answers, in the order of their indices everywhere.

    ``stem`` is what is asked, without answers or few-shot examples; it serves to find leakage.
    ``origin`` is where the question was read, for messages ("answers.jsonl, row 17").

    There may be several right answers, or only right or only wrong ones: such a question trains
    one head alone, and cannot be ranked.
    """

    id: str
    stem: str
    choices: tuple[Choice, ...]
    origin: str = ""

    @property
    def right(self) -> tuple[Choice, ...]:
        """The right choices, in order."""
        return tuple(choice for choice in self.choices if choice.is_right)

    @property
    def wrong(self) -> tuple[Choice, ...]:
        """The wrong choices, in order."""
        return tuple(choice for choice in self.choices if not choice.is_right)

    @property
    def can_be_ranked(self) -> bool:
        """Whether there is a right choice to tell from a wrong one."""
        return len({choice.is_right for choice in self.choices}) == 2

    @property
    def where(self) -> str:
        """How a message names the question."""
        return f"{self.origin}: question '{self.id}'" if self.origin else f"question '{self.id}'"


@dataclass(frozen=True)
class Subset(Sequence[Question]):
    """Some questions of a list, each read from it when it is asked for.

    Attributes:
        questions: the list.
        numbers: the places of the subset's questions in it.

    """

    questions: Sequence[Question]
    numbers: Sequence[int]

    @classmethod
    def where(
        cls, questions: Sequence[Question], condition: Callable[[Question], object]
    ) -> "Subset":
        """Those of the questions that meet a condition, in their order."""
        kept = (number for number, question in enumerate(questions) if condition(question))
        return cls(questions, array("Q", kept))

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> "Subset": ...
    def __getitem__(self, index: int | slice) -> "Question | Subset":
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        return self.questions[self.numbers[index]]


def check_question(question: Question) -> None:
    """Refuse a question without answers, or with a contradiction.

    Raises:
        LikraError: no choice, an empty choice, or a text both right and wrong.

    """
    if not question.choices:
        raise LikraError(f"{question.where} has no answers")
    for number, choice in enumerate(question.choices):
        if not choice.continuation.strip() or not choice.text.strip():
            raise LikraError(f"{question.where}: choice {number} is empty")
    # Partial evaluation puts the choice into the context, so both strings make the candidate.
    scored = [(c.context + c.continuation).strip() for c in question.wrong]
    for choice in question.right:
        if (choice.context + choice.continuation).strip() in scored:
            raise LikraError(
                f"{question.where}: '{choice.text}' is both a right and a wrong answer"
            )


def check_questions(questions: Sequence[Question]) -> None:
    """Refuse an unusable list of questions.

    Raises:
        LikraError: the list is empty, an id is not unique, or `check_question` refuses one.

    """
    if not questions:
        raise LikraError("there are no questions")
    seen: set[str] = set()
    for question in questions:
        check_question(question)
        if question.id in seen:
            raise LikraError(f"two questions have the id '{question.id}'")
        seen.add(question.id)
