"""Products by oneDNN stay float32 products."""

import subprocess
import sys

import torch

from likra.engine.products import use_onednn


def relative_error(rows: int, inner: int, columns: int) -> float:
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    exact = left.double() @ right.double().T
    found = torch.nn.functional.linear(left, right).double()
    return float((found - exact).abs().max() / inner**0.5)


def test_products_keep_float32_accuracy_whatever_was_decided() -> None:
    use_onednn()
    for rows in (1, 7, 33, 256):
        for inner, columns in ((24, 48), (64, 192), (576, 1536), (1000, 33)):
            assert relative_error(rows, inner, columns) < 2e-5
    left, right = torch.randn(64, 300, requires_grad=True), torch.randn(50, 300)
    (left @ right.T).sum().backward()
    assert left.grad is not None
    expected = right.double().sum(0).expand(64, -1)
    torch.testing.assert_close(left.grad.double(), expected, rtol=0, atol=1e-4)


def test_the_setting_is_kept_only_where_it_decided_so_and_never_replaces_the_users() -> None:
    code = """
import torch
from likra.engine.products import use_onednn
matmul = torch.backends.mkldnn.matmul
before = matmul.fp32_precision
used = use_onednn()
assert matmul.fp32_precision == ("bf16" if used else before), (used, matmul.fp32_precision)
use_onednn.cache_clear()
matmul.fp32_precision = "ieee"
assert use_onednn() is False
assert matmul.fp32_precision == "ieee"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rounding_to_bfloat16_is_refused() -> None:
    code = """
import torch
from likra.engine.products import use_onednn
linear = torch.nn.functional.linear
rounded = lambda x, w: linear(x.bfloat16().float(), w.bfloat16().float())
torch.nn.functional.linear = rounded
assert use_onednn() is False
assert torch.backends.mkldnn.matmul.fp32_precision == "none"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
