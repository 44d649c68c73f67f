"""Names, colours and line styles: one for each mode, in figures and pages alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from likra.errors import LikraError
from likra.negatives.mixture import parts_as_written
from likra.scores.ratio import MODES


@dataclass(frozen=True)
class Style:
    """How a mode is named and drawn.

    ``color`` and ``dark`` are for light and dark paper: people with any colour vision can tell
    them apart (Okabe and Ito), and so can black and white, by ``dash`` and ``marker``.
    """

    label: str
    color: str
    dark: str
    dash: str  # matplotlib
    marker: str  # matplotlib
    symbol: str  # plotly

    @property
    def short(self) -> str:
        """The name without its explanation."""
        return self.label.partition(" (")[0]

    @property
    def glyph(self) -> str:
        """The marker as a character; none for what has no marker."""
        return GLYPHS.get(self.symbol, "") if self.marker else ""


GLYPHS = {
    "circle": "\u25cf",
    "square": "\u25a0",
    "triangle-up": "\u25b2",
    "diamond": "\u25c6",
    "triangle-down": "\u25bc",
    "cross": "\u271a",
    "x": "\u2716",
    "star": "\u2605",
    "triangle-left": "\u25c0",
    "triangle-right": "\u25b6",
    "pentagon": "\u2b1f",
    "hexagon": "\u2b22",
}
_KNOWN = {
    "likra": Style("Likra", "#0072B2", "#58AEEB", "-", "o", "circle"),
    "base-likra": Style("Base-Likra (negatives only)", "#00875F", "#34C79B", "--", "s", "square"),
    "positive-base": Style("Positive-Base", "#B0558E", "#E79AC9", ":", "D", "diamond"),
    "sft": Style("SFT (positives only)", "#D55E00", "#FF8E4F", "-.", "^", "triangle-up"),
}
_LABELS = {
    "pmi": "PMI (no training)",
    "dpo": "DPO",
    "dpo-reward": "DPO, its reward",
    "nca": "NCA",
    "nca-reward": "NCA, its reward",
    "kto": "KTO",
    "kto-reward": "KTO, its reward",
    "trl-sft": "SFT by TRL",
}
_MORE = (
    ("#6A51A3", "#B7A1E8", "-", "v", "triangle-down"),
    ("#8A6D00", "#DDBB45", "--", "P", "cross"),
    ("#A4243B", "#F0788C", "-.", "X", "x"),
    ("#1B7F8C", "#5CC6D3", ":", "*", "star"),
    ("#7A4B2A", "#C99A74", "-", "<", "triangle-left"),
    ("#3F5F1F", "#9CBF6E", "--", ">", "triangle-right"),
    ("#444E86", "#9AA5E8", "-.", "p", "pentagon"),
    ("#8F3F8F", "#DD8FDD", ":", "h", "hexagon"),
)
STYLES = dict(_KNOWN)  # in the order of tables and legends
for _name, _look in zip(
    [name for name in MODES if name not in {*STYLES, "base"}], cycle(_MORE), strict=False
):
    STYLES[_name] = Style(_LABELS.get(_name, _name), *_look)
STYLES["base"] = Style("base model", "#5F6670", "#A7AFBA", "--", "", "circle")  # the last one

_SOURCES = {
    "random_choice": "a wrong choice of the same question",
    "all_choices": "all wrong choices of the same question",
    "hardest": "the wrong choice that the base scores highest",
    "easiest": "the wrong choice that the base scores lowest",
    "other_question": "the answer of another question",
    "other_task": "an answer of another task",
    "generated": "the base model's own wrong answers",
    "file": "wrong answers from a file",
    "contaminated": "a wrong choice of the same question",
}


def mode_style(mode: str) -> Style:
    """How a mode is named and drawn; one that is not known yet has a look, too."""
    known = STYLES.get(mode)
    if known is not None:
        return known
    return Style(mode, *_MORE[sum(mode.encode()) % len(_MORE)])


def source_text(source: str) -> str:
    """A source of negatives in words: "80% a wrong choice of the same question, 20% ..."."""
    try:
        parts = parts_as_written(source)
    except LikraError:
        return source
    texts = []
    for fraction, name, argument in parts:
        if name not in _SOURCES:
            return source
        share = f"{float(fraction):.0%} " if fraction else ""
        text = _SOURCES[name]
        if name == "contaminated":
            text += f", {float(argument or 0):.0%} of them right answers"
        elif argument:
            text += f" ({argument.rsplit('/', 1)[-1]})"
        texts.append(share + text)
    return " + ".join(texts)


def source_styles(sources: Sequence[str]) -> dict[str, Style]:
    """How each source of negatives is named and drawn where all lines are of one mode."""
    looks = [(s.color, s.dark, s.dash, s.marker, s.symbol) for s in _KNOWN.values()]
    return {
        source: Style(source_text(source), *look)
        for source, look in zip(sources, cycle([*looks, *_MORE]), strict=False)
    }
