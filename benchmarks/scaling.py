"""How the time of scoring grows with the number of questions, of choices and of tokens.

The exponent is the slope of log seconds over log size, by least squares; 1 is proportional. The
model is Llama-shaped with random weights, the tokens are random. Needs no data.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks import common
from likra import BaseModel, Head, score
from likra.engine.products import float32_products
from likra.engine.token_pairs import TokenPairs

VOCABULARY = 8_000
QUESTIONS, CHOICES, TOKENS = 128, 4, 64  # where they are not what grows


def grown(what: str, size: int) -> TokenPairs:
    """Pairs of which there are more in one way."""
    sizes = {"questions": QUESTIONS, "choices": CHOICES, "tokens": TOKENS, what: size}
    return common.synthetic_pairs(sizes["questions"], sizes["choices"], sizes["tokens"], VOCABULARY)


def scoring(base: BaseModel, pairs: TokenPairs) -> common.Side:
    """Likra, as its user calls it."""
    return lambda: score(Head(base), pairs).logprobs


def show(base: BaseModel, what: str, sizes: Sequence[int], repeats: int) -> None:
    """Time each size in turn, and print seconds and exponent."""
    sides = {str(size): scoring(base, grown(what, size)) for size in sizes}
    common.alternate(sides, 1)  # so that no side is the first to use a kernel
    timings = common.alternate(sides, repeats)
    seconds = np.array([timing.seconds for timing in timings.values()])
    slopes = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    shown = ", ".join(
        f"{size}: {np.median(own):.3f}" for size, own in zip(sizes, seconds, strict=True)
    )
    print(
        f"  {what:10} exponent {np.median(slopes):.3f} ({slopes.min():.3f} to {slopes.max():.3f})"
        f"   seconds of {shown}"
    )


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--repeats", type=common.positive, default=5, help="of every size")
    parser.add_argument("--small", action="store_true", help="small sizes, quickly")
    arguments = parser.parse_args()
    sizes = {
        "questions": (64, 128, 256, 512, 1024),
        "choices": (2, 4, 8, 16, 32),
        "tokens": (32, 64, 128, 256, 512),
    }
    base = common.synthetic_base(VOCABULARY)
    print(f"{QUESTIONS} questions of {TOKENS} tokens, {CHOICES} choices, where they do not grow")
    with float32_products(base.model):
        for what, own in sizes.items():
            show(base, what, own[:2] if arguments.small else own, arguments.repeats)


if __name__ == "__main__":
    main()
