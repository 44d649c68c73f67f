"""The tensor mathematics: log-likelihoods of answers under a causal language model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from likra.engine.packing import PADDING, Batch, Forest, Padded

FULL, SLIDING = "full_attention", "sliding_attention"


def token_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-probability of every answer token given all before it.

    Only the rows that predict an answer token go through the LM head, and their log-softmax is
    taken in float32 whatever the model computes in: summed bf16 log-softmaxes are off by up to
    0.17 nats.

    Args:
        model: a Hugging Face causal language model, with or without adapters.
        batch: `build_forest` or `build_padded` of the pairs, on the model's device.

    Returns:
        [pairs, answer tokens] float32, nats, 0 on padding; differentiable.

    """
    return _token_logprobs(_row_logits(model, batch), batch)


def answer_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-likelihood of each answer given its context: [pairs] float32, nats; differentiable.

    This is the ``L`` of the likelihood ratio ``L+ - w L-`` (arXiv:2503.14391, section 2): the sum
    over the answer's tokens, not their mean.
    """
    return token_logprobs(model, batch).sum(-1)


def answer_logprobs_and_greedy(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-likelihood of each answer, and whether greedy decoding would give it, in one pass.

    Returns:
        As `answer_logprobs`: [pairs] float32, nats; and [pairs] bool: every token of the answer
        is the most likely one after those before it.

    """
    logits = _row_logits(model, batch)
    likeliest = logits.argmax(-1)[batch.answer_rows]
    greedy = (likeliest == batch.answers) | (batch.answers == PADDING)
    return _token_logprobs(logits, batch).sum(-1), greedy.all(-1)


def answer_loss(model: Any, batch: Batch, n_tokens: Tensor | int | None = None) -> Tensor:
    """Next-token loss on the answers: their mean negative log-probability per token (eq. 1).

    Args:
        model: as in `token_logprobs`.
        batch: as in `token_logprobs`.
        n_tokens: what to divide by instead of the batch's own answer tokens; with gradient
            accumulation, those of the whole optimizer step.

    """
    count = (batch.answers != PADDING).sum() if n_tokens is None else n_tokens
    return -token_logprobs(model, batch).sum() / count


def _row_logits(model: Any, batch: Batch) -> Tensor:
    """[rows, vocabulary] float32, of the rows that predict an answer token."""
    if isinstance(batch, Forest):
        return _forest_logits(model, batch).float()
    return _padded_logits(model, batch).float()


def _token_logprobs(logits: Tensor, batch: Batch) -> Tensor:
    """[pairs, answer tokens] from [rows, vocabulary], 0 on padding."""
    padding = batch.answers == PADDING
    answers = batch.answers.masked_fill(padding, 0)
    chosen = logits[batch.answer_rows, answers]
    return (chosen - logits.logsumexp(-1)[batch.answer_rows]).masked_fill(padding, 0.0)


def _forest_logits(model: Any, batch: Forest) -> Tensor:
    """[rows, vocabulary], in one pass over the tries' nodes."""
    output = model(
        input_ids=batch.input_ids[None],
        position_ids=batch.depth[None],
        attention_mask=attention_masks(model, batch),
        logits_to_keep=batch.rows,
        use_cache=False,
    )
    logits: Tensor = output.logits[0]
    return logits


def _padded_logits(model: Any, batch: Padded) -> Tensor:
    """[rows, vocabulary], one sequence per pair."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        logits_to_keep=batch.rows,
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits


def attention_masks(model: Any, batch: Forest) -> Tensor | dict[str, Tensor]:
    """The forest's additive attention mask [1, 1, tokens, tokens], in the model's dtype.

    For a model whose layers differ, a mask by layer type. On a sliding layer a node sees only the
    ancestors less than a window of *depths* away, not of places in the flat sequence.
    """
    config = model.config.get_text_config()
    place = torch.arange(len(batch.end), device=batch.end.device)
    ancestor = (place[None, :] <= place[:, None]) & (place[:, None] < batch.end[None, :])
    additive = _additive(model.dtype)
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return additive(ancestor)
    near = ancestor & (batch.depth[:, None] - batch.depth[None, :] < window)
    if SLIDING in (getattr(config, "layer_types", None) or ()):
        return {FULL: additive(ancestor), SLIDING: additive(near)}
    return additive(near)


def _additive(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    def mask(allowed: Tensor) -> Tensor:
        hidden = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return hidden.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]

    return mask
