"""Float32 matrix products on this CPU: PyTorch's default beside oneDNN, where likra uses it.

The shapes are those of SmolLM2-135M's linear layers on a pack of 512 tokens. Needs no data.
"""

import argparse
import time

import numpy as np
import torch
from torch.nn.functional import linear

from benchmarks import common
from likra.engine.products import onednn_is_exact, onednn_products

TOKENS = 512
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


def main() -> None:
    """Measure each shape with the default, then with likra's choice, and print the ratios."""
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


if __name__ == "__main__":
    main()
