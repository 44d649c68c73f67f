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
    dash: str  # both as matplotlib names them
    marker: str

    @property
    def short(self) -> str:
        """The name without its explanation."""
        return self.label.partition(" (")[0]


_KNOWN = {
    "likra": Style("Likra", "#0072B2", "#58AEEB", "-", "o"),
    "base-likra": Style("Base-Likra (negatives only)", "#00875F", "#34C79B", "--", "s"),
    "positive-base": Style("Positive-Base", "#B0558E", "#E79AC9", ":", "D"),
    "sft": Style("SFT (positives only)", "#D55E00", "#FF8E4F", "-.", "^"),
}
_LABELS = {
    "negative": "Negative head alone",
    "pmi": "PMI (no training)",
    "bradley-terry": "Bradley-Terry",
    "classifier": "Classifier",
    "unlikelihood": "Unlikelihood",
    "simpo": "SimPO",
    "trl-sft": "SFT by TRL",
}


def _label(mode: str) -> str:
    """A mode's name in words; of the methods, in capitals."""
    name = mode.removesuffix("-reward")
    by_trl = " by TRL" if name.startswith("trl-") else ""
    words = _LABELS.get(name, name.removeprefix("trl-").upper() + by_trl)
    return f"{words}, its reward" if mode != name else words


_MORE = (
    ("#6A51A3", "#B7A1E8", "-", "v"),
    ("#8A6D00", "#DDBB45", "--", "P"),
    ("#A4243B", "#F0788C", "-.", "X"),
    ("#1B7F8C", "#5CC6D3", ":", "*"),
    ("#7A4B2A", "#C99A74", "-", "<"),
    ("#3F5F1F", "#9CBF6E", "--", ">"),
    ("#444E86", "#9AA5E8", "-.", "p"),
    ("#8F3F8F", "#DD8FDD", ":", "h"),
)
_DASHES = ("-", "--", "-.", ":")


def _look(number: int) -> tuple[str, str, str, str]:
    """Colours, dash and marker; after all colours each comes again with the next dash."""
    turn, place = divmod(number, len(_MORE))
    color, dark, dash, marker = _MORE[place]
    return color, dark, _DASHES[(_DASHES.index(dash) + turn) % len(_DASHES)], marker


_OTHERS = [name for name in MODES if name not in {*_KNOWN, "base"}]
STYLES = {  # in the order of tables and legends
    **_KNOWN,
    **{name: Style(_label(name), *_look(number)) for number, name in enumerate(_OTHERS)},
    "base": Style("base model", "#5F6670", "#A7AFBA", "--", ""),
}

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
    return STYLES.get(mode) or Style(mode, *_MORE[sum(mode.encode()) % len(_MORE)])


def source_text(source: str) -> str:
    """A sampler of negatives in words: "80% a wrong choice of the same question, 20% ..."."""
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
    """How each sampler of negatives is named and drawn where all lines are of one mode."""
    looks = [(s.color, s.dark, s.dash, s.marker) for s in _KNOWN.values()]
    return {
        source: Style(source_text(source), *look)
        for source, look in zip(sources, cycle([*looks, *_MORE]), strict=False)
    }


def shades(count: int) -> list[dict[str, str]]:
    """Colours of lines that follow one another, as the numbers of examples do: pale to strong."""
    ends = {"color": ((158, 202, 225), (8, 48, 107)), "dark": ((84, 94, 128), (255, 214, 102))}
    parts = [i / max(count - 1, 1) for i in range(count)]
    return [{name: _between(*pair, part) for name, pair in ends.items()} for part in parts]


def _between(start: Sequence[int], end: Sequence[int], part: float) -> str:
    pairs = zip(start, end, strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)
