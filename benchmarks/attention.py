"""Attention block by block beside the whole matrix, on a CPU: sizes of blocks and of batches.

Scoring ARC-Challenge, zero-shot and with few-shot examples, and training a head on it. Needs
LIKRA_REAL_DATA.

    python -m benchmarks.attention --model smollm2
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from benchmarks import common
from likra import BaseModel, TrainingSettings, open_model
from likra.engine import blockwise
from likra.engine.memory import BUDGET
from likra.engine.tokens import TokenPair, encode
from likra.heads.lora import Head
from likra.heads.score import encode_questions, score
from likra.heads.train import train_head

WHOLE = 10**9  # a block that holds any forest
BLOCKS = (64, blockwise.BLOCK, 128)
BUDGETS = (512, BUDGET["cpu"], 2048)


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    """Attention in blocks of that many tokens."""
    with patch.object(blockwise, "BLOCK", size):
        yield


def scored(base: BaseModel, pairs: list[TokenPair], size: int, budget: int) -> np.ndarray:
    """Log-likelihoods of the pairs."""
    with blocks_of(size):
        return score(Head(base), base.pack(pairs, budget)).logprobs


def trained(base: BaseModel, pairs: list[TokenPair], size: int, batch: int) -> np.ndarray:
    """The losses of a head."""
    settings = TrainingSettings(batch_size=batch)
    with blocks_of(size), TemporaryDirectory() as folder:
        where = {len(pairs): Path(folder) / "head"}
        return np.array(train_head(base, pairs, where, settings=settings, name=None))


def called(size: int) -> str:
    """A size of blocks in words."""
    return "whole" if size == WHOLE else f"blocks of {size}"


def show(title: str, timings: Mapping[str, common.Timing]) -> None:
    """One line per side: seconds, and how many times the first side's they are."""
    first, *_ = timings.values()
    print(f"\n{title}")
    for name, timing in timings.items():
        print(f"  {name:34} {np.median(timing.seconds):8.2f} s {common.times(timing, first):>24}")
    difference = max(float(np.abs(own.values - first.values).max()) for own in timings.values())
    print(f"  largest difference: {difference:.1e} nats")


def main() -> None:
    """Time all sizes in turn, and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--model", help="by default a random one of 53 million parameters")
    parser.add_argument("--questions", type=common.positive, default=32)
    parser.add_argument("--fewshot-questions", type=common.positive, default=4)
    parser.add_argument("--repeats", type=common.positive, default=3)
    options = parser.parse_args()
    data = common.real_data()
    with common.random_model(data) as folder:
        base = open_model(options.model or folder, device="cpu")
        usual = blockwise.BLOCK, BUDGET["cpu"]
        sizes = [usual, (WHOLE, 512), (WHOLE, usual[1])]
        sizes += [(size, usual[1]) for size in BLOCKS if size != usual[0]]
        sizes += [(usual[0], n) for n in BUDGETS if n != usual[1]]
        for count, shots in ((options.questions, 0), (options.fewshot_questions, 25)):
            questions = common.arc_questions(data, "test", count, shots)
            pairs = list(encode_questions(base, questions, truncate=True))
            sides = {
                f"{called(size)}, {n:,} tokens a pass": partial(scored, base, pairs, size, n)
                for size, n in sizes
            }
            title = f"scoring {count} questions with {shots} examples"
            scored(base, pairs, *usual)  # the first pass prepares the kernels
            show(title, common.alternate(sides, options.repeats))
        questions = common.arc_questions(data, "train", 64)
        wrong = [question.wrong[0] for question in questions]
        pairs = encode(base.tokenizer, wrong, base.max_length)
        for batch in (8, 32):
            sides = {
                called(size): partial(trained, base, pairs, size, batch)
                for size in (blockwise.BLOCK, WHOLE)
            }
            title = f"training on 64 answers in batches of {batch}"
            trained(base, pairs, blockwise.BLOCK, batch)
            show(title, common.alternate(sides, options.repeats))


if __name__ == "__main__":
    main()
