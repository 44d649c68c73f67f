"""How many examples a mode needs, and how many positive ones a negative one is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.resampling import Estimate, estimate, with_resamples


def examples_to_reach(n: Sequence[int], accuracy: Sequence[float], target: float) -> float:
    """The smallest number of examples at which a learning curve first reaches the target.

    Between snapshots the curve is linear in ``log2(n)``; between the base (0 examples), which
    has no logarithm, and the first snapshot it is linear in ``n``. The first crossing counts,
    though the curve may fall below the target again.

    Args:
        n: ascending; 0 stands for the base.
        accuracy: at each n.
        target: an accuracy.

    Returns:
        ``n[0]`` where the curve begins at the target or above, inf where it never gets there.

    Raises:
        LikraError: no snapshot, n not ascending, or not as many n as accuracies.

    """
    if len(n) != len(accuracy):
        raise LikraError(f"{len(n)} numbers of examples for {len(accuracy)} accuracies")
    _check_ascending(n)
    return _reach(np.asarray(n), np.asarray(accuracy), target)


def _check_ascending(n: Sequence[int]) -> None:
    if not len(n) or n[0] < 0 or (np.diff(n) <= 0).any():
        raise LikraError(f"the numbers of examples must ascend from 0 or more, not {list(n)}")


def _reach(n: np.ndarray, accuracy: np.ndarray, target: float) -> float:
    reached = np.flatnonzero(accuracy >= target)
    if not reached.size:
        return float("inf")
    end = reached[0]
    if end == 0:
        return float(n[0])
    (n0, n1), (a0, a1) = n[end - 1 : end + 1], accuracy[end - 1 : end + 1]
    part = (target - a0) / (a1 - a0)
    return float(n1 * part if n0 == 0 else n0 * (n1 / n0) ** part)


@dataclass(frozen=True)
class Worth:
    """What one example of another mode is worth at one snapshot of its curve.

    Attributes:
        n: examples that the other mode has seen.
        accuracy: that it has there.
        k: so many examples of SFT do what one of the other mode does.
        is_bound: SFT never gets there, so that k is only known to be larger than this.
        bound_share: share of the resamples of which that is true. Above 0.025, the high end
            of the interval is only a bound too; above 0.975, the low end also.

    """

    n: int
    accuracy: float
    k: Estimate
    is_bound: bool
    bound_share: float


def worth(n: Sequence[int], positive: np.ndarray, other: np.ndarray, seed: int = 0) -> list[Worth]:
    """How many positive examples one example of another mode is worth, along its curve.

    For every m in n but 0: the SFT examples that reach (`examples_to_reach`) the accuracy that
    the other mode has after m, divided by m. It is 0 where the other mode is no better than the
    base. Where SFT does not get there within its snapshots, it is ``n[-1] / m``, as a bound.
    Mean curves over seeds; the interval draws questions and seeds anew, the same for both modes,
    whose heads of one seed saw the same questions. One seed adds no spread to it, and few seeds
    add too little.

    Args:
        n: ascending, examples at the snapshots of both modes; first 0, the base.
        positive: [snapshots, seeds, questions] bool, whether SFT answers the question rightly;
            the base is repeated for every seed.
        other: the same for the other mode.
        seed: of the resamples.

    Raises:
        LikraError: shapes that do not agree, fewer questions than seeds (axes in the wrong
            order), or n that does not ascend from 0.

    """
    _check_ascending(n)
    if n[0] != 0 or len(n) < 2:
        raise LikraError(f"the curves must begin with the base, at n = 0, not {list(n)}")
    agree = positive.ndim == 3 and positive.shape == other.shape and len(positive) == len(n)
    if not agree or not 0 < positive.shape[1] <= positive.shape[2]:
        raise LikraError(
            f"expected two arrays [{len(n)} snapshots, seeds, questions], not of the shapes "
            f"{positive.shape} and {other.shape}"
        )
    _, n_seeds, n_questions = positive.shape
    questions = with_resamples(n_questions, seed)
    seeds = with_resamples(n_seeds, (seed, 1))  # apart from the questions' stream

    def curves(correct: np.ndarray) -> np.ndarray:
        """Numbers of right answers, [resamples, snapshots]: whole, so that ties are exact."""
        by_seed = correct.astype(np.float64) @ questions.T
        return np.einsum("msb,bs->bm", by_seed, seeds)

    sft, reached = curves(positive), curves(other)
    snapshots = np.asarray(n)
    found = []
    for i, m in enumerate(n[1:], start=1):
        pairs = zip(sft, reached[:, i], strict=True)
        needed = np.array([_reach(snapshots, curve, target) for curve, target in pairs])
        bound = np.isinf(needed)
        k = np.where(bound, n[-1], needed) / m
        accuracy = float(reached[0, i] / (n_seeds * n_questions))
        share = float(bound[1:].mean())
        found.append(Worth(m, accuracy, estimate(k), bool(bound[0]), share))
    return found
