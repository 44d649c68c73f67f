"""Rows of people's files as a table on disk, which takes the memory of an index.

The rows stand in a memory-mapped Arrow file; in memory are only their places, and while they are
read the digests of ids, prompts and answers.
"""

import hashlib
import json
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from likra.data.formats import Example, Format, Text, recognise
from likra.data.rows import BadRowError, Row
from likra.errors import LikraError

_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("origin", pa.string()),
        pa.field("prompt", pa.string()),  # chat messages as JSON
        pa.field("is_chat", pa.bool_()),
        pa.field("texts", pa.list_(pa.string())),
        pa.field("rights", pa.list_(pa.bool_())),
    ]
)
_FLUSH = 2048  # rows


@dataclass
class Table:
    """The rows of one split, on disk, and which of them make up each question.

    ``groups`` holds for each question the first of its rows; ``following`` links rows with the
    same prompt (-1: none).
    """

    format: Format
    rows: Any  # pa.Table, memory-mapped
    groups: "array[int]"
    following: "array[int]"
    dropped: Counter[str]
    examples_of_dropped: list[str]
    contradicted: frozenset[bytes] = frozenset()  # digests of answers called right and wrong

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def is_chat(self) -> bool:
        """Whether prompts are chat messages; a table has no mixture."""
        return bool(self.rows["is_chat"][0].as_py())

    def members(self, number: int) -> Iterator[dict[str, Any]]:
        """The rows of a question."""
        place = self.groups[number]
        while place >= 0:
            yield self.rows.slice(place, 1).to_pylist()[0]
            place = self.following[place]


def read_table(
    name: str,
    rows: Iterator[Row],
    mapping: Mapping[str, str],
    on_bad_row: str = "error",
    *,
    decodes: bool = False,
) -> Table:
    """Read rows into a table.

    Args:
        name: of the file, for messages.
        rows: where each stands, file included, and its fields; see `likra.data.rows.read_rows`.
        mapping: the user's columns by role.
        on_bad_row: "error", or "skip" to leave bad rows out and count them.
        decodes: see `likra.data.formats.Format`.

    Raises:
        LikraError: no row, no format that fits, or a bad row.

    """
    return _Reader(name, mapping, on_bad_row, decodes).read(rows)


class _Reader:
    """Rows to a table: one pass, in which only digests of ids and prompts stay in memory."""

    def __init__(
        self, name: str, mapping: Mapping[str, str], on_bad_row: str, decodes: bool
    ) -> None:
        self.name, self.mapping, self.on_bad_row = name, mapping, on_bad_row
        self.decodes = decodes
        self.format: Format | None = None
        self.ids: dict[bytes, bytes] = {}  # to the prompt that has it
        self.prompts: dict[bytes, int] = {}  # the last row so far with that prompt
        self.groups, self.following = array("q"), array("q")
        self.dropped: Counter[str] = Counter()
        self.examples_of_dropped: list[str] = []
        self.answers: dict[bytes, bool] = {}
        self.contradicted: set[bytes] = set()
        self.is_chat = False

    def read(self, rows: Iterator[Row]) -> Table:
        handle, path = tempfile.mkstemp(prefix="likra-", suffix=".arrow")
        os.close(handle)
        try:
            with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
                self._fill(rows, writer)
            # Read through the mapping, the rows stay the file's; the file goes with its last user.
            table = pa.ipc.open_file(pa.memory_map(path)).read_all()
        finally:
            Path(path).unlink(missing_ok=True)
        if self.format is None or not self.groups:
            raise LikraError(f"'{self.name}' holds no usable row{self._why()}")
        return self._without_contradicted(
            Table(
                self.format,
                table,
                self.groups,
                self.following,
                self.dropped,
                self.examples_of_dropped,
                frozenset(self.contradicted),
            )
        )

    def _without_contradicted(self, table: Table) -> Table:
        """A text that two rows call right and wrong is neither: questions without others go."""
        if not table.contradicted:
            return table
        kept = array("q", (table.groups[n] for n in range(len(table)) if restored(table, n)[1]))
        if not kept:
            raise LikraError(f"'{self.name}' holds no usable row{self._why()}")
        return replace(table, groups=kept)

    def _why(self) -> str:
        return f" ({self.examples_of_dropped[0]})" if self.examples_of_dropped else ""

    def _fill(self, rows: Iterator[Row], writer: Any) -> None:
        waiting: list[dict[str, Any]] = []
        for origin, row in rows:
            try:
                example = self._example(row)
                if example is not None:
                    waiting.append(self._entry(example, origin))
            except LikraError as error:
                if self.on_bad_row == "error" or not isinstance(error, BadRowError):
                    where = "" if self.format is None else f"{origin}: "
                    where = f"{origin}: " if isinstance(error, BadRowError) else where
                    raise LikraError(f"{where}{error}") from error
                self.dropped[error.kind] += 1
                if len(self.examples_of_dropped) < 3:
                    self.examples_of_dropped.append(f"{origin}: {error}")
            if len(waiting) == _FLUSH:
                writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
                waiting.clear()
        if waiting:
            writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))

    def _example(self, row: Mapping[str, Any] | BadRowError) -> Example | None:
        if isinstance(row, BadRowError):
            raise row
        if self.format is None:
            self.format = recognise(row, self.mapping, f"'{self.name}'", decodes=self.decodes)
        example = self.format.parse(row)
        self._check_row(example)  # a row that is left out must not have its answers noted
        return self._new_answers(example, self.format.groups)

    def _check_row(self, example: Example) -> None:
        if self.following and (not isinstance(example.prompt, str)) != self.is_chat:
            raise BadRowError("plain text and chat messages mixed", "in one file")
        known = None if example.id is None else self.ids.get(_digest(example.id))
        if known is not None and not (self._groups and known == _digest(example.prompt)):
            raise BadRowError("duplicate id", f"'{example.id}'")

    def _new_answers(self, example: Example, groups: bool) -> Example | None:
        """The example without answers that its question has already; None if none is left."""
        seen: dict[bytes, bool] = self.answers if groups else {}
        kept = []
        for text, is_right in example.answers:
            key = _digest(example.prompt, _stripped(text))
            if seen.get(key, is_right) != is_right:
                if groups:
                    self.contradicted.add(key)
                raise BadRowError("the same text as right and as wrong answer", f"'{text!s:.60}'")
            if key not in seen or not groups:
                kept.append((text, is_right))
            seen[key] = is_right
        return replace(example, answers=kept) if kept else None

    def _entry(self, example: Example, origin: str) -> dict[str, Any]:
        row = len(self.following)
        self.is_chat = not isinstance(example.prompt, str)
        key = _digest(example.prompt)
        if example.id is not None:
            self.ids[_digest(example.id)] = key
        self.following.append(-1)
        if self._groups and key in self.prompts:
            self.following[self.prompts[key]] = row
        else:
            self.groups.append(row)
        if self._groups:
            self.prompts[key] = row
        return {
            "id": example.id,
            "origin": origin,
            "prompt": _stored(example.prompt),
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


def restored(table: Table, number: int) -> tuple[Text, list[tuple[Text, bool]], dict[str, Any]]:
    """Prompt and answers of a question, and its first row."""
    rows = list(table.members(number))
    prompt = text_of(rows[0]["prompt"], rows[0]["is_chat"])

    answers = [
        (text_of(answer, row["is_chat"]), is_right)
        for row in rows
        for answer, is_right in zip(row["texts"], row["rights"], strict=True)
    ]
    if table.contradicted:
        answers = [
            (text, is_right)
            for text, is_right in answers
            if _digest(prompt, _stripped(text)) not in table.contradicted
        ]
    return prompt, answers, rows[0]


def text_of(stored: str, is_chat: bool) -> Text:
    """A text, or chat messages, as they were read."""
    return json.loads(stored) if is_chat else stored
