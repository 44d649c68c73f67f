"""The score table: one row per (question, choice, head), in Parquet. Needs no torch.

A file holds the scores of one head. Everything after it (modes, weights, metrics, intervals) is
arithmetic on its columns.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from likra.atomic import replacing
from likra.errors import LikraError
from likra.questions import Choice, Question

COLUMNS = {
    "task": pa.string(),
    "split": pa.string(),
    "question_id": pa.string(),
    "choice": pa.int32(),
    "is_right": pa.bool_(),
    "n_chars": pa.int32(),
    "n_bytes": pa.int32(),
    "n_tokens": pa.int32(),
    "head": pa.string(),  # see HeadKey
    "source": pa.string(),  # of a negative head's answers, or null
    "n_train": pa.int32(),  # examples seen; 0 for the base
    "seed": pa.int32(),  # null for the base
    "logprob": pa.float64(),  # nats
    "layout": pa.string(),
    "prompt_sha": pa.string(),
}
SCHEMA = pa.schema(
    [pa.field(name, kind, name in {"source", "seed"}) for name, kind in COLUMNS.items()]
)
STAMP = b"likra"  # the metadata key of the stamp
CONTENT = b"likra.content"  # the metadata key of the digest of all columns and the stamp
KEY = ["task", "split", "question_id", "choice", "head", "source", "n_train", "seed"]


@dataclass(frozen=True, order=True)
class HeadKey:
    """Which model a score comes from.

    ``head`` is "base", "positive" or "negative"; "prior", the base without the question; or a
    baseline (`BASELINES`). The base has no source, no seed and no examples. A positive head has a
    source only where it was trained on other questions than the usual one, those to which that
    sampler has wrong answers.
    """

    head: str
    n_train: int = 0
    seed: int | None = None
    source: str | None = None

    def __str__(self) -> str:
        parts = [self.head]
        parts += [f"seed={self.seed}"] if self.seed is not None else []
        parts += [f"source={file_name(self.source)}"] if self.source is not None else []
        parts += [f"n={self.n_train}"] if self.n_train else []
        return ".".join(parts)


def file_name(source: str) -> str:
    """A source as part of a file's name, each as another; it may name a file itself."""
    return source.replace("%", "%25").replace("/", "%2F")


BASE = HeadKey("base")
PRIOR = HeadKey("prior")
UNTRAINED = (BASE, PRIOR)
# Heads of other methods, trained on the same pairs: on the forest, and by TRL.
BY_LIKRA = (
    "dpo",
    "ipo",
    "nca",
    "kto",
    "simpo",
    "unlikelihood",
    "bradley-terry",
    "classifier",
)
CLASSIFIER = "classifier"  # its score is no log-likelihood, but the log-odds of yes against no
BY_TRL = ("trl-dpo", "trl-nca", "trl-kto", "trl-sft")
BASELINES = (*BY_LIKRA, *BY_TRL)


def prompt_sha(choice: Choice) -> str:
    """What identifies the scored strings: 16 hexadecimal digits of a SHA-256."""
    text = f"{choice.context}\0{choice.continuation}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def choice_table(questions: Iterable[Question]) -> pa.Table:
    """The columns that are the same for all heads: a row for each choice of the questions."""
    names = ("question_id", "choice", "is_right", "n_chars", "n_bytes", "prompt_sha")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for question in questions:
        for number, choice in enumerate(question.choices):
            n_bytes = len(choice.text.encode("utf-8", "surrogatepass"))
            length, sha = len(choice.text), prompt_sha(choice)
            row = (question.id, number, choice.is_right, length, n_bytes, sha)
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
    return pa.table(columns, schema=pa.schema([SCHEMA.field(name) for name in names]))


def score_table(
    task: str,
    split: str,
    choices: pa.Table,
    key: HeadKey,
    logprobs: np.ndarray,
    n_tokens: Sequence[int],
    layout: str,
) -> pa.Table:
    """The scores of one head.

    Args:
        choices: of all questions (`choice_table`).
        logprobs: [choices], nats.
        n_tokens: [choices], answer tokens.

    """
    of_all = {"task": task, "split": split, "layout": layout, **asdict(key)}
    columns: dict[str, Any] = {
        **{name: [value] * len(choices) for name, value in of_all.items()},
        **{name: choices[name] for name in choices.column_names},
        "n_tokens": np.asarray(n_tokens, np.int32),
        "logprob": logprobs,
    }
    return pa.table({name: columns[name] for name in COLUMNS}, schema=SCHEMA)


def write_scores(path: Path, table: pa.Table, stamp: Mapping[str, object]) -> None:
    """Write one head's scores with the stamp of their cell (`likra.study.cells`)."""
    text = json.dumps(stamp, sort_keys=True, ensure_ascii=False).encode()
    metadata = {STAMP: text, CONTENT: _digest(table, text)}
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, write_page_checksum=True)
    pa.default_memory_pool().release_unused()  # it would keep several times the table's size


def _digest(table: pa.Table, stamp: bytes) -> bytes:
    return hashlib.sha256(content_digest(table).encode() + stamp).hexdigest().encode()


def read_stamp(path: Path) -> dict[str, Any]:
    """The stamp in the metadata of a score table.

    Raises:
        LikraError: the file is damaged, or has no stamp.

    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        stamp: dict[str, Any] = json.loads(metadata.get(STAMP, "{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not {"digest", "inputs"} <= set(stamp):
        raise LikraError(
            f"'{path}' does not say which head was scored on which questions: it was not written "
            "by this version of likra; delete the file to score that head again"
        )
    return stamp


def read_scores(path: Path) -> pa.Table:
    """Read and check one head's scores.

    Raises:
        LikraError: damaged, another schema, a key that occurs twice, or a score that is not a
            finite number.

    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        metadata = table.schema.metadata or {}
        digest = metadata.get(CONTENT)  # none in tables of older versions
        if digest is not None and digest != _digest(table, metadata.get(STAMP, b"")):
            raise ValueError("its content is not what was written")
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    if not table.schema.equals(SCHEMA):
        raise LikraError(
            f"'{path}' is not a score table of this version of likra: its columns are "
            f"{', '.join(table.schema.names)}"
        )
    check_rows(table, f"'{path}'")
    return table


def content_digest(table: pa.Table) -> str:
    """SHA-256 of all columns: page checksums do not cover the footer, which places the pages."""
    digest = hashlib.sha256()
    for name in table.column_names:
        digest.update(f"{name}\0".encode())
        values = table[name].to_numpy()
        if values.dtype == object:  # texts, or None where there is none
            content = "\0".join("\1" if text is None else text for text in values).encode()
        else:
            content = values.tobytes()
        digest.update(content)
    return digest.hexdigest()


def check_rows(table: pa.Table, where: str) -> None:
    """Refuse what no head's scores can be.

    Raises:
        LikraError: no row, a key that occurs twice, choices that are not 0, 1 and so on, or a score
            that is not a finite number.

    """
    if not table.num_rows:
        raise LikraError(f"{where} holds no scores")
    if table.group_by(KEY).aggregate([]).num_rows != table.num_rows:
        raise LikraError(f"{where} holds a choice twice")
    counted = table.group_by("question_id").aggregate(
        [("choice", "min"), ("choice", "max"), ("choice", "count")]
    )
    first, last = counted["choice_min"].to_numpy(), counted["choice_max"].to_numpy()
    if (first != 0).any() or (last + 1 != counted["choice_count"].to_numpy()).any():
        raise LikraError(f"{where} holds choices that are not counted from 0")
    if not np.isfinite(table["logprob"].to_numpy()).all():
        raise LikraError(f"{where} holds a log-likelihood that is not a finite number")


def _damaged(path: Path, error: BaseException) -> LikraError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return LikraError(
        f"cannot read the scores in '{path}': {reason}; delete the file to score that head again"
    )


def choice_scores(table: pa.Table) -> dict[str, list[float]]:
    """The log-likelihood of each choice, by question id, in nats."""
    scores: dict[str, list[float]] = {}
    for row in table.select(["question_id", "logprob"]).to_pylist():
        scores.setdefault(row["question_id"], []).append(row["logprob"])
    return scores


@dataclass(frozen=True)
class Scores:
    """The scores of several heads on the same questions, as arrays.

    Attributes:
        question_ids: [questions].
        exists: [questions, choices] bool; questions with fewer choices are padded.
        is_right: [questions, choices] bool.
        n_chars: [questions, choices] float64, characters of the choice; 1 on padding.
        logprob: by head, [questions, choices] float64, nats; 0 on padding.

    """

    question_ids: tuple[str, ...]
    exists: np.ndarray
    is_right: np.ndarray
    n_chars: np.ndarray
    logprob: dict[HeadKey, np.ndarray]

    def of(self, chosen: np.ndarray) -> "Scores":
        """The scores of some of the questions: ``chosen`` is [questions] bool."""
        ids = tuple(compress(self.question_ids, chosen))
        exists, is_right = self.exists[chosen], self.is_right[chosen]
        logprob = {key: values[chosen] for key, values in self.logprob.items()}
        return Scores(ids, exists, is_right, self.n_chars[chosen], logprob)


def combine(tables: Iterable[pa.Table]) -> Scores:
    """Bring the scores of several heads together.

    Raises:
        LikraError: there is nothing to combine, a head occurs twice, or two heads were scored on
            different questions or strings.

    """
    reference: pa.Table | None = None
    logprob: dict[HeadKey, np.ndarray] = {}
    for table in tables:
        if reference is None:
            reference = table
            place, exists = _places(table)
        for column in ("task", "split", "question_id", "choice", "is_right", "prompt_sha"):
            if not table[column].equals(reference[column]):
                raise LikraError(
                    f"the scores of {key_of(table)} and {key_of(reference)} are not of the same "
                    f"questions: they differ in '{column}'"
                )
        key = key_of(table)
        if key in logprob:
            raise LikraError(f"there are two tables of scores of {key}")
        logprob[key] = _filled(table, "logprob", place, exists, 0.0)
    if reference is None:
        raise LikraError("there are no scores")
    ids = tuple(dict.fromkeys(reference["question_id"].to_pylist()))
    is_right = _filled(reference, "is_right", place, exists, 0.0).astype(bool)
    return Scores(ids, exists, is_right, _filled(reference, "n_chars", place, exists, 1.0), logprob)


def arranged(questions: Sequence[Question], logprob: Mapping[HeadKey, np.ndarray]) -> Scores:
    """The scores of heads on questions, of arrays that are in no table.

    Args:
        questions: at least one.
        logprob: by head, [choices of all questions], nats.

    """
    counts = [len(question.choices) for question in questions]
    exists = np.arange(max(counts)) < np.array(counts)[:, None]
    choices = [choice for question in questions for choice in question.choices]

    def filled(values: Any, padding: float) -> np.ndarray:
        array = np.full(exists.shape, padding, dtype=np.float64)
        array[exists] = values
        return array

    return Scores(
        tuple(question.id for question in questions),
        exists,
        filled([choice.is_right for choice in choices], 0.0).astype(bool),
        filled([len(choice.text) for choice in choices], 1.0),
        {key: filled(values, 0.0) for key, values in logprob.items()},
    )


def key_of(table: pa.Table) -> HeadKey:
    """Whose scores a table holds, as its first row says."""
    row = table.select(["head", "n_train", "seed", "source"]).slice(0, 1).to_pylist()[0]
    return HeadKey(**row)


def _places(table: pa.Table) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Where each row belongs in [questions, choices], and which places are taken."""
    ids = table["question_id"].to_pylist()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(ids))}
    rows = np.array([numbers[name] for name in ids])
    columns = table["choice"].to_numpy()
    exists = np.zeros((len(numbers), int(columns.max()) + 1), dtype=bool)
    exists[rows, columns] = True
    return (rows, columns), exists


def _filled(
    table: pa.Table, column: str, place: Any, exists: np.ndarray, padding: float
) -> np.ndarray:
    array = np.full(exists.shape, padding, dtype=np.float64)
    array[place] = table[column].to_numpy(zero_copy_only=False)
    return array
