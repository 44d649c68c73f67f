"""Modes: from log-likelihoods to likelihood ratios and to right and wrong predictions."""

from dataclasses import dataclass

import numpy as np

from likra.errors import unknown
from likra.scores.table import BASELINES, Scores

METRICS = ("acc", "acc_norm")


@dataclass(frozen=True)
class Mode:
    """One way to score: which heads give the two terms, and whether the second one counts.

    A missing head *is* the base model, so that all modes have the same formula.
    """

    positive: str
    negative: str
    weighted: bool


MODES = {
    "base": Mode("base", "base", weighted=False),
    "sft": Mode("positive", "base", weighted=False),
    "likra": Mode("positive", "negative", weighted=True),
    "base-likra": Mode("base", "negative", weighted=True),
    "positive-base": Mode("positive", "base", weighted=True),
    # fine-tuned on wrong answers, as if they were right ones
    "negative": Mode("negative", "base", weighted=False),
    # log p(a|q) - log p(a): pointwise mutual information, without training
    "pmi": Mode("base", "prior", weighted=True),
    # what Bradley-Terry trains is the ratio itself, and a classifier's score is its log-odds
    "bradley-terry": Mode("bradley-terry", "base", weighted=True),
    "classifier": Mode("classifier", "base", weighted=False),
    "trl-sft": Mode("trl-sft", "base", weighted=False),
}
# Other methods: the policy as a model, and its ratio to the base: for DPO, IPO, NCA and KTO the
# implicit reward (Rafailov et al. 2023, eq. 5, arXiv:2305.18290).
for _name in BASELINES:
    if _name not in MODES:
        MODES[_name] = Mode(_name, "base", weighted=False)
        MODES[f"{_name}-reward"] = Mode(_name, "base", weighted=True)
PAPER_MODES = ("base", "sft", "likra", "base-likra", "positive-base")


def likelihood_ratio(positive: np.ndarray, negative: np.ndarray, weight: float) -> np.ndarray:
    """``L+ - w L-`` (arXiv:2503.14391, section 2), elementwise, in nats."""
    ratio: np.ndarray = positive - weight * negative
    return ratio


def is_correct(ratio: np.ndarray, scores: Scores, metric: str) -> np.ndarray:
    """Whether the choice with the highest ratio is right: [questions] bool.

    ``acc`` compares the ratios, ``acc_norm`` the ratios per character of the choice; of equal
    ones the first wins. All three as in lm-evaluation-harness.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    value = ratio / scores.n_chars if metric == "acc_norm" else ratio
    best = np.where(scores.exists, value, -np.inf).argmax(axis=1)
    correct: np.ndarray = np.take_along_axis(scores.is_right, best[:, None], axis=1)[:, 0]
    return correct
