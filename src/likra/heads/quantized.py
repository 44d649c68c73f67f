"""Base models in 4 bits, by bitsandbytes."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from likra.errors import LikraError

FOUR_BIT = "4bit"  # as a dtype


def four_bit(device: str) -> BitsAndBytesConfig:
    """The quantization of QLoRA (Dettmers and others 2023): NF4, with quantized scales.

    Products are computed in bfloat16, on a CPU in float32.

    Raises:
        LikraError: bitsandbytes is not installed.

    """
    if find_spec("bitsandbytes") is None:
        raise LikraError(f"dtype {FOUR_BIT} needs bitsandbytes: pip install 'likra[bitsandbytes]'")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computes_in(device),
    )


def computes_in(device: str) -> torch.dtype:
    """What a base in 4 bits computes in, which is also that of its other layers."""
    return torch.float32 if device == "cpu" else torch.bfloat16


def is_four_bit(model: PreTrainedModel) -> bool:
    """Whether a model was quantized to 4 bits, when it was opened or before."""
    config: Any = getattr(model.config, "quantization_config", None)
    return bool(getattr(config, "load_in_4bit", False))


def compute_exactly(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking the weights of a model in 4 bits at its first pass.

    On a CPU with AVX512-BF16 it does so in evaluation: the scales are rounded to bfloat16 for good,
    scores with them, and a layer whose width is not a multiple of 64 fails.
    """
    if not is_four_bit(model):
        return
    from bitsandbytes.nn.modules import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
