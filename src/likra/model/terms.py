"""The two terms of a ratio: a head, another model, or the base without the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from likra.engine.token_pairs import TokenPairs
from likra.errors import LikraError
from likra.heads.base import BaseModel, open_model, source_of
from likra.heads.lora import Head
from likra.heads.score import encode_questions
from likra.heads.stamp import CONFIG
from likra.heads.together import Together
from likra.questions import Question
from likra.text import one_line

BASE, PRIOR = "base", "prior"
TokenLogprobs = tuple[list[int], np.ndarray]  # an answer's tokens, and [tokens] in nats


@dataclass(frozen=True)
class Prior:
    """A model that sees the answers without their questions: the prior of PMI."""

    base: BaseModel


Term = Head | Prior


def open_term(
    term: Term | str | Path,
    base: BaseModel | None,
    *,
    near: BaseModel | None = None,
    **options: str | None,
) -> Term:
    """A term by its name.

    Args:
        term: "base"; "prior", the base without the question; the folder of a PEFT adapter; or a
            model's folder, GGUF file or name.
        base: the base model that "base", "prior" and adapters are of.
        near: without ``base``, that of the other term: it is that of "base" and "prior", and of an
            adapter that names it.
        options: of `likra.heads.base.open_model`, for a model that is opened here.

    Raises:
        LikraError: nothing to open under the name, or a base is missing.

    """
    if isinstance(term, Head | Prior):
        return term
    name = str(term)
    if name in {BASE, PRIOR}:
        base = base or near
        if base is None:
            raise LikraError(f"'{name}' needs the base model: give base=")
        return Head(base) if name == BASE else Prior(base)
    if (Path(name) / CONFIG).is_file():
        if base is None:
            own = base_of(Path(name))
            is_near = near is not None and own in {near.name, source_of(near.name)}
            base = near if is_near else open_model(own, **options)
        assert base is not None
        return Head(base, Path(name))
    return Head(open_model(name, **options))


def base_of(adapter: Path) -> str:
    """The base model that an adapter's folder names.

    Raises:
        LikraError: it names none.

    """
    from peft import PeftConfig

    try:
        name = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LikraError(f"cannot read the adapter in '{adapter}': {one_line(error)}") from error
    if not name:
        raise LikraError(f"the adapter in '{adapter}' does not name its base model: give base=")
    return str(name)


def check_tokenizers(positive: Term, negative: Term) -> None:
    """Refuse two models whose tokens differ.

    Raises:
        LikraError: they do.

    """
    one, two = positive.base, negative.base
    if one is not two and one.tokenizer.get_vocab() != two.tokenizer.get_vocab():
        raise LikraError(
            f"'{one.name}' and '{two.name}' have different tokenizers: the two terms of a ratio "
            "score the same tokens"
        )


def pairs_of(term: Term, questions: Sequence[Question], *, truncate: bool) -> TokenPairs:
    """Token pairs of all choices of the questions, as the term sees them.

    Raises:
        LikraError: a prompt that is longer than the model's context.

    """
    if isinstance(term, Prior):
        questions = [without_prompt(question) for question in questions]
    return encode_questions(term.base, questions, truncate=truncate)


def without_prompt(question: Question) -> Question:
    """The question with nothing before its answers."""
    return replace(question, choices=tuple(replace(c, context="") for c in question.choices))


class Terms:
    """Terms that score the same questions: those of one base and one text in one pass.

    The heads are read when they are first needed, and are kept.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        self._groups: dict[tuple[int, bool], list[int]] = {}
        for number, term in enumerate(terms):
            key = id(term.base), isinstance(term, Prior)
            self._groups.setdefault(key, []).append(number)

    @cached_property
    def _together(self) -> list[tuple[list[int], Together]]:
        """Which terms are scored together, and what scores them."""
        return [
            (numbers, Together([head_of(self.terms[number]) for number in numbers]))
            for numbers in self._groups.values()
        ]

    def logprobs(
        self, questions: Sequence[Question], *, truncate: bool, name: str | None = None
    ) -> list[np.ndarray]:
        """Log-likelihoods of all choices of the questions under each term.

        Args:
            questions: the questions.
            truncate: cut prompts longer than the model's context from the left.
            name: of the work, to show its progress.

        Returns:
            For each term [choices of all questions] float64, nats.

        Raises:
            LikraError: see `pairs_of` and `likra.heads.together.Together`.

        """
        values = [np.zeros(0)] * len(self.terms)
        for numbers, together in self._together:
            pairs = pairs_of(self.terms[numbers[0]], questions, truncate=truncate)
            found = together.logprobs(together.base.pack(pairs), name)
            for number, own in zip(numbers, found, strict=True):
                values[number] = own
        return values

    def token_logprobs(
        self, questions: Sequence[Question], *, truncate: bool
    ) -> list[list[TokenLogprobs]]:
        """The tokens of all choices, and the log-probability of each, under each term.

        Returns:
            For each term, for each choice its tokens and [tokens] float64, nats.

        Raises:
            LikraError: as `logprobs`.

        """
        values: list[list[TokenLogprobs]] = [[] for _ in self.terms]
        for numbers, together in self._together:
            pairs = pairs_of(self.terms[numbers[0]], questions, truncate=truncate)
            tokens = [pair.continuation for pair in pairs]
            found = together.token_logprobs(together.base.pack(pairs))
            for number, own in zip(numbers, found, strict=True):
                values[number] = list(zip(tokens, own, strict=True))
        return values


def head_of(term: Term) -> Head:
    """What scores the term's pairs."""
    return term if isinstance(term, Head) else Head(term.base)
