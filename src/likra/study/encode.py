"""Examples and evaluation questions as token pairs of the base model."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from likra.questions import Choice, Question
from likra.scores.table import BASE, CLASSIFIER, PRIOR
from likra.study.config import Study
from likra.study.examples import Training
from likra.study.prepare import Data

if TYPE_CHECKING:
    from likra.engine.token_pairs import TokenExamples, TokenPairs
    from likra.engine.tokens import TokenPair
    from likra.heads.base import BaseModel


def encode_examples(study: Study, base: "BaseModel", training: Training) -> "TokenExamples":
    """The token pairs of each example that a head is trained on, in order.

    Raises:
        LikraError: a pair does not fit the model's context; names its question.

    """
    from likra.engine.token_pairs import TokenExamples

    return TokenExamples.of(_encoded(study, base, training))


def _encoded(study: Study, base: "BaseModel", training: Training) -> Iterator[list["TokenPair"]]:
    from likra.heads.objectives import yes_or_no
    from likra.heads.score import CHUNK, encode_answers

    truncate = study.long_prompts == "truncate"
    for start in range(0, len(training.examples), CHUNK):
        some = list(training.examples[start : start + CHUNK])
        answers = [example.answers(training.head) for example in some]
        if training.head == CLASSIFIER:
            answers = [
                tuple(verdict for choice in own for verdict in yes_or_no(choice)) for own in answers
            ]
        together = zip(some, answers, strict=True)
        asked = [example.question for example, own in together for _ in own]
        flat = [choice for own in answers for choice in own]
        pairs = iter(encode_answers(base, asked, flat, truncate=truncate))
        yield from ([next(pairs) for _ in own] for own in answers)


def encode_evaluation(
    study: Study, data: Data, base: "BaseModel", head: str = BASE.head
) -> "TokenPairs":
    """The token pairs that a head scores: one for each choice of the evaluation questions.

    The prior scores the choices without the questions; a classifier answers yes and no to each.
    """
    from likra.heads.objectives import yes_or_no
    from likra.heads.score import encode_questions

    questions: Iterable[Question] = data.evaluation
    if head == PRIOR.head:
        questions = (
            _with_choices(q, (replace(c, context="") for c in q.choices)) for q in questions
        )
    if head == CLASSIFIER:
        questions = (
            _with_choices(q, (verdict for c in q.choices for verdict in yes_or_no(c)))
            for q in questions
        )
    return encode_questions(base, questions, truncate=study.long_prompts == "truncate")


def _with_choices(question: Question, choices: Iterable[Choice]) -> Question:
    return replace(question, choices=tuple(choices))
