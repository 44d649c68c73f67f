"""Log-likelihoods of every choice of every question under one model: one pass per head."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from likra.engine.logprobs import answer_logprobs
from likra.engine.memory import halves, in_parts
from likra.engine.packing import Batch, Packed, moved
from likra.engine.products import float32_products
from likra.engine.token_pairs import TokenPairs
from likra.engine.tokens import TokenPair, encode
from likra.errors import LikraError, NotFiniteError
from likra.heads.base import BaseModel
from likra.heads.lora import Head
from likra.progress import progress
from likra.questions import Choice, Question

Floats = NDArray[np.float64]
CHUNK = 256  # questions whose texts and encodings are in memory at a time


@dataclass(frozen=True)
class Scored:
    """The scores of a list of pairs.

    Attributes:
        logprobs: [pairs] float64, nats.
        greedy: [pairs] bool, whether greedy decoding gives the continuation; None if not asked for.

    """

    logprobs: Floats
    greedy: NDArray[np.bool_] | None = None


Done = Callable[[list[int], Scored], None]


def encode_questions(
    base: BaseModel, questions: Iterable[Question], *, truncate: bool = False
) -> TokenPairs:
    """Token pairs of all choices, question by question; see `likra.engine.tokens.encode`.

    Raises:
        LikraError: a prompt longer than the model's context; names the question.

    """
    pairs = TokenPairs()
    left = iter(questions)
    while some := list(islice(left, CHUNK)):
        asked = [question for question in some for _ in question.choices]
        choices = [choice for question in some for choice in question.choices]
        pairs.extend(encode_answers(base, asked, choices, truncate=truncate))
    return pairs


def encode_answers(
    base: BaseModel,
    questions: Sequence[Question],
    choices: Sequence[Choice],
    *,
    truncate: bool = False,
) -> list[TokenPair]:
    """Token pairs of one answer to each question; see `likra.engine.tokens.encode`.

    Raises:
        LikraError: a prompt longer than the model's context; names the question.

    """
    try:
        return encode(base.tokenizer, choices, base.max_length, truncate=truncate)
    except LikraError:
        for question, choice in zip(questions, choices, strict=True):  # to name the first
            try:
                encode(base.tokenizer, [choice], base.max_length, truncate=truncate)
            except LikraError as error:
                named = f"{question.where}: " if question.id or question.origin else ""
                raise LikraError(f"{named}{error}") from error
        raise


def score(
    head: Head,
    pairs: Sequence[TokenPair] | Packed,
    *,
    greedy: bool = False,
    name: str | None = None,
    done: Done | None = None,
    budget: int | None = None,
) -> Scored:
    """Log-likelihood of each pair's continuation under a head, or under the base alone.

    Args:
        head: whose scores; ``Head(base)`` is the base.
        pairs: what to score; packed with `BaseModel.pack` if several heads score them.
        greedy: find out as well whether greedy decoding would give each continuation.
        name: of the work, to show its progress.
        done: is given the pairs' indices and the scores of each batch when it is scored.
        budget: tokens of one forward pass; by default what suits the device.

    Returns:
        The scores, in the order of the pairs.

    Raises:
        LikraError: the head cannot be read.
        NotFiniteError: a score is not a finite number.

    """
    packed = pairs if isinstance(pairs, Packed) else head.base.pack(pairs, budget)
    logprobs = np.zeros(len(packed), dtype=np.float64)
    flags = np.zeros(len(packed), dtype=bool) if greedy else None
    with (
        head.on() as model,
        float32_products(head.base.model),
        progress(len(packed), name, "answers") as advance,
    ):
        for indices, batch in zip(packed.indices, packed.batches, strict=True):
            scored = _score_batch(head.base, model, batch, greedy=greedy)
            check_finite(scored.logprobs, indices)
            logprobs[indices] = scored.logprobs
            if flags is not None:
                flags[indices] = scored.greedy
            if done is not None:
                done(indices, scored)
            advance(len(indices))
    return Scored(logprobs, flags)


def _score_batch(base: BaseModel, model: PreTrainedModel, batch: Batch, *, greedy: bool) -> Scored:
    """Score a batch, in parts where the base's device does not hold it."""

    def compute(part: Batch) -> Scored:
        part = moved(part, base.device)
        with torch.inference_mode():
            if not greedy:
                return Scored(answer_logprobs(model, part).double().cpu().numpy())
            logprobs, flags = answer_logprobs(model, part, greedy=True)
            return Scored(logprobs.double().cpu().numpy(), flags.cpu().numpy())

    parts = in_parts(batch, compute, base.room, halves)
    flags = [part.greedy for part in parts if part.greedy is not None]
    logprobs = np.concatenate([part.logprobs for part in parts])
    return Scored(logprobs, np.concatenate(flags) if flags else None)


def check_finite(logprobs: Floats, indices: Sequence[int]) -> None:
    """Refuse scores of answers, which have these indices, that are no numbers.

    Raises:
        NotFiniteError: one is not.

    """
    for index, value in sorted(zip(indices, logprobs, strict=True)):
        if not isfinite(value):
            raise NotFiniteError(
                f"the log-likelihood of answer {index} is {value}: the model's weights "
                "or activations are not finite (in float16, try bfloat16)"
            )
