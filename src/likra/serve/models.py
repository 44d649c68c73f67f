"""The model that is served: opening it, and opening it again when its folder has changed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from likra.errors import LikraError
from likra.heads.base import BaseModel, limit_threads, open_model
from likra.model.folder import base_fingerprint, identity, load, local_folder
from likra.model.parts import HeldFolder, Parts
from likra.model.rank import rank_together
from likra.model.terms import open_term

N_QUESTIONS = 128  # of the pocket task, for the heads of the model that is served without a folder


@dataclass(frozen=True)
class Source:
    """Where a model is, and how it is opened; see `likra.model.likra.Likra.from_pretrained`.

    Without a name it is the embedded pocket model.
    """

    name: str | None = None
    base: str | None = None
    mode: str | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        name: what clients see.
        parts: the model.
        source: where it is from.
        version: 12 hexadecimal digits of the digest of all that decides its answers.
        fingerprint: of its base; see `likra.heads.base.fingerprint`.
        opened: seconds since 1970.

    """

    name: str
    parts: Parts
    source: Source
    version: str
    fingerprint: str
    opened: float


def open_served(source: Source, log: Callable[[str], None] = lambda line: None) -> Served:
    """Open a model and read its heads, so that the first request finds them there.

    Raises:
        LikraError: there is none, or it cannot be read.

    """
    if source.name is None:
        log(f"no model was named: training the heads of pocket on {N_QUESTIONS} questions")
        return _served(source, "pocket", pocket_model(), "")
    return _opened(source, source.base)


def reopened(old: Served) -> Served:
    """Open the model's folder again; on the same base, if its heads are of that one.

    Raises:
        LikraError: it cannot be opened.

    """
    if old.source.name is None:
        raise LikraError("the embedded pocket model is served: there is no folder to read again")
    same = base_fingerprint(local_folder(old.source.name)) == old.fingerprint
    return _opened(old.source, old.parts.base if same else old.source.base)


def _opened(source: Source, base: BaseModel | str | None) -> Served:
    assert source.name is not None
    folder = local_folder(source.name)
    parts = load(folder, base=base, mode=source.mode, weight=source.weight)
    is_folder = Path(source.name).exists()
    name = Path(source.name).resolve().name if is_folder else source.name
    return _served(source, name, parts, base_fingerprint(folder))


def _served(source: Source, name: str, parts: Parts, fingerprint: str) -> Served:
    limit_threads(parts.base)
    list(rank_together(parts, [("Is it?", ["yes", "no"])]))  # reads the heads
    return Served(name, parts, source, identity(parts)[:12], fingerprint, time.time())


def pocket_model() -> Parts:
    """The embedded model with two heads that are trained here, in a few seconds.

    On the first questions of its task; w is 1, and nothing was chosen or calibrated.
    """
    from likra.data.load import load_task
    from likra.heads.score import encode_answers
    from likra.heads.train import train_head

    base = open_model("pocket")
    limit_threads(base)
    questions = load_task("pocket").questions("train")[:N_QUESTIONS]
    held = HeldFolder()
    for name, is_right in (("positive", True), ("negative", False)):
        answers = [next(c for c in q.choices if c.is_right == is_right) for q in questions]
        pairs = encode_answers(base, questions, answers)
        train_head(base, pairs, {len(pairs): held.path / name}, name=None)
    positive, negative = (open_term(held.path / name, base) for name in ("positive", "negative"))
    return replace(Parts(positive, negative, weight=1.0), held=held)
