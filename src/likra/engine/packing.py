"""From tokens to batches: a forest of token tries, and the padded layout beside it.

Answers to one question share its prompt, and questions may share few-shot examples. Inserted into
a trie, every shared prefix stands once. The trie's nodes, laid out in pre-order, are one flat
sequence; with ``end[i]`` one past the last node of *i*'s subtree, node *i* descends from node *j*
exactly when ``j <= i < end[j]``. That one integer vector is the whole attention mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from likra.engine.tokens import TokenPair

PADDING = -100  # in the place of an answer token
KEPT = 64  # batches that are built once for all heads; others are built anew for each
SORTED, KEY = 1024, 16  # pairs that are sorted at once; tokens that more of them are divided by


@dataclass(frozen=True)
class Forest:
    """Pairs packed as token tries. All fields are int64 tensors.

    Attributes:
        input_ids: [tokens], the tries' nodes in pre-order.
        depth: [tokens], a node's distance from its root: its position id.
        end: [tokens], one past the last index of a node's subtree.
        logit_positions: [positions], the nodes whose next-token distribution is needed, ascending.
        answer_positions: [pairs, answer tokens], each answer token's index into
            ``logit_positions``.
        answers: [pairs, answer tokens], the answers' tokens, padded with PADDING.

    """

    input_ids: Tensor
    depth: Tensor
    end: Tensor
    logit_positions: Tensor
    answer_positions: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Padded:
    """The same pairs, one right-padded sequence each. For models that cannot branch.

    Attributes:
        input_ids: [pairs, tokens] int64.
        attention_mask: [pairs, tokens] int64, 0 on padding.
        logit_positions: [pairs, tokens] bool, where the next-token distribution is needed.
        answer_positions: [pairs, answer tokens] int64, index into the True places of
            ``logit_positions``.
        answers: [pairs, answer tokens] int64, padded with PADDING.

    """

    input_ids: Tensor
    attention_mask: Tensor
    logit_positions: Tensor
    answer_positions: Tensor
    answers: Tensor


Batch = Forest | Padded


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device. To a GPU it is copied while the CPU goes on."""

    def copied(tensor: Tensor) -> Tensor:
        if device.type != "cuda" or tensor.device.type != "cpu":
            return tensor.to(device)
        return tensor.pin_memory().to(device, non_blocking=True)

    return type(batch)(**{name: copied(tensor) for name, tensor in vars(batch).items()})


def _shared(left: list[int], right: list[int]) -> int:
    """Length of the common prefix."""
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return int(np.argmax(np.array(left[:length]) != np.array(right[:length])))


def _answers(pairs: Sequence[TokenPair]) -> Tensor:
    """[pairs, answer tokens], padded with PADDING."""
    width = max(len(pair.continuation) for pair in pairs)
    rows = [[*pair.continuation, *[PADDING] * (width - len(pair.continuation))] for pair in pairs]
    return torch.tensor(rows, dtype=torch.int64)


def build_forest(pairs: Sequence[TokenPair]) -> Forest:
    """Pack pairs into one forest. The order of the pairs is kept in ``answers``."""
    all_tokens = [pair.tokens for pair in pairs]
    order = sorted(range(len(pairs)), key=all_tokens.__getitem__)
    input_ids: list[int] = []
    depth: list[int] = []
    end = np.zeros(sum(map(len, all_tokens)), dtype=np.int64)
    answers = _answers(pairs)
    parents = np.zeros(tuple(answers.shape), dtype=np.int64)
    previous: list[int] = []
    path = np.zeros(0, dtype=np.int64)  # the nodes from the root to the last one laid out
    for index in order:
        pair, tokens = pairs[index], all_tokens[index]
        shared = _shared(previous, tokens)
        end[path[shared:]] = len(input_ids)  # their subtrees are complete
        new = np.arange(len(input_ids), len(input_ids) + len(tokens) - shared)
        path = np.concatenate([path[:shared], new])
        input_ids += tokens[shared:]
        depth += range(shared, len(tokens))
        parents[index, : len(pair.continuation)] = path[len(pair.context) - 1 :]
        previous = tokens
    end[path] = len(input_ids)
    used = answers.numpy() != PADDING
    positions = np.unique(parents[used])
    answer_positions = np.where(used, np.searchsorted(positions, parents), 0)
    return Forest(
        torch.tensor(input_ids),
        torch.tensor(depth),
        torch.from_numpy(end[: len(input_ids)]),
        torch.from_numpy(positions),
        torch.from_numpy(answer_positions),
        answers,
    )


def build_padded(pairs: Sequence[TokenPair]) -> Padded:
    """Lay pairs out as right-padded sequences, in their order."""
    input_ids = pad_sequence([torch.tensor(pair.tokens) for pair in pairs], batch_first=True)
    answers = _answers(pairs)
    used = answers != PADDING
    answer_positions = torch.zeros_like(answers)
    answer_positions[used] = torch.arange(int(used.sum()))
    place = torch.arange(input_ids.shape[1])
    end = torch.tensor([[len(pair.tokens)] for pair in pairs])
    start = end - used.sum(1, keepdim=True)
    predicts = (start <= place) & (place < end)
    return Padded(input_ids, (place < end).long(), predicts, answer_positions, answers)


def unpacked(batch: Batch) -> list[TokenPair]:
    """The pairs of a batch, in their order."""
    batch = moved(batch, torch.device("cpu"))
    answers = [row[row != PADDING].tolist() for row in batch.answers]
    if isinstance(batch, Padded):
        starts = batch.logit_positions.int().argmax(1).tolist()  # where the first is predicted
        rows = zip(batch.input_ids, starts, answers, strict=True)
        return [TokenPair(ids[: start + 1].tolist(), answer) for ids, start, answer in rows]
    starts = batch.logit_positions[batch.answer_positions[:, 0]].tolist()
    return [
        TokenPair(batch.input_ids[: start + 1][batch.end[: start + 1] > start].tolist(), answer)
        for start, answer in zip(starts, answers, strict=True)
    ]


LAYOUTS: dict[str, Callable[[Sequence[TokenPair]], Batch]] = {
    "forest": build_forest,
    "padded": build_padded,
}


@dataclass(frozen=True)
class Packed:
    """A list of pairs, sorted into batches once, to be scored under many heads.

    Attributes:
        indices: of each batch, which pairs of the list it holds, in its order.
        batches: the batches, on the CPU.

    """

    indices: tuple[list[int], ...]
    batches: Sequence[Batch]

    def __len__(self) -> int:
        """The number of pairs."""
        return sum(map(len, self.indices))


@dataclass(frozen=True, eq=False)
class Batches(Sequence[Batch]):
    """Batches that are built when they are asked for; the first `KEPT` of them stay."""

    pairs: Sequence[TokenPair]
    indices: Sequence[list[int]]
    layout: str
    kept: dict[int, Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        places = range(len(self))[index]
        return self._batch(places) if isinstance(places, int) else [self._batch(n) for n in places]

    def _batch(self, place: int) -> Batch:
        batch = self.kept.get(place)
        if batch is None:
            batch = LAYOUTS[self.layout]([self.pairs[index] for index in self.indices[place]])
            if place < KEPT:
                self.kept[place] = batch
        return batch


def pack(pairs: Sequence[TokenPair], layout: str, budget: int) -> Packed:
    """Sort pairs into batches of about ``budget`` tokens (`batch_indices`) of a layout."""
    indices = tuple(batch_indices(pairs, layout, budget))
    return Packed(indices, Batches(pairs, indices, layout))


def batch_indices(pairs: Sequence[TokenPair], layout: str, budget: int) -> Iterator[list[int]]:
    """Group pairs into batches of about ``budget`` tokens; yields their indices.

    Pairs with a common prefix come together, whatever question they belong to. A batch goes over
    the budget only for a pair that mostly repeats the one before it, and then to at most four
    times that pair's length: to start a new batch there would compute the prefix once more.
    """
    if layout == "padded":
        yield from _padded_indices(pairs, budget)
        return
    batch: list[int] = []
    previous: list[int] = []
    total = 0
    for index in _by_tokens(pairs):
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


def _by_tokens(pairs: Sequence[TokenPair]) -> Iterator[int]:
    """The pairs' indices, sorted by their tokens.

    Many pairs are divided by a few tokens at a time, for all tokens of all pairs as keys would take
    more memory than the pairs.
    """
    parts: list[tuple[int, Sequence[int]]] = [(0, range(len(pairs)))]
    while parts:
        start, indices = parts.pop()
        if len(indices) <= SORTED:
            yield from sorted(indices, key=lambda index: pairs[index].tokens)
            continue
        by_key: dict[tuple[int, ...], list[int]] = {}
        for index in indices:
            key = tuple(pairs[index].tokens[start : start + KEY])
            by_key.setdefault(key, []).append(index)
        if not any(by_key):  # no tokens are left: all are the same
            yield from indices
            continue
        parts += [(start + KEY, by_key[key]) for key in sorted(by_key, reverse=True)]


def _padded_indices(pairs: Sequence[TokenPair], budget: int) -> Iterator[list[int]]:
    """Pairs of similar length together, padding counted."""
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index].tokens))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * len(pairs[batch[0]].tokens) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
