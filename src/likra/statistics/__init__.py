"""Comparisons of modes: paired tests, separation, calibration, examples needed, weights chosen.

Pure functions on arrays. Every interval is a 95 % percentile bootstrap interval over questions
(`worth`: and seeds), with the resamples of `likra.ratio.question_intervals`; the interval of a
mean over training seeds is `likra.ratio.seed_interval`.
"""

from likra.statistics.comparison import Paired, Separation, paired, separation
from likra.statistics.efficiency import Worth, examples_to_reach, worth
from likra.statistics.probabilities import (
    Bin,
    Calibration,
    calibration,
    choice_probabilities,
    fit_temperature,
)
from likra.statistics.resampling import Estimate
from likra.statistics.weights import choose_weight, split_validation

__all__ = [
    "Bin",
    "Calibration",
    "Estimate",
    "Paired",
    "Separation",
    "Worth",
    "calibration",
    "choice_probabilities",
    "choose_weight",
    "examples_to_reach",
    "fit_temperature",
    "paired",
    "separation",
    "split_validation",
    "worth",
]
