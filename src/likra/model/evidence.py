"""What the questions say about each mode: the table, the choice, and the sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from likra.report.style import mode_style
from likra.scores.abstention import abstention_threshold
from likra.scores.calibration import calibration, choice_probabilities, fit_temperature
from likra.scores.comparison import paired
from likra.scores.intervals import accuracy_intervals
from likra.scores.ratio import MODES, is_correct
from likra.scores.resampling import Estimate
from likra.scores.selection import CANDIDATES, Ranking, Selection, ratio_of, select, values_of
from likra.scores.table import Scores

LEVELS = (0.05, 0.1, 0.2)  # of wrong answers, at which the evidence says how much is answered
FEWEST = 20  # questions, to choose by
KINDS = {"positive": "right", "negative": "wrong"}


@dataclass(frozen=True)
class Row:
    """The accuracy of a mode at its best weight and normalisation.

    ``accuracy`` has the interval over questions. The best of many weights looks better than it is;
    `Evidence.expected` is free of that.
    """

    mode: str
    weight: float
    metric: str
    n_train: int
    accuracy: Estimate


@dataclass(frozen=True)
class Evidence:
    """What was measured on questions that the heads were not trained on.

    Attributes:
        n_questions: those with a right and a wrong answer.
        how: how they were kept apart from the training, in words.
        n_train: training questions of the heads that were measured.
        modes: each mode at its best, with all training questions.
        growth: the same modes by the number of training questions.
        expected: accuracy of choosing so: each fold ranked as the others choose.
        difference: `expected` minus the base model's accuracy, and its interval.
        ece: expected calibration error before and after scaling, each fold as the others choose.
        coverage: by level of wrong answers, the share of questions that are answered at it.
        learned: by head, nats per answer token on answers of its kind that it was not trained on:
            the base's mean log-probability, and the head's.

    """

    n_questions: int
    how: str
    n_train: int
    modes: tuple[Row, ...] = ()
    growth: tuple[Row, ...] = ()
    expected: Estimate | None = None
    difference: Estimate | None = None
    ece: tuple[float, float] | None = None
    coverage: Mapping[str, float] = field(default_factory=dict)
    learned: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Evidence":
        """What `dataclasses.asdict` gave."""

        def estimate(value: Mapping[str, float] | None) -> Estimate | None:
            return None if value is None else Estimate(**value)

        def rows(values: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
            return tuple(Row(**{**row, "accuracy": Estimate(**row["accuracy"])}) for row in values)

        changed: dict[str, Any] = {
            "modes": rows(values["modes"]),
            "growth": rows(values["growth"]),
            "expected": estimate(values["expected"]),
            "difference": estimate(values["difference"]),
            "ece": None if values["ece"] is None else tuple(values["ece"]),
            "learned": {head: tuple(pair) for head, pair in values["learned"].items()},
        }
        return cls(**{**values, **changed})


@dataclass(frozen=True)
class Chosen:
    """What a model keeps of its evidence.

    Attributes:
        ranking: mode, weight and normalisation.
        temperature: of the probabilities.
        confidence: [questions], the probability of the first-ranked option of questions not
            trained on, each ranked and scaled as the other folds choose; for abstaining.
        correct: [questions], whether it was right.
        evidence: all that was measured.
        inputs: digest of the data and the settings; "" for heads that were trained elsewhere.

    """

    ranking: Ranking
    temperature: float
    confidence: tuple[float, ...]
    correct: tuple[bool, ...]
    evidence: Evidence
    inputs: str = ""


def choose(
    scores: Scores,
    folds: np.ndarray,
    how: str,
    modes: Sequence[str] = CANDIDATES,
    learned: Mapping[str, tuple[float, float]] | None = None,
) -> Chosen:
    """Choose how to rank, calibrate it, and say what that is worth.

    Args:
        scores: of the base and of the heads, on questions with a right and a wrong answer that
            the heads were not trained on.
        folds: [questions], the fold of each.
        how: the questions were kept apart, in words.
        modes: those to choose from.
        learned: see `Evidence`.

    """
    sizes = _sizes(scores)
    n = sizes[-1] if sizes else 0
    selection = select(scores, folds, n, modes)
    ranking = selection.ranking
    values = values_of(ratio_of(scores, ranking, n), scores, ranking)
    raw, confidence, correct = _cross_fitted(scores, folds, n, selection)
    base = selection.best_of("base")
    difference = None
    if base is not None and ranking.mode != "base":
        difference = paired(correct, selection.correct[base]).difference
    evidence = Evidence(
        n_questions=len(scores.question_ids),
        how=how,
        n_train=n,
        modes=_rows(selection, modes, n),
        growth=tuple(row for size in sizes for row in _growth(scores, selection, modes, size)),
        expected=_estimate(correct),
        difference=difference,
        ece=(calibration(raw, correct).ece, calibration(confidence, correct).ece),
        coverage={f"{level:g}": _coverage(confidence, correct, level) for level in LEVELS},
        learned=learned or {},
    )
    return Chosen(
        ranking,
        fit_temperature(values, scores),
        tuple(confidence.tolist()),
        tuple(correct.tolist()),
        evidence,
    )


def _sizes(scores: Scores) -> list[int]:
    return sorted({key.n_train for key in scores.logprob} - {0})


def _cross_fitted(
    scores: Scores, folds: np.ndarray, n: int, selection: Selection
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each fold ranked and scaled as the other folds choose.

    Returns:
        Of each question the probability of the first-ranked choice before and after scaling, and
        whether it is right: each [questions].

    """
    raw, confidence = np.zeros(len(folds)), np.zeros(len(folds))
    correct = np.zeros(len(folds), dtype=bool)
    for fold, ranking in selection.by_fold.items():
        inside = folds == fold
        values = values_of(ratio_of(scores, ranking, n), scores, ranking)
        temperature = fit_temperature(values[~inside], scores.of(~inside))
        own, kept = values[inside], scores.of(inside)
        raw[inside] = choice_probabilities(own, kept).max(axis=1)
        confidence[inside] = choice_probabilities(own, kept, temperature).max(axis=1)
        correct[inside] = selection.correct[ranking][inside]
    return raw, confidence, correct


def _coverage(confidence: np.ndarray, correct: np.ndarray, level: float) -> float:
    """The share of questions that are answered at a level of wrong answers."""
    return float((confidence >= abstention_threshold(confidence, correct, level)).mean())


def _rows(selection: Selection, modes: Sequence[str], n: int) -> tuple[Row, ...]:
    best = [ranking for mode in modes if (ranking := selection.best_of(mode)) is not None]
    return tuple(_row(ranking, n, selection.correct[ranking]) for ranking in best)


def _growth(scores: Scores, selection: Selection, modes: Sequence[str], n: int) -> tuple[Row, ...]:
    """The modes with heads of n questions, at the weights that are best with all."""
    rows = []
    for mode in modes:
        ranking = selection.best_of(mode)
        trained = {MODES[mode].positive, MODES[mode].negative} & {"positive", "negative"}
        if ranking is not None and trained:
            correct = is_correct(ratio_of(scores, ranking, n), scores, ranking.metric)
            rows.append(_row(ranking, n, correct))
    return tuple(rows)


def _row(ranking: Ranking, n: int, correct: np.ndarray) -> Row:
    return Row(ranking.mode, ranking.weight, ranking.metric, n, _estimate(correct))


def _estimate(correct: np.ndarray) -> Estimate:
    return Estimate(*accuracy_intervals(correct[None]).tolist())


def sentences(ranking: Ranking, evidence: Evidence) -> list[str]:
    """What the evidence says, in words."""
    name = mode_style(ranking.mode).short
    lines = [
        f"The {head} head has learned {'something' if after > before else 'nothing'} of "
        f"{KINDS[head]} answers that it was not trained on: {before:.2f} nats per token under the "
        f"base, {after:.2f} under the head."
        for head, (before, after) in evidence.learned.items()
    ]
    if evidence.expected is None:
        reason = "no question" if not evidence.n_questions else f"only {evidence.n_questions}"
        return [
            f"There is {reason} with a right and a wrong answer to measure on, so {ranking} is an "
            "assumption. Give questions to evaluate on to know what it is worth.",
            *lines,
        ]
    expected = evidence.expected
    lines.insert(
        0,
        f"Chosen: {ranking_text(ranking)}. On {evidence.n_questions} questions ({evidence.how}), "
        f"each ranked as the others choose, {expected.value:.1%} of the answers are right "
        f"[{expected.low:.1%}, {expected.high:.1%}].",
    )
    lines.insert(1, _worth(ranking, evidence, name))
    if evidence.ece is not None:
        before, after = evidence.ece
        lines.append(
            f"Calibration error of the probabilities: {before:.3f} before, {after:.3f} after."
        )
    if evidence.coverage:
        parts = ", ".join(
            f"{share:.0%} of the questions at {float(level):.0%} wrong answers"
            for level, share in evidence.coverage.items()
        )
        lines.append(f"Answering only where it is sure: {parts}.")
    return lines


def ranking_text(ranking: Ranking) -> str:
    """A way to rank in words: "Likra, w = 0.9, per character"."""
    return str(ranking).replace(ranking.mode, mode_style(ranking.mode).short, 1)


def _worth(ranking: Ranking, evidence: Evidence, name: str) -> str:
    if ranking.mode == "base":
        return (
            "No mode is better than the base model here: with this little data, training is not "
            "worth using yet."
        )
    difference = evidence.difference
    if difference is None:
        return "The base model was not among the modes, so there is nothing to compare with."
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    interval = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if difference.low > 0:
        return f"That is clearly better than the base model: {interval}. {name} is worth using."
    return (
        f"None is clearly better than the base model with this little data: {name}, the best of "
        f"them, differs from it by {interval}."
    )
