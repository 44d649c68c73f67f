"""The tensor mathematics: log-likelihoods of answers under a causal language model."""

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from transformers import PreTrainedModel

from likra.engine.attention import attend
from likra.engine.lm_head import over_blocks
from likra.engine.packing import PADDING, Batch, Forest, Padded


def token_logprobs(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Log-probability of every answer token given all before it.

    Only the positions that predict an answer token go through the LM head, in blocks where they
    are many, and their log-softmax is taken in float32 whatever the model computes in: summed bf16
    log-softmaxes are off by up to 0.17 nats.

    Args:
        model: a Hugging Face causal language model, with or without adapters.
        batch: `build_forest` or `build_padded` of the pairs, on the model's device.

    Returns:
        [pairs, answer tokens] float32, nats, 0 on padding; differentiable.

    """
    return copies_logprobs(model, batch, 1)[0]


def copies_logprobs(model: PreTrainedModel, batch: Batch, copies: int) -> Tensor:
    """`token_logprobs` of copies of a batch in one pass, where the model treats each its own way.

    Each layer is given the copies one after the other along its first dimension.

    Returns:
        [copies, pairs, answer tokens] float32, nats, 0 on padding.

    """
    return _scored(model, batch, copies, lambda logits: (logits.logsumexp(-1),))[0]


@overload
def answer_logprobs(model: PreTrainedModel, batch: Batch) -> Tensor: ...
@overload
def answer_logprobs(
    model: PreTrainedModel, batch: Batch, *, greedy: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def answer_logprobs(
    model: PreTrainedModel, batch: Batch, *, greedy: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-likelihood of each answer given its context.

    This is the ``L`` of the likelihood ratio ``L+ - w L-`` (arXiv:2503.14391, section 2): the sum
    over the answer's tokens, not their mean.

    Model and batch are those of `token_logprobs`.

    Returns:
        [pairs] float32, nats; differentiable. With ``greedy`` also [pairs] bool, whether greedy
        decoding would give the answer: each token is the most likely one after those before it.

    """
    if not greedy:
        return token_logprobs(model, batch).sum(-1)
    logprobs, likeliest = _scored(
        model, batch, 1, lambda logits: (logits.logsumexp(-1), logits.argmax(-1))
    )
    chosen = likeliest[0, batch.answer_positions]
    return logprobs[0].sum(-1), ((chosen == batch.answers) | (batch.answers == PADDING)).all(-1)


def answer_loss(
    model: PreTrainedModel, batch: Batch, n_tokens: Tensor | int | None = None
) -> Tensor:
    """Next-token loss on the answers: their mean negative log-probability per token (eq. 1).

    Model and batch are those of `token_logprobs`. The sum is divided by ``n_tokens``: the batch's
    own answer tokens, or with gradient accumulation those of the whole optimizer step.
    """
    count = (batch.answers != PADDING).sum() if n_tokens is None else n_tokens
    return -token_logprobs(model, batch).sum() / count


def answer_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The logits where an answer token is predicted: [positions, vocabulary] float32.

    ``batch.answer_positions`` are indices into them. Model and batch are those of `token_logprobs`.
    """
    return _logits(model, batch, batch.logit_positions, 1)[0]


def _scored(
    model: PreTrainedModel,
    batch: Batch,
    copies: int,
    of_positions: Callable[[Tensor], tuple[Tensor, ...]],
) -> list[Tensor]:
    """[copies, pairs, answer tokens] log-probabilities; what else is asked of each position.

    ``of_positions`` gives for logits [..., vocabulary] their log-sum-exp, and what else.
    """
    used, places = batch.answers != PADDING, batch.answer_positions

    def reduced(logits: Tensor, rows: slice) -> tuple[Tensor, ...]:
        inside = used & (rows.start <= places) & (places < rows.stop)
        chosen = logits[:, places[inside] - rows.start, batch.answers[inside]]
        return inside, chosen, *of_positions(logits)

    blocks = over_blocks(
        model,
        lambda rows: _logits(model, batch, _kept(batch, rows), copies),
        _n_positions(batch),
        copies * model.config.get_text_config().vocab_size,
        reduced,
    )
    logprobs = blocks[0][1].new_zeros(copies, *used.shape)
    for inside, chosen, *_ in blocks:
        logprobs = logprobs.masked_scatter(inside.expand_as(logprobs), chosen)
    totals, *more = (torch.cat(parts, -1) for parts in list(zip(*blocks, strict=True))[2:])
    return [(logprobs - totals[:, places]).masked_fill(~used, 0.0), *more]


def _n_positions(batch: Batch) -> int:
    """How many positions predict an answer token."""
    kept = batch.logit_positions
    return int(kept.sum()) if isinstance(batch, Padded) else len(kept)


def _kept(batch: Batch, rows: slice) -> Tensor:
    """The logit positions of a slice of all, as the model takes them."""
    kept = batch.logit_positions
    if not isinstance(batch, Padded):
        return kept[rows]
    number = kept.flatten().cumsum(0).view_as(kept) - 1
    return kept & (rows.start <= number) & (number < rows.stop)


def _logits(model: PreTrainedModel, batch: Batch, kept: Tensor, copies: int) -> Tensor:
    """[copies, positions, vocabulary] float32, of the logit positions ``kept``."""
    if isinstance(batch, Padded):
        output = model(
            input_ids=batch.input_ids.repeat(copies, 1),
            attention_mask=batch.attention_mask.repeat(copies, 1),
            logits_to_keep=kept.repeat(copies, 1),
            use_cache=False,
        )
        logits = output.logits.float()
        return logits.view(copies, -1, logits.shape[-1])

    def forward(nodes: Forest, masks: Any) -> Tensor:
        output = model(
            input_ids=nodes.input_ids.expand(copies, -1),
            position_ids=nodes.depth.expand(copies, -1),
            attention_mask=masks,
            logits_to_keep=kept,
            use_cache=False,
        )
        return output.logits.float()

    return attend(model, batch, copies, forward)
