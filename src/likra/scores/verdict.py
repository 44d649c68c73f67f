"""Whether one mode wins, ties or loses against others on the same questions, over all seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.intervals import differences
from likra.scores.resampling import LEVEL, Estimate


@dataclass(frozen=True)
class Verdict:
    """One comparison.

    Attributes:
        difference: accuracy of the first mode minus that of the second.
        p_value: two-sided, of no difference; it goes with the interval.
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


def verdicts(answers: np.ndarray) -> list[Verdict]:
    """The verdict of each comparison, Holm's correction over all of them.

    Intervals and p-values are of new questions and of new trainings: see
    `likra.scores.intervals.differences`.

    Args:
        answers: [comparisons, seeds, questions]: 1 where the first mode alone is right, -1
            where the second alone is, else 0. What is not trained is repeated for each seed.

    Raises:
        LikraError: fewer questions than seeds (axes in the wrong order), or a value outside -1
            to 1.

    """
    values = np.asarray(answers, dtype=np.float64)
    if values.ndim != 3 or not 0 < values.shape[1] <= values.shape[2]:
        raise LikraError(
            f"expected [comparisons, seeds, questions], not an array of shape {values.shape}"
        )
    if not (np.abs(values) <= 1).all():
        raise LikraError("expected differences of right answers, between -1 and 1")
    found = differences(values, np.zeros((len(values), 1, values.shape[2])))
    adjusted = holm([own.p_value for own in found])
    return [
        Verdict(own.estimate, own.p_value, corrected)
        for own, corrected in zip(found, adjusted, strict=True)
    ]


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
