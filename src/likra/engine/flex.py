"""Attention over a forest on a GPU, by PyTorch's FlexAttention: hidden blocks are not computed.

The mask is never a matrix. A node sees the path from its root to itself, or on a sliding layer the
end of that path. In pre-order that is what two integers for each node say: node *i* sees node *j*
exactly when ``first[i] <= j <= i < end[j]``.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
import torch._dynamo
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad
from transformers import PreTrainedModel

from likra.engine.masks import PLAIN, attending_by
from likra.engine.packing import Forest

DEVICE = "cuda"
NAME = "flex_attention"  # among the attentions of transformers
BLOCK = 128  # nodes; FlexAttention's own
# One kernel is compiled for inference and one for training, for one length and for any other, for
# one copy and for more. Past Dynamo's limit of 8 it would be the slow one that is not compiled.
COMPILED = 64

logger = logging.getLogger(__name__)
_refused: WeakSet[torch.nn.Module] = WeakSet()


def is_used(model: PreTrainedModel) -> bool:
    """Whether a model attends to forests by it: on CUDA, unless it cannot or was refused."""
    if model.device.type != DEVICE or model.config._attn_implementation != PLAIN:
        return False
    bare = _bare(model)
    if not bare._supports_flex_attn:
        refuse(model, "the model's code does not take it")
    return bare not in _refused


def refuse(model: PreTrainedModel, reason: str) -> None:
    """Have a model attend with a dense mask from now on; this is said once."""
    bare = _bare(model)
    if bare not in _refused:
        _refused.add(bare)
        text = " ".join(reason.split())
        logger.warning(
            "%s attends by SDPA with a dense mask, not by FlexAttention: %s",
            type(bare).__name__,
            text[:300],
        )


@contextmanager
def without(model: PreTrainedModel) -> Iterator[None]:
    """Have a model attend with a dense mask for a while."""
    bare = _bare(model)
    is_new = bare not in _refused
    _refused.add(bare)
    try:
        yield
    finally:
        if is_new:
            _refused.discard(bare)


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """The model without adapters."""
    with_adapters: Any = model
    return with_adapters.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def attention(model: PreTrainedModel) -> Iterator[None]:
    """Let a model attend by it; the mask is to be a `mask`."""
    with attending_by(model, NAME), torch._dynamo.config.patch(recompile_limit=COMPILED):
        yield


def padded(forest: Forest) -> Forest:
    """The forest with nodes at its end, up to one of eight lengths between a power of 2 and twice.

    Each is a root without children: it sees itself and is seen by no other.
    """
    n = len(forest.end)
    step = max(BLOCK, 2 ** (n.bit_length() - 4))
    more = -n % step
    roots = torch.arange(n, n + more, device=forest.end.device)
    return replace(
        forest,
        input_ids=pad(forest.input_ids, (0, more)),
        depth=pad(forest.depth, (0, more)),
        end=torch.cat([forest.end, roots + 1]),
    )


def mask(forest: Forest, window: int | None) -> BlockMask:
    """The mask of a `padded` forest, on layers with that sliding window or without one.

    Whole blocks are told from ``first`` and ``end`` alone. Where a node sees one of a block before
    its own, so does the first node of its block, since the subtree goes on past it: blocks of nodes
    stand to one another as nodes do.
    """
    end, first = forest.end, first_seen(forest, window)

    def sees(copy: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (first[i] <= j) & (j <= i) & (i < end[j])

    ends, firsts = end.view(-1, BLOCK), first.view(-1, BLOCK)
    start = torch.arange(0, len(end), BLOCK, device=end.device)
    i, j = start[:, None], start[None, :]
    some = (firsts.amin(1)[:, None] < j + BLOCK) & (j <= i) & (i < ends.amax(1))
    all_ = (firsts.amax(1)[:, None] <= j) & (j < i) & (i + BLOCK <= ends.amin(1))
    return BlockMask.from_kv_blocks(
        *_listed(some & ~all_), *_listed(all_), BLOCK_SIZE=BLOCK, mask_mod=sees
    )


def first_seen(forest: Forest, window: int | None) -> Tensor:
    """[tokens], of each node the first that it sees: its root, or less than a window of depths up.

    The ancestor at a depth is the last node of that depth up to here.
    """
    n = len(forest.end)
    place = torch.arange(n, device=forest.end.device)
    if window is None:
        depth = torch.zeros_like(forest.depth)
    else:
        depth = (forest.depth - window + 1).clamp(min=0)
    by_depth = (forest.depth * n + place).sort().values
    found = torch.searchsorted(by_depth, depth * n + place, right=True) - 1
    return by_depth[found] % n


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of bool [rows, columns]: [1, 1, rows] how many, [1, 1, rows, columns] which, those first."""
    number = blocks.sum(-1, dtype=torch.int32)
    which = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return number[None, None], which[None, None]
