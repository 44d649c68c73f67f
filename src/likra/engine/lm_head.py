"""The LM head in blocks of positions, so that memory does not grow with answers and vocabulary."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

LARGEST = 2**24  # logits in memory at once: 64 MiB in float32

Reduced = tuple[Tensor, ...]


def over_blocks(
    model: PreTrainedModel,
    logits: Callable[[slice], Tensor],
    n_positions: int,
    width: int,
    reduce: Callable[[Tensor, slice], Reduced],
) -> list[Reduced]:
    """What is computed from the logits, for blocks of positions one after the other.

    One block where the logits are few. Of more, the model's layers are run once: for each block
    the model is called with its trunk's output in the place of the trunk, so that whatever it does
    to the logits (scaling, soft-capping) is its own code. Backward, a block's logits are computed
    once more.

    Args:
        model: the model that ``logits`` calls, with or without adapters.
        logits: calls the model; gives the logits of a slice of the positions.
        n_positions: how many there are.
        width: numbers that a position takes.
        reduce: of a block's logits and its slice; small.

    Returns:
        What ``reduce`` gave for each block, in order.

    """
    whole, size = slice(0, n_positions), max(1, LARGEST // width)
    trunk = _trunk(model)
    if n_positions <= size or trunk is None:
        return [reduce(logits(whole), whole)]
    outputs: list[Any] = []
    hook = trunk.register_forward_hook(lambda module, given, output: outputs.append(output))
    try:
        logits(slice(0, 1))
    finally:
        hook.remove()
    (output,) = outputs

    def block(rows: slice) -> Reduced:
        with _answering(trunk, output):
            return reduce(logits(rows), rows)

    slices = [slice(a, min(a + size, n_positions)) for a in range(0, n_positions, size)]
    if not torch.is_grad_enabled():
        return [block(rows) for rows in slices]
    return [checkpoint(block, rows, use_reentrant=False) for rows in slices]


def _trunk(model: PreTrainedModel) -> torch.nn.Module | None:
    """The model without its LM head; None where it is not a module of its own."""
    with_adapters: Any = model  # a PeftModel, whose own base_model is the module with the adapters
    bare = with_adapters.get_base_model() if hasattr(model, "get_base_model") else model
    return None if bare.base_model is bare else bare.base_model


@contextmanager
def _answering(trunk: torch.nn.Module, output: object) -> Iterator[None]:
    """Let a module answer with an output that it gave before."""
    own = vars(trunk).get("forward")  # of accelerate, where a model is on several devices
    trunk.forward = lambda *arguments, **settings: output
    try:
        yield
    finally:
        if own is None:
            del trunk.forward
        else:
            trunk.forward = own
