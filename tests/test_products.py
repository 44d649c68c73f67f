"""Products by oneDNN stay float32 products, and the setting is taken back."""

import subprocess
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from likra.engine import products
from likra.engine.products import float32_products, onednn_is_exact, onednn_products


def relative_error(rows: int, inner: int, columns: int) -> float:
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    exact = left.double() @ right.double().T
    found = torch.nn.functional.linear(left, right).double()
    return float((found - exact).abs().max() / inner**0.5)


def run(code: str) -> None:
    """In a process of its own: the setting is the process's."""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_products_keep_float32_accuracy_whatever_was_decided() -> None:
    with onednn_products():
        for rows in (1, 7, 33, 256):
            for inner, columns in ((24, 48), (64, 192), (576, 1536), (1000, 33)):
                assert relative_error(rows, inner, columns) < 2e-5
        left, right = torch.randn(64, 300, requires_grad=True), torch.randn(50, 300)
        (left @ right.T).sum().backward()
    assert left.grad is not None
    expected = right.double().sum(0).expand(64, -1)
    torch.testing.assert_close(left.grad.double(), expected, rtol=0, atol=1e-4)


def test_the_setting_holds_within_and_is_taken_back() -> None:
    run(
        """
import torch
from likra.engine.products import onednn_is_exact, onednn_products
matmul = torch.backends.mkldnn.matmul
try:
    with onednn_products():
        assert matmul.fp32_precision == ("bf16" if onednn_is_exact() else "none")
        raise ValueError
except ValueError:
    pass
assert matmul.fp32_precision == "none"
assert torch.get_float32_matmul_precision() == "highest"  # fails while the setting is on
"""
    )


def test_a_setting_of_the_user_is_left_alone() -> None:
    run(
        """
import torch
from likra.engine.products import onednn_products
torch.backends.mkldnn.matmul.fp32_precision = "ieee"
with onednn_products():
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
"""
    )


def test_rounding_to_bfloat16_is_refused(monkeypatch) -> None:
    linear = torch.nn.functional.linear

    def rounded(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return linear(x.bfloat16().float(), w.bfloat16().float())

    monkeypatch.setattr(torch.nn.functional, "linear", rounded)
    assert onednn_is_exact.__wrapped__() is False
    assert torch.backends.mkldnn.matmul.fp32_precision == "none"


def test_small_models_leave_the_setting_alone_and_larger_ones_have_it(monkeypatch) -> None:
    monkeypatch.setattr(products, "onednn_is_exact", lambda: True)
    matmul = torch.backends.mkldnn.matmul
    for width, setting in ((64, "none"), (2048, "bf16")):
        shape = {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 1}
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(vocab_size=100, num_attention_heads=4, **shape))
        with float32_products(model):
            assert matmul.fp32_precision == setting
