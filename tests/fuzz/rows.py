"""Good rows, and values in the formats of files."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import yaml

CHOICE_ROWS = [
    {"id": f"q{n}", "question": f"What is {n}?", "choices": ["a", "b", f"c{n}"], "answer": n % 3}
    for n in range(6)
]
PAIR_ROWS = [{"prompt": f"Say {n}", "chosen": f" {n}", "rejected": f" {n + 1}"} for n in range(6)]
CHAT_ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"{n}"}]}
    for n in range(3)
]
LABEL_ROWS = [{"prompt": f"P{n // 2}", "completion": f" {n}", "label": n % 2} for n in range(6)]
ROWS = (CHOICE_ROWS, PAIR_ROWS, CHAT_ROWS, LABEL_ROWS)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def as_jsonl(rows: Any) -> bytes:
    listed = rows if isinstance(rows, list) else [rows]
    return as_bytes("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in listed))


def as_json(rows: Any) -> bytes:
    return as_bytes(json.dumps(rows))


def as_csv(rows: Any) -> bytes:
    """With lists as JSON in their fields."""
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, escapechar="\\")
    names = list(dict.fromkeys(name for row in listed for name in row))
    writer.writerow(names)
    for row in listed:
        values = [row.get(name, "") for name in names]
        writer.writerow([v if isinstance(v, str) else json.dumps(v) for v in values])
    return as_bytes(buffer.getvalue())


def as_parquet(rows: Any) -> bytes:
    """As far as Arrow takes the values; else JSON under a false name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()
    except Exception:  # whatever Arrow does not take
        return as_json(rows)


WRITERS: dict[str, Callable[[Any], bytes]] = {
    ".jsonl": as_jsonl,
    ".json": as_json,
    ".csv": as_csv,
    ".tsv": as_csv,
    ".parquet": as_parquet,
    ".jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows)),
}


def as_yaml(value: Any) -> bytes:
    try:
        return as_bytes(yaml.safe_dump(value, allow_unicode=True))
    except Exception:  # a text that YAML cannot hold
        return as_json(value)
