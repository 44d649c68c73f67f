"""The study that is disturbed: small, with cells of every kind."""

from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

STUDY = (
    "run", "pocket", "-o", "run", "--seeds", "0", "--snapshots", "8", "--eval-questions", "24",
    "--negatives", "hardest", "--modes", "base,sft,likra",
    "--set", "figures=[learning_curve]",
)  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def error(command: CompletedProcess[str]) -> str:
    """The one line that ends a command; "" where it ended well.

    Raises:
        AssertionError: it ended otherwise.

    """
    if command.returncode == 0:
        return ""
    *progress, last = command.stderr.splitlines()
    assert command.returncode == 2, command
    assert last.startswith("error: "), command
    assert not any(line.startswith(("error: ", "Traceback")) for line in progress), command
    return last


def hidden(folder: Path) -> list[str]:
    """What is left of files that were being written."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def difference(there: Mapping[str, bytes], expected: Mapping[str, bytes]) -> str:
    """The first file that differs, in words; "" where none does."""
    for name in sorted({*there, *expected}):
        if name not in there:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} should not be there"
        if there[name] != expected[name]:
            return f"{name} differs"
    return ""
