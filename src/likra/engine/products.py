"""Float32 matrix products on a CPU: by oneDNN, where they are exact."""

import functools
from typing import Any

import torch


@functools.cache
def use_onednn() -> bool:
    """Let PyTorch give float32 matrix products to oneDNN from now on, if they stay float32.

    PyTorch multiplies float32 matrices by MKL, which on CPUs that are not Intel's uses half of
    their vectors. The setting below hands the products to oneDNN, which computes them at full width
    and, as far as the CPU has no unit for bfloat16 products, in float32. Where it has one, the
    setting would round the factors to bfloat16: a product with a known result tells, and then
    everything stays as it was. The decision depends on the CPU alone, not on time, so the scores of
    one machine are the same in each run. A setting that the user made is left alone.

    Returns:
        Whether oneDNN multiplies.

    """
    backend: Any = torch.backends.mkldnn  # torch does not declare ``matmul``
    if not backend.is_available() or backend.matmul.fp32_precision != "none":
        return False
    backend.matmul.fp32_precision = "bf16"
    if all(_is_exact(*shape) for shape in ((256, 576, 1536), (256, 1536, 64), (8, 64, 512))):
        return True
    backend.matmul.fp32_precision = "none"
    return False


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
