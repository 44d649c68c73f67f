"""Bytes for the parsers, drawn by the code that they reach: what is refused must be a LikraError.

    pip install atheris==3.0.0
    python -m tests.fuzz.guided rows|settings|templates [--count 100000] [--corpus FOLDER]

atheris (libFuzzer) changes valid files, and keeps what reaches new lines of likra. Any other error,
and 60 seconds without an end, stops it with the input's bytes in a file.

- rows: a data file, all of its questions
- settings: YAML, as a study and as a card
- templates: a prompt template, filled with the values of a row
"""

import argparse
import contextlib
import logging
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["likra"]):
    from likra.data.card import read_card
    from likra.data.files import open_files
    from likra.data.reading import Reading
    from likra.data.template import PromptTemplate
    from likra.errors import LikraError
    from likra.plain_yaml import parse_yaml
    from likra.study.config import parse_study

from tests.fuzz.rows import ROWS, WRITERS, as_yaml
from tests.fuzz.settings import BOMB, CARD, STUDY

LONGEST = 60  # seconds
TEMPLATES = (
    b"{question}:", b"{{ question }}", b"{% for c in choices %}{{ c }}{% endfor %}{{ id }}",
    b"{question} {{x}} {id}\\n", b"{{ question | upper }}{{ choices[0] * 3 }}",
)  # fmt: skip


def rows(content: bytes, folder: Path) -> None:
    """The first byte chooses the file's format, and what is done with bad rows."""
    if not content:
        return
    endings = list(WRITERS)
    path = folder / f"rows{endings[content[0] % len(endings)]}"
    path.write_bytes(content[1:])
    skip = "skip" if content[0] // len(endings) % 2 else "error"
    task = open_files(str(path), Reading(on_bad_row=skip))
    for split in task.splits:
        list(task.questions(split))


def settings(content: bytes, folder: Path) -> None:
    """As a study, and as a card."""
    path = folder / "mine.yaml"
    path.write_bytes(content)
    with contextlib.suppress(LikraError):
        value = parse_yaml(content, "the study")
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            parse_study(value)
    read_card(path)


def templates(content: bytes, folder: Path) -> None:
    """Of a row of each kind."""
    template = PromptTemplate(content.decode("utf-8", "replace"))
    for own in ROWS:
        with contextlib.suppress(LikraError):
            template.fill(own[0], "What?")


def seeds(target: str) -> list[bytes]:
    """Valid inputs to begin with."""
    if target == "templates":
        return list(TEMPLATES)
    if target == "settings":
        return [as_yaml(STUDY), as_yaml(CARD), BOMB]
    return [
        bytes([number]) + write(own)
        for number, write in enumerate(WRITERS.values())
        for own in ROWS
    ]


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "rows": rows,
    "settings": settings,
    "templates": templates,
}


def _tried(content: bytes, target: Callable[[bytes, Path], None], folder: Path) -> None:
    with contextlib.suppress(LikraError):
        target(content, folder)


def main() -> None:
    """Exit code 0 where nothing was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.guided",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="what reached new lines is kept there")
    options = parser.parse_args()
    logging.disable()  # what likra warns of, thousands of times
    with TemporaryDirectory(prefix="likra-fuzz-") as scratch:
        folder = Path(scratch)
        corpus = options.corpus or folder / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(seeds(options.target)):
            (corpus / f"seed-{number}").write_bytes(content)
        arguments = [
            sys.argv[0],
            f"-runs={options.count}",
            f"-seed={options.seed}",
            f"-timeout={LONGEST}",
            "-max_len=4096",
            "-verbosity=1",
            str(corpus),
        ]
        atheris.Setup(arguments, partial(_tried, target=TARGETS[options.target], folder=folder))
        try:
            atheris.Fuzz()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
