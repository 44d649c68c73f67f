"""Questions with options to rank, read from a file one at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from likra.data.columns import are_numbers
from likra.data.formats import Format, Text, recognise
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


def read_asked(
    path: Path, mapping: Mapping[str, str] | None = None, on_bad_row: str = "error"
) -> Iterator[Asked | BadRowError]:
    """The questions of a JSONL, JSON, CSV, TSV or Parquet file, in order.

    Args:
        path: the file.
        mapping: the user's columns by role, as in `likra.data.formats.recognise`.
        on_bad_row: "error", or "skip" to give a bad row's fault in its place.

    Raises:
        LikraError: what cannot be read, by file and line.

    """
    if on_bad_row not in {"error", "skip"}:
        raise LikraError(f"on_bad_row takes error or skip, not '{on_bad_row}'")
    form: Format | None = None
    decodes = kind_of(path) in {".csv", ".tsv"}
    for place, row in read_rows(path, by_number=are_numbers(mapping)):
        try:
            if isinstance(row, BadRowError):
                raise row
            if form is None:
                form = recognise(row, mapping or {}, f"'{path}'", decodes=decodes, asks=True)
            example = form.parse(row)
        except BadRowError as error:
            fault = BadRowError(f"{path.name}, {place}: {error}")
            if on_bad_row == "error":
                raise fault from error
            yield fault
        else:
            options = tuple(text for text, _ in example.answers)
            yield Asked(example.id or place, example.prompt, options)
    if form is None:
        raise LikraError(f"'{path}' contains no usable row")
