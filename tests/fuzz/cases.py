"""What is given to likra, and the texts of its options."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Files = dict[str, bytes]  # by path


@dataclass(frozen=True)
class Case:
    """A command with its files, or a request.

    Attributes:
        entry: one of `ENTRIES`.
        command: of likra; empty for a request.
        files: beside which it is started.
        request: method, path, headers and body.

    """

    entry: str
    command: tuple[str, ...] = ()
    files: Files = field(default_factory=dict)
    request: tuple[str, str, Mapping[str, str], bytes] | None = None


def argument(text: str) -> str:
    """As a shell can give it."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def flat(options: list[tuple[str, str]]) -> list[str]:
    return [argument(part) for pair in options for part in pair]
