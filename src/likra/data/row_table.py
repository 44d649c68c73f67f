"""Questions of people's files in a table on disk, which takes the memory of an index.

The rows are in a memory-mapped Arrow file. In memory are only their numbers, and while they are
read the digests of ids, prompts and answers.
"""

import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from likra.data.formats import Example, Format, Labelled, Text
from likra.data.reading import Reading
from likra.data.recognise import recognise
from likra.data.rows import BadRowError, Row
from likra.errors import LikraError

_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "origin": pa.string(),
        "prompt": pa.string(),  # chat messages as JSON
        "asked": pa.string(),
        "is_chat": pa.bool_(),
        "texts": pa.list_(pa.string()),
        "rights": pa.list_(pa.bool_()),
    }
)
_BATCH = 2048  # rows


@dataclass(frozen=True, eq=False)
class Table(Sequence[Example]):
    """The questions of one split, read from disk when asked for.

    Attributes:
        format: of the rows.
        rows: the memory-mapped rows.
        groups: for each question, the numbers of its rows.
        dropped: how many rows were left out, by their fault.
        examples_of_dropped: the first of these, in words.
        contradicted: digests of the answers that one row calls right and another wrong.

    """

    format: Format
    rows: pa.Table
    groups: Sequence[Sequence[int]]
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
        rows = [self.rows.slice(number, 1).to_pylist()[0] for number in self.groups[index]]
        first = rows[0]
        prompt = _loaded(first["prompt"], first["is_chat"])
        answers: Labelled = [
            (_loaded(text, row["is_chat"]), is_right)
            for row in rows
            for text, is_right in zip(row["texts"], row["rights"], strict=True)
        ]
        if self.contradicted:
            answers = [
                (text, is_right)
                for text, is_right in answers
                if _digest(prompt, _stripped(text)) not in self.contradicted
            ]
        name = first["id"] or first["origin"]
        return Example(name, prompt, answers, first["origin"], first["asked"])

    @property
    def is_chat(self) -> bool:
        """Whether prompts are chat messages; a table has no mixture."""
        return bool(self.rows["is_chat"][0].as_py())


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
    handle, path = tempfile.mkstemp(prefix="likra-", suffix=".arrow")
    os.close(handle)
    try:
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            stored = reader.stored(rows)
            while batch := list(itertools.islice(stored, _BATCH)):
                writer.write_table(pa.Table.from_pylist(batch, schema=_SCHEMA))
        # Read through the mapping, the rows stay the file's; the file goes with its last user.
        return reader.table(pa.ipc.open_file(pa.memory_map(path)).read_all())
    finally:
        Path(path).unlink(missing_ok=True)


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

    def table(self, rows: pa.Table) -> Table:
        groups, dropped = self.groups, self.examples_of_dropped
        if self.format is not None:
            contradicted = frozenset(self.contradicted)
            table = Table(self.format, rows, groups, self.dropped, dropped, contradicted)
            if contradicted:  # such a text is neither right nor wrong: questions without others go
                pairs = zip(groups, table, strict=True)
                table = replace(table, groups=[group for group, own in pairs if own.answers])
            if table.groups:
                return table
        raise LikraError(
            f"'{self.name}' contains no usable row{f' ({dropped[0]})' if dropped else ''}"
        )

    def stored(self, rows: Iterator[Row]) -> Iterator[dict[str, Any]]:
        """The usable rows in the schema."""
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

    def _entry(self, example: Example, origin: str) -> dict[str, Any]:
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
        return {
            "id": example.id,
            "origin": origin,
            "prompt": _stored(example.prompt),
            "asked": example.asked,
            "is_chat": self.is_chat,
            "texts": [_stored(text) for text, _ in example.answers],
            "rights": [is_right for _, is_right in example.answers],
        }

    @property
    def _groups(self) -> bool:
        return self.format is not None and self.format.groups


def _stored(text: Text) -> str:
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def _stripped(text: Text) -> Text:
    return text.strip() if isinstance(text, str) else text


def _digest(*texts: Text) -> bytes:
    joined = "\0".join(_stored(text) for text in texts)
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _loaded(stored: str, is_chat: bool) -> Text:
    """A text, or chat messages, as they were read."""
    return json.loads(stored) if is_chat else stored
