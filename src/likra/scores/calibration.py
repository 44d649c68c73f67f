"""Probabilities of choices, their calibration, and the temperature that corrects them."""

from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.table import Scores

TEMPERATURES = (1e-3, 1e3)


def choice_probabilities(ratio: np.ndarray, scores: Scores, temperature: float = 1.0) -> np.ndarray:
    """Softmax of ``ratio / temperature`` over the choices of a question.

    Args:
        ratio: [questions, choices], nats (for acc_norm, nats per character).
        scores: which choices there are.
        temperature: above 0.

    Returns:
        [questions, choices], 0 on padding. The row's maximum is the prediction's probability.

    """
    from scipy.special import softmax

    scaled = np.where(scores.exists, ratio / temperature, -np.inf)
    probabilities: np.ndarray = softmax(scaled, axis=1)
    return probabilities


@dataclass(frozen=True)
class Bin:
    """The predictions with a probability above ``low`` and up to ``high``, with their means."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error, and the bins of the reliability diagram, none empty."""

    ece: float
    bins: tuple[Bin, ...]


def calibration(probability: np.ndarray, correct: np.ndarray, bins: int = 10) -> Calibration:
    """Expected calibration error in bins of equal width (Guo et al., arXiv:1706.04599).

    The mean of ``|accuracy - confidence|`` over bins, each weighted by its predictions.

    Args:
        probability: [questions], of the prediction; 0 belongs to the first bin.
        correct: [questions] bool, whether the prediction is right.
        bins: at least 1.

    Raises:
        LikraError: no question, different numbers of probabilities and predictions, no bin, or a
            probability outside 0 to 1.

    """
    if len(probability) != len(correct) or not len(correct):
        raise LikraError(f"{len(probability)} probabilities for {len(correct)} predictions")
    if bins < 1:
        raise LikraError(f"the number of bins must be at least 1, not {bins}")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise LikraError("a probability is not between 0 and 1")
    edges = np.arange(bins + 1) / bins
    bin_of = np.searchsorted(edges[1:], probability, side="left")
    filled = []
    for number in np.unique(bin_of):
        inside, (low, high) = bin_of == number, edges[number : number + 2].tolist()
        means = float(probability[inside].mean()), float(correct[inside].mean())
        filled.append(Bin(low, high, int(inside.sum()), *means))
    gaps = sum(b.count * abs(b.accuracy - b.confidence) for b in filled)
    return Calibration(gaps / len(correct), tuple(filled))


def fit_temperature(ratio: np.ndarray, scores: Scores) -> float:
    """The temperature at which the right choices are most probable (arXiv:1706.04599).

    It minimises the mean over questions of ``-log p(right)``, where the probabilities of several
    right choices add up. Fit it on other questions than those whose calibration is reported. The
    result is between 0.001 and 1,000, also where there is no minimum, as when each right choice
    comes first; it is 1 where the temperature has no effect.

    Args:
        ratio: [questions, choices], nats, as for `choice_probabilities`.
        scores: which choices there are, and which are right.

    Raises:
        LikraError: a question without a right choice.

    """
    from scipy.optimize import minimize_scalar

    right = scores.exists & scores.is_right
    without = np.flatnonzero(~right.any(axis=1))
    if without.size:
        raise LikraError(f"question '{scores.question_ids[without[0]]}' has no right choice")
    rights, all_choices = np.where(right, ratio, -np.inf), np.where(scores.exists, ratio, -np.inf)

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        of_all, of_right = (_log_sum_exp(x * scale) for x in (all_choices, rights))
        return float(np.mean(of_all - of_right))

    bounds = tuple(np.log(TEMPERATURES))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # The bounded search never tries its bounds; of equally good values the first is taken.
    return float(np.exp(min((0.0, best.x, *bounds), key=loss)))


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Of each row, as by `scipy.special.logsumexp`, which takes ten times as long on small arrays.

    Exact also where the largest value is far above the others: it is no part of the sum.
    """
    largest = values.max(axis=1, keepdims=True)
    is_largest = values == largest
    count = is_largest.sum(axis=1)
    rest = np.exp(values - largest, where=~is_largest, out=np.zeros_like(values)).sum(axis=1)
    whole: np.ndarray = np.log1p(rest / count) + np.log(count) + largest[:, 0]
    return whole
