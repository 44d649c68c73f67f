"""Sources of wrong answers: pure, seeded functions, one wrong answer for each question.

Every draw depends on the seed and the question's id alone, so the wrong answer of a question is
the same whatever the order of the questions and however many of them are trained on.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from likra.errors import LikraError, unknown
from likra.questions import Choice, Question

Source = Callable[[Sequence[Question], int], list[Choice]]


def _generator(seed: int, question: Question) -> random.Random:
    return random.Random(f"{seed}/{question.id}")


def random_choice(questions: Sequence[Question], seed: int) -> list[Choice]:
    """A wrong choice of the same question, drawn at random: a near-miss (paper, section 4.3)."""
    return [_generator(seed, question).choice(question.wrong) for question in questions]


def other_question(questions: Sequence[Question], seed: int) -> list[Choice]:
    """The right answer of another of the questions: irrelevant, but in domain (section 4.3).

    Raises:
        LikraError: every other answer is also right for some question.

    """
    answers = [question.right[0] for question in questions]
    return [_answer_of_another(question, answers, seed) for question in questions]


def _answer_of_another(question: Question, answers: Sequence[Choice], seed: int) -> Choice:
    own = {choice.continuation.strip().casefold() for choice in question.right}
    generator = _generator(seed, question)
    for index in generator.sample(range(len(answers)), len(answers)):
        if answers[index].continuation.strip().casefold() not in own:
            return replace(answers[index], context=question.right[0].context, is_right=False)
    raise LikraError(
        f"other_question: no other question has an answer that is wrong for '{question.id}'"
    )


SOURCES: dict[str, Source] = {
    "random_choice": random_choice,
    "other_question": other_question,
}


def draw_negatives(source: str, questions: Sequence[Question], seed: int) -> list[Choice]:
    """One wrong answer for each of the questions, in their order.

    Args:
        source: a name in `SOURCES`.
        questions: the whole training set; sources may draw from all of it.
        seed: the same seed gives the same answers.

    Raises:
        LikraError: no such source, or one that finds no wrong answer.

    """
    if source not in SOURCES:
        raise unknown("source of negatives", source, SOURCES)
    return SOURCES[source](questions, seed)
