"""Text: normalisation, common beginnings, one line of an error; a time; seeded shuffles."""

import random
import re
import unicodedata
from collections.abc import Iterator, Sequence

from likra.errors import LikraError


def normalised(text: str) -> str:
    """The words in lower case, numbers and signs of arithmetic; all other punctuation is dropped.

    Unicode's compatibility forms are unified; a dash within a word becomes a space.
    """
    folded = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(_WORD.findall("".join(map(_kept, folded))))


def comparable(text: str) -> str:
    """What two texts are compared by: normalised, or the text itself if it is punctuation alone."""
    return normalised(text) or text.strip()


# a minus is a sign of arithmetic beside a number or between spaces
_WORD = re.compile(r"[^\s+*/=<>^%()-]+|[+*/=<>^%]|(?<![^\s\d)])-(?=[\s\d(])")


def _kept(character: str) -> str:
    """Letters, marks and digits, and the signs; a space for all else."""
    kind = unicodedata.category(character)
    return character if kind[0] in "LMN" or character in "_+*/=<>^%-()" else " "


def shuffled(count: int, generator: random.Random) -> Iterator[int]:
    """``generator.sample(range(count), count)``, drawn only as far as it is read."""
    moved: dict[int, int] = {}
    for left in range(count, 0, -1):
        place = generator.randrange(left)
        yield moved.get(place, place)
        moved[place] = moved.get(left - 1, left - 1)


def common_length(texts: Sequence[Sequence[object]]) -> int:
    """The length of the common beginning of texts, or of lists of messages."""
    shortest = min(map(len, texts))
    for length in range(shortest):
        if any(text[length] != texts[0][length] for text in texts):
            return length
    return shortest


def one_line(error: BaseException) -> str:
    """The first cause of an error, in one short line."""
    while error.__cause__ is not None:  # datasets wraps it
        error = error.__cause__
    kind = "" if isinstance(error, LikraError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:300]


def duration(seconds: float) -> str:
    """A time in words, such as "53 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def printable(text: str) -> str:
    """A text for a terminal: control characters, which could move or colour it, are escaped.

    Line ends and tabs stay. The escapes are JSON's, so what is JSON stays so.
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def spreadsheet_cell(text: str) -> str:
    """A text for CSV: what a spreadsheet would compute begins with an apostrophe.

    That is a text that begins with ``=``, ``+``, ``-`` or ``@``, or with a control character, and
    is no number.
    """
    if text[:1] not in _FORMULA:
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


_FORMULA = frozenset("=+-@\t\r\n")
