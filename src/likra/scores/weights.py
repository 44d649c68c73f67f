"""The weight of the negative head, chosen on questions that are then not reported."""

import hashlib
from collections.abc import Sequence

import numpy as np

from likra.errors import LikraError

VALIDATION = 20  # fewer questions can neither choose a weight nor test it


def choose_weight(weights: Sequence[float], accuracy: Sequence[float]) -> float:
    """The weight with the best accuracy; of equal ones the nearest to 1, then the smaller.

    The accuracies are on questions that are not reported (`split_validation`).

    Raises:
        LikraError: no weight, different numbers of weights and accuracies, or an accuracy that
            is not a finite number.

    """
    if len(weights) != len(accuracy) or not len(weights):
        raise LikraError(f"{len(weights)} weights for {len(accuracy)} accuracies")
    if not np.isfinite(accuracy).all():
        raise LikraError("an accuracy is not a finite number")

    def rank(pair: tuple[float, float]) -> tuple[float, float, float]:
        # rounded: equal means over seeds, and the distances of 0.9 and 1.1, differ in the last bits
        weight, value = pair
        return -round(float(value), 12), round(abs(float(weight) - 1), 12), weight

    return float(min(zip(weights, accuracy, strict=True), key=rank)[0])


def split_validation(
    question_ids: Sequence[str], fraction: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Which questions to choose a weight on; the others are reported.

    A hash of its id and the seed decides for each question, whatever the order and the other
    questions are, so that splitting a subset gives the subset of the split. The fraction is
    therefore only approximate.

    Returns:
        [questions] bool, True for validation.

    Raises:
        LikraError: a fraction not between 0 and 1, or too few questions: one side is empty.

    """
    if not 0 < fraction < 1:
        raise LikraError(f"the fraction for validation must lie between 0 and 1, not {fraction}")
    limit = fraction * 2**64
    digests = (
        hashlib.blake2b(f"{seed}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8)
        for name in question_ids
    )
    chosen = np.array([int.from_bytes(d.digest(), "big") < limit for d in digests], dtype=bool)
    if chosen.all() or not chosen.any():
        raise LikraError(f"too few questions to set some aside for validation: {len(question_ids)}")
    return chosen


def validation_questions(question_ids: Sequence[str], fraction: float) -> np.ndarray:
    """As `split_validation`, with enough questions on each side to say something.

    Raises:
        LikraError: fewer than `VALIDATION` on one side.

    """
    chosen = split_validation(question_ids, fraction)
    aside, left = int(chosen.sum()), int((~chosen).sum())
    if min(aside, left) < VALIDATION:
        raise LikraError(
            f"validation_fraction {fraction} sets {aside} questions aside and leaves {left}: "
            f"each side needs {VALIDATION}"
        )
    return chosen
