"""Questions of people's files in a table on disk, which takes the memory of an index.

The rows are in a temporary file. In memory are only their places there, and while they are read the
digests of ids, prompts and answers.
"""

import hashlib
import json
import os
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from likra.data.formats import Example, Format, Labelled, Text
from likra.data.reading import Reading
from likra.data.recognise import recognise
from likra.data.rows import BadRowError, Row
from likra.errors import LikraError


class RowFile:
    """JSON values in a temporary file that goes with its last user, read one at a time.

    They are not mapped into memory, where each that was read would count as the process's own.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="likra-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._starts = array("Q", [0])

    def append(self, value: Any) -> None:
        """Write a value at the end."""
        n_bytes = self._file.write(json.dumps(value, ensure_ascii=False).encode())
        self._starts.append(self._starts[-1] + n_bytes)

    def flush(self) -> None:
        """Make what was written readable."""
        self._file.flush()

    def __getitem__(self, number: int) -> Any:
        start, end = self._starts[number : number + 2]
        return json.loads(os.pread(self._file.fileno(), end - start, start))


@dataclass(frozen=True, eq=False)
class Table(Sequence[Example]):
    """The questions of one split, read from disk when asked for.

    Attributes:
        format: of the rows.
        rows: of each row its id, origin, prompt, what is asked, and its answers.
        groups: for each question, the numbers of its rows.
        is_chat: whether prompts are chat messages; a table has no mixture.
        dropped: how many rows were left out, by their fault.
        examples_of_dropped: the first of these, in words.
        contradicted: digests of the answers that one row calls right and another wrong.

    """

    format: Format
    rows: RowFile
    groups: Sequence[Sequence[int]]
    is_chat: bool
    dropped: Counter[str]
    examples_of_dropped: list[str]
    contradicted: frozenset[bytes] = frozenset()

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "Table": ...
    def __getitem__(self, index: int | slice) -> "Example | Table":
        if isinstance(index, slice):
            return replace(self, groups=self.groups[index])
        rows = [self.rows[number] for number in self.groups[index]]
        name, origin, prompt, asked, _ = rows[0]
        answers: Labelled = [(text, is_right) for *_, own in rows for text, is_right in own]
        if self.contradicted:
            answers = [
                (text, is_right)
                for text, is_right in answers
                if _digest(prompt, _stripped(text)) not in self.contradicted
            ]
        return Example(name or origin, prompt, answers, origin, asked)


def read_table(
    name: str,
    rows: Iterator[Row],
    reading: Reading,
    *,
    decodes: bool = False,
) -> Table:
    """Read rows into a table.

    Args:
        name: of the file, for messages.
        rows: with places that name the file.
        reading: how they are read.
        decodes: see `likra.data.formats.Format`.

    Raises:
        LikraError: no row, no format that fits, or a bad row.

    """
    reader = _Reader(name, reading, decodes)
    stored = RowFile()
    for entry in reader.stored(rows):
        stored.append(entry)
    stored.flush()
    return reader.table(stored)


@dataclass
class _Reader:
    """Rows to a table: one pass, in which only digests of ids and prompts stay in memory."""

    name: str
    reading: Reading
    decodes: bool
    format: Format | None = None
    ids: dict[bytes, bytes] = field(default_factory=dict)  # to the prompt that has it
    n_rows: int = 0
    groups: list[list[int]] = field(default_factory=list)
    by_prompt: dict[bytes, list[int]] = field(default_factory=dict)  # the same lists
    dropped: Counter[str] = field(default_factory=Counter)
    examples_of_dropped: list[str] = field(default_factory=list)
    answers: dict[bytes, bool] = field(default_factory=dict)
    contradicted: set[bytes] = field(default_factory=set)
    is_chat: bool = False

    def table(self, rows: RowFile) -> Table:
        groups, dropped = self.groups, self.examples_of_dropped
        if self.format is not None:
            contradicted = frozenset(self.contradicted)
            table = Table(
                self.format, rows, groups, self.is_chat, self.dropped, dropped, contradicted
            )
            if contradicted:  # such a text is neither right nor wrong: questions without others go
                pairs = zip(groups, table, strict=True)
                table = replace(table, groups=[group for group, own in pairs if own.answers])
            if table.groups:
                return table
        raise LikraError(
            f"'{self.name}' contains no usable row{f' ({dropped[0]})' if dropped else ''}"
        )

    def stored(self, rows: Iterator[Row]) -> Iterator[list[Any]]:
        """The usable rows, as they are in `Table.rows`."""
        for origin, row in rows:
            try:
                example = self._example(row)
            except LikraError as error:
                if self.reading.on_bad_row == "error" or not isinstance(error, BadRowError):
                    is_of_row = self.format is not None or isinstance(error, BadRowError)
                    place = f"{origin}: " if is_of_row else ""
                    raise LikraError(f"{place}{error}") from error
                self.dropped[error.kind] += 1
                if len(self.examples_of_dropped) < 3:
                    self.examples_of_dropped.append(f"{origin}: {error}")
            else:
                if example is not None:
                    yield self._entry(example, origin)

    def _example(self, row: Mapping[str, Any] | BadRowError) -> Example | None:
        if isinstance(row, BadRowError):
            raise row
        if self.format is None:
            self.format = recognise(row, self.reading, f"'{self.name}'", decodes=self.decodes)
        example = self.format.parse(row)
        self._check_row(example)  # a row that is left out must not have its answers noted
        return self._new_answers(example)

    def _check_row(self, example: Example) -> None:
        if self.n_rows and (not isinstance(example.prompt, str)) != self.is_chat:
            raise BadRowError("mixed plain text and chat messages", "in one file")
        known = self.ids.get(_digest(example.id)) if example.id else None
        if known is not None and not (self._groups and known == _digest(example.prompt)):
            raise BadRowError("duplicate id", f"'{example.id}'")

    def _new_answers(self, example: Example) -> Example | None:
        """The example without answers that its question has already; None if none is left."""
        seen: dict[bytes, bool] = self.answers if self._groups else {}
        kept = []
        for text, is_right in example.answers:
            key = _digest(example.prompt, _stripped(text))
            if seen.get(key, is_right) != is_right:
                if self._groups:
                    self.contradicted.add(key)
                raise BadRowError("the same text as right and as wrong answer", f"'{text!s:.60}'")
            if key not in seen or not self._groups:
                kept.append((text, is_right))
            seen[key] = is_right
        return replace(example, answers=kept) if kept else None

    def _entry(self, example: Example, origin: str) -> list[Any]:
        self.is_chat = not isinstance(example.prompt, str)
        key = _digest(example.prompt)
        if example.id:
            self.ids[_digest(example.id)] = key
        if self._groups and key in self.by_prompt:
            self.by_prompt[key].append(self.n_rows)
        else:
            self.groups.append([self.n_rows])
            if self._groups:
                self.by_prompt[key] = self.groups[-1]
        self.n_rows += 1
        answers = [(text, bool(is_right)) for text, is_right in example.answers]
        return [example.id, origin, example.prompt, example.asked, answers]

    @property
    def _groups(self) -> bool:
        return self.format is not None and self.format.groups


def _stripped(text: Text) -> Text:
    return text.strip() if isinstance(text, str) else text


def _digest(*texts: Text) -> bytes:
    joined = "\0".join(
        text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for text in texts
    )
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=12).digest()
