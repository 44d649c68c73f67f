"""Rows of data files, one at a time; each fault is reported with its file and line."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from likra.errors import LikraError
from likra.text import one_line

READABLE = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
MAX_FIELD = 1_000_000  # characters; more is a missing quote, not an answer
DEEPEST = 100  # lists and objects in one another
BATCH = 1024


class BadRowError(LikraError):
    """A row that cannot be used; ``kind`` is its fault in a few words, for counting."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}{f': {detail}' if detail else ''}")
        self.kind = kind


# The place of a row ("line 7"), and its fields or its fault.
Row = tuple[str, dict[str, Any] | BadRowError]


def read_rows(path: Path, *, by_number: bool = False) -> Iterator[Row]:
    """The rows of a JSONL, JSON, CSV, TSV or Parquet file; all but Parquet may be compressed.

    UTF-8 with or without a byte-order mark, any line ends. All but JSON is read as a stream.
    With ``by_number`` a CSV or TSV has no header: its columns are called 0, 1 and so on.

    Raises:
        LikraError: the file cannot be read at all.

    """
    kind = kind_of(path)
    if kind not in READABLE:
        raise LikraError(
            f"'{path}' has an unknown ending: known: {', '.join(READABLE)}; all but .parquet may "
            f"be compressed ({', '.join(COMPRESSED)})"
        )
    if path.is_dir():
        raise LikraError(f"'{path}' is a folder, not a file")
    if not path.is_file():
        raise LikraError(f"file not found: '{path}'")
    if path.stat().st_size == 0:
        raise LikraError(f"'{path}' is empty")
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    try:
        with _opened(path) as file:
            if file.read(2) in {b"\xff\xfe", b"\xfe\xff"}:  # no Parquet file begins so
                raise LikraError(f"'{path}' is UTF-16: save it as UTF-8")
        yield from readers.get(kind, partial(_csv, by_number=by_number))(path)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if path.suffix.lower() not in COMPRESSED:
            raise
        raise LikraError(f"'{path}' cannot be decompressed: {one_line(error)}") from error


def kind_of(path: Path) -> str:
    """The ending that tells how a file is read: that of the file in it, if it is compressed."""
    kind = path.suffix.lower()
    if kind not in COMPRESSED:
        return kind
    inner = Path(path.stem).suffix.lower()
    return inner if inner != ".parquet" else f"{inner}{kind}"


def _opened(path: Path) -> BinaryIO:
    """A file to read bytes from, decompressed."""
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
        return cast("BinaryIO", io.BufferedReader(stream))
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast("BinaryIO", openers.get(path.suffix.lower(), open)(path, "rb"))


def _jsonl(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number}", _parsed(line, "utf-8-sig" if number == 1 else "utf-8")


def _parsed(line: bytes, encoding: str) -> dict[str, Any] | BadRowError:
    try:
        return _whole(json.loads(line.decode(encoding), object_pairs_hook=_unique))
    except UnicodeDecodeError as error:
        return BadRowError(
            "not UTF-8", f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
        )
    except json.JSONDecodeError as error:
        return BadRowError("broken JSON", f"{error.msg} at column {error.colno}")
    except RecursionError:
        return too_deep()
    except BadRowError as error:
        return error
    except ValueError:  # of Python's, who reads no more digits than 4,300
        return BadRowError("broken JSON", "a number with too many digits")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused where one key would silently win over its namesake."""
    unique = dict(pairs)
    if len(unique) != len(pairs):
        keys = [key for key, _ in pairs]
        raise BadRowError("duplicate key", f"'{next(k for k in keys if keys.count(k) > 1)}'")
    return unique


def _whole(value: object) -> dict[str, Any] | BadRowError:
    if is_too_deep(value):
        return too_deep()
    if not isinstance(value, dict):
        return BadRowError("not a JSON object", f"{value!r:.40}")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return BadRowError("broken Unicode", "a lone surrogate escape")
    return value


def too_deep() -> BadRowError:
    """The fault of a row that `is_too_deep`."""
    return BadRowError("broken JSON", "nested too deeply")


def is_too_deep(value: object) -> bool:
    """Whether lists and objects are nested more than `DEEPEST` deep."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for own in level
            if isinstance(own, list | dict)
            for inner in (own.values() if isinstance(own, dict) else own)
        ]
        if not level:
            return False
    return True


def _json(path: Path) -> Iterator[Row]:
    try:
        with _opened(path) as file:
            text = file.read().decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise LikraError(f"'{path}' is not UTF-8 (byte {error.start + 1})") from error
    except BadRowError as error:
        raise LikraError(f"'{path}': {error}") from error
    except json.JSONDecodeError as error:
        hint = "; one object per line is JSONL: name it .jsonl" if error.msg == "Extra data" else ""
        raise LikraError(
            f"'{path}', line {error.lineno}: broken JSON: {error.msg} at column {error.colno}{hint}"
        ) from error
    except (RecursionError, ValueError) as error:
        fault = "nested too deeply" if isinstance(error, RecursionError) else "a number too long"
        raise LikraError(f"'{path}': broken JSON: {fault}") from error
    if isinstance(value, dict):  # the rows under one name
        lists = [item for item in value.values() if isinstance(item, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        raise LikraError(f"'{path}' contains no list of rows")
    for number, row in enumerate(value, start=1):
        yield f"row {number}", _whole(row)


def _csv(path: Path, *, by_number: bool) -> Iterator[Row]:
    limit = csv.field_size_limit(sys.maxsize)
    line = 1
    try:
        # bytes that are no UTF-8 become lone surrogates, so that their row can be named
        with _decoded(path) as file:
            first = file.readline()
        delimiter = "\t" if kind_of(path) == ".tsv" else max(",;\t", key=first.count)
        with _decoded(path) as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, None)
            if header is None:
                raise LikraError(f"'{path}' is empty")
            numbers = [str(number) for number in range(len(header))]
            if by_number and header != numbers:
                yield f"line {line}", _record(numbers, header)
                header = numbers
            if len(set(header)) != len(header):
                raise LikraError(f"'{path}': duplicate column name: {', '.join(header)}")
            line = reader.line_num + 1
            for fields in reader:
                if fields:
                    yield f"line {line}", _record(header, fields)
                line = reader.line_num + 1
    except csv.Error as error:
        raise LikraError(f"'{path}', line {line}: broken CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _decoded(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        _opened(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )


def _record(header: list[str], fields: list[str]) -> dict[str, Any] | BadRowError:
    if len(fields) != len(header):
        return BadRowError("wrong number of fields", f"{len(fields)}, and {len(header)} columns")
    if any("\udc80" <= character <= "\udcff" for field in fields for character in field):
        return BadRowError("not UTF-8")
    return dict(zip(header, fields, strict=True))


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) != len(names):
                raise LikraError(f"'{path}': duplicate column name: {', '.join(names)}")
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    # an OSError is of bad compression, an OverflowError of a time beyond the year 9999
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LikraError(f"cannot read '{path}' after row {number}: {reason}") from error
