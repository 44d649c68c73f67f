"""What the report says, as plain values: pure functions of a run's scores and curves.

Everything here is a number, a text, or a list or dictionary of them. Log-likelihoods are in nats.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from likra.errors import LikraError
from likra.report.style import STYLES, Style, mode_style, shades, source_styles
from likra.scores.calibration import calibration, choice_probabilities, fit_temperature
from likra.scores.comparison import paired, separation
from likra.scores.curves import combinations
from likra.scores.efficiency import Worth, worth
from likra.scores.ratio import METRICS, MODES, is_correct, likelihood_ratio
from likra.scores.resampling import Estimate
from likra.scores.table import BASE, Scores
from likra.scores.weights import split_validation
from likra.study.config import Study

EXAMPLES = 6  # questions shown for each number of examples and source
GRID = 121  # points of a density
BINS = 10  # of a reliability diagram
WORTH = ("base-likra", "likra")  # modes whose examples are counted in those of SFT


# --------------------------------------------------------------------------------------------
# Accuracies


def with_interval(points: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with their interval; of a single seed, its interval over questions."""
    several = points[points.seed == "all"]
    chosen = points[points.seed != "all"] if several.ci_low.isna().all() else several
    return chosen.sort_values(["n_train", "weight"])


def ordered_modes(points: pd.DataFrame) -> list[str]:
    """The modes of a curve, in the order of tables and legends."""
    there = list(dict.fromkeys(points["mode"]))
    known = [mode for mode in STYLES if mode in there]
    return known + [mode for mode in there if mode not in STYLES]


def sources_of(points: pd.DataFrame, mode: str, study: Study) -> list[str]:
    """The sources of negatives of a mode, in the study's order; [""] where it has none."""
    return _in_order(set(points[points["mode"] == mode].source), study)


def _in_order(there: Set[str], study: Study) -> list[str]:
    known = [source for source in ["", *study.negatives] if source in there]
    return known + sorted(there - set(known))


def weight_of(mode: str, study: Study) -> float:
    """The weight of the learning curve."""
    return study.weight if mode in MODES and MODES[mode].weighted else 0.0


def lines(points: pd.DataFrame, study: Study, metric: str) -> list[dict[str, Any]]:
    """Accuracy against the number of examples, for each mode and source.

    Each has ``mode``, ``source``, ``label``, and by number of examples ``n``, ``value``, ``low``,
    ``high`` and ``seeds``: the values of single seeds, where there are several. What is not
    trained stands at n = 0 alone.
    """
    found = []
    for mode in ordered_modes(points):
        for source in sources_of(points, mode, study):
            line = points[
                (points["mode"] == mode)
                & (points.source == source)
                & (points.metric == metric)
                & (points.weight == weight_of(mode, study))
            ]
            shown = with_interval(line)
            single = line[line.seed != "all"]
            seeds = [[*single[single.n_train == n].value] for n in shown.n_train]
            found.append(
                {
                    "mode": mode,
                    "source": source,
                    "label": mode + (f" ({source})" if source else ""),
                    "n": [int(n) for n in shown.n_train],
                    "value": _rounded(shown.value, 6),
                    "low": _rounded(shown.ci_low, 6),
                    "high": _rounded(shown.ci_high, 6),
                    "seeds": [_rounded(values, 6) if len(values) > 1 else [] for values in seeds],
                }
            )
    return found


def weight_lines(points: pd.DataFrame, study: Study, metric: str) -> list[dict[str, Any]]:
    """Accuracy against the weight (paper, figure 4), for each weighted mode, source and n.

    Each has ``mode``, ``source``, ``n``, and by weight ``weight``, ``value``, ``low``, ``high``.
    """
    found = []
    for mode in ordered_modes(points):
        for source in sources_of(points, mode, study):
            line = points[
                (points["mode"] == mode) & (points.source == source) & (points.metric == metric)
            ]
            if line.weight.nunique() < 2:
                continue
            for n in sorted(set(line.n_train)):
                shown = with_interval(line[line.n_train == n])
                found.append(
                    {
                        "mode": mode,
                        "source": source,
                        "n": int(n),
                        "weight": [float(weight) for weight in shown.weight],
                        "value": _rounded(shown.value, 6),
                        "low": _rounded(shown.ci_low, 6),
                        "high": _rounded(shown.ci_high, 6),
                    }
                )
    return found


def chance(scores: Scores) -> float:
    """The accuracy of a blind guess."""
    right = (scores.exists & scores.is_right).sum(axis=1)
    return float((right / scores.exists.sum(axis=1)).mean())


# --------------------------------------------------------------------------------------------
# Ratios

# by source of negatives ("" where there is none), number of examples (0: not trained), and seed
Ratios = dict[str, dict[int, dict[int | None, np.ndarray]]]


def ratios(scores: Scores, mode: str, weight: float) -> Ratios:
    """The ratios of a mode, [questions, choices] each."""
    found: Ratios = {}
    for _, _, keys in combinations(scores, [mode], [weight]):
        head = max(keys, key=lambda key: key.n_train)
        source = next((key.source for key in keys if key.source), "")
        values = likelihood_ratio(scores.logprob[keys[0]], scores.logprob[keys[1]], weight)
        by_n = found.setdefault(source, {})
        by_n.setdefault(head.n_train, {})[head.seed] = (
            values if MODES[mode].weighted else scores.logprob[keys[0]]
        )
    return found


class Bench:
    """The scores of a run by mode, source and number of examples; each ratio is formed once."""

    def __init__(self, scores: Scores, study: Study) -> None:
        self.scores, self.study = scores, study
        self._ratios: dict[str, Ratios] = {}

    def ratios(self, mode: str) -> Ratios:
        """See `ratios`, at the study's weight."""
        if mode not in self._ratios:
            self._ratios[mode] = ratios(self.scores, mode, weight_of(mode, self.study))
        return self._ratios[mode]

    def sources(self, mode: str) -> list[str]:
        """The sources of a mode, in the study's order; [""] where it has none."""
        return _in_order(self.ratios(mode).keys(), self.study)

    def at(self, mode: str, source: str, n: int) -> list[np.ndarray]:
        """The ratios of all seeds; of a mode without that source or training, the one it has."""
        there = self.ratios(mode)
        by_n = there.get(source, there.get("", {}))
        by_seed = by_n.get(n, by_n.get(0, {}))
        return [by_seed[seed] for seed in sorted(by_seed, key=lambda s: -1 if s is None else s)]

    def correct(self, mode: str, source: str, n: int) -> np.ndarray:
        """[questions, seeds] bool, by the study's metric; no column where there is no head."""
        found = [is_correct(r, self.scores, self.study.metric) for r in self.at(mode, source, n)]
        empty = np.zeros((len(self.scores.question_ids), 0), dtype=bool)
        return np.stack(found, axis=1) if found else empty

    def per_unit(self, mode: str, source: str, n: int) -> list[np.ndarray]:
        """The ratios of all seeds as the metric compares them: for acc_norm, per character."""
        per = self.scores.n_chars if self.study.metric == "acc_norm" else 1.0
        return [ratio / per for ratio in self.at(mode, source, n)]

    def probabilities(
        self, mode: str, source: str, n: int, *, scaled: bool = False
    ) -> list[np.ndarray]:
        """For each seed the probabilities of the choices; scaled: at the best temperature."""
        found = []
        for values in self.per_unit(mode, source, n):
            temperature = fit_temperature(values, self.scores) if scaled else 1.0
            found.append(choice_probabilities(values, self.scores, temperature))
        return found

    def cells(self) -> Iterator[tuple[str, int]]:
        """Every source of negatives at every number of examples."""
        for source in self.study.negatives:
            for n in self.study.snapshots:
                yield source, n


# --------------------------------------------------------------------------------------------
# Separation (paper, figures 2 and 6)


def separations(bench: Bench) -> list[dict[str, Any]]:
    """How each head, and the ratio, tells right answers from wrong ones.

    Each panel has ``head`` ("base", "positive", "negative", or a mode), ``slot`` (the same, or
    "ratio"), ``title``, ``source`` and ``n`` ("" and 0 where it is the same for all), ``x`` with
    the densities ``right`` and ``wrong``, and ``auroc``, ``within_auroc`` and ``margin``: [value,
    low, high].
    """
    scores, order = bench.scores, ["", *bench.study.negatives]
    found = [_panel("base", "base model", "", 0, [scores.logprob[BASE]], scores)]
    for head, title in (("positive", "positive head"), ("negative", "negative head")):
        groups: dict[tuple[str, int], list[np.ndarray]] = {}
        for key in sorted(scores.logprob, key=lambda key: -1 if key.seed is None else key.seed):
            if key.head == head and (key.source or "") in order:
                group = groups.setdefault((key.source or "", key.n_train), [])
                group.append(scores.logprob[key])
        found += [
            _panel(head, title, *key, groups[key], scores)
            for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
        ]
    for mode in ("likra", "base-likra"):
        if mode in bench.study.modes:
            title = f"ratio ({mode_style(mode).short})"
            for source, n in bench.cells():
                if values := bench.at(mode, source, n):
                    found.append(_panel(mode, title, source, n, values, scores))
            break
    return found


def _panel(
    head: str, title: str, source: str, n: int, values: Sequence[np.ndarray], scores: Scores
) -> dict[str, Any]:
    """The densities are of all seeds together; the numbers are means over seeds."""
    right = np.concatenate([v[scores.exists & scores.is_right] for v in values])
    wrong = np.concatenate([v[scores.exists & ~scores.is_right] for v in values])
    x = density_grid(np.concatenate([right, wrong]))
    each = [separation(v, scores) for v in values]
    return {
        "head": head,
        "slot": head if head in ("base", "positive", "negative") else "ratio",
        "title": title,
        "source": source,
        "n": n,
        "range": _significant(x[[0, -1]], 5),
        "right": _significant(density(right, x)),
        "wrong": _significant(density(wrong, x)),
        "auroc": _mean_estimate([s.auroc for s in each]),
        "within_auroc": _mean_estimate([s.within_auroc for s in each]),
        "margin": _mean_estimate([s.mean_margin for s in each]),
    }


def _mean_estimate(estimates: Sequence[Estimate]) -> list[float]:
    """Mean over seeds of the value and of both ends of its interval over questions.

    All seeds have the same resamples of questions. Their ends would be those of the mean if the
    seeds agreed wholly; the interval of the mean is no wider.
    """
    return _rounded(np.mean([astuple(estimate) for estimate in estimates], axis=0))


def density_grid(values: np.ndarray, points: int = GRID) -> np.ndarray:
    """Where densities are drawn: all but the outermost values, and a margin."""
    low, high = np.quantile(values, [0.002, 0.998])
    margin = 0.08 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, points)


def density(values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A Gaussian kernel density with Silverman's bandwidth, of values counted in narrow bins."""
    quarter, three_quarters = np.quantile(values, [0.25, 0.75])
    spreads = [s for s in (values.std(), (three_quarters - quarter) / 1.34) if s > 0]
    step = x[1] - x[0]
    width = max(0.9 * min(spreads, default=0.0) * len(values) ** -0.2, step)
    edges = np.linspace(values.min() - step, values.max() + step, 8 * len(x))
    counts, _ = np.histogram(values, edges)
    middle = (edges[:-1] + edges[1:]) / 2
    kernel = np.exp(-0.5 * ((x[:, None] - middle) / width) ** 2)
    result: np.ndarray = kernel @ counts / (len(values) * width * math.sqrt(2 * math.pi))
    return result


# --------------------------------------------------------------------------------------------
# Reliability


def reliabilities(bench: Bench) -> list[dict[str, Any]]:
    """How far the probability of the prediction is that of its being right, over all seeds.

    Each has ``mode``, ``source``, ``n``, ``ece``, ``confidence``, ``accuracy``, and the bins as
    ``x`` (mean probability), ``y`` (share of right ones) and ``count``. For the probability the
    ratios of a question (for acc_norm, per character) go through a softmax. ``ece_scaled`` is the
    error on half of the questions with a temperature for each seed, fitted on the other half;
    None where there are too few questions.
    """
    found = []
    for mode in [name for name in STYLES if name in bench.study.modes]:
        for source in bench.sources(mode):
            for n in sorted(bench.ratios(mode)[source]):
                chosen = np.concatenate(
                    [p.max(axis=1) for p in bench.probabilities(mode, source, n)]
                )
                correct = bench.correct(mode, source, n).T.ravel()
                result = calibration(np.minimum(chosen, 1.0), correct, BINS)
                found.append(
                    {
                        "mode": mode,
                        "source": source,
                        "n": n,
                        "ece": round(result.ece, 4),
                        "ece_scaled": _scaled_error(bench, mode, source, n),
                        "confidence": round(float(chosen.mean()), 4),
                        "accuracy": round(float(correct.mean()), 4),
                        "x": _rounded([b.confidence for b in result.bins]),
                        "y": _rounded([b.accuracy for b in result.bins]),
                        "count": [b.count for b in result.bins],
                    }
                )
    return found


def _scaled_error(bench: Bench, mode: str, source: str, n: int) -> float | None:
    try:
        # not as `validation_fraction` divides them: one of its sides is all that there is here
        fitted = split_validation(bench.scores.question_ids, seed=1)
    except LikraError:
        return None
    part, rest = bench.scores.of(fitted), bench.scores.of(~fitted)
    probability = []
    for values in bench.per_unit(mode, source, n):
        temperature = fit_temperature(values[fitted], part)
        chosen = choice_probabilities(values[~fitted], rest, temperature).max(axis=1)
        probability.append(np.minimum(chosen, 1.0))
    correct = bench.correct(mode, source, n)[~fitted].T.ravel()
    return round(calibration(np.concatenate(probability), correct, BINS).ece, 4)


# --------------------------------------------------------------------------------------------
# Comparisons


def comparisons(bench: Bench) -> list[dict[str, Any]]:
    """Pairs of modes on the same questions, at every source and number of examples.

    Each has ``first``, ``second``, ``source``, ``n``, ``difference`` ([value, low, high]),
    ``first_better``, ``second_better``, ``p_value`` and ``test``.
    """
    found = []
    for first, second in compared(bench.study.modes):
        for source in bench.sources(first):
            for n in bench.study.snapshots:
                one, two = (bench.correct(mode, source, n) for mode in (first, second))
                if one.size and two.size:
                    place = {"first": first, "second": second, "source": source, "n": n}
                    found.append(place | paired_row(one, two))
    return found


def paired_row(one: np.ndarray, two: np.ndarray) -> dict[str, Any]:
    """One comparison of [questions, seeds] bool as plain values."""
    result = paired(one.mean(axis=1), two.mean(axis=1))
    return {
        "difference": _rounded(astuple(result.difference)),
        "first_better": result.first_better,
        "second_better": result.second_better,
        "p_value": float(f"{result.p_value:.3g}"),
        "test": result.test,
    }


def compared(modes: Sequence[str]) -> list[tuple[str, str]]:
    """Which modes are held against which."""
    usual = [
        ("likra", "sft"),
        ("base-likra", "sft"),
        ("likra", "base-likra"),
        ("likra", "base"),
        ("base-likra", "base"),
    ]
    others = [("likra", m) for m in modes if m not in {"likra", "sft", "base", "base-likra"}]
    pairs = [pair for pair in [*usual, *others] if set(pair) <= set(modes)]
    return pairs or [(mode, "base") for mode in modes if mode != "base" and "base" in modes]


def worths(bench: Bench) -> list[dict[str, Any]]:
    """How many right answers (SFT) do what one example of another mode does, along its curve.

    Each has ``mode``, ``source``, ``n``, ``k`` ([value, low, high]) and three flags that make a
    number a lower bound, as SFT did not get so far: ``is_bound`` (of the value), ``low_is_bound``
    and ``high_is_bound``.
    """
    if "sft" not in bench.study.modes:
        return []
    n = [0, *bench.study.snapshots]
    found = []
    for mode in [name for name in WORTH if name in bench.study.modes]:
        for source in bench.sources(mode):
            sft, other = (_along(bench, name, source, n) for name in ("sft", mode))
            if sft.shape[1] > sft.shape[2]:  # fewer questions than seeds
                continue
            place = {"mode": mode, "source": source}
            found += [place | _worth_row(result) for result in worth(n, sft, other)]
    return found


def _worth_row(result: Worth) -> dict[str, Any]:
    return {
        "n": result.n,
        "k": [float(f"{k:.4g}") for k in astuple(result.k)],
        "is_bound": result.is_bound,
        "low_is_bound": result.bound_share > 0.975,
        "high_is_bound": result.bound_share > 0.025,
    }


def _along(bench: Bench, mode: str, source: str, n: Sequence[int]) -> np.ndarray:
    """[snapshots, seeds, questions] bool; the base is repeated for every seed."""
    seeds = len(bench.study.seeds)
    curve = [bench.correct(mode, source, number) for number in n[1:]]
    base = np.repeat(
        is_correct(bench.scores.logprob[BASE], bench.scores, bench.study.metric), seeds
    )
    return np.stack([base.reshape(-1, seeds), *curve]).transpose(0, 2, 1)


# --------------------------------------------------------------------------------------------
# Examples


def disagreements(bench: Bench, texts: Mapping[str, Any], count: int = EXAMPLES) -> list[Any]:
    """The questions that Likra and SFT answer most differently, for every source and n.

    By the distance of total variation between the choices' probabilities, each the mean over
    seeds, at the temperature that fits these questions best: a ratio has a scale of its own.
    Each has ``source``, ``n``, ``id``, ``stem`` (None if it is not known), ``distance``,
    ``outcome``, and ``choices``: ``text``, ``is_right``, ``likra``, ``sft`` (probabilities),
    ``likra_score`` and ``sft_score`` (nats, means over seeds), ``likra_picks``, ``sft_picks``.
    """
    found: list[Any] = []
    if not {"likra", "sft"} <= set(bench.study.modes):
        return found
    for source, n in bench.cells():
        likra, sft = (
            bench.probabilities(mode, source, n, scaled=True) for mode in ("likra", "sft")
        )
        if not likra or not sft:
            continue
        mean = np.mean(likra, axis=0), np.mean(sft, axis=0)
        score = [np.mean(bench.at(mode, source, n), axis=0) for mode in ("likra", "sft")]
        distance = np.abs(mean[0] - mean[1]).sum(axis=1) / 2
        for row in np.argsort(-distance, kind="stable")[:count]:
            place = {"source": source, "n": n, "distance": round(float(distance[row]), 4)}
            probability = [p[row] for p in mean]
            found.append(
                place
                | _example(bench.scores, int(row), probability, [s[row] for s in score], texts)
            )
    return found


def _example(
    scores: Scores,
    row: int,
    probability: Sequence[np.ndarray],
    score: Sequence[np.ndarray],
    texts: Mapping[str, Any],
) -> dict[str, Any]:
    name = scores.question_ids[row]
    known = texts.get(name) or {}
    picks = [int(p.argmax()) for p in probability]
    words = ["right" if scores.is_right[row, pick] else "wrong" for pick in picks]
    wording = known.get("choices") or []
    choices = [
        {
            "text": wording[c] if c < len(wording) else f"choice {c + 1}",
            "is_right": bool(scores.is_right[row, c]),
            **{
                m: round(float(p[c]), 4) for m, p in zip(("likra", "sft"), probability, strict=True)
            },
            **{
                f"{m}_score": round(float(s[c]), 2)
                for m, s in zip(("likra", "sft"), score, strict=True)
            },
            "likra_picks": int(c) == picks[0],
            "sft_picks": int(c) == picks[1],
        }
        for c in np.flatnonzero(scores.exists[row])
    ]
    outcome = f"Likra {words[0]}, SFT {words[1]}" if words[0] != words[1] else f"both {words[0]}"
    return {"id": name, "stem": known.get("stem"), "outcome": outcome, "choices": choices}


def read_questions(folder: Path) -> dict[str, Any]:
    """The texts of the evaluation questions by id, where the run left them.

    Raises:
        LikraError: the file cannot be read.

    """
    path = folder / "questions.jsonl"
    if not path.is_file():
        return {}
    try:
        lines_ = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        rows = [json.loads(line) for line in lines_]
        return {row["id"]: row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise LikraError(f"cannot read '{path}': {type(error).__name__}") from error


# --------------------------------------------------------------------------------------------
# All of it


def report_data(
    study: Study, scores: Scores, points: pd.DataFrame, texts: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that the report shows, as plain values."""
    bench = Bench(scores, study)
    return {
        "modes": [named(mode, mode_style(mode)) for mode in ordered_modes(points)],
        "sources": [named(*item) for item in source_styles(study.negatives).items()],
        "metrics": list(METRICS),
        "metric": study.metric,
        "snapshots": study.snapshots,
        "shades": shades(len(study.snapshots)),
        "weight": study.weight,
        "chance": round(chance(scores), 4),
        "lines": {metric: lines(points, study, metric) for metric in METRICS},
        "weights": {metric: weight_lines(points, study, metric) for metric in METRICS},
        "separation": separations(bench),
        "reliability": reliabilities(bench),
        "comparisons": comparisons(bench),
        "worth": worths(bench),
        "examples": disagreements(bench, texts),
        "cost": cost(scores),
    }


def named(name: str, style: Style) -> dict[str, str]:
    """The name and the looks of a mode or source, for a legend."""
    looks = {key: getattr(style, key) for key in ("label", "color", "dark", "marker", "glyph")}
    return {"name": name, "stroke": "solid" if style.glyph else "dashed"} | looks


def cost(scores: Scores) -> dict[str, int]:
    """What was computed: trainings, examples, scored heads, questions, candidates."""
    last: dict[tuple[str, int | None, str | None], int] = {}
    for key in scores.logprob:
        if key.n_train:
            run = key.head, key.seed, key.source
            last[run] = max(last.get(run, 0), key.n_train)
    return {
        "trainings": len(last),
        "examples": sum(last.values()),
        "scored": len(scores.logprob),
        "questions": len(scores.question_ids),
        "candidates": int(scores.exists.sum()),
    }


def _rounded(values: Any, digits: int = 4) -> list[float]:
    return [round(float(value), digits) + 0.0 for value in values]  # + 0.0: no -0.0


def _significant(values: np.ndarray, digits: int = 3) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]
