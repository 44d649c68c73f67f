"""Float32 matrix products on a CPU: by oneDNN, where that is as exact and faster.

PyTorch multiplies float32 matrices by MKL, which on CPUs that are not Intel's uses half of their
vectors. A setting of PyTorch hands the products to oneDNN, which computes them at full width and,
as far as the CPU has no unit for bfloat16 products, in float32. Where it has one, the setting
would round the factors to bfloat16: a product with a known result tells. The decision depends on
the CPU alone, not on time, so the scores of one machine are the same in each run.

oneDNN prepares a kernel for each new shape, and is slow at attention to few tokens and at products
with LoRA's narrow factors. That is most of the time of a small model, so those are left to MKL.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

SMALL = 10_000_000  # parameters; measured by `python -m benchmarks.products`


def is_small(model: PreTrainedModel) -> bool:
    """Whether products are so small that threads and prepared kernels cost more than they gain."""
    return int(model.num_parameters()) < SMALL


@contextmanager
def float32_products(model: PreTrainedModel) -> Iterator[None]:
    """Have the products of a model on the CPU within computed by what suits its size."""
    if is_small(model):
        yield
        return
    with onednn_products():
        yield


@contextmanager
def onednn_products() -> Iterator[None]:
    """Have oneDNN multiply float32 matrices on the CPU within, where it is as exact.

    The setting is the process's, and PyTorch's older functions refuse to read it, so it is taken
    back at the end. One that the user made is left alone.
    """
    matmul: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None or matmul.fp32_precision != "none" or not onednn_is_exact():
        yield
        return
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = "none"


@functools.cache
def onednn_is_exact() -> bool:
    """Whether products that are handed to oneDNN stay float32 on this CPU."""
    backend: Any = torch.backends.mkldnn  # torch does not declare ``matmul``
    if not backend.is_available():
        return False
    before = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "bf16"
    try:
        return all(_is_exact(*shape) for shape in ((256, 576, 1536), (256, 1536, 64), (8, 64, 512)))
    finally:
        backend.matmul.fp32_precision = before


def _is_exact(rows: int, inner: int, columns: int) -> bool:
    """Whether a product keeps its factors' low bits.

    Rounding factors to bfloat16 moves an entry, a sum of ``inner`` terms of size 1, by about 1e-3
    of its standard deviation; float32 sums are off by about 1e-6 of it.
    """
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator)
    right = torch.randn(columns, inner, generator=generator)
    expected = left.double() @ right.double().T
    found = torch.nn.functional.linear(left, right).double()
    return bool((found - expected).abs().max() < 1e-4 * inner**0.5)
