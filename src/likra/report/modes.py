"""The scores of a run as its modes combine them."""

from collections.abc import Iterator

import numpy as np

from likra.report.curves import in_study_order, weight_of
from likra.scores.calibration import choice_probabilities, fit_temperature
from likra.scores.curves import ratios
from likra.scores.ratio import is_correct
from likra.scores.table import Scores
from likra.scores.weights import split_validation
from likra.study.config import Study
from likra.study.folder import Run
from likra.study.tables import read_run_scores

# by sampler of negatives ("" where there is none), number of examples (0: not trained), and seed
Ratios = dict[str, dict[int, dict[int | None, np.ndarray]]]


def reported_scores(run: Run) -> Scores:
    """The scores of a run without the questions that the weight was chosen on."""
    scores, fraction = read_run_scores(run), run.study.validation_fraction
    if fraction is None:
        return scores
    return scores.of(~split_validation(scores.question_ids, fraction))


class ModeScores:
    """The ratios of a run by mode, source and number of examples; each is computed once.

    All weights are those of the learning curves.
    """

    def __init__(self, scores: Scores, study: Study) -> None:
        self.scores, self.study = scores, study
        self._ratios: dict[str, Ratios] = {}

    def ratios(self, mode: str) -> Ratios:
        """The ratios of a mode, [questions, choices] each, in nats."""
        if mode not in self._ratios:
            self._ratios[mode] = _ratios(self.scores, mode, weight_of(mode, self.study))
        return self._ratios[mode]

    def sources(self, mode: str) -> list[str]:
        """The sources of a mode, in the study's order; [""] where it has none."""
        return in_study_order(self.ratios(mode).keys(), self.study)

    def cells(self) -> Iterator[tuple[str, int]]:
        """Each sampler of negatives at each number of examples."""
        for source in self.study.negatives:
            for n in self.study.snapshots:
                yield source, n

    def by_seed(self, mode: str, source: str, n: int) -> list[np.ndarray]:
        """The ratios of all seeds; of a mode without that source or training, the one it has."""
        by_source = self.ratios(mode)
        by_n = by_source.get(source, by_source.get("", {}))
        by_seed = by_n.get(n, by_n.get(0, {}))
        return [by_seed[seed] for seed in sorted(by_seed, key=lambda s: -1 if s is None else s)]

    def correct(self, mode: str, source: str, n: int) -> np.ndarray:
        """[questions, seeds] bool, by the study's metric; no column where there is no head."""
        metric = self.study.metric
        correct = [is_correct(r, self.scores, metric) for r in self.by_seed(mode, source, n)]
        return np.array(correct, dtype=bool).reshape(-1, len(self.scores.question_ids)).T

    def as_compared(self, mode: str, source: str, n: int) -> list[np.ndarray]:
        """The ratios of all seeds as the metric compares them: for acc_norm, per character."""
        length = self.scores.n_chars if self.study.metric == "acc_norm" else 1.0
        return [ratio / length for ratio in self.by_seed(mode, source, n)]

    def probabilities(
        self, mode: str, source: str, n: int, *, scaled: bool = False
    ) -> list[np.ndarray]:
        """For each seed the probabilities of the choices; scaled: at the best temperature."""
        by_seed = []
        for ratio in self.as_compared(mode, source, n):
            temperature = fit_temperature(ratio, self.scores) if scaled else 1.0
            by_seed.append(choice_probabilities(ratio, self.scores, temperature))
        return by_seed


def _ratios(scores: Scores, mode: str, weight: float) -> Ratios:
    by_source: Ratios = {}
    for _, _, key, ratio in ratios(scores, [mode], [weight]):
        by_source.setdefault(key.source or "", {}).setdefault(key.n_train, {})[key.seed] = ratio
    return by_source
