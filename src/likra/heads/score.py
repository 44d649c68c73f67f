"""Log-likelihoods of every choice of every question under one model: one pass per head."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from likra.engine.logprobs import answer_logprobs, answer_logprobs_and_greedy
from likra.engine.packing import Batch, pack
from likra.engine.tokens import TokenPair, encode
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.questions import Choice, Question

# Tokens of one forward pass. On a CPU a short sequence keeps the attention matrix in cache; a GPU
# wants more work at once; its number is a guess that no benchmark here has measured.
BUDGET = {"cpu": 512, "cuda": 8192, "mps": 2048}

T = TypeVar("T")
# Is given a batch when it is scored: its pairs' indices, log-likelihoods [batch] and flags [batch].
Done = Callable[[list[int], np.ndarray, np.ndarray], None]


def token_budget(device: str) -> int:
    """Tokens of one forward pass on that type of device."""
    return BUDGET.get(device, 2048)


def encode_questions(
    base: BaseModel, questions: Sequence[Question], *, truncate: bool = False
) -> list[TokenPair]:
    """Token pairs of all choices, question by question; see `likra.engine.tokens.encode`.

    Raises:
        LikraError: a prompt longer than the model's context; names the question.

    """
    asked = [(question, choice) for question in questions for choice in question.choices]
    return encode_answers(
        base,
        [question for question, _ in asked],
        [choice for _, choice in asked],
        truncate=truncate,
    )


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
        for question, choice in zip(
            questions, choices, strict=True
        ):  # to name the first that fails
            try:
                encode(base.tokenizer, [choice], base.max_length, truncate=truncate)
            except LikraError as error:
                raise LikraError(f"{question.where}: {error}") from error
        raise


def score_pairs(
    base: BaseModel,
    pairs: Sequence[TokenPair],
    *,
    budget: int | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Log-likelihood of each pair's continuation under the base, or under the head now on it.

    Args:
        base: the model; inside `saved_head` or `fresh_head` that head is on.
        pairs: what to score.
        budget: tokens of one forward pass; by default what suits the device.
        name: shows a progress bar of that name.

    Returns:
        [pairs] float64, nats.

    Raises:
        LikraError: a score is not a finite number.

    """
    scores = np.zeros(len(pairs), dtype=np.float64)
    for indices, logprobs in _batches(base, pairs, answer_logprobs, budget, name):
        scores[indices] = logprobs.double().cpu().numpy()
    _check_finite(scores, np.arange(len(scores)))
    return scores


def score_pairs_and_greedy(
    base: BaseModel,
    pairs: Sequence[TokenPair],
    *,
    budget: int | None = None,
    name: str | None = None,
    done: Done | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `score_pairs`, and whether greedy decoding would give each continuation.

    Args:
        base: as in `score_pairs`.
        pairs: as in `score_pairs`.
        budget: as in `score_pairs`.
        name: as in `score_pairs`.
        done: is given the indices, log-likelihoods and greedy flags of each batch when it is
            scored.

    Returns:
        [pairs] float64, nats; and [pairs] bool.

    Raises:
        LikraError: as `score_pairs`.

    """
    scores = np.zeros(len(pairs), dtype=np.float64)
    greedy = np.zeros(len(pairs), dtype=bool)
    for indices, (logprobs, flags) in _batches(
        base, pairs, answer_logprobs_and_greedy, budget, name
    ):
        scores[indices] = logprobs.double().cpu().numpy()
        _check_finite(scores, np.array(indices))
        greedy[indices] = flags.cpu().numpy()
        if done is not None:
            done(indices, scores[indices], greedy[indices])
    return scores, greedy


def _batches(
    base: BaseModel,
    pairs: Sequence[TokenPair],
    score: Callable[[Any, Batch], T],
    budget: int | None,
    name: str | None,
) -> Iterator[tuple[list[int], T]]:
    """Pack the pairs, and give ``score`` one batch after another, behind a progress bar."""
    budget = budget or token_budget(base.device.type)
    with tqdm(
        total=len(pairs), desc=name, unit=" answers", leave=False, disable=name is None
    ) as bar:
        for indices in pack(pairs, base.layout, budget):
            batch = base.batch([pairs[index] for index in indices])
            with torch.inference_mode():  # not around the yield, where it would leak to the caller
                scored = score(base.model, batch)
            yield indices, scored
            bar.update(len(indices))


def _check_finite(scores: np.ndarray, indices: np.ndarray) -> None:
    bad = indices[~np.isfinite(scores[indices])]
    if bad.size:
        raise LikraError(
            f"the log-likelihood of answer {bad.min()} is {scores[bad.min()]}: the model's weights "
            "or activations are not finite (in float16, try bfloat16)"
        )
