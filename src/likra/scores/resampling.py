"""The percentile bootstrap that all intervals come from: over questions, or seeds as well."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000
# counts that are computed with at once; of more, so many rows
WHOLE, ROWS = 1 << 21, 64


@dataclass(frozen=True)
class Estimate:
    """A value with the low and the high end of its interval."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=2)  # all statistics of a study use the same questions
def with_resamples(size: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each of ``size`` items is drawn, [1 + resamples, size] uint8; row 0 has each once.

    The same seed gives the same array, which is read-only. That an item is drawn 256 times or more
    has a probability below 1e-490.
    """
    counts = np.ones((1 + RESAMPLES, size), dtype=np.uint8)
    generator = np.random.default_rng(seed)
    for block in blocks(counts[1:]):
        block[:] = generator.multinomial(size, np.full(size, 1 / size), len(block))
    counts.flags.writeable = False
    return counts


def blocks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in parts, for what takes eight bytes a count."""
    rows = len(counts) if counts.size <= WHOLE else ROWS
    return (counts[start : start + rows] for start in range(0, len(counts), rows))


def resampled_dot(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``counts @ values`` in float64: [1 + resamples], of [1 + resamples, size] and [size]."""
    return np.concatenate([block.astype(np.float64) @ values for block in blocks(counts)])


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
    numbers = values.astype(np.float64)
    by_seed = np.concatenate(
        [numbers @ block.astype(np.float64).T for block in blocks(questions)], axis=-1
    )
    sums: np.ndarray = np.einsum("csb,bs->bc", by_seed, seeds.astype(np.float64))
    return sums


def estimate(values: np.ndarray) -> Estimate:
    """The value of row 0 and the percentile interval of the others, of [1 + resamples]."""
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values[0]), float(low), float(high))
