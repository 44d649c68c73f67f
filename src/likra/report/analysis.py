"""What the report says, as plain values: pure functions of a run's scores and curves.

Log-likelihoods are in nats.
"""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import pandas as pd

from likra.report.comparisons import Comparison, Efficiency, comparisons, efficiencies
from likra.report.curves import (
    LearningCurve,
    WeightCurve,
    learning_curves,
    ordered_modes,
    weight_curves,
)
from likra.report.disagreements import Disagreement, QuestionText, disagreements
from likra.report.modes import ModeScores
from likra.report.reliability import Reliability, reliabilities
from likra.report.separation import Panel, panels
from likra.report.style import Style, mode_style, shades, source_styles
from likra.scores.ratio import METRICS
from likra.scores.table import Scores
from likra.study.config import Study


class Look(TypedDict):
    """The name and the look of a mode or source, for charts and legends."""

    name: str
    label: str
    color: str
    dark: str
    marker: str


class Cost(TypedDict):
    """What was computed. ``scored`` are models and heads, ``candidates`` answers."""

    trainings: int
    examples: int
    scored: int
    questions: int
    candidates: int


class ReportData(TypedDict):
    """Everything that the report shows. Curves are by metric."""

    modes: list[Look]
    sources: list[Look]
    metrics: list[str]
    metric: str
    snapshots: list[int]
    shades: list[dict[str, str]]
    weight: float
    chance: float
    curves: dict[str, list[LearningCurve]]
    weight_curves: dict[str, list[WeightCurve]]
    separation: list[Panel]
    reliability: list[Reliability]
    comparisons: list[Comparison]
    efficiency: list[Efficiency]
    examples: list[Disagreement]
    cost: Cost


def report_data(
    study: Study, scores: Scores, points: pd.DataFrame, texts: Mapping[str, QuestionText]
) -> ReportData:
    """Everything that the report shows, as plain values.

    The texts are those of the questions, by id; see `likra.report.disagreements.read_questions`.
    """
    modes = ModeScores(scores, study)
    return ReportData(
        modes=[look(mode, mode_style(mode)) for mode in ordered_modes(points)],
        sources=[look(*item) for item in source_styles(study.negatives).items()],
        metrics=list(METRICS),
        metric=study.metric,
        snapshots=study.snapshots,
        shades=shades(len(study.snapshots)),
        weight=study.weight,
        chance=round(chance(scores), 4),
        curves={metric: learning_curves(points, study, metric) for metric in METRICS},
        weight_curves={metric: weight_curves(points, study, metric) for metric in METRICS},
        separation=panels(modes),
        reliability=reliabilities(modes),
        comparisons=comparisons(modes),
        efficiency=efficiencies(modes),
        examples=disagreements(modes, texts),
        cost=cost(scores),
    )


def look(name: str, style: Style) -> Look:
    """The look of a mode or source."""
    label, marker = style.label, style.marker
    return Look(name=name, label=label, color=style.color, dark=style.dark, marker=marker)


def chance(scores: Scores) -> float:
    """The accuracy of a blind guess."""
    right = (scores.exists & scores.is_right).sum(axis=1)
    return float(np.mean(right / scores.exists.sum(axis=1)))


def cost(scores: Scores) -> Cost:
    """What was computed for these scores."""
    trained = sorted((key for key in scores.logprob if key.n_train), key=lambda key: key.n_train)
    examples = {(key.head, key.seed, key.source): key.n_train for key in trained}
    return Cost(
        trainings=len(examples),
        examples=sum(examples.values()),
        scored=len(scores.logprob),
        questions=len(scores.question_ids),
        candidates=int(scores.exists.sum()),
    )
