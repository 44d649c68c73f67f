"""Float32 matrix products on this CPU: PyTorch's default beside oneDNN, where likra uses it.

First the shapes of SmolLM2-135M's linear layers on a pack of 512 tokens. Then training steps and a
scoring pass of Llama-shaped models of rising size, whose batches all have other shapes: what
`likra.engine.products.SMALL` is chosen by. Needs no data.
"""

import argparse
import time

import numpy as np
import torch
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import common
from likra.engine.logprobs import answer_logprobs, answer_loss
from likra.engine.products import onednn_is_exact, onednn_products
from likra.heads.base import BaseModel, open_tokenizer
from likra.heads.lora import fresh_head
from likra.heads.settings import LoraSettings

TOKENS, VOCABULARY, STEPS = 512, 4096, 12
MODELS = ((128, 4), (256, 8), (320, 10), (448, 10))  # hidden size, layers
SHAPES = {"attention": (576, 576), "up, gate": (576, 1536), "down": (1536, 576)}


def gigaflops(inner: int, outer: int, repeats: int) -> list[float]:
    """Of each run, in billions of operations a second."""
    inputs, weights = torch.randn(TOKENS, inner), torch.randn(outer, inner)
    rates = []
    for number in range(repeats + 2):
        start = time.perf_counter()
        for _ in range(20):
            linear(inputs, weights)
        seconds = (time.perf_counter() - start) / 20
        if number >= 2:  # the first runs prepare the kernels
            rates.append(2 * TOKENS * inner * outer / seconds / 1e9)
    return rates


def random_model(hidden: int, layers: int) -> BaseModel:
    """A Llama-shaped model with random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return BaseModel("random", model, open_tokenizer(), common.CONTEXT, "forest")


def seconds(base: BaseModel) -> np.ndarray:
    """Of the processor: a training step and a scoring pass, the first on batches of new shapes."""
    train = [common.synthetic_pairs(8, 1, 10 + number, VOCABULARY) for number in range(STEPS)]
    packed = base.pack(common.synthetic_pairs(60, 4, 20, VOCABULARY))
    with fresh_head(base, LoraSettings(), common.SEED) as head:
        head.train()
        start = time.process_time()
        for pairs in train:
            answer_loss(base.model, base.batch(pairs)).backward()
        trained = time.process_time()
        with torch.inference_mode():
            for batch in packed.batches:
                answer_logprobs(base.model, batch)
        return np.array([(trained - start) / STEPS, time.process_time() - trained])


def show_models(repeats: int) -> None:
    """Print what oneDNN changes for each size of model."""
    for shape in MODELS:
        base = random_model(*shape)
        default, found = [], []
        for _ in range(repeats):
            default.append(seconds(base))
            with onednn_products():
                found.append(seconds(base))
        old, new = np.median(default, axis=0), np.median(found, axis=0)
        sizes = f"{base.model.num_parameters() / 1e6:5.1f}M parameters"
        ratios = ", ".join(
            f"{name} {before * 1e3:.0f} -> {after * 1e3:.0f} ms  {before / after:.2f}"
            for name, before, after in zip(("a step", "scoring"), old, new, strict=True)
        )
        print(f"{sizes}  {ratios}")


def main() -> None:
    """Measure each shape with the default, then with oneDNN, and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.products", description=__doc__)
    parser.add_argument("--repeats", type=common.positive, default=7)
    repeats = parser.parse_args().repeats
    before = {name: gigaflops(*shape, repeats) for name, shape in SHAPES.items()}
    used = onednn_is_exact()
    with onednn_products():
        after = {name: gigaflops(*shape, repeats) for name, shape in SHAPES.items()}
    print(f"oneDNN is {'used' if used else 'not used'} here; {torch.get_num_threads()} threads")
    for name, shape in SHAPES.items():
        old, new = np.median(before[name]), np.median(after[name])
        rates = f"{old:5.0f} -> {new:5.0f} GFLOP/s  {new / old:.2f}"
        print(f"{name:10} {shape[0]:5} x {shape[1]:5}  {rates}")
    show_models(repeats)


if __name__ == "__main__":
    main()
