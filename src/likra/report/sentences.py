"""The sentences of the report, each computed from the data, and numbers as texts."""

from collections.abc import Mapping, Sequence
from typing import Any

from likra.report.analysis import ReportData
from likra.report.comparisons import Comparison, Efficiency
from likra.report.curves import Interval, first_by_n
from likra.report.style import mode_style, source_text
from likra.study.config import Study

CLEAR = 0.05  # a difference is hardly chance below this p-value
WITHOUT = frozenset({"positive-base", "pmi"})  # what uses no wrong answer, beside SFT and the base
# Modes that are no rival of Likra: SFT has a sentence of its own, the base and parts of Likra too.
OWN = frozenset({"likra", "base-likra", "negative", "base", "sft"})


def accuracies(data: ReportData, mode: str) -> dict[int, Interval]:
    """By number of examples, with the mode's first sampler of negatives; {} without the mode."""
    return first_by_n(data["curves"][data["metric"]], mode)


def shared_snapshots(data: ReportData) -> list[int]:
    """The numbers of examples that both Likra and SFT have."""
    likra, sft = (accuracies(data, mode) for mode in ("likra", "sft"))
    return [n for n in data["snapshots"] if n in likra and n in sft]


def best_snapshot(data: ReportData) -> int | None:
    """Where Likra is farthest above SFT; None where one of them is not among the modes."""
    likra, sft = (accuracies(data, mode) for mode in ("likra", "sft"))
    return max(shared_snapshots(data), key=lambda n: likra[n][0] - sft[n][0], default=None)


def question(study: Study, about: Mapping[str, Any], data: ReportData) -> str:
    """What was trained, on how many examples, and what it was asked."""
    first, last = study.snapshots[0], study.snapshots[-1]
    examples = f"{first:,} to {last:,}" if first != last else f"{last:,}"
    seeds = f"{len(study.seeds)} seeds" if len(study.seeds) > 1 else "one seed"
    leaks = len({test for _, test, _ in about["leaks"]})
    fate = "was left out of the training" if study.on_leakage == "drop" else "stayed in it"
    leaked = f"; {leaks:,} also in the training data, or nearly, which {fate}" if leaks else ""
    return (
        "A positive head is trained on right answers and a negative head on wrong ones, each on "
        f"{examples} examples with {seeds}. They then answer {data['cost']['questions']:,} "
        f"questions of {study.task}{leaked}."
    )


def headline(study: Study, data: ReportData) -> str:
    """The largest difference between Likra and SFT; "" where one of them is missing."""
    n = best_snapshot(data)
    if n is None:
        return ""
    likra, sft = (accuracies(data, mode) for mode in ("likra", "sft"))
    base = accuracies(data, "base")
    untrained = f", the untrained base model {base[0][0]:.1%}" if base else ""
    seeds = f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"
    picked = ", where it is farthest above SFT" if len(shared_snapshots(data)) > 1 else ""
    return (
        f"With {n} examples{picked}, Likra answers {likra[n][0]:.1%} of the questions correctly, "
        f"fine-tuning on right answers only {sft[n][0]:.1%}{untrained}, a blind guess "
        f"{data['chance']:.1%} "
        f"({study.metric}, mean of {seeds}; negatives: {source_text(study.negatives[0])})."
    )


def in_short(study: Study, data: ReportData) -> list[str]:
    """What the study shows of Likra and SFT, and whether it is above chance, in plain words."""
    n = best_snapshot(data) or study.snapshots[-1]
    row = _against(study, data, "sft", n)
    if row is None:
        return _doubt(data, n)
    difference = row["difference"][0]
    if _corrected_p(data, row) >= CLEAR:
        verdict = (
            "it is not clear whether wrong answers help here. The difference between Likra and "
            "fine-tuning on right answers only may be chance."
        )
    else:
        points, more = 100 * abs(difference), "more" if difference > 0 else "fewer"
        without = _as_good_without(study, data, n) if difference > 0 else []
        do = "do harm here" if difference < 0 else "may help here" if without else "help here"
        verdict = (
            f"wrong answers {do}. With them, {points:.{0 if points >= 1 else 1}f} {more} of "
            "every 100 questions are answered correctly than after fine-tuning on right answers "
            "only, and that is hardly chance."
        )
        if without:
            verdict += (
                f" But {' and '.join(without)}, which saw no wrong answer, "
                f"{'are' if len(without) > 1 else 'is'} not clearly worse."
            )
    return [f"In short: {verdict}", *_doubt(data, n)]


def _as_good_without(study: Study, data: ReportData, n: int) -> list[str]:
    """The modes without wrong answers that Likra is not clearly above."""
    rows = {mode: _against(study, data, mode, n) for mode in study.modes if mode in WITHOUT}
    return [
        mode_style(mode).short
        for mode, row in rows.items()
        if row is not None and (row["difference"][0] <= 0 or _corrected_p(data, row) >= CLEAR)
    ]


def findings(study: Study, data: ReportData) -> list[str]:
    """Further sentences; one that the data has nothing for is left out."""
    n = best_snapshot(data) or study.snapshots[-1]
    difference = [
        *_difference(study, data, n),
        *_at_the_end(study, data, n),
        *_strongest_rival(study, data, n),
    ]
    return difference if _doubt(data, n) else [*difference, *_negatives_alone(study, data, n)]


def _doubt(data: ReportData, n: int) -> list[str]:
    likra = accuracies(data, "likra")
    if n not in likra or likra[n][1] > data["chance"]:
        return []
    return [
        f"Likra is not clearly better than a blind guess ({data['chance']:.1%}), so these "
        "numbers say little about right and wrong."
    ]


def _difference(study: Study, data: ReportData, n: int) -> list[str]:
    row = _against(study, data, "sft", n)
    if row is None:
        return []
    return [
        f"On the same questions, Likra and SFT differ by {signed(row['difference'])} at n = {n} "
        f"({_corrected(data, row)}): Likra is better on {row['first_better']} questions, SFT on "
        f"{row['second_better']}."
    ]


def _at_the_end(study: Study, data: ReportData, n: int) -> list[str]:
    """The difference at the last n, which was not chosen by its outcome."""
    last = study.snapshots[-1]
    row = _against(study, data, "sft", last)
    if row is None or last == n:
        return []
    p = p_value(row["p_value"], equals=True)
    return [f"At the largest n, {last}, they differ by {signed(row['difference'])} (p {p})."]


def _strongest_rival(study: Study, data: ReportData, n: int) -> list[str]:
    """Likra beside the best of the other methods: a lead over SFT alone may be no lead."""
    others = [mode for mode in study.modes if mode not in OWN]
    compared = [row for mode in others if (row := _against(study, data, mode, n)) is not None]
    if not compared:
        return []
    best = min(compared, key=lambda row: row["difference"][0])
    return [
        f"Besides SFT, {best['second']} is the strongest rival at n = {n}: Likra and it differ by "
        f"{signed(best['difference'])} ({_corrected(data, best, len(compared))})."
    ]


def _against(study: Study, data: ReportData, other: str, n: int) -> Comparison | None:
    """Likra compared with another mode at n, with the first sampler of negatives."""
    wanted = {"first": "likra", "second": other, "source": study.negatives[0], "n": n}
    return next((row for row in data["comparisons"] if wanted.items() <= row.items()), None)


def _corrected(data: ReportData, row: Comparison, rivals: int = 1) -> str:
    """The p-value of a comparison at the n where Likra and SFT differ most: Bonferroni.

    With ``rivals``, the other mode is the strongest of so many.
    """
    p = p_value(_corrected_p(data, row, rivals), equals=True)
    counts = {"n": len(shared_snapshots(data)), "rival": rivals}
    chosen = [name for name, count in counts.items() if count > 1]
    return f"p {p}{', corrected for the choice of ' if chosen else ''}{' and '.join(chosen)}"


def _corrected_p(data: ReportData, row: Comparison, rivals: int = 1) -> float:
    return min(1.0, max(1, len(shared_snapshots(data))) * rivals * row["p_value"])


def _negatives_alone(study: Study, data: ReportData, n: int) -> list[str]:
    sentences, source = [], study.negatives[0]
    alone = accuracies(data, "base-likra")
    if n in alone:
        sentences.append(
            "The negative head alone, which saw only wrong answers, answers "
            f"{alone[n][0]:.1%} correctly after {n} of them."
        )
    wanted = {"mode": "base-likra", "source": source, "n": n}
    row = next((r for r in data["efficiency"] if wanted.items() <= r.items()), None)
    if row is not None and row["k"][0]:
        number = factor(row).replace("> ", "more than ")
        noun = "answer" if number in {"1", "more than 1"} else "answers"
        sentences.append(
            f"At n = {n}, {unit('base-likra', source)} does as much as {number} right {noun} in "
            "fine-tuning."
        )
    elif row is not None:
        base = accuracies(data, "base").get(0)
        how = "worse" if base and alone[n][2] < base[1] else "no better"
        sentences.append(f"At n = {n}, wrong answers alone do {how} than the untrained base model.")
    return sentences


def unit(mode: str, source: str) -> str:
    """One example of a mode, in words."""
    if "all_choices" in source:
        return "one question" if mode == "likra" else "one question's wrong answers"
    return "one pair" if mode == "likra" else "one wrong answer"


def drawn_over(study: Study) -> str:
    """What the intervals of accuracies and differences are over."""
    return "over questions and seeds" if len(study.seeds) > 1 else "over questions, for one seed"


def estimate(values: Sequence[float], digits: int = 3) -> str:
    """A value and its interval: "0.957 [0.914, 0.992]"."""
    value, low, high = values
    text = f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return text.replace("-", "\u2212")


def signed(values: Sequence[float]) -> str:
    """A difference of accuracies in points: "+51.6 points [+42.2, +60.9]"."""
    value, low, high = (100 * v for v in values)
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]".replace("-", "\u2212")


def p_value(p: float, *, equals: bool = False) -> str:
    """A p-value with two digits; small ones are not told apart."""
    if p < 1e-4:
        return "< 0.0001"
    text = f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    return f"= {text}" if equals else text


def factor(row: Efficiency) -> str:
    """An example efficiency and its interval: "2.4 [1.9, > 3]"."""
    flags = row["is_bound"], row["low_is_bound"], row["high_is_bound"]
    texts = [("> " if flag else "") + f"{k:.3g}" for flag, k in zip(flags, row["k"], strict=True)]
    if row["low_is_bound"]:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"
