"""Whether the ratio, as a probability, says how often a prediction is right."""

from typing import TypedDict

import numpy as np

from likra.errors import LikraError
from likra.report.modes import ModeScores
from likra.report.rounding import rounded
from likra.report.style import STYLES
from likra.scores.calibration import calibration, choice_probabilities, fit_temperature
from likra.scores.weights import split_validation

BINS = 10


class Reliability(TypedDict):
    """The reliability diagram of one mode, source ("" for none) and n (0: no training), all seeds.

    ``confidence`` is the mean probability of the predictions, ``accuracy`` the share of right ones;
    ``x`` and ``y`` are the same in each bin, and ``count`` is the number of predictions there.
    ``ece`` is the expected calibration error. ``ece_scaled`` is the error on half of the questions,
    with a temperature for each seed fitted on the other half; None where questions are too few.
    """

    mode: str
    source: str
    n: int
    ece: float
    ece_scaled: float | None
    confidence: float
    accuracy: float
    x: list[float]
    y: list[float]
    count: list[int]


def reliabilities(modes: ModeScores) -> list[Reliability]:
    """The diagram of each mode, source and number of examples.

    The probabilities are a softmax of a question's ratios (for acc_norm, per character).
    """
    return [
        _reliability(modes, mode, source, n)
        for mode in STYLES
        if mode in modes.study.modes
        for source in modes.sources(mode)
        for n in sorted(modes.ratios(mode)[source])
    ]


def _reliability(modes: ModeScores, mode: str, source: str, n: int) -> Reliability:
    chosen = np.concatenate([p.max(axis=1) for p in modes.probabilities(mode, source, n)])
    correct = modes.correct(mode, source, n).T.ravel()
    result = calibration(np.minimum(chosen, 1.0), correct, BINS)
    return Reliability(
        mode=mode,
        source=source,
        n=n,
        ece=round(result.ece, 4),
        ece_scaled=_scaled_error(modes, mode, source, n),
        confidence=round(float(chosen.mean()), 4),
        accuracy=round(float(correct.mean()), 4),
        x=rounded(b.confidence for b in result.bins),
        y=rounded(b.accuracy for b in result.bins),
        count=[b.count for b in result.bins],
    )


def _scaled_error(modes: ModeScores, mode: str, source: str, n: int) -> float | None:
    try:
        # another seed than `validation_fraction`: of its two sides only one is left here
        fitted = split_validation(modes.scores.question_ids, seed=1)
    except LikraError:
        return None
    part, rest = modes.scores.of(fitted), modes.scores.of(~fitted)
    probability = []
    for ratio in modes.as_compared(mode, source, n):
        temperature = fit_temperature(ratio[fitted], part)
        chosen = choice_probabilities(ratio[~fitted], rest, temperature).max(axis=1)
        probability.append(np.minimum(chosen, 1.0))
    correct = modes.correct(mode, source, n)[~fitted].T.ravel()
    return round(calibration(np.concatenate(probability), correct, BINS).ece, 4)
