"""From text to tokens to batches: a forest of token tries, and the padded layout beside it.

Answers to one question share its prompt, and questions may share few-shot examples. Inserted into
a trie, every shared prefix stands once. The trie's nodes, laid out in pre-order, are one flat
sequence; with ``end[i]`` one past the last node of *i*'s subtree, node *i* descends from node *j*
exactly when ``j <= i < end[j]``. That one integer vector is the whole attention mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likra.engine.tokens import TokenPair

PADDING = -100  # in the place of an answer token


# --------------------------------------------------------------------------------------------
# Text to tokens


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
class Padded:
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


Batch = Forest | Padded


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


def build_padded(pairs: Sequence[TokenPair]) -> Padded:
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
    return Padded(input_ids, attention_mask, rows, answer_rows, answers)


LAYOUTS: dict[str, Callable[[Sequence[TokenPair]], Batch]] = {
    "forest": build_forest,
    "padded": build_padded,
}


def pack(pairs: Sequence[TokenPair], layout: str, budget: int) -> Iterator[list[int]]:
    """Group pairs into batches of about ``budget`` tokens; yields their indices.

    Pairs with a common prefix come together, whatever question they belong to. A batch goes over
    the budget only for a pair that mostly repeats the one before it, and then to at most four
    times that pair's length: to start a new batch there would compute the prefix once more.
    """
    if layout == "padded":
        yield from _pack_padded(pairs, budget)
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


def _pack_padded(pairs: Sequence[TokenPair], budget: int) -> Iterator[list[int]]:
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
