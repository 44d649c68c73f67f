"""Which questions the heads of a model were trained on, kept as digests in its folder.

A digest tells whether a text that one has is among them; the texts themselves are not kept.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from likra.data.leakage import stem_digest
from likra.errors import LikraError
from likra.questions import Question

FILE = "trained_on.txt"  # a digest a line, sorted
KEY = "trained_on"  # of likra.json: SHA-256 of the file


def digests_of(questions: Iterable[Question]) -> frozenset[str]:
    """The digests of questions, by what they ask."""
    return frozenset(stem_digest(question.stem) for question in questions)


def write(trained: frozenset[str] | None, folder: Path) -> dict[str, str]:
    """Write the digests into a model's folder, if they are known, and return what binds them."""
    if trained is None:
        return {}
    content = "".join(f"{digest}\n" for digest in sorted(trained)).encode()
    (folder / FILE).write_bytes(content)
    return {KEY: hashlib.sha256(content).hexdigest()}


def read(folder: Path, bound: Mapping[str, Any]) -> frozenset[str] | None:
    """The digests in a model's folder; None where the model does not know its questions.

    Args:
        folder: of the model.
        bound: the content of its ``likra.json``.

    Raises:
        LikraError: the file is missing, or was changed.

    """
    if KEY not in bound:
        return None
    path = folder / FILE
    if not path.is_file():
        raise LikraError(f"the trained questions are missing: there is no '{path}'")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != bound[KEY]:
        raise LikraError(f"the trained questions in '{path}' were changed after they were saved")
    return frozenset(content.decode("ascii").split())
