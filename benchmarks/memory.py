"""Peak memory of scoring and of a training step, against questions and against the vocabulary.

Each number is of a process of its own: what its memory grew to while it worked, above what it held
when the model was open and a first small batch was done. Needs no data.
"""

import argparse
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from benchmarks import common
from likra import Head, LoraSettings, score
from likra.engine.logprobs import answer_loss
from likra.engine.products import float32_products
from likra.heads.lora import fresh_head

QUESTIONS = (500, 1000, 2000, 4000)
VOCABULARIES = (8_000, 32_000, 128_000, 262_000)
CHOICES, TOKENS = 4, 64


@dataclass(frozen=True)
class Job:
    """What a process does."""

    kind: str  # "scoring" or "training"
    n_questions: int
    vocabulary: int = 8_000

    def mebibytes(self) -> float:
        """The growth of this process's peak memory."""
        torch.set_num_threads(1)
        base = common.synthetic_base(self.vocabulary)
        score(Head(base), common.synthetic_pairs(1, 1, 8, self.vocabulary))
        before = _peak()
        pairs = common.synthetic_pairs(self.n_questions, CHOICES, TOKENS, self.vocabulary)
        with float32_products(base.model):
            if self.kind == "scoring":
                score(Head(base), pairs)
            else:
                with fresh_head(base, LoraSettings(), common.SEED) as head:
                    head.train()
                    answer_loss(base.model, base.batch(pairs)).backward()
        return _peak() - before


def _peak() -> float:
    """Peak memory of this process so far (resident), MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # in KiB on Linux


def measure(job: Job) -> float:
    """The job's memory, in a new process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(job.mebibytes)


def show(title: str, jobs: dict[int, Job], of: str, per: Callable[[int, float], str]) -> None:
    """Print a table: what each job takes, and the growth from the first to the last."""
    print(f"\n{title}")
    print(f"  {of:>12} {'MiB':>8}")
    found = {number: measure(job) for number, job in jobs.items()}
    for number, mebibytes in found.items():
        print(f"  {number:12,} {mebibytes:8.1f}")
    first, *_, last = found
    print(f"  {per(last - first, found[last] - found[first])}")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--small", action="store_true", help="few questions and tokens, quickly")
    small = parser.parse_args().small
    questions = QUESTIONS[:2] if small else QUESTIONS
    vocabularies = VOCABULARIES[:2] if small else VOCABULARIES
    show(
        f"scoring, {CHOICES} choices of {TOKENS} tokens",
        {count: Job("scoring", count) for count in questions},
        "questions",
        lambda more, grown: f"{1024 * grown / more:.2f} KiB for each question",
    )
    for kind, count in (("scoring", 64), ("training", 8)):
        show(
            f"{kind}, {count} questions",
            {size: Job(kind, count, size) for size in vocabularies},
            "vocabulary",
            lambda more, grown: f"{2**20 * grown / more:.0f} bytes for each token of it",
        )


if __name__ == "__main__":
    main()
