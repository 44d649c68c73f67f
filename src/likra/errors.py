"""The error that a user can mend: one clear line, and exit code 2 on the command line."""

import difflib
from collections.abc import Iterable


class LikraError(Exception):
    """Bad input, in one line that names what is wrong and what would be right."""


class NotFiniteError(LikraError):
    """A loss or a score is not a finite number: the input may be fine, and the numbers are not."""


def unknown(kind: str, name: str, known: Iterable[str], of: str = "") -> LikraError:
    """The error for a name that is not among the known ones, of something; names the nearest."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    what = f"{kind} '{name}'{of and f' of {of}'}"
    return LikraError(f"unknown {what}: {hint}known: {', '.join(names)}")
