"""Attention over a forest block by block: products that the mask would hide are not computed.

A flat sequence of many short branches is attended to as a whole by default, although most of the
matrix [tokens x tokens] is hidden. In pre-order, an ancestor of a node in a block ``[a, b)`` lies
in the block or is an ancestor of node *a*. So a block's keys are its own and those on the path to
its first node, whatever the form of the forest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from likra.engine.masks import PLAIN, attending_by
from likra.engine.packing import Forest

NAME = "likra_blocks"  # of this attention, among those of transformers
BLOCK = 96  # tokens at most; measured by `python -m benchmarks.attention`
# Small products are slower, so blocks are for forests of so many of them, and only where they leave
# this part of the whole matrix: many branches, not a long prompt.
LEAST, LARGEST_PART = 4, 1 / 3


@dataclass(frozen=True)
class Blocks:
    """A forest's blocks of queries: a slice each, with the indices of its keys."""

    queries: tuple[slice, ...]
    keys: tuple[Tensor, ...]
    _masks: dict[tuple[int, int], tuple[Tensor, tuple[Tensor, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, forest: Forest, size: int) -> "Blocks":
        """Blocks of at most ``size`` nodes, which begin near a root where they can."""
        place = torch.arange(len(forest.end), device=forest.end.device)
        queries, keys = [], []
        first, steepness = 0, forest.depth - place
        while first < len(place):
            ahead = steepness[first + 1 : first + size + 1]
            last = len(place)
            if first + size < last:  # a shallow node far ahead; of equals the farthest
                last = first + len(ahead) - int(ahead.flip(0).argmin())
            path = place[:first][forest.end[:first] > first]
            queries.append(slice(first, last))
            keys.append(torch.cat([path, place[first:last]]))
            first = last
        return cls(tuple(queries), tuple(keys))

    @property
    def n_products(self) -> int:
        """Pairs of a query and a key."""
        return sum(
            (rows.stop - rows.start) * len(own)
            for rows, own in zip(self.queries, self.keys, strict=True)
        )

    def masks(self, whole: Tensor) -> tuple[Tensor, ...]:
        """Each block's part of an attention mask [copies, 1, tokens, tokens]."""
        # Layers are given one mask, or views of it. It is kept, so that no other takes its place.
        identity = whole.data_ptr(), len(whole)
        if identity not in self._masks:
            parts = tuple(
                whole[:, :, rows].index_select(-1, own)
                for rows, own in zip(self.queries, self.keys, strict=True)
            )
            self._masks[identity] = whole, parts
        return self._masks[identity][1]


_BLOCKS: ContextVar[Blocks | None] = ContextVar("blocks", default=None)


@contextmanager
def blockwise(model: PreTrainedModel, forest: Forest) -> Iterator[None]:
    """Let a model attend block by block, where that is faster: on a CPU, in more than one block."""
    blocks, n = None, len(forest.end)
    if (
        model.config._attn_implementation == PLAIN
        and forest.end.device.type == "cpu"
        and n >= LEAST * BLOCK
    ):
        blocks = Blocks.of(forest, BLOCK)
    if blocks is None or blocks.n_products > LARGEST_PART * n**2:
        yield
        return
    token = _BLOCKS.set(blocks)
    try:
        with attending_by(model, NAME):
            yield
    finally:
        _BLOCKS.reset(token)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """As transformers' own: [copies, heads, tokens, width] to [copies, tokens, heads, width]."""
    blocks = _BLOCKS.get()
    n = query.shape[2]
    if (
        blocks is None
        or attention_mask is None
        or settings.get("position_bias") is not None
        or attention_mask.shape[-2:] != (n, n)
        or key.shape[2] != n
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    parts = [
        sdpa_attention_forward(
            module,
            query[:, :, rows],
            key.index_select(2, own),
            value.index_select(2, own),
            mask,
            **settings,
        )[0]
        for rows, own, mask in zip(
            blocks.queries, blocks.keys, blocks.masks(attention_mask), strict=True
        )
    ]
    return torch.cat(parts, dim=1), None


AttentionInterface.register(NAME, _attention)
