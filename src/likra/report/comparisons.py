"""Modes compared on the same questions, and the example efficiency of wrong answers."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import TypedDict

import numpy as np

from likra.report.modes import ModeScores
from likra.report.rounding import rounded, significant
from likra.scores.comparison import paired
from likra.scores.efficiency import example_efficiency

EFFICIENT = ("base-likra", "likra")  # modes whose examples are counted in those of SFT


class PairedResult(TypedDict):
    """A paired comparison; ``difference`` is [value, low, high]. See `likra.scores.comparison`."""

    difference: list[float]
    first_better: int
    second_better: int
    p_value: float


class Comparison(PairedResult):
    """Two modes on the same questions, with one sampler of negatives after n examples."""

    first: str
    second: str
    source: str
    n: int


class Efficiency(TypedDict):
    """How many right answers (SFT) do what one example of another mode does.

    ``k`` is [value, low, high]. The three flags make one of these a lower bound, since SFT does
    not get there.
    """

    mode: str
    source: str
    n: int
    k: list[float]
    is_bound: bool
    low_is_bound: bool
    high_is_bound: bool


def comparisons(modes: ModeScores) -> list[Comparison]:
    """Pairs of modes on the same questions, at each source and number of examples."""
    rows = []
    for first, second in pairs_of(modes.study.modes):
        for source in modes.sources(first):
            for n in modes.study.snapshots:
                one, two = (modes.correct(mode, source, n) for mode in (first, second))
                if one.size and two.size:
                    result = paired_result(one, two)
                    rows.append(
                        Comparison(first=first, second=second, source=source, n=n, **result)
                    )
    return rows


def paired_result(one: np.ndarray, two: np.ndarray) -> PairedResult:
    """One comparison of two arrays [questions, seeds] bool as plain values."""
    result = paired(one, two)
    return PairedResult(
        difference=rounded(astuple(result.difference)),
        first_better=result.first_better,
        second_better=result.second_better,
        p_value=float(f"{result.p_value:.3g}"),
    )


def pairs_of(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Which modes are compared with which."""
    usual = [("likra", "sft"), ("base-likra", "sft"), ("likra", "base-likra")]
    usual += [("likra", "base"), ("base-likra", "base")]
    others = [("likra", m) for m in modes if m not in {"likra", "sft", "base", "base-likra"}]
    pairs = [pair for pair in [*usual, *others] if set(pair) <= set(modes)]
    return pairs or [(mode, "base") for mode in modes if mode != "base" and "base" in modes]


def efficiencies(modes: ModeScores) -> list[Efficiency]:
    """The example efficiency of each mode and source along its learning curve."""
    rows: list[Efficiency] = []
    if "sft" not in modes.study.modes:
        return rows
    n = [0, *modes.study.snapshots]
    for mode in [name for name in EFFICIENT if name in modes.study.modes]:
        for source in modes.sources(mode):
            sft, other = (_correct_along(modes, name, source, n) for name in ("sft", mode))
            if sft.shape[1] <= sft.shape[2]:  # at least as many questions as seeds
                rows += [
                    Efficiency(
                        mode=mode,
                        source=source,
                        n=result.n,
                        k=significant(astuple(result.k), 4),
                        is_bound=result.is_bound,
                        low_is_bound=result.bound_share > 0.975,
                        high_is_bound=result.bound_share > 0.025,
                    )
                    for result in example_efficiency(n, sft, other)
                ]
    return rows


def _correct_along(modes: ModeScores, mode: str, source: str, n: Sequence[int]) -> np.ndarray:
    """[snapshots, seeds, questions] bool; the base is repeated for each seed."""
    base = np.tile(modes.correct("base", "", 0), len(modes.study.seeds))
    trained = [modes.correct(mode, source, number) for number in n[1:]]
    return np.stack([base, *trained]).transpose(0, 2, 1)
