"""What the nodes of a forest see, in the form in which transformers' models take it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from likra.engine.packing import Forest

FULL, SLIDING = "full_attention", "sliding_attention"
PLAIN = "sdpa"  # the attention of transformers in the place of which others are used

Mask = TypeVar("Mask")


def sliding_window(config: PreTrainedConfig) -> int | None:
    """How many tokens a sliding layer sees, its own among them; None without such layers."""
    if getattr(config, "use_sliding_window", True) is False:
        return None
    return getattr(config, "sliding_window", None)


def for_layers(
    model: PreTrainedModel, mask_of: Callable[[int | None], Mask]
) -> Mask | dict[str, Mask]:
    """The model's attention mask; for one whose layers differ, a mask by layer type.

    ``mask_of`` gives the mask of layers with a sliding window, or of those without one (None).
    """
    config = model.config.get_text_config()
    window = sliding_window(config)
    if window is not None and SLIDING in (getattr(config, "layer_types", None) or ()):
        return {FULL: mask_of(None), SLIDING: mask_of(window)}
    return mask_of(window)


def dense_mask(forest: Forest, window: int | None, dtype: torch.dtype) -> Tensor:
    """The additive attention mask: [1, 1, tokens, tokens], 0 or the least number of the dtype.

    On a sliding layer a node sees only the ancestors less than a window of *depths* away, not of
    places in the flat sequence.
    """
    place = torch.arange(len(forest.end), device=forest.end.device)
    seen = (place[None, :] <= place[:, None]) & (place[:, None] < forest.end[None, :])
    if window is not None:
        seen &= forest.depth[:, None] - forest.depth[None, :] < window
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


@contextmanager
def attending_by(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let a model attend by another of the attentions that transformers knows by name."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before
