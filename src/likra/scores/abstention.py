"""Answering only where the share of wrong answers stays below a level."""

import numpy as np

from likra.errors import LikraError


def abstention_threshold(confidence: np.ndarray, correct: np.ndarray, error: float) -> float:
    """The confidence from which on to answer, so that of the answers at most ``error`` are wrong.

    The smallest threshold t with ``(1 + wrong at t or above) / answered at t or above <= error``.
    This is the threshold of conformal selection (Jin and Candes 2023, arXiv:2210.01408), with the
    calibration questions in the place of the test batch: the 1 stands for the next question, as if
    it were answered wrongly. Where calibration and new questions are exchangeable, the expected
    share of wrong answers stays at the level, up to the sampling error of the share that is
    answered.

    Args:
        confidence: [questions], of predictions on questions that the model was not trained on.
        correct: [questions] bool, whether they are right.
        error: the level, between 0 and 1.

    Returns:
        The threshold; infinity where no answer is safe.

    Raises:
        LikraError: no question, different numbers, or a level that is not between 0 and 1.

    """
    if len(confidence) != len(correct) or not len(correct):
        raise LikraError(f"{len(confidence)} confidences for {len(correct)} predictions")
    if not 0 < error < 1:
        raise LikraError(f"abstain takes an error rate between 0 and 1, not {error}")
    confidence = np.asarray(confidence, dtype=np.float64)
    thresholds = -np.unique(-confidence)  # descending: each answers more than the one before it
    order = np.argsort(-confidence, kind="stable")
    answered = np.searchsorted(-confidence[order], -thresholds, side="right")
    wrong = np.concatenate([[0], np.cumsum(~np.asarray(correct, dtype=bool)[order])])[answered]
    safe = np.flatnonzero((1 + wrong) / answered <= error)
    return float(thresholds[safe[-1]]) if safe.size else float("inf")
