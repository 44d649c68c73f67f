"""Single bits of the files of a run and of a model change: each is found, or harmless."""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.study import contents, difference
from tests.commands import likra

STUDY = (
    "run", "pocket", "--seeds", "0", "--snapshots", "8", "--eval-questions", "24",
    "--negatives", "random_choice,hardest,generated", "--modes", "base,sft,likra",
    "--set", "figures=[learning_curve]", "--set", "generation.max_new_tokens=4",
)  # fmt: skip
COMMANDS = {  # that read a folder
    "run": ((*STUDY, "-o", "run"), ("plot", "run"), ("fit", "--from-run", "run", "-o", "made")),
    "kept": (("verdict", "kept"), (*STUDY, "-o", "kept")),
    "model": (
        ("rank", "model", "-q", "What is the capital of France?", "--option", "Paris", "--option",
         "Rome"),
        ("card", "model"),
    ),
}  # fmt: skip


HARMLESS = ("found", "rewritten", "without effect")


@dataclass(frozen=True)
class Flip:
    """A bit of a file that changed.

    Attributes:
        path: of the file.
        bit: its number in the file.
        outcome: "found" by a command that names the file; "rewritten", the file is as it was;
            "without effect" on what the commands print and write; or else what went wrong.

    """

    path: str
    bit: int
    outcome: str

    @property
    def kind(self) -> str:
        """The path, as that of any file of its kind."""
        return re.sub(
            r"=[^/.]+", "=*", re.sub(r"scores/[^/]*parquet", "scores/*.parquet", self.path)
        )


def build(place: Path) -> None:
    """A run, a packed copy of it, and the model of its heads, with what commands make of them."""
    for command in (
        (*STUDY, "-o", "run"),
        ("fit", "--from-run", "run", "-o", "made"),
        ("fit", "--from-run", "run", "-o", "model"),
        ("pack", "run", "-o", "kept"),
        (*STUDY, "-o", "kept"),
    ):
        result = likra(*command, cwd=place)
        assert result.returncode == 0, result.stderr


def flips(place: Path, count: int, seed: int) -> Iterator[Flip]:
    """Flip so many bits, as many of each kind of file, one at a time.

    Args:
        place: with what `build` makes.
        count: of flips.
        seed: of the draw.

    """
    draw, files = random.Random(seed), contents(place)
    expected = {folder: _printed(place, folder) for folder in COMMANDS}
    by_kind: dict[str, list[str]] = {}
    for path in (path for path in files if path.partition("/")[0] in COMMANDS):
        by_kind.setdefault(Flip(path, 0, "").kind, []).append(path)
    kinds = sorted(by_kind)
    for number in range(count):
        path = draw.choice(by_kind[kinds[number % len(kinds)]])
        bit = draw.randrange(8 * len(files[path]))
        damaged = bytearray(files[path])
        damaged[bit // 8] ^= 1 << bit % 8
        (place / path).write_bytes(damaged)
        yield Flip(path, bit, _outcome(place, path, files, expected))
        _restore(place, files)


def _printed(place: Path, folder: str) -> list[str]:
    """What the commands that read a folder print."""
    printed = []
    for command in COMMANDS[folder]:
        result = likra(*command, cwd=place)
        assert result.returncode == 0, result.stderr
        printed.append(re.sub(r"(?m)^time .*\n", "", result.stdout))
    return printed


def _outcome(
    place: Path, path: str, files: Mapping[str, bytes], expected: Mapping[str, list[str]]
) -> str:
    folder = path.partition("/")[0]
    for command, before in zip(COMMANDS[folder], expected[folder], strict=True):
        try:
            result = likra(*command, cwd=place)
        except Exception as error:  # the loop goes on
            return f"'{' '.join(command[:2])}' ends in {type(error).__name__}: {error}"
        if result.returncode == 2:
            names = [path, str(Path(path).parent)]
            return (
                "found"
                if any(f"'{name}'" in result.stderr for name in names)
                else (f"found, and the file is not named: {result.stderr}")
            )
        if result.returncode:
            return f"exit code {result.returncode}: {result.stderr}"
        if re.sub(r"(?m)^time .*\n", "", result.stdout) != before:
            return f"SILENT: '{' '.join(command[:2])}' prints something else"
    there = contents(place)
    own = there.pop(path, None)
    others = {name: content for name, content in files.items() if name != path}
    if changed := difference(there, others):
        return f"SILENT: {changed}"
    return "rewritten" if own == files[path] else "without effect"


def _restore(place: Path, files: Mapping[str, bytes]) -> None:
    for name in contents(place).keys() - files.keys():
        (place / name).unlink()
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        if not (place / name).is_file() or (place / name).read_bytes() != content:
            (place / name).write_bytes(content)
