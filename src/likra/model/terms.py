"""The two terms of a ratio: a head, another model, or the base without the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from likra.engine.logprobs import token_logprobs
from likra.engine.packing import PADDING, Packed, moved
from likra.engine.products import float32_products
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import BaseModel, open_model
from likra.heads.lora import Head
from likra.heads.score import encode_questions, score
from likra.heads.stamp import CONFIG
from likra.questions import Choice, Question

BASE, PRIOR = "base", "prior"


@dataclass(frozen=True)
class Prior:
    """A model that sees the answers without their questions: the prior of PMI."""

    base: BaseModel


Term = Head | Prior


def open_term(term: Term | str | Path, base: BaseModel | None, **options: str | None) -> Term:
    """A term by its name.

    Args:
        term: "base"; "prior", the base without the question; the folder of a PEFT adapter; or a
            model's folder, GGUF file or name.
        base: the base model that "base", "prior" and adapters are of; an adapter names its own.
        options: of `likra.heads.base.open_model`, for a model that is opened here.

    Raises:
        LikraError: nothing to open under the name, or a base is missing.

    """
    if isinstance(term, Head | Prior):
        return term
    name = str(term)
    if name in {BASE, PRIOR}:
        if base is None:
            raise LikraError(f"'{name}' needs the base model: give base=")
        return Head(base) if name == BASE else Prior(base)
    if (Path(name) / CONFIG).is_file():
        return Head(base or open_model(base_of(Path(name)), **options), Path(name))
    return Head(open_model(name, **options))


def base_of(adapter: Path) -> str:
    """The base model that an adapter's folder names.

    Raises:
        LikraError: it names none.

    """
    from peft import PeftConfig

    name = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
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


def pairs_of(term: Term, questions: Sequence[Question], *, truncate: bool) -> list[TokenPair]:
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


def head_of(term: Term) -> Head:
    """What scores the term's pairs."""
    return term if isinstance(term, Head) else Head(term.base)


def term_logprobs(
    terms: Sequence[Term], questions: Sequence[Question], *, truncate: bool, name: str | None = None
) -> list[np.ndarray]:
    """Log-likelihoods of all choices of the questions under each term, one pass for each.

    Terms of the same base are scored on the same batches.

    Returns:
        For each term [choices of all questions] float64, nats.

    Raises:
        LikraError: see `pairs_of` and `likra.heads.score.score`.

    """
    packed: dict[tuple[int, bool], Packed] = {}
    values = []
    for term in terms:
        key = id(term.base), isinstance(term, Prior)
        if key not in packed:
            packed[key] = term.base.pack(pairs_of(term, questions, truncate=truncate))
        values.append(score(head_of(term), packed[key], name=name).logprobs)
    return values


def term_token_logprobs(
    term: Term, choice: Choice, *, truncate: bool
) -> tuple[list[int], np.ndarray]:
    """The answer's tokens, and the log-probability of each under a term, [tokens] in nats."""
    question = Question("", "", (choice,))
    (pair,) = pairs_of(term, [question], truncate=truncate)
    batch = moved(term.base.pack([pair]).batches[0], term.base.device)
    with head_of(term).on() as model, torch.inference_mode(), float32_products():
        values = token_logprobs(model, batch)[0]
    kept = values[batch.answers[0] != PADDING]
    return pair.continuation, kept.double().cpu().numpy()
