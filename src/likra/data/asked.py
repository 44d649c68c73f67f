"""Questions with options to rank, read from a file one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from likra.data.columns import are_numbers
from likra.data.formats import Format, Text
from likra.data.reading import USUAL, Reading
from likra.data.recognise import recognise
from likra.data.rows import BadRowError, kind_of, read_rows
from likra.errors import LikraError


@dataclass(frozen=True)
class Asked:
    """A row of the file.

    Attributes:
        name: the row's id, or its place in the file.
        question: what is asked.
        options: the candidates.

    """

    name: str
    question: Text
    options: tuple[Text, ...]


def read_asked(path: Path, reading: Reading = USUAL) -> Iterator[Asked | BadRowError]:
    """The questions of a JSONL, JSON, CSV, TSV or Parquet file, in order.

    Args:
        path: the file.
        reading: how it is read; with ``on_bad_row`` "skip" a bad row's fault is given in its place.

    Raises:
        LikraError: what cannot be read, by file and line.

    """
    form: Format | None = None
    decodes = kind_of(path) in {".csv", ".tsv"}
    for place, row in read_rows(path, by_number=are_numbers(reading.columns)):
        try:
            if isinstance(row, BadRowError):
                raise row
            if form is None:
                form = recognise(row, reading, f"'{path}'", decodes=decodes, asks=True)
            example = form.parse(row)
        except BadRowError as error:
            fault = BadRowError(f"{path.name}, {place}: {error}")
            if reading.on_bad_row == "error":
                raise fault from error
            yield fault
        else:
            options = tuple(text for text, _ in example.answers)
            yield Asked(example.id or place, example.prompt, options)
    if form is None:
        raise LikraError(f"'{path}' contains no usable row")
