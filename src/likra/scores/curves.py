"""Accuracies of each mode, weight, metric, seed and number of examples, with intervals."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from likra.errors import unknown
from likra.scores.ratio import METRICS, MODES, is_correct, likelihood_ratio
from likra.scores.resampling import LEVEL, with_resamples
from likra.scores.table import UNTRAINED, HeadKey, Scores


def question_intervals(correct: np.ndarray, seed: int = 0) -> np.ndarray:
    """Percentile bootstrap intervals of mean accuracies, over questions.

    They are too narrow near 0 and 1: with 128 questions at .99 they contain the true accuracy in
    73% of cases, and where all answers are right they have no width.

    Args:
        correct: [questions, curves] bool or float.
        seed: of the resampling; all curves see the same resamples.

    Returns:
        [2, curves]: low and high end.

    """
    counts = with_resamples(len(correct), seed)[1:]
    means = counts @ correct.astype(np.float64) / len(correct)
    tail = (1 - LEVEL) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0)


def seed_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's t interval of the mean over training seeds; not a number for a single seed."""
    from scipy.stats import t

    if len(values) < 2:
        return float("nan"), float("nan")
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * error)
    mean = float(np.mean(values))
    return mean - half, mean + half


@dataclass(frozen=True)
class Point:
    """One row of ``curve.csv``.

    ``seed`` is a number, with the interval over questions, or "all": the mean over the seeds,
    with the interval over seeds. The source is empty where no negative head takes part.
    """

    task: str
    source: str
    mode: str
    n_train: int
    weight: float
    metric: str
    seed: str
    value: float
    ci_low: float
    ci_high: float


def curve(
    scores: Scores, task: str, modes: Sequence[str], weights: Sequence[float]
) -> list[dict[str, object]]:
    """All accuracies that the scores allow: each mode, weight, metric, source, seed and n.

    The base has no seed and no weight; its n is 0.
    """
    cells, columns = [], []
    for mode, weight, key, ratio in ratios(scores, modes, weights):
        seed = "" if key.seed is None else str(key.seed)
        for metric in METRICS:
            cells.append((task, key.source or "", mode, key.n_train, weight, metric, seed))
            columns.append(is_correct(ratio, scores, metric))
    correct = np.stack(columns, axis=1)
    values = np.vstack([correct.mean(axis=0), question_intervals(correct)]).T.tolist()
    points = [Point(*cell, *value) for cell, value in zip(cells, values, strict=True)]
    return [asdict(point) for point in [*points, *_over_seeds(points)]]


def ratios(
    scores: Scores, modes: Sequence[str], weights: Sequence[float]
) -> Iterator[tuple[str, float, HeadKey, np.ndarray]]:
    """Each mode and weight with each ratio, [questions, choices], and what was trained for it.

    The key has n and seed of the head, or of both heads, and the source of either.
    """
    for name in modes:
        if name not in MODES:
            raise unknown("mode", name, MODES)
        mode = MODES[name]
        pairs = [
            (positive, negative)
            for positive in _of(scores, mode.positive)
            for negative in _of(scores, mode.negative)
            if _belong_together(positive, negative, scores.logprob)
        ]
        for weight in weights if mode.weighted else (0.0,):
            for positive, negative in pairs:
                trained = max(positive, negative, key=lambda key: key.n_train)
                key = replace(trained, source=positive.source or negative.source)
                ratio = likelihood_ratio(scores.logprob[positive], scores.logprob[negative], weight)
                yield name, weight, key, ratio


def _of(scores: Scores, head: str) -> list[HeadKey]:
    keys = [key for key in scores.logprob if key.head == head]
    return sorted(keys, key=lambda key: (key.source or "", key.n_train, key.seed or 0))


def _belong_together(positive: HeadKey, negative: HeadKey, scored: Container[HeadKey]) -> bool:
    """Whether two heads form a ratio: at the same n and seed, where they saw the same questions.

    A positive head with a source was trained for that source's negative head alone.
    """
    if positive in UNTRAINED:
        return True
    if negative in UNTRAINED:
        return positive.head != "positive" or positive.source is None
    own = replace(negative, head="positive")
    return positive == (own if own in scored else replace(own, source=None))


def _over_seeds(points: Sequence[Point]) -> list[Point]:
    groups: dict[tuple[str, str, str, int, float, str], list[float]] = {}
    for p in points:
        key = (p.task, p.source, p.mode, p.n_train, p.weight, p.metric)
        groups.setdefault(key, []).append(p.value)
    return [
        Point(*key, "all", float(np.mean(values)), *seed_interval(values))
        for key, values in groups.items()
    ]
