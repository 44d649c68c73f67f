"""The base model's own answers to questions: candidates for wrong ones."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from likra.engine.tokens import prefix_token, tokens_of
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.progress import progress

BATCH = 16  # prompts of one call


def sample_answers(
    base: BaseModel,
    contexts: Sequence[str],
    *,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    name: str | None = None,
) -> list[list[str]]:
    """Sample continuations of each context under the base, up to the first line's end.

    Args:
        base: the model.
        contexts: the prompts.
        samples: how many for each context.
        temperature: of the sampling; the whole vocabulary takes part.
        max_new_tokens: where an answer without an end is cut.
        seed: the same seed gives the same texts, for the same contexts in the same order.
        name: of the work, to show its progress.

    Returns:
        For each context its texts, without surrounding white space; some may be empty or the same.

    Raises:
        LikraError: ``max_new_tokens`` leave no room for a prompt.

    """
    check_room(base, max_new_tokens)
    torch.manual_seed(seed)
    texts: list[list[str]] = []
    with torch.inference_mode(), progress(len(contexts), name, "prompts") as advance:
        for start in range(0, len(contexts), BATCH):
            batch = list(contexts[start : start + BATCH])
            lines = _generate(base, batch, samples, temperature, max_new_tokens)
            texts += [lines[i * samples : (i + 1) * samples] for i in range(len(batch))]
            advance(len(batch))
    return texts


def check_room(base: BaseModel, max_new_tokens: int) -> None:
    """Refuse samples that are as long as the model's context.

    Raises:
        LikraError: they are.

    """
    if max_new_tokens >= base.max_length:
        raise LikraError(
            f"generation.max_new_tokens is {max_new_tokens}, and the model's context of "
            f"{base.max_length} tokens has to hold the prompt, too"
        )


def _generate(
    base: BaseModel, contexts: list[str], samples: int, temperature: float, max_new_tokens: int
) -> list[str]:
    tokenizer, padding = base.tokenizer, padding_token(base.tokenizer)
    room = base.max_length - max_new_tokens
    prompts = [tokens[-room:] for tokens in tokens_of(tokenizer, contexts)]
    ids, mask = left_padded([tokens or [prefix_token(tokenizer)] for tokens in prompts], padding)
    generate: Any = base.model.generate  # of a mixin that the checker does not see
    output = generate(
        input_ids=ids.to(base.device),
        attention_mask=mask.to(base.device),
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        num_return_sequences=samples,
        pad_token_id=padding,
    )
    decoded = tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip().split("\n")[0].strip() for text in decoded]


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands where a row has no token: the tokenizer's own, or its EOS."""
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in ends if token is not None)


def left_padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Prompts that end together: token ids and attention mask, each [prompts, tokens] int64."""
    rows = [torch.tensor(tokens) for tokens in prompts]
    left = partial(pad_sequence, batch_first=True, padding_side="left")
    return left(rows, padding_value=padding), left([torch.ones_like(row) for row in rows])
