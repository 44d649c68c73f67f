"""How many tokens one forward pass takes, and what is done where memory does not hold them."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from likra.engine.packing import LAYOUTS, Batch, Forest, unpacked

# Tokens of one forward pass. That of the CPU is measured by `python -m benchmarks.attention`. The
# numbers for a GPU are reckoned, not measured: a model of 7 billion parameters in bfloat16 takes
# about 100 KiB for each token of a pass without gradients. A dense mask grows with their square.
BUDGET = {"cpu": 1024, "cuda": 8192}
SPARSE_BUDGET = 32768  # on CUDA, of a forest whose attention skips what is hidden
LEAST, BYTES_PER_TOKEN = 1024, 2**19

T = TypeVar("T")
logger = logging.getLogger(__name__)


def token_budget(device: torch.device | str, *, sparse: bool = False) -> int:
    """Tokens of one forward pass on that device; on CUDA, what its free memory holds.

    ``sparse`` is for forests that FlexAttention attends to (`likra.engine.flex`).
    """
    device = torch.device(device)
    most = BUDGET.get(device.type, 2048)
    if device.type != "cuda":
        return most
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # a power of 2, so that passes do not change with every byte
    held = 2 ** (max(1, free // BYTES_PER_TOKEN).bit_length() - 1)
    return max(LEAST, min(held, SPARSE_BUDGET if sparse else most))


@dataclass
class Room:
    """What a device's memory holds, as far as it was found out.

    Attributes:
        too_large: tokens of the smallest pass that it did not hold.

    """

    too_large: int = sys.maxsize

    def budget(self, wanted: int) -> int:
        """The tokens of a pass, if so many are wanted: half of what was too large, or fewer."""
        return min(wanted, max(1, self.too_large // 2))

    def remember(self, n_tokens: int) -> None:
        """A pass of so many tokens was too large."""
        if n_tokens < self.too_large:
            self.too_large = n_tokens
            logger.warning(
                "a pass of %s tokens does not fit into the memory: it is computed in two parts, "
                "and so are others as large",
                f"{n_tokens:,}",
            )


def in_parts(
    batch: Batch,
    compute: Callable[[Batch], T],
    room: Room,
    halve: Callable[[Batch], list[Batch]],
) -> list[T]:
    """Compute on a batch; on two halves, and theirs, where memory does not hold it at once.

    Args:
        batch: the batch.
        compute: raises torch.OutOfMemoryError where memory does not hold it, and may be called
            again then.
        room: is told of what does not fit. As large a batch is then not tried any more.
        halve: divides a batch in two; gives none where it cannot be divided.

    Returns:
        What ``compute`` gave for each part, in order.

    Raises:
        torch.OutOfMemoryError: a part that cannot be divided does not fit.

    """
    n_tokens = batch.input_ids.numel()
    parts = halve(batch) if n_tokens >= room.too_large else []
    if not parts:
        try:
            return [compute(batch)]
        except torch.OutOfMemoryError:
            parts = halve(batch)
            if not parts:
                raise
        # not in the handler, where the error holds what is in memory
        room.remember(n_tokens)
    return [result for part in parts for result in in_parts(part, compute, room, halve)]


def halves(batch: Batch, kinds: int = 1) -> list[Batch]:
    """A batch in two, on the CPU; none where there is but one pair.

    With ``kinds`` the pairs stand kind by kind, and each half has pairs of each kind.
    """
    pairs = unpacked(batch)
    build = LAYOUTS["forest" if isinstance(batch, Forest) else "padded"]
    size = len(pairs) // kinds
    if size < 2:
        return []
    columns = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    return [
        build([pair for column in columns for pair in column[part]])
        for part in (slice(0, size // 2), slice(size // 2, size))
    ]
