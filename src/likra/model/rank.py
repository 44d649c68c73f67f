"""Scores of answers, options ranked by them, and answers given only where they are sure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from likra.data.formats import Text
from likra.data.prompts import as_text
from likra.errors import LikraError
from likra.model.parts import Parts
from likra.model.prompt import Fields, check_options
from likra.questions import Question
from likra.scores.abstention import abstention_threshold
from likra.scores.ratio import likelihood_ratio

Asked = tuple[Text | Fields, Sequence[Text]]  # a question and its options
Item = TypeVar("Item")
CHUNK = 64  # questions that are scored together where there are many


@dataclass(frozen=True)
class Ranked:
    """An option with what the model makes of it.

    Attributes:
        text: the option.
        probability: that it is the right one, of the options given.
        score: ``positive_logprob - weight * negative_logprob``; per character of the option where
            the model divides by length.
        positive_logprob: log-likelihood under the positive term, in nats.
        negative_logprob: log-likelihood under the negative term, in nats; 0 without one.

    """

    text: str
    probability: float
    score: float
    positive_logprob: float
    negative_logprob: float


def rank_many(parts: Parts, asked: Iterable[Asked]) -> Iterator[list[Ranked]]:
    """The options of each question, best first; see `likra.model.likra.Likra.rank_many`."""
    for chunk in chunks(asked, CHUNK):
        for question, options in chunk:
            check_options(question, options)
        yield from rank_together(parts, chunk)


def rank_together(parts: Parts, asked: Sequence[Asked]) -> Iterator[list[Ranked]]:
    """The options of each question, any number of them, best first; all are scored together."""
    from scipy.special import softmax

    tokenizer = parts.base.tokenizer
    columns = scores_of(parts, [parts.prompt.question(tokenizer, *own) for own in asked])
    temperature = 1.0 if parts.chosen is None else parts.chosen.temperature
    start = 0
    for _, own in asked:
        score, positive, negative = (column[start : start + len(own)] for column in columns)
        start += len(own)
        rows = zip(
            map(as_text, own),
            softmax(score / temperature).tolist(),
            score.tolist(),
            positive.tolist(),
            negative.tolist(),
            strict=True,
        )
        # a stable sort: of equal ones the first is the best, as in the harness
        yield sorted((Ranked(*row) for row in rows), key=lambda option: -option.score)


def score_pairs(parts: Parts, pairs: Iterable[tuple[Text | Fields, Text]]) -> np.ndarray:
    """The score of each (question, answer) pair: [pairs] float64."""
    values = []
    for chunk in chunks(pairs, 4 * CHUNK):
        asked = [parts.prompt.question(parts.base.tokenizer, q, [a]) for q, a in chunk]
        values.append(scores_of(parts, asked)[0])
    return np.concatenate(values) if values else np.zeros(0)


def scores_of(
    parts: Parts, questions: Sequence[Question]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score, positive and negative log-likelihood of all choices: each [choices] float64.

    Raises:
        LikraError: a prompt longer than the model's context, or a score that is not finite.

    """
    positive, *others = parts.terms.logprobs(questions, truncate=parts.truncate)
    negative = others[0] if others else np.zeros_like(positive)
    score = likelihood_ratio(positive, negative, parts.weight)
    if parts.per_character:
        score = score / [len(choice.text) for q in questions for choice in q.choices]
    return score, positive, negative


def threshold(parts: Parts, level: float) -> float:
    """The probability from which on to answer for a share of wrong answers of at most ``level``.

    Infinity where no answer is safe.

    Raises:
        LikraError: a model that was not fitted, or a level that is not between 0 and 1.

    """
    return abstention_threshold(*_calibrated(parts), level)


def coverage(parts: Parts, level: float) -> float:
    """The share of the calibration questions that are answered at that level."""
    return float((_calibrated(parts)[0] >= threshold(parts, level)).mean())


def _calibrated(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Of the calibration questions [questions], the confidence and whether the answer was right."""
    if parts.chosen is None or not parts.chosen.confidence:
        raise LikraError(
            "the model has no questions to calibrate abstaining by: fit it on questions with "
            "right and wrong answers, and keep its mode and weight"
        )
    return np.array(parts.chosen.confidence), np.array(parts.chosen.correct)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in their order, so many at a time."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
