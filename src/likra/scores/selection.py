"""Which mode, weight and length normalisation to use, and what that choice is worth.

Needs no torch. The scores are of heads that were not trained on the questions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from likra.errors import LikraError
from likra.scores.curves import ratios
from likra.scores.ratio import METRICS, MODES, is_correct
from likra.scores.table import Scores

# From the simplest to the one that needs most: of equally good ones the first is chosen.
CANDIDATES = ("base", "pmi", "sft", "positive-base", "base-likra", "likra")
WEIGHTS = tuple(round(0.1 * step, 1) for step in range(1, 13))


def modes_of(heads: Iterable[str]) -> list[str]:
    """The modes that heads of these names allow, from the simplest on."""
    have = {"base", "prior", *heads}
    return [mode for mode in CANDIDATES if {MODES[mode].positive, MODES[mode].negative} <= have]


def scores_of_pair(scores: Scores, seed: int, source: str, n: int) -> Scores:
    """The scores of a study that belong to one pair of heads, trained on up to n questions.

    Those of the base and of the base without the questions are among them. Where the sampler's
    pair saw other questions than usual, it has a positive head of its own, in place of the usual.
    """
    kept = {
        key: values
        for key, values in scores.logprob.items()
        if key.head in {"base", "prior", "positive", "negative"}
        and key.seed in {None, seed}
        and key.source in {None, source}
        and key.n_train <= n
    }
    for key in [key for key in kept if key.head == "positive" and key.source is not None]:
        kept.pop(replace(key, source=None), None)
    return replace(scores, logprob=kept)


@dataclass(frozen=True)
class Ranking:
    """How scores rank choices.

    Attributes:
        mode: see `likra.scores.ratio.MODES`.
        weight: of the negative term; 0 in a mode without one.
        metric: "acc", or "acc_norm" to divide by the characters of an answer.

    """

    mode: str
    weight: float
    metric: str

    @property
    def is_normalised(self) -> bool:
        """Whether scores are divided by the characters of an answer."""
        return self.metric == "acc_norm"

    def __str__(self) -> str:
        weight = f", w = {self.weight:g}" if MODES[self.mode].weighted else ""
        return f"{self.mode}{weight}" + ", per character" * self.is_normalised


def values_of(ratio: np.ndarray, scores: Scores, ranking: Ranking) -> np.ndarray:
    """What choices are compared by: [questions, choices], nats or nats per character."""
    values: np.ndarray = ratio / scores.n_chars if ranking.is_normalised else ratio
    return values


def rankings(
    scores: Scores, modes: Sequence[str], weights: Sequence[float], n: int
) -> Iterator[tuple[Ranking, np.ndarray]]:
    """Each way to rank, with the ratio [questions, choices] of the heads trained on n questions."""
    for mode, weight, key, ratio in ratios(scores, modes, weights):
        if key.n_train in {0, n}:
            for metric in METRICS:
                yield Ranking(mode, weight, metric), ratio


@dataclass(frozen=True)
class Selection:
    """The choice, and what choosing so is worth.

    Attributes:
        ranking: what is best on all questions.
        correct: [questions] bool by way to rank, of all that were tried.
        by_fold: for each fold the way to rank that is best on the others, so that no question has
            helped to choose how it is answered itself.

    """

    ranking: Ranking
    correct: Mapping[Ranking, np.ndarray]
    by_fold: Mapping[int, Ranking]

    def best_of(self, mode: str) -> Ranking | None:
        """The best weight and normalisation of a mode; None if the mode was not tried."""
        own = [ranking for ranking in self.correct if ranking.mode == mode]
        return _best(self.correct, own, slice(None)) if own else None


def select(
    scores: Scores,
    folds: np.ndarray,
    n: int,
    modes: Sequence[str] = CANDIDATES,
    weights: Sequence[float] = WEIGHTS,
) -> Selection:
    """Choose mode, weight and normalisation by their accuracy.

    Of equally good ones the simplest mode is chosen, then no normalisation, then the weight that
    is nearest to 1.

    Args:
        scores: of the base, and of heads not trained on the questions.
        folds: [questions], the fold that each belongs to; at least two.
        n: training questions of the heads; those of other snapshots are passed over.
        modes: those to try; a mode whose heads are missing is passed over.
        weights: those to try.

    Raises:
        LikraError: nothing to choose from, or a single fold.

    """
    if len(np.unique(folds)) < 2:
        raise LikraError("to choose how to rank takes at least two folds of questions")
    correct = {
        ranking: is_correct(ratio, scores, ranking.metric)
        for ranking, ratio in rankings(scores, modes, weights, n)
    }
    if not correct:
        raise LikraError(f"there are no scores of any of {', '.join(modes)}")
    every = list(correct)
    by_fold = {int(fold): _best(correct, every, folds != fold) for fold in np.unique(folds)}
    return Selection(_best(correct, every, slice(None)), correct, by_fold)


def _best(
    correct: Mapping[Ranking, np.ndarray], of: Sequence[Ranking], rows: "np.ndarray | slice"
) -> Ranking:
    def order(ranking: Ranking) -> tuple[float, int, bool, float, float]:
        return (
            -round(float(correct[ranking][rows].mean()), 12),
            CANDIDATES.index(ranking.mode) if ranking.mode in CANDIDATES else len(CANDIDATES),
            ranking.is_normalised,
            round(abs(ranking.weight - 1), 12),
            ranking.weight,
        )

    return min(of, key=order)


def ratio_of(scores: Scores, ranking: Ranking, n: int) -> np.ndarray:
    """The ratio of one way to rank, [questions, choices].

    Raises:
        LikraError: its heads were not scored.

    """
    for mode, _, key, ratio in ratios(scores, [ranking.mode], [ranking.weight]):
        if mode == ranking.mode and key.n_train in {0, n}:
            return ratio
    raise LikraError(f"there are no scores of {ranking}")
