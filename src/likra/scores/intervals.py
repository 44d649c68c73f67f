"""Intervals of accuracies and of differences, over questions and training seeds as random draws.

Answers are a table of questions by seeds. Questions differ in difficulty and seeds in luck, so the
variance of the mean has a part of each: a layout of two crossed random effects. Its parts come
from the mean squares of the analysis of variance, and the degrees of freedom from Satterthwaite
(1946). With one seed there is no part of the seeds, and an interval is over questions alone, for
these trained heads. `python -m benchmarks.coverage` prints how often the intervals contain the
truth.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, stdtr, stdtrit

from likra.scores.resampling import LEVEL, Estimate


@dataclass(frozen=True)
class Difference:
    """A difference of two accuracies, and the two-sided p-value of none.

    The p-value is below .05 exactly where the 95% interval excludes 0.
    """

    estimate: Estimate
    p_value: float


def accuracy_intervals(correct: np.ndarray) -> np.ndarray:
    """Mean accuracies with the low and the high end of their intervals.

    Wilson's interval (1927) with the number of independent answers that the variance amounts to
    (as for surveys: Korn and Graubard 1998) and a quantile of Student's t. It stays within 0 and
    1, and has a width where all answers are right.

    Args:
        correct: [..., seeds, questions], 1 where an answer is right.

    Returns:
        [3, ...]: value, low, high.

    """
    n_seeds, n_questions = correct.shape[-2:]
    value = correct.mean(axis=(-2, -1))
    variance, freedom = _sum_of(_parts(correct.astype(np.float64)))
    variance *= (n_questions - 1) / n_questions  # with one seed, exactly that of `size` answers
    none = variance <= 0
    size = value * (1 - value) / np.where(none, 1, variance)
    size = np.where(none, n_questions, np.minimum(size, n_seeds * n_questions))
    t = stdtrit(freedom, (1 + LEVEL) / 2)
    center = (value + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * np.sqrt(value * (1 - value) / size + t**2 / (4 * size**2))
    # rounding may leave the mean outside by its last digit
    low, high = np.minimum(center - half, value), np.maximum(center + half, value)
    return np.stack([value, np.maximum(low, 0), np.minimum(high, 1)])


def differences(first: np.ndarray, second: np.ndarray) -> list[Difference]:
    """Differences of accuracies on the same questions, first minus second.

    The value is that of the answers. Its interval is Student's t with two questions added, on one
    of which the first is better and on the other the second (Bonett and Price 2012), so that it
    has a width where no answer differs.

    Args:
        first: [comparisons, seeds, questions], 1 where an answer is right.
        second: the same. With as many seeds, those at the same place are pairs; one seed is paired
            with all of the other's; else seeds are independent.

    """
    n_first, n_second = first.shape[1], second.shape[1]
    one, two = first.astype(np.float64), second.astype(np.float64)
    values = one.mean(axis=(1, 2)) - two.mean(axis=(1, 2))
    if n_first == n_second or 1 in (n_first, n_second):
        parts = _parts(_with_two_more(one - two))
    else:
        means = one.mean(axis=1, keepdims=True) - two.mean(axis=1, keepdims=True)
        parts = [*_parts(_with_two_more(means)), *_parts(one)[1:], *_parts(two)[1:]]
    variance, freedom = _sum_of(parts)
    center, error = values * one.shape[2] / (one.shape[2] + 2), np.sqrt(variance)
    half = stdtrit(freedom, (1 + LEVEL) / 2) * error
    p_values = 2 * stdtr(freedom, -np.abs(center) / error)
    low, high = np.minimum(center - half, values), np.maximum(center + half, values)
    columns = (values, np.maximum(low, -1), np.minimum(high, 1), p_values)
    return [
        Difference(Estimate(value, *ends), p)
        for value, *ends, p in np.stack(columns, axis=1).tolist()
    ]


def _with_two_more(values: np.ndarray) -> np.ndarray:
    """Differences [..., seeds, questions] with a question of 1 and one of -1, for all seeds."""
    ones = np.ones((*values.shape[:-1], 1))
    return np.concatenate([values, ones, -ones], axis=-1)


# A part of a variance, its degrees of freedom, and the mean squares with theirs that it is
# made of, as (mean square, degrees of freedom).
_Part = tuple[np.ndarray, list[tuple[np.ndarray, int]]]


def _parts(values: np.ndarray) -> list[_Part]:
    """The parts of the variance of means over [..., seeds, questions]: of questions, of seeds.

    The mean square of few seeds is more often below what it estimates than above. It is divided by
    the median of its distribution instead of the mean, so that it is as often above as below.
    """
    n_seeds, n_questions = values.shape[-2:]
    size = n_seeds * n_questions
    by_question, by_seed = values.mean(axis=-2), values.mean(axis=-1)
    if n_questions == 1:
        return [(0 * by_seed[..., 0], [])]
    of_questions = by_question.var(axis=-1, ddof=1) / n_questions
    questions = (of_questions, [(of_questions, n_questions - 1)])
    if n_seeds == 1:
        return [questions]
    rest = values - by_question[..., None, :] - by_seed[..., :, None]
    rest += values.mean(axis=(-2, -1), keepdims=True)
    freedom = (n_seeds - 1) * (n_questions - 1)
    of_rest = (rest**2).sum(axis=(-2, -1)) / freedom / size
    median = chdtri(n_seeds - 1, 0.5) / (n_seeds - 1)
    of_seeds = by_seed.var(axis=-1, ddof=1) / n_seeds / median
    more = np.maximum(of_seeds - of_rest, 0)
    used = more > 0
    return [questions, (more, [(of_seeds * used, n_seeds - 1), (of_rest * used, freedom)])]


def _sum_of(parts: list[_Part]) -> tuple[np.ndarray, np.ndarray]:
    """The variance, and its degrees of freedom by Satterthwaite; they are infinite for none."""
    variance = np.sum([part for part, _ in parts], axis=0)
    squares = np.zeros_like(variance)
    for _, made_of in parts:
        squares += sum(square**2 / freedom for square, freedom in made_of)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(squares > 0, variance**2 / squares, np.inf)
    return variance, np.maximum(freedom, 1)
