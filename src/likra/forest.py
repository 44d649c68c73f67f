"""From text to tokens to batches: a forest of token tries, and the plain layout beside it.

Answers to one question share its prompt, and questions may share few-shot examples. Inserted into
a trie, every shared prefix stands once. The trie's nodes, laid out in pre-order, are one flat
sequence; with ``end[i]`` one past the last node of *i*'s subtree, node *i* descends from node *j*
exactly when ``j <= i < end[j]``. That one integer vector is the whole attention mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likra.errors import LikraError
from likra.questions import Choice

PADDING = -100  # in the place of an answer token


@dataclass(frozen=True)
class TokenPair:
    """A (context, continuation) pair as token ids; only the continuation is scored.

    ``n_cut`` tokens were cut from the left of the context, for the model's context is shorter.
    """

    context: list[int]
    continuation: list[int]
    n_cut: int = 0

    @property
    def tokens(self) -> list[int]:
        """All that goes through the model. The last token is predicted, but predicts nothing."""
        return self.context + self.continuation[:-1]


# --------------------------------------------------------------------------------------------
# Text to tokens


def prefix_token(tokenizer: Any) -> int:
    """What stands before an empty context: BOS, or EOS where the tokenizer has no BOS."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return int(token)


def encode(
    tokenizer: Any, choices: Sequence[Choice], max_length: int, *, truncate: bool = False
) -> list[TokenPair]:
    """Tokenize each (context, continuation) exactly as lm-evaluation-harness does.

    Args:
        tokenizer: a Hugging Face tokenizer.
        choices: what to encode.
        max_length: the model's context, in tokens.
        truncate: cut longer prompts from the left, as the harness does, instead of refusing them.

    Raises:
        LikraError: a continuation without tokens, or a pair longer than the model's context.

    """
    texts = [(choice.context, choice.continuation) for choice in choices]
    pairs = encode_texts(tokenizer, texts)
    if truncate:
        pairs = [cut(pair, max_length) for pair in pairs]
    for pair, text in zip(pairs, texts, strict=True):
        check_pair(pair, text, max_length)
    return pairs


def encode_texts(tokenizer: Any, texts: Sequence[tuple[str, str]]) -> list[TokenPair]:
    """Tokenize (context, continuation) texts, all at once, whatever their length.

    Context and continuation are encoded together, spaces at the end of the context counted to the
    continuation, and cut where the context alone ends; BOS is the tokenizer's own affair, except
    that a text which already begins with it gets no second one
    (``TemplateLM._encode_pair`` and ``HFLM.tok_encode``, lm_eval 0.4.13).
    """
    split = [_split(context, continuation) for context, continuation in texts]
    wholes = [context + continuation for context, continuation in split]
    contexts = list(dict.fromkeys(context for context, _ in split if context))
    encoded = tokens_of(tokenizer, [*wholes, *contexts])
    context_tokens = dict(zip(contexts, encoded[len(wholes) :], strict=True))
    pairs = []
    for (context, continuation), whole in zip(split, encoded, strict=False):
        if context:
            left = context_tokens[context]
            pairs.append(TokenPair(left, whole[len(left) :]))
        else:
            pairs.append(_without_context(tokenizer, continuation))
    return pairs


def _split(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def tokens_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenize whole texts; one that begins with the tokenizer's BOS gets no second one."""
    prefix = tokenizer.decode([prefix_token(tokenizer)])
    opened = [bool(prefix) and text.startswith(prefix) for text in texts]
    result: list[list[int]] = [[] for _ in texts]
    for already, options in ((False, {}), (True, {"add_special_tokens": False})):
        rows = [row for row, has_prefix in enumerate(opened) if has_prefix == already]
        if rows:
            batch = tokenizer([texts[row] for row in rows], verbose=False, **options)["input_ids"]
            for row, tokens in zip(rows, batch, strict=True):
                result[row] = tokens
    return result


def _without_context(tokenizer: Any, continuation: str) -> TokenPair:
    tokens = tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
    prefix = prefix_token(tokenizer)
    if tokens and tokens[0] == prefix:
        return TokenPair(tokens[:1], tokens[1:])
    return TokenPair([prefix], tokens)


def cut(pair: TokenPair, max_length: int) -> TokenPair:
    """Cut a pair that is longer than the model's context from the left, as the harness does."""
    n_cut = max(0, len(pair.tokens) - max_length)
    return TokenPair(pair.context[n_cut:], pair.continuation, n_cut)


def check_pair(pair: TokenPair, text: tuple[str, str] | None, max_length: int) -> None:
    """Refuse a pair that cannot be scored.

    Args:
        pair: what to check.
        text: its context and continuation, for the error; where there is none, tokens are shown.
        max_length: the model's context, in tokens.

    Raises:
        LikraError: an empty continuation, or a pair longer than the model's context.

    """
    context, continuation = text or (str(pair.context), str(pair.continuation))
    shown = f"'{context[-60:]}' + '{continuation[:60]}'"
    if not pair.continuation:
        raise LikraError(f"the answer has no tokens of its own: {shown}")
    if not pair.context:
        raise LikraError(f"the answer alone is longer than the model's context: {shown}")
    if len(pair.tokens) > max_length:
        raise LikraError(
            f"prompt and answer take {len(pair.tokens)} tokens, and the model's context is "
            f"{max_length} ('truncate' for long_prompts cuts them from the left): {shown}"
        )


# --------------------------------------------------------------------------------------------
# Tokens to batches


@dataclass(frozen=True)
class Forest:
    """Pairs packed as token tries. All fields are int64 tensors.

    Attributes:
        input_ids: [tokens], the tries' nodes in pre-order.
        depth: [tokens], a node's distance from its root: its position id.
        end: [tokens], one past the last index of a node's subtree.
        rows: [rows], the nodes whose next-token distribution is needed, ascending.
        answer_rows: [pairs, answer tokens], for each answer token its index into ``rows``.
        answers: [pairs, answer tokens], the answers' tokens, padded with PADDING.

    """

    input_ids: Tensor
    depth: Tensor
    end: Tensor
    rows: Tensor
    answer_rows: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Plain:
    """The same pairs the usual way: one right-padded row each. For models that cannot branch.

    Attributes:
        input_ids: [pairs, tokens] int64.
        attention_mask: [pairs, tokens] int64, 0 on padding.
        rows: [pairs, tokens] bool, where the next-token distribution is needed.
        answer_rows: [pairs, answer tokens] int64, index into the True places of ``rows``.
        answers: [pairs, answer tokens] int64, padded with PADDING.

    """

    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    answer_rows: Tensor
    answers: Tensor


Batch = Forest | Plain


def _shared(left: list[int], right: list[int]) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return int(np.argmax(np.array(left[:length]) != np.array(right[:length])))


def _answers(pairs: Sequence[TokenPair]) -> Tensor:
    width = max(len(pair.continuation) for pair in pairs)
    answers = torch.full((len(pairs), width), PADDING)
    for row, pair in enumerate(pairs):
        answers[row, : len(pair.continuation)] = torch.tensor(pair.continuation)
    return answers


def build_forest(pairs: Sequence[TokenPair]) -> Forest:
    """Pack pairs into one forest. The order of the pairs is kept in ``answers``."""
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].tokens)
    input_ids: list[int] = []
    depth: list[int] = []
    end = np.zeros(sum(len(pair.tokens) for pair in pairs), dtype=np.int64)
    parents = np.zeros(tuple(_answers(pairs).shape), dtype=np.int64)
    previous: list[int] = []
    path = np.zeros(0, dtype=np.int64)  # the nodes from the root to the last one laid out
    for index in order:
        pair = pairs[index]
        tokens = pair.tokens
        shared = _shared(previous, tokens)
        end[path[shared:]] = len(input_ids)  # their subtrees are complete
        new = np.arange(len(input_ids), len(input_ids) + len(tokens) - shared)
        path = np.concatenate([path[:shared], new])
        input_ids += tokens[shared:]
        depth += range(shared, len(tokens))
        parents[index, : len(pair.continuation)] = path[len(pair.context) - 1 :]
        previous = tokens
    end[path] = len(input_ids)
    answers = _answers(pairs)
    used = answers.numpy() != PADDING
    rows = np.unique(parents[used])
    answer_rows = np.where(used, np.searchsorted(rows, parents), 0)
    return Forest(
        torch.tensor(input_ids),
        torch.tensor(depth),
        torch.from_numpy(end[: len(input_ids)]),
        torch.from_numpy(rows),
        torch.from_numpy(answer_rows),
        answers,
    )


def build_plain(pairs: Sequence[TokenPair]) -> Plain:
    """Lay pairs out as right-padded rows, in their order."""
    width = max(len(pair.tokens) for pair in pairs)
    input_ids = torch.zeros((len(pairs), width), dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    rows = torch.zeros_like(input_ids, dtype=torch.bool)
    answers = _answers(pairs)
    answer_rows = torch.zeros_like(answers)
    n_rows = 0
    for index, pair in enumerate(pairs):
        length, n_answer = len(pair.tokens), len(pair.continuation)
        input_ids[index, :length] = torch.tensor(pair.tokens)
        attention_mask[index, :length] = 1
        rows[index, length - n_answer : length] = True
        answer_rows[index, :n_answer] = torch.arange(n_rows, n_rows + n_answer)
        n_rows += n_answer
    return Plain(input_ids, attention_mask, rows, answer_rows, answers)


LAYOUTS: dict[str, Callable[[Sequence[TokenPair]], Batch]] = {
    "forest": build_forest,
    "plain": build_plain,
}


def pack(pairs: Sequence[TokenPair], layout: str, budget: int) -> Iterator[list[int]]:
    """Group pairs into batches of about ``budget`` tokens; yields their indices.

    Pairs with a common prefix come together, whatever question they belong to. A batch goes over
    the budget only for a pair that mostly repeats the one before it, and then to at most four
    times that pair's length: to start a new batch there would compute the prefix once more.
    """
    if layout == "plain":
        yield from _pack_plain(pairs, budget)
        return
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].tokens)
    batch: list[int] = []
    previous: list[int] = []
    total = 0
    for index in order:
        tokens = pairs[index].tokens
        shared = _shared(previous, tokens) if batch else 0
        limit = max(budget, 4 * len(tokens)) if 2 * shared > len(tokens) else budget
        if batch and total + len(tokens) - shared > limit:
            yield batch
            batch, total, shared = [], 0, 0
        batch.append(index)
        total += len(tokens) - shared
        previous = tokens
    if batch:
        yield batch


def _pack_plain(pairs: Sequence[TokenPair], budget: int) -> Iterator[list[int]]:
    """Rows of similar length together, padding counted."""
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index].tokens))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * len(pairs[batch[0]].tokens) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
