"""Learning curves and weight curves as plain values, from the rows of ``curve.csv``."""

from collections.abc import Iterable, Iterator, Set
from typing import TypedDict

import pandas as pd

from likra.report.rounding import rounded
from likra.report.style import STYLES
from likra.scores.ratio import MODES
from likra.study.config import Study

Interval = tuple[float, float, float]  # value, low, high


class Estimates(TypedDict):
    """Accuracies along a curve, with the ends of their intervals."""

    value: list[float]
    low: list[float]
    high: list[float]


class LearningCurve(Estimates):
    """Accuracy against the number of examples, of one mode and source.

    All lists have an entry for each ``n``; what is not trained has n = 0 alone. An entry of
    ``seeds`` holds the values of single seeds, or nothing where there is one seed.
    """

    mode: str
    source: str
    label: str
    n: list[int]
    seeds: list[list[float]]


class WeightCurve(Estimates):
    """Accuracy against the weight (paper, figure 4), of one mode, source and n."""

    mode: str
    source: str
    n: int
    weight: list[float]


def with_interval(points: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their interval: over questions and seeds, or one seed's questions."""
    return points[points.seed == "all"].sort_values(["n_train", "weight"])


def ordered_modes(points: pd.DataFrame) -> list[str]:
    """The modes of a curve, in the order of tables and legends."""
    present = list(dict.fromkeys(points["mode"]))
    known = [mode for mode in STYLES if mode in present]
    return known + [mode for mode in present if mode not in STYLES]


def in_study_order(sources: Set[str], study: Study) -> list[str]:
    """Sources of negatives in the study's order; "" (no negatives) comes first."""
    known = [source for source in ["", *study.negatives] if source in sources]
    return known + sorted(sources - set(known))


def sources_of(points: pd.DataFrame, mode: str, study: Study) -> list[str]:
    """The samplers of negatives of a mode, in the study's order; [""] where it has none."""
    return in_study_order(set(points[points["mode"] == mode].source), study)


def weight_of(mode: str, study: Study) -> float:
    """The weight of a mode's learning curve."""
    return study.weight if mode in MODES and MODES[mode].weighted else 0.0


def learning_curves(points: pd.DataFrame, study: Study, metric: str) -> list[LearningCurve]:
    """The learning curve of each mode and source, at the study's weight."""
    curves = []
    for mode, source, rows in _groups(points, study, metric):
        at_weight = rows[rows.weight == weight_of(mode, study)]
        shown, single = with_interval(at_weight), at_weight[at_weight.seed != "all"]
        seeds = [rounded(single[single.n_train == n].value, 6) for n in shown.n_train]
        curves.append(
            LearningCurve(
                mode=mode,
                source=source,
                label=f"{mode} ({source})" if source and len(study.negatives) > 1 else mode,
                n=[int(n) for n in shown.n_train],
                **_estimates(shown),
                seeds=[values if len(values) > 1 else [] for values in seeds],
            )
        )
    return curves


def weight_curves(points: pd.DataFrame, study: Study, metric: str) -> list[WeightCurve]:
    """The weight curve of each weighted mode, source and number of examples."""
    curves = []
    for mode, source, rows in _groups(points, study, metric):
        if rows.weight.nunique() < 2:
            continue
        for n in sorted(set(rows.n_train)):
            shown = with_interval(rows[rows.n_train == n])
            weight, values = [float(weight) for weight in shown.weight], _estimates(shown)
            curve = WeightCurve(mode=mode, source=source, n=int(n), weight=weight, **values)
            curves.append(curve)
    return curves


def _estimates(rows: pd.DataFrame) -> Estimates:
    value, low, high = (rounded(rows[key], 6) for key in ("value", "ci_low", "ci_high"))
    return Estimates(value=value, low=low, high=high)


def first_by_n(curves: Iterable[LearningCurve], mode: str) -> dict[int, Interval]:
    """The mode's accuracies with its first source, by number of examples; {} without the mode."""
    return next((by_n(curve) for curve in curves if curve["mode"] == mode), {})


def by_n(curve: LearningCurve) -> dict[int, Interval]:
    """The accuracies of a curve by number of examples."""
    estimates = zip(curve["value"], curve["low"], curve["high"], strict=True)
    return dict(zip(curve["n"], estimates, strict=True))


def _groups(
    points: pd.DataFrame, study: Study, metric: str
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each mode and source with its rows."""
    rows = points[points.metric == metric]
    for mode in ordered_modes(points):
        for source in sources_of(points, mode, study):
            yield mode, source, rows[(rows["mode"] == mode) & (rows.source == source)]
