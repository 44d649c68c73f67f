"""Log-likelihoods of every choice of every question under one model: one pass per head."""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from likra.errors import LikraError
from likra.forest import TokenPair, encode, pack
from likra.heads import BaseModel
from likra.likelihood import answer_logprobs
from likra.questions import Question

# Tokens of one forward pass. On a CPU a short sequence keeps the attention matrix in cache; a GPU
# wants more work at once; its number is a guess that no benchmark here has measured.
BUDGET = {"cpu": 512, "cuda": 8192, "mps": 2048}


def encode_questions(
    base: BaseModel, questions: Sequence[Question], *, truncate: bool = False
) -> list[TokenPair]:
    """Token pairs of all choices, question by question; see `likra.forest.encode`.

    Raises:
        LikraError: a prompt longer than the model's context; names the question.

    """
    try:
        choices = [choice for question in questions for choice in question.choices]
        return encode(base.tokenizer, choices, base.max_length, truncate=truncate)
    except LikraError:
        for question in questions:  # once more, to name the first that fails
            try:
                encode(base.tokenizer, question.choices, base.max_length, truncate=truncate)
            except LikraError as error:
                raise LikraError(f"question '{question.id}': {error}") from error
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
    budget = budget or BUDGET.get(base.device.type, 2048)
    scores = np.zeros(len(pairs), dtype=np.float64)
    bar = tqdm(total=len(pairs), desc=name, unit=" answers", leave=False, disable=name is None)
    with torch.inference_mode(), bar:
        for indices in pack(pairs, base.layout, budget):
            batch = base.batch([pairs[index] for index in indices])
            scores[indices] = answer_logprobs(base.model, batch).double().cpu().numpy()
            bar.update(len(indices))
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise LikraError(
            f"the log-likelihood of answer {first} is {scores[first]}: the model's weights or "
            "activations are not finite (in float16, try bfloat16)"
        )
    return scores
