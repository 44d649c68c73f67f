"""Example efficiency: how many right answers one example of another mode replaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likra.errors import LikraError
from likra.scores.resampling import Estimate, estimate, resampled_sums


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
        ``n[0]`` where the curve begins at the target or above, inf where it never reaches it.

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
class ExampleEfficiency:
    """How many examples of SFT do what one example of another mode does, at one snapshot.

    Attributes:
        n: examples that the other mode has seen.
        accuracy: of the other mode after these.
        k: examples of SFT for each example of the other mode.
        is_bound: SFT does not reach that accuracy, so that k is a lower bound.
        bound_share: share of the resamples in which SFT does not reach it. Above 0.025, the high
            end of the interval is only a bound too; above 0.975, so is the low end.

    """

    n: int
    accuracy: float
    k: Estimate
    is_bound: bool
    bound_share: float


def example_efficiency(
    n: Sequence[int], sft: np.ndarray, other: np.ndarray, seed: int = 0
) -> list[ExampleEfficiency]:
    """How many examples of SFT one example of another mode replaces, along its learning curve.

    For each m in n but 0: the SFT examples that reach (`examples_to_reach`) the accuracy that
    the other mode has after m, divided by m. It is 0 where the other mode is no better than the
    base. Where SFT does not reach it within its snapshots, it is ``n[-1] / m``, as a bound.
    Mean curves over seeds; the interval resamples questions and seeds, in the same way for both
    modes, whose heads of one seed saw the same questions. One seed adds no spread to it, and few
    seeds add too little.

    Args:
        n: ascending, examples at the snapshots of both modes; first 0, the base.
        sft: [snapshots, seeds, questions] bool, whether SFT answers the question correctly;
            the base is repeated for each seed.
        other: the same for the other mode.
        seed: of the resamples.

    Raises:
        LikraError: shapes that do not agree, fewer questions than seeds (axes in the wrong
            order), or n that does not ascend from 0.

    """
    _check_shapes(n, sft, other)
    _, n_seeds, n_questions = sft.shape
    sft_right, other_right = (resampled_sums(correct, seed) for correct in (sft, other))
    snapshots = np.asarray(n)
    results = []
    for i, m in enumerate(n[1:], start=1):
        pairs = zip(sft_right, other_right[:, i], strict=True)
        needed = np.array([_reach(snapshots, curve, target) for curve, target in pairs])
        unreached = np.isinf(needed)
        results.append(
            ExampleEfficiency(
                n=m,
                accuracy=float(other_right[0, i] / (n_seeds * n_questions)),
                k=estimate(np.where(unreached, n[-1], needed) / m),
                is_bound=bool(unreached[0]),
                bound_share=float(unreached[1:].mean()),
            )
        )
    return results


def _check_shapes(n: Sequence[int], sft: np.ndarray, other: np.ndarray) -> None:
    _check_ascending(n)
    if n[0] != 0 or len(n) < 2:
        raise LikraError(f"the curves must begin with the base, at n = 0, not {list(n)}")
    agree = sft.ndim == 3 and sft.shape == other.shape and len(sft) == len(n)
    if not agree or not 0 < sft.shape[1] <= sft.shape[2]:
        raise LikraError(
            f"expected two arrays [{len(n)} snapshots, seeds, questions], not of the shapes "
            f"{sft.shape} and {other.shape}"
        )
