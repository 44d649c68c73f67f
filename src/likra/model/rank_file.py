"""Ranking the questions of a file into another file: streamed, resumed, in order."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from likra.atomic import replacing
from likra.data.asked import Asked, read_asked
from likra.data.reading import USUAL, Reading
from likra.data.rows import BadRowError
from likra.errors import LikraError
from likra.model.folder import identity
from likra.model.parts import Parts
from likra.model.rank import CHUNK, Ranked, rank_many, threshold
from likra.text import spreadsheet_cell

WRITABLE = (".jsonl", ".csv", ".parquet")


def rank_file(
    parts: Parts,
    source: Path,
    output: Path,
    *,
    reading: Reading = USUAL,
    abstain: float | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> int:
    """Rank the options of each question of a file, in its order.

    The rows lie in ``OUTPUT.partial`` until all are there; a run that was stopped continues after
    the last whole row, if model, file and settings are the same.

    Args:
        parts: the model.
        source: the questions (`likra.data.asked.read_asked`).
        output: .jsonl, .csv or .parquet: id, prediction (null where it abstains), probability,
            and the ranked options with their scores.
        reading: how the file is read.
        abstain: as in `likra.model.likra.Likra.predict`.
        log: is given notes.

    Returns:
        The number of questions ranked, those of an earlier run included.

    Raises:
        LikraError: a file that cannot be read or written, or a row that cannot be ranked.

    """
    if output.suffix.lower() not in WRITABLE:
        raise LikraError(f"'{output}' has an unknown ending: known: {', '.join(WRITABLE)}")
    if output.resolve() == source.resolve():
        raise LikraError(f"'{output}' is the file of questions: give another output")
    least = 0.0 if abstain is None else threshold(parts, abstain)
    partial = output.with_name(f"{output.name}.partial")
    state = source.stat()
    header = {
        "likra": [identity(parts), str(source.resolve()), state.st_size, state.st_mtime_ns],
        "settings": [dict(reading.columns), reading.on_bad_row, abstain],
    }
    done = _rows_done(partial, header)
    if done:
        log(f"continue after {done:,} rows")
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(header) + "\n", encoding="utf-8")
    rows = islice(read_for_ranking(parts, source, reading), done, None)
    with partial.open("a", encoding="utf-8") as file:
        for line in _ranked_lines(parts, rows, least, reading.on_bad_row, log):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
    count = _write(partial, output)
    partial.unlink()
    return count


def _rows_done(partial: Path, header: Mapping[str, Any]) -> int:
    """How many rows a stopped run has left; a torn last one is cut off."""
    if not partial.is_file():
        return 0
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    first, *rows = whole.splitlines() or [b""]
    if first != json.dumps(header).encode():
        return 0
    if len(whole) < len(content):
        with partial.open("r+b") as file:
            file.truncate(len(whole))
    return len(rows)


def _ranked_lines(
    parts: Parts,
    rows: Iterator[Asked | BadRowError],
    least: float,
    on_bad_row: str,
    log: Callable[[str], None],
) -> Iterator[dict[str, Any] | None]:
    """A line for each row: null for one that was left out, so that lines and rows keep step."""
    while chunk := list(islice(rows, CHUNK)):
        for row, found in zip(chunk, rank_rows(parts, chunk), strict=True):
            if isinstance(row, Asked) and not isinstance(found, LikraError):
                yield as_row(row.name, found, least)
            elif on_bad_row == "error":
                assert isinstance(found, LikraError)
                raise found
            else:
                log(f"left out {found}")
                yield None


def read_for_ranking(
    parts: Parts, source: Path, reading: Reading = USUAL
) -> Iterator[Asked | BadRowError]:
    """The questions of a file, put into the model's prompt template if it has one."""
    return read_asked(source, replace(reading, prompt_template=parts.prompt.template))


def rank_rows(parts: Parts, rows: Sequence[Asked | BadRowError]) -> list[list[Ranked] | LikraError]:
    """The ranking of each row of `read_for_ranking`, or what is wrong with it, with its name."""
    parts = replace(parts, prompt=parts.prompt.filled)
    asked = [row for row in rows if isinstance(row, Asked)]
    try:
        together = iter(list(rank_many(parts, [(row.question, row.options) for row in asked])))
    except LikraError:
        return [_alone(parts, row) for row in rows]
    return [next(together) if isinstance(row, Asked) else row for row in rows]


def _alone(parts: Parts, row: Asked | BadRowError) -> list[Ranked] | LikraError:
    if not isinstance(row, Asked):
        return row
    try:
        return next(rank_many(parts, [(row.question, row.options)]))
    except LikraError as error:
        return LikraError(f"{row.name}: {error}")


def as_row(name: str, ranked: Sequence[Ranked], least: float = 0.0) -> dict[str, Any]:
    """A question's ranking as JSON values."""
    best = ranked[0]
    return {
        "id": name,
        "prediction": best.text if best.probability >= least else None,
        "probability": best.probability,
        "options": [asdict(option) for option in ranked],
    }


def _write(partial: Path, output: Path) -> int:
    """The rows in the format of the output, whole or not at all."""
    count = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        with partial.open(encoding="utf-8") as file:
            next(file)
            for line in file:
                row = json.loads(line)
                if row is not None:
                    count += 1
                    yield row

    kind = output.suffix.lower()
    writers = {".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}
    with replacing(output) as temporary:
        writers[kind](rows(), temporary)
    return count


def _write_jsonl(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_csv(rows: Iterator[dict[str, Any]], path: Path) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prediction", "probability", "options"])
        for row in rows:
            name, prediction = (spreadsheet_cell(row[key] or "") for key in ("id", "prediction"))
            options = json.dumps(row["options"], ensure_ascii=False)
            writer.writerow([name, prediction, row["probability"], options])


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = ("probability", "score", "positive_logprob", "negative_logprob")
    option = pa.struct([("text", pa.string()), *((name, pa.float64()) for name in numbers)])
    schema = pa.schema(
        {
            "id": pa.string(),
            "prediction": pa.string(),
            "probability": pa.float64(),
            "options": pa.list_(option),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(rows, 1024)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
