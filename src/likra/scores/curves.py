"""Accuracies of each mode, weight, metric, seed and number of examples, with intervals."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from likra.errors import unknown
from likra.scores.intervals import accuracy_intervals
from likra.scores.ratio import METRICS, MODES, is_correct, likelihood_ratio
from likra.scores.table import UNTRAINED, HeadKey, Scores


@dataclass(frozen=True)
class Point:
    """One row of ``curve.csv``.

    ``seed`` is a number, with the interval over questions, or "all": the mean over the seeds,
    with the interval over questions and seeds. See `likra.scores.intervals`. The source is empty
    where no negative head takes part.
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
    seeds: dict[tuple[str, str, str, int, float, str], list[str]] = {}
    correct: dict[tuple[str, str, str, int, float, str], list[np.ndarray]] = {}
    for mode, weight, key, ratio in ratios(scores, modes, weights):
        for metric in METRICS:
            cell = (task, key.source or "", mode, key.n_train, weight, metric)
            seeds.setdefault(cell, []).append("" if key.seed is None else str(key.seed))
            correct.setdefault(cell, []).append(is_correct(ratio, scores, metric))
    single = np.stack([own for by_seed in correct.values() for own in by_seed])
    names = [(*cell, seed) for cell, own in seeds.items() for seed in own]
    names += [(*cell, "all") for cell in correct]
    values = [
        accuracy_intervals(single[:, None]).T,
        *(accuracy_intervals(np.stack(by_seed)[None]).T for by_seed in correct.values()),
    ]
    points = zip(names, np.vstack(values).tolist(), strict=True)
    return [asdict(Point(*name, *value)) for name, value in points]


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
