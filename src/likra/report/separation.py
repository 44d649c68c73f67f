"""How each head, and the ratio, separates right from wrong answers (paper, figures 2 and 6)."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from typing import TypedDict

import numpy as np

from likra.report.modes import ModeScores
from likra.report.rounding import rounded, significant
from likra.report.style import mode_style
from likra.scores.comparison import separation
from likra.scores.resampling import Estimate
from likra.scores.table import BASE, Scores

POINTS = 121  # of a density
KERNEL = 3  # where a triweight kernel ends, in its standard deviations
HEADS = ("base", "positive", "negative")


class Panel(TypedDict):
    """The densities of right and wrong answers under one head, or of their ratios.

    ``head`` is "base", "positive", "negative", or the mode of the ratios; ``slot`` the same, or
    "ratio"; ``source`` is "" for none and ``n`` 0 without training. The points of both densities
    are equally spaced over ``range`` (nats). The others are [value, low, high], the margin in nats.
    """

    head: str
    slot: str
    title: str
    source: str
    n: int
    range: list[float]
    right: list[float]
    wrong: list[float]
    auroc: list[float]
    within_auroc: list[float]
    margin: list[float]


def panels(modes: ModeScores) -> list[Panel]:
    """A panel for the base, each head, and each ratio of Likra (or else Base-Likra)."""
    base = _panel("base", "base model", "", 0, [modes.scores.logprob[BASE]], modes.scores)
    return [base, *_head_panels(modes), *_ratio_panels(modes)]


def _head_panels(modes: ModeScores) -> Iterator[Panel]:
    logprob, order = modes.scores.logprob, ["", *modes.study.negatives]
    for head in ("positive", "negative"):
        by_cell: dict[tuple[str, int], list[np.ndarray]] = {}
        for key in sorted(logprob, key=lambda key: -1 if key.seed is None else key.seed):
            is_own = head == "positive" and key.source is not None  # one sampler's alone
            if key.head == head and not is_own and (key.source or "") in order:
                by_cell.setdefault((key.source or "", key.n_train), []).append(logprob[key])
        for source, n in sorted(by_cell, key=lambda cell: (order.index(cell[0]), cell[1])):
            yield _panel(head, f"{head} head", source, n, by_cell[source, n], modes.scores)


def _ratio_panels(modes: ModeScores) -> Iterator[Panel]:
    mode = next((m for m in ("likra", "base-likra") if m in modes.study.modes), None)
    if mode is None:
        return
    for source, n in modes.cells():
        if ratios := modes.by_seed(mode, source, n):
            title = f"ratio ({mode_style(mode).short})"
            yield _panel(mode, title, source, n, ratios, modes.scores)


def _panel(
    head: str, title: str, source: str, n: int, values: Sequence[np.ndarray], scores: Scores
) -> Panel:
    """The densities are of all seeds together; the numbers are means over seeds."""
    right = np.concatenate([v[scores.exists & scores.is_right] for v in values])
    wrong = np.concatenate([v[scores.exists & ~scores.is_right] for v in values])
    x, (of_right, of_wrong) = densities([right, wrong])
    separations = [separation(v, scores) for v in values]
    return Panel(
        head=head,
        slot=head if head in HEADS else "ratio",
        title=title,
        source=source,
        n=n,
        range=significant(x[[0, -1]], 5),
        right=significant(of_right),
        wrong=significant(of_wrong),
        auroc=_mean_estimate([s.auroc for s in separations]),
        within_auroc=_mean_estimate([s.within_auroc for s in separations]),
        margin=_mean_estimate([s.mean_margin for s in separations]),
    )


def _mean_estimate(estimates: Sequence[Estimate]) -> list[float]:
    """Mean over seeds of the value and of both ends of its interval over questions.

    All seeds have the same resamples of questions. If the seeds agreed wholly, these ends would
    be those of the mean's interval, which is no wider.
    """
    return rounded(np.mean([astuple(estimate) for estimate in estimates], axis=0))


def densities(groups: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Equally spaced points, and the density of each group of values at them, 0 at both ends.

    The outermost 0.2% on either side are left out: they would stretch the axis.
    """
    low, high = np.quantile(np.concatenate(groups), [0.002, 0.998])
    step = (high - low or 1.0) / (8 * POINTS)  # of the bins that values are counted in
    widths = [max(_bandwidth(values), 8 * step) for values in groups]
    margin = KERNEL * max(widths) + step
    x = np.linspace(low - margin, high + margin, POINTS)
    edges = np.linspace(low - step, high + step, 8 * POINTS)
    return x, [_density(v, x, edges, width) for v, width in zip(groups, widths, strict=True)]


def _bandwidth(values: np.ndarray) -> float:
    """Silverman's: the standard deviation of the kernel."""
    quarter, three_quarters = np.quantile(values, [0.25, 0.75])
    spreads = [s for s in (values.std(), (three_quarters - quarter) / 1.34) if s > 0]
    return float(0.9 * min(spreads, default=0.0) * len(values) ** -0.2)


def _density(values: np.ndarray, x: np.ndarray, edges: np.ndarray, width: float) -> np.ndarray:
    """A kernel density of values counted in narrow bins.

    The triweight kernel looks like a Gaussian, but ends: three standard deviations away it is 0.
    """
    counts, _ = np.histogram(values, edges)
    middle = (edges[:-1] + edges[1:]) / 2
    reach = KERNEL * width
    kernel = 35 / 32 * np.clip(1 - ((x[:, None] - middle) / reach) ** 2, 0, None) ** 3
    result: np.ndarray = kernel @ counts / (len(values) * reach)
    return result
