"""What a study that repeats a figure of the paper shows: the report opens with it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from likra.report.analysis import ReportData
from likra.report.sentences import accuracies, best_snapshot
from likra.report.separation import Panel
from likra.report.style import mode_style, source_text
from likra.study.config import Study

PAPER = "arXiv:2503.14391"


@dataclass(frozen=True)
class Opening:
    """The figure that a report opens with.

    Attributes:
        figure: one of `likra.study.config.FIGURES`.
        number: of the paper's figure that it repeats.
        sentence: what it shows.
        n: the number of examples that the sentence is about.

    """

    figure: str
    number: int
    sentence: str
    n: int


def opening(study: Study, data: ReportData) -> Opening | None:
    """The paper's figure that the study repeats; None where it repeats none or lacks its modes."""
    if study.paper_figure is None:
        return None
    figure, describe = _FIGURES[study.paper_figure]
    # these two are drawn to the end; the others say most where Likra and SFT differ most
    is_at_the_end = figure in {"densities", "learning_curve"}
    n = (None if is_at_the_end else best_snapshot(data)) or study.snapshots[-1]
    text = describe(study, data, n)
    if not text:
        return None
    model = study.model.rstrip("/").rsplit("/", 1)[-1]
    start = f"Figure {study.paper_figure} of the paper ({PAPER})"
    here = f"here with {model} on the task {study.task}"
    return Opening(figure, study.paper_figure, f"{start}, {here}: {text}.", n)


def _sft_and_likra(study: Study, data: ReportData, n: int) -> str:
    """Figure 1: the learning curves of both."""
    first, curves = study.snapshots[0], {m: accuracies(data, m) for m in ("sft", "likra")}
    if not all(curves.values()):
        return ""
    ways = [
        f"{curve[first][0]:.1%} to {curve[n][0]:.1%} with {mode_style(mode).short}"
        for mode, curve in curves.items()
    ]
    base = accuracies(data, "base")
    untrained = f"; the untrained base model has {base[0][0]:.1%}" if base else ""
    return (
        f"from {first} to {n} training examples, accuracy goes from {' and from '.join(ways)}"
        f"{untrained}"
    )


def _wrong_answers_alone(study: Study, data: ReportData, n: int) -> str:
    """Figure 3: how far Base-Likra is from Likra."""
    first, alone, both = (
        study.snapshots[0],
        accuracies(data, "base-likra"),
        accuracies(data, "likra"),
    )
    if not alone or not both:
        return ""
    distances = [
        f"{_distance(alone[at][0] - both[at][0])} Likra after {at} examples"
        for at in dict.fromkeys([first, n])
    ]
    return (
        f"Base-Likra, which learns from wrong answers alone, is {' and '.join(distances)}, where "
        f"it answers {alone[n][0]:.1%} correctly"
    )


def _distance(difference: float) -> str:
    return f"{abs(100 * difference):.1f} points {'below' if difference < 0 else 'above'}"


def _weights(study: Study, data: ReportData, n: int) -> str:
    """Figure 4: the weights at which Likra, or else Base-Likra, is best."""
    wanted = {"source": study.negatives[0], "n": n}
    curves = [c for c in data["weight_curves"][data["metric"]] if wanted.items() <= c.items()]
    modes = [m for m in ("likra", "base-likra") if any(c["mode"] == m for c in curves)]
    if not modes:
        return ""
    curve = next(c for c in curves if c["mode"] == modes[0])
    by_weight = dict(zip(curve["weight"], curve["value"], strict=True))
    top = max(by_weight.values())
    best = [weight for weight, value in by_weight.items() if value == top]
    place = list(by_weight).index(best[0])
    is_range = len(best) > 1 and best == list(by_weight)[place : place + len(best)]
    weights = [f"{weight:g}" for weight in best]
    shown = f"{weights[0]} to {weights[-1]}" if is_range else " or ".join(weights)
    others = " and ".join(
        f"{by_weight[w]:.1%} at {w:g}" for w in dict.fromkeys([0.0, study.weight]) if w in by_weight
    )
    return (
        f"after {n} examples, {mode_style(modes[0]).short} is most accurate at a weight of "
        f"{shown} ({top:.1%}), against {others}"
    )


def _samplers(study: Study, data: ReportData, n: int) -> str:
    """Figure 5: the range of accuracies with several negatives, beside SFT."""
    ranges = []
    for mode in ("likra", "base-likra"):
        values = {
            curve["source"]: curve["value"][curve["n"].index(n)]
            for curve in data["curves"][data["metric"]]
            if curve["mode"] == mode and n in curve["n"]
        }
        if len(values) > 1:
            ends = [choose(values, key=lambda source: values[source]) for choose in (min, max)]
            low, high = (f"{values[end]:.1%} ({source_text(end)})" for end in ends)
            ranges.append(f"{mode_style(mode).short}'s accuracy is between {low} and {high}")
    if not ranges:
        return ""
    sft = accuracies(data, "sft")
    beside = f"; fine-tuning on right answers only has {sft[n][0]:.1%}" if n in sft else ""
    return f"after {n} examples, by negatives, {'; '.join(ranges)}{beside}"


def _heads(study: Study, data: ReportData, n: int) -> str:
    """Figure 2: how far right answers are above wrong ones under the base, each head, the ratio."""
    panels = [p for p in data["separation"] if p["source"] in ("", study.negatives[0])]
    return _margins(
        (panel, f"{'in' if panel['slot'] == 'ratio' else 'under'} the {panel['title']}")
        for panel in panels
        if panel["n"] in (0, n)
    )


def _negative_heads(study: Study, data: ReportData, n: int) -> str:
    """Figure 6: the same under the negative heads of several samplers."""
    panels = data["separation"]
    base = [(panel, "under the base model") for panel in panels if panel["n"] == 0]
    heads = [
        (panel, f"under the negative head trained on {source_text(panel['source'])}")
        for panel in panels
        if panel["head"] == "negative" and panel["n"] == n
    ]
    return _margins([*base, *heads]) if heads else ""


def _margins(panels: Iterable[tuple[Panel, str]]) -> str:
    numbers = [f"{panel['margin'][0]:+.2f} {where}" for panel, where in panels]
    return (
        "the mean log-likelihood of right answers minus that of wrong ones, in nats, is "
        f"{', '.join(numbers)}"
    ).replace(" -", " \u2212")


_FIGURES: Mapping[int, tuple[str, Callable[[Study, ReportData, int], str]]] = {
    1: ("learning_curve", _sft_and_likra),
    2: ("densities", _heads),
    3: ("learning_curve", _wrong_answers_alone),
    4: ("weight_curve", _weights),
    5: ("sources", _samplers),
    6: ("densities", _negative_heads),
}
