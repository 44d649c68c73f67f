"""Whether one mode wins, ties or loses against others on the same questions, over all seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.resampling import LEVEL, Estimate, estimate, resampled_sums

BLOCKS = 20  # of resamples: p-values down to 1e-4, enough for Holm's first of 500 comparisons


@dataclass(frozen=True)
class Verdict:
    """One comparison.

    Attributes:
        difference: accuracy of the first mode minus that of the second.
        p_value: two-sided, of no difference, from the resamples of the interval.
        adjusted: the same after Holm's correction for all comparisons of the table.

    """

    difference: Estimate
    p_value: float
    adjusted: float

    @property
    def outcome(self) -> str:
        """Whether the interval lies above 0 ("wins"), below ("loses") or contains it ("ties")."""
        if self.difference.low > 0:
            return "wins"
        return "loses" if self.difference.high < 0 else "ties"

    @property
    def holds(self) -> bool:
        """Whether it is still a win or a loss after the correction."""
        return self.outcome != "ties" and self.adjusted <= 1 - LEVEL


def verdicts(differences: np.ndarray, seed: int = 0) -> list[Verdict]:
    """The verdict of each comparison, Holm's correction over all of them.

    The value is the mean over seeds and questions. The interval resamples questions and seeds
    together, crossed: a resample draws questions, the same for all seeds, and seeds, the same for
    all questions; so it is of new questions and of new trainings. It errs on the wide side where
    answers vary from seed to seed without a pattern, since that variance is counted up to three
    times (Owen 2007), and on the narrow side where whole seeds differ and are few: five show 4/5
    of the variance between seeds, and a single one, or copies of one, none.

    The p-value is twice the smaller share of the resamples on either side of 0, ``(1 + count) /
    (1 + resamples)``; a resample at 0 counts on both sides.

    Args:
        differences: [comparisons, seeds, questions]: 1 where the first mode alone is right, -1
            where the second alone is, else 0. What is not trained is repeated for each seed.
        seed: of the resamples, which are the same for all comparisons.

    Raises:
        LikraError: fewer questions than seeds (axes in the wrong order), or a value outside -1
            to 1.

    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 3 or not 0 < values.shape[1] <= values.shape[2]:
        raise LikraError(
            f"expected [comparisons, seeds, questions], not an array of shape {values.shape}"
        )
    if not (np.abs(values) <= 1).all():
        raise LikraError("expected differences of right answers, between -1 and 1")
    blocks = [resampled_sums(values, (seed, block)) for block in range(BLOCKS)]
    means = np.vstack([blocks[0][:1], *(block[1:] for block in blocks)])
    means /= values.shape[1] * values.shape[2]
    p_values = _two_sided(means[1:])
    adjusted = holm(p_values)
    return [
        Verdict(estimate(own), p, corrected)
        for own, p, corrected in zip(means.T, p_values, adjusted, strict=True)
    ]


def _two_sided(resamples: np.ndarray) -> list[float]:
    """Of each column of [resamples, comparisons]."""
    sides = [(resamples <= 0).sum(axis=0), (resamples >= 0).sum(axis=0)]
    shares = (1 + np.minimum(*sides)) / (1 + len(resamples))
    p_values: list[float] = np.minimum(2 * shares, 1).tolist()
    return p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm (1979): p-values of a family, corrected so that any wrong rejection is improbable.

    The smallest of m is multiplied by m, the next one by m - 1 and so on; none is smaller than
    one before it, or larger than 1.
    """
    order = np.argsort(p_values)
    raised = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1)
    result: list[float] = adjusted.tolist()
    return result
