"""The score tables of a run in one Parquet file: the questions once, a column for each head.

A column of log-likelihoods is float32 where that loses nothing (the engine's are), else float64.
What is the same in all rows of a table, and its stamp, is in the file's metadata.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from likra.atomic import replacing
from likra.errors import LikraError
from likra.scores.table import COLUMNS, SCHEMA, HeadKey, check_rows, content_digest, key_of

SHARED = ("task", "split", "question_id", "choice", "is_right", "n_chars", "n_bytes", "prompt_sha")
TOKENS = "n_tokens"  # shared, too; a head that saw other prompts has a column of its own
TABLES = b"likra.tables"  # the metadata key of what describes each table

Stamp = Mapping[str, Any]


def write_packed(path: Path, tables: Mapping[str, tuple[pa.Table, Stamp]]) -> None:
    """Write the tables with their stamps, and compare what was written with what was given.

    Args:
        path: of the file; after an error it is as it was.
        tables: by head (`HeadKey` as text), each with its stamp.

    Raises:
        LikraError: no table, or tables of different questions.

    """
    if not tables:
        raise LikraError(f"there are no scores to pack into '{path}'")
    reference, _ = next(iter(tables.values()))
    columns = {name: reference[name] for name in (*SHARED, TOKENS)}
    described, floats = [], []
    for name, (table, stamp) in tables.items():
        _check_same(name, table, reference)
        columns[name] = _shortest(table["logprob"].to_numpy())
        if not table[TOKENS].equals(reference[TOKENS]):
            columns[_tokens_of(name)] = table[TOKENS]
        layout = table["layout"][0].as_py()
        described.append({"key": asdict(key_of(table)), "layout": layout, "stamp": stamp})
        floats.append(name)
    content = pa.table(columns)
    with replacing(path) as temporary:
        with pq.ParquetWriter(
            temporary,
            content.schema,
            compression="zstd",
            use_dictionary=[name for name in columns if name not in floats],
            column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,
        ) as writer:
            writer.write_table(content)
            about = {"content": content_digest(content), "tables": described}
            writer.add_key_value_metadata({TABLES: _squeezed(about)})
        _check_written(temporary, tables)


def _check_same(name: str, table: pa.Table, reference: pa.Table) -> None:
    for column in SHARED:
        if not table[column].equals(reference[column]):
            raise LikraError(
                f"cannot pack the scores of {name} with those of {key_of(reference)}: they are not "
                f"of the same questions, and differ in '{column}'"
            )


def _check_written(path: Path, tables: Mapping[str, tuple[pa.Table, Stamp]]) -> None:
    packed = PackedScores(path)
    for name, (table, stamp) in tables.items():
        if packed.stamps[name] != stamp or not packed.table(name).equals(table):
            raise LikraError(f"the scores of {name} cannot be packed without a loss")


def _shortest(logprobs: np.ndarray) -> np.ndarray:
    """As float32 where each value stays the same."""
    with np.errstate(over="ignore"):
        short = logprobs.astype(np.float32)
    return short if (short == logprobs).all() else logprobs


def _tokens_of(name: str) -> str:
    return f"{name} {TOKENS}"


def _squeezed(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


class PackedScores:
    """The tables of a packed file.

    Attributes:
        path: of the file.
        stamps: of each table, by head (`HeadKey` as text). The scores are read when the first
            table is asked for.

    Raises:
        LikraError: the file is damaged, or is no packed file.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: pa.Table | None = None
        try:
            metadata = pq.read_metadata(path).metadata or {}
            about = json.loads(zlib.decompress(base64.b64decode(metadata[TABLES])))
            self._digest: str = about["content"]
            self._tables = {str(HeadKey(**own["key"])): own for own in about["tables"]}
            self.stamps: dict[str, Stamp] = {k: own["stamp"] for k, own in self._tables.items()}
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, zlib.error) as error:
            raise _damaged(path, error) from error

    def table(self, name: str) -> pa.Table:
        """The table of one head as it was before it was packed.

        Raises:
            LikraError: the file is damaged, or holds what no score table does.

        """
        content, own = self._read(), self._tables[name]
        tokens = _tokens_of(name) if _tokens_of(name) in content.column_names else TOKENS
        of_all = {"layout": own["layout"], **own["key"]}
        columns = {
            **{column: content[column] for column in SHARED},
            **{
                column: pa.repeat(pa.scalar(value, COLUMNS[column]), content.num_rows)
                for column, value in of_all.items()
            },
            TOKENS: content[tokens],
            "logprob": content[name].cast(pa.float64()),
        }
        table = pa.table(columns, schema=SCHEMA)
        check_rows(table, f"'{self.path}' ({name})")
        return table

    def _read(self) -> pa.Table:
        if self._content is None:
            try:
                with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                    content = file.read()
                if content_digest(content) != self._digest:
                    raise ValueError("its columns are not those that were written")
            except (pa.ArrowException, OSError, ValueError, TypeError) as error:
                raise _damaged(self.path, error) from error
            self._content = content
        return self._content


def _damaged(path: Path, error: BaseException) -> LikraError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return LikraError(
        f"cannot read the packed scores in '{path}': {reason}; restore the file from a copy, or "
        "delete it to train and score its heads again"
    )
