"""Two modes on the same questions, and how well one mode tells right from wrong choices."""

import math
from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.intervals import differences
from likra.scores.resampling import Estimate, estimate, resampled_dot, with_resamples
from likra.scores.table import Scores

LARGEST = 2**20  # numbers of an array of resamples and choices: 8 MiB


@dataclass(frozen=True)
class Paired:
    """Two modes on the same questions.

    Attributes:
        difference: accuracy of the first minus that of the second.
        first_better: questions that only the first answers correctly; with several
            seeds, those that it answers correctly in a larger share of its seeds.
        second_better: the same for the second.
        p_value: two-sided, of no difference.

    """

    difference: Estimate
    first_better: int
    second_better: int
    p_value: float


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
    """Compare two modes question by question.

    Interval and p-value are of new questions and, with several seeds, of new trainings: see
    `likra.scores.intervals.differences`.

    Args:
        first: whether (or how often) each question is answered correctly: [questions], or
            [questions, seeds].
        second: the same; its number of seeds may differ.

    Raises:
        LikraError: different numbers of questions, none, or values outside 0 to 1.

    """
    one, two = _by_seed(first), _by_seed(second)
    if one.shape[1] != two.shape[1]:
        raise LikraError(
            "cannot compare modes on different questions: "
            f"{one.shape[1]} and {two.shape[1]} of them"
        )
    mean = one.mean(axis=0) - two.mean(axis=0)
    (found,) = differences(one[None], two[None])
    better, worse = int((mean > 0).sum()), int((mean < 0).sum())
    return Paired(found.estimate, better, worse, found.p_value)


def _by_seed(correct: np.ndarray) -> np.ndarray:
    """[seeds, questions] of [questions] or [questions, seeds]."""
    values = np.asarray(correct, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise LikraError(
            f"expected [questions] or [questions, seeds], not an array of shape {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise LikraError("expected shares of right answers, between 0 and 1")
    return values[None] if values.ndim == 1 else values.T


@dataclass(frozen=True)
class Separation:
    """How well values tell right choices from wrong ones.

    Attributes:
        auroc: probability that a right choice has a higher value than a wrong one, over all
            choices of all questions (ties count half).
        within_auroc: the same within each question, mean over questions: what makes all choices
            of a question likely or unlikely has no effect on it.
        mean_margin: mean value of the right choices minus that of the wrong ones, mean over
            questions; in the unit of the values (nats).

    """

    auroc: Estimate
    within_auroc: Estimate
    mean_margin: Estimate


def separation(values: np.ndarray, scores: Scores, seed: int = 0) -> Separation:
    """Separation of right from wrong choices (arXiv:2503.14391, figures 2 and 6).

    Args:
        values: [questions, choices], log-likelihoods of a head or ratios, in nats.
        scores: which choices there are, and which are right.
        seed: of the resamples.

    Raises:
        LikraError: a question without a right or without a wrong choice.

    """
    right, wrong = scores.exists & scores.is_right, scores.exists & ~scores.is_right
    without = np.flatnonzero(~right.any(axis=1) | ~wrong.any(axis=1))
    if without.size:
        raise LikraError(
            f"question '{scores.question_ids[without[0]]}' has no right or no wrong choice"
        )
    margin = values.mean(axis=1, where=right) - values.mean(axis=1, where=wrong)
    mine, other = values[:, :, None], values[:, None, :]
    wins = (mine > other) + 0.5 * (mine == other)
    within = wins.mean(axis=(1, 2), where=right[:, :, None] & wrong[:, None, :])
    counts = with_resamples(len(values), seed)
    return Separation(
        estimate(_auroc(values, right, wrong, counts)),
        estimate(resampled_dot(counts, within) / len(values)),
        estimate(resampled_dot(counts, margin) / len(values)),
    )


def _auroc(
    values: np.ndarray, right: np.ndarray, wrong: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Mann and Whitney's U over its maximum, for each row of counts; sorts once for all."""
    of_right, of_wrong = np.nonzero(right)[0], np.nonzero(wrong)[0]
    order = np.argsort(values[wrong])
    wrongs, of_wrong = values[wrong][order], of_wrong[order]
    below = np.searchsorted(wrongs, values[right], side="left")
    up_to = np.searchsorted(wrongs, values[right], side="right")
    aurocs = []
    for some in np.array_split(counts, math.ceil(counts.shape[0] * len(wrongs) / LARGEST)):
        total = np.zeros((len(some), 1 + len(wrongs)))  # whole numbers: sums are exact
        np.cumsum(some[:, of_wrong], axis=1, dtype=np.float64, out=total[:, 1:])
        weight = some[:, of_right].astype(np.float64)
        wins = (weight * (total[:, below] + total[:, up_to])).sum(axis=1) / 2
        aurocs.append(wins / (weight.sum(axis=1) * total[:, -1]))
    return np.concatenate(aurocs)
