"""Two modes on the same questions, and how well one mode tells right from wrong choices."""

from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.resampling import Estimate, estimate, with_resamples
from likra.scores.table import Scores

FLIPS = 100_000  # of the signs: p-values down to 1e-5


@dataclass(frozen=True)
class Paired:
    """Two modes on the same questions.

    Attributes:
        difference: accuracy of the first minus that of the second.
        first_better: questions that only the first answers correctly; with several
            seeds, those that it answers correctly in a larger share of its seeds.
        second_better: the same for the second.
        p_value: two-sided, of no difference.
        test: "McNemar" (exact) or "sign flips".

    """

    difference: Estimate
    first_better: int
    second_better: int
    p_value: float
    test: str


def paired(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Paired:
    """Compare two modes question by question.

    The p-value is that of the sign-flip test over questions: if the modes were equal, each
    question's difference would have either sign with the same probability. Where all differences
    are -1, 0 or 1 this is McNemar's test, exact by the binomial distribution. Where they are means
    over seeds, 100,000 seeded flips are drawn; answers to one question under several seeds are not
    independent, so they count as one difference and are never pooled into McNemar's counts.
    Interval and p-value generalize to new questions, given these trained heads.

    Args:
        first: whether (or how often) each question is answered correctly: [questions], or
            [questions, seeds], of which the mean is taken.
        second: the same; its number of seeds may differ.
        seed: of the resamples and flips.

    Raises:
        LikraError: different numbers of questions, none, fewer than seeds (axes in the wrong
            order), or values outside 0 to 1.

    """
    one, two = _per_question(first), _per_question(second)
    if len(one) != len(two):
        raise LikraError(
            f"cannot compare modes on different questions: {len(one)} and {len(two)} of them"
        )
    difference = one - two
    better = int((difference > 0).sum()), int((difference < 0).sum())
    if np.isin(difference, (-1, 0, 1)).all():
        test, p_value = "McNemar", _mcnemar(*better)
    else:
        test, p_value = "sign flips", _sign_flips(difference, seed)
    counts = with_resamples(len(difference), seed)
    return Paired(estimate(counts @ difference / len(difference)), *better, p_value, test)


def _per_question(correct: np.ndarray) -> np.ndarray:
    values = np.asarray(correct, dtype=np.float64)
    is_transposed = values.ndim == 2 and values.shape[0] < values.shape[1]
    if values.ndim not in (1, 2) or not values.size or is_transposed:
        raise LikraError(
            f"expected [questions] or [questions, seeds], not an array of shape {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise LikraError("expected shares of right answers, between 0 and 1")
    return values.mean(axis=1) if values.ndim == 2 else values


def _mcnemar(first_better: int, second_better: int) -> float:
    """McNemar (1947), exact: each differing question favours either mode like a fair coin."""
    from scipy.stats import binomtest

    total = first_better + second_better
    return float(binomtest(first_better, total).pvalue) if total else 1.0


def _sign_flips(difference: np.ndarray, seed: int) -> float:
    """``(1 + flips as extreme) / (1 + flips)`` (Phipson and Smyth 2010), of the sum."""
    generator = np.random.default_rng(seed)
    sums = np.zeros(FLIPS)
    # There are few sizes; for each, only the number of positive signs matters.
    for size, count in zip(*np.unique(np.abs(difference), return_counts=True), strict=True):
        sums += size * (2 * generator.binomial(count, 0.5, FLIPS) - count)
    observed = abs(difference.sum()) - 1e-9  # sums in another order differ by rounding
    return float((1 + (np.abs(sums) >= observed).sum()) / (1 + FLIPS))


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
        estimate(counts @ within / len(values)),
        estimate(counts @ margin / len(values)),
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
    aurocs = np.empty(len(counts))
    for number, count in enumerate(counts):
        total = np.concatenate([[0.0], np.cumsum(count[of_wrong])])
        weight = count[of_right]
        wins = weight @ (total[below] + total[up_to]) / 2
        aurocs[number] = wins / (weight.sum() * total[-1])
    return aurocs
