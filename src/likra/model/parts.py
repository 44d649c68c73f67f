"""What a model is made of: a value, which is fitted, kept, opened and asked."""

import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from tempfile import mkdtemp

from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.heads.lora import Head
from likra.model.evidence import Chosen
from likra.model.prompt import Prompt
from likra.model.terms import Term, Terms, open_term
from likra.scores.ratio import MODES


class HeldFolder:
    """A temporary folder that goes when nothing holds it any more."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="likra-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Parts:
    """The parts of a model.

    Attributes:
        positive: the positive term.
        negative: the negative term; None where the positive term alone is the score.
        weight: w of the negative term; 0 without one.
        prompt: how a question and an answer are put to the model.
        per_character: whether scores are divided by the characters of an answer.
        truncate: whether prompts longer than the model's context are cut from the left.
        chosen: what `fit` chose and measured; None for a model that was put together by hand.
        heads: all heads that were trained, by name; the terms are some of them.
        trained: digests of the questions that the heads were trained on
            (`likra.model.trained`); None where that is not known.
        held: the temporary folder of the heads, if they have no other; it is there as long as this.

    """

    positive: Term
    negative: Term | None = None
    weight: float = 0.0
    prompt: Prompt = field(default_factory=Prompt)
    per_character: bool = False
    truncate: bool = False
    chosen: Chosen | None = None
    heads: Mapping[str, Head] = field(default_factory=dict)
    trained: frozenset[str] | None = None

    held: object = field(default=None, repr=False, compare=False)

    @property
    def base(self) -> BaseModel:
        """The base model of the positive term."""
        return self.positive.base

    @cached_property
    def terms(self) -> Terms:
        """The positive term, and the negative one if there is one."""
        return Terms([self.positive, *([] if self.negative is None else [self.negative])])


def check_weight(weight: float) -> None:
    """Refuse what is no weight.

    Raises:
        LikraError: it is not a number of at least 0.

    """
    if not isfinite(weight) or weight < 0:
        raise LikraError(f"weight takes a number of at least 0, not {weight}")


def parts_of(
    base: BaseModel,
    prompt: Prompt,
    folders: Mapping[str, Path],
    chosen: Chosen,
    truncate: bool,
    trained: frozenset[str] | None,
) -> Parts:
    """The parts that were chosen, of trained heads by their names."""
    heads = {name: Head(base, folder) for name, folder in folders.items()}
    mode = MODES[chosen.ranking.mode]
    return Parts(
        term_named(mode.positive, heads, base),
        term_named(mode.negative, heads, base) if mode.weighted else None,
        chosen.ranking.weight,
        prompt,
        chosen.ranking.is_normalised,
        truncate,
        chosen,
        heads,
        trained,
    )


def term_named(name: str, heads: Mapping[str, Head], base: BaseModel) -> Term:
    """One of the heads, "base" or "prior"."""
    return heads[name] if name in heads else open_term(name, base)
