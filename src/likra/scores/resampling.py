"""The percentile bootstrap that all intervals come from: over questions, or seeds as well."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value with the low and the high end of its interval."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=2)  # all statistics of a study use the same questions
def with_resamples(size: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each of ``size`` items is drawn, [1 + resamples, size]; row 0 has each once.

    The same seed gives the same array, which is read-only.
    """
    counts = np.ones((1 + RESAMPLES, size))
    generator = np.random.default_rng(seed)
    counts[1:] = generator.multinomial(size, [1 / size] * size, RESAMPLES)
    counts.flags.writeable = False
    return counts


def resampled_sums(values: np.ndarray, seed: int) -> np.ndarray:
    """Sums over questions and seeds, both resampled; of whole numbers they are exact.

    Args:
        values: [curves, seeds, questions].
        seed: of the resamples: questions are drawn alike for all seeds, seeds for all questions.

    Returns:
        [1 + resamples, curves]; row 0 is not resampled.

    """
    _, n_seeds, n_questions = values.shape
    questions = with_resamples(n_questions, seed)
    seeds = with_resamples(n_seeds, (seed, 1))  # apart from the questions' stream
    by_seed = values.astype(np.float64) @ questions.T
    sums: np.ndarray = np.einsum("csb,bs->bc", by_seed, seeds)
    return sums


def estimate(values: np.ndarray) -> Estimate:
    """The value of row 0 and the percentile interval of the others, of [1 + resamples]."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high))
