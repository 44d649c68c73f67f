"""Digests of what decides a cell: values, questions, the base model."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from likra.errors import LikraError
from likra.hub import hub_or_cache
from likra.questions import Choice, Question

ENDS = 1 << 22  # bytes of either end of a model's file that are read
MODEL_FILES = {".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja"}


def digest_of(value: object) -> str:
    """SHA-256 of a value as JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def examples_digest(examples: Iterable[Sequence[Choice]]) -> str:
    """SHA-256 of the answers that a head is trained on, in order, with their prompts."""
    return list(examples_digests(examples))[-1]


def examples_digests(examples: Iterable[Sequence[Choice]]) -> Iterator[str]:
    """`examples_digest` of none of the examples, of the first one, of the first two, and so on."""
    digest = hashlib.sha256(b"[")
    yield _closed(digest)
    for number, own in enumerate(examples):
        texts = [[choice.context, choice.continuation] for choice in own]
        digest.update(f"{', ' if number else ''}{json.dumps(texts)}".encode())
        yield _closed(digest)


def _closed(digest: "hashlib._Hash") -> str:
    """That of a list of JSON which ends here."""
    whole = digest.copy()
    whole.update(b"]")
    return whole.hexdigest()


def questions_digest(questions: Iterable[Question]) -> str:
    """SHA-256 of all that a score table says of its questions, but for the scores."""
    digest = hashlib.sha256()
    for question in questions:
        choices = [[c.context, c.continuation, c.text, c.is_right] for c in question.choices]
        digest.update(digest_of([question.id, choices]).encode())
    return digest.hexdigest()


def model_digest(name: str) -> str:
    """What identifies a base model and its tokenizer: the hub's commit, or a digest of its files.

    Raises:
        LikraError: there is no such model.

    """
    from likra.heads.base import POCKET, cannot_open
    from likra.heads.gguf import gguf_digest, gguf_file

    if name == "pocket":
        return folder_digest(POCKET)
    if (file := gguf_file(name)) is not None:
        return gguf_digest(file)
    if Path(name).is_dir():
        return folder_digest(Path(name))
    from transformers import AutoConfig

    try:
        with hub_or_cache():
            commit = AutoConfig.from_pretrained(name)._commit_hash
    except Exception as error:  # the hub, the network, the files: many types
        raise cannot_open(name, error) from error
    if not commit:
        raise LikraError(f"the hub does not say which commit of '{name}' it gave")
    return str(commit)


def folder_digest(folder: Path) -> str:
    """SHA-256 of a model's folder: each file's name, its size and both of its ends.

    Reading all of the weights would take longer than many a run; training moves all of them.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in MODEL_FILES):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(ENDS))
            file.seek(max(size - ENDS, 0))
            digest.update(file.read(ENDS))
    return digest.hexdigest()
