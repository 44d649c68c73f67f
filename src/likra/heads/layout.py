"""Do the forest and plain rows give the same scores? What decides the layout of a model."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from likra.engine.logprobs import answer_logprobs
from likra.engine.masks import sliding_window
from likra.engine.packing import (
    batch_indices,
    build_forest,
    build_padded,
    moved,
    token_budget,
)
from likra.engine.products import float32_products
from likra.engine.tokens import TokenPair

MAX_PROBE = 256  # a longer window is left only when pairs that long come: see `Compared`
ROWS = 4  # of a pack that are computed as plain rows, too, when it is checked


@dataclass
class Compared:
    """What the layouts of an opened model were compared on; it grows as other pairs come.

    Attributes:
        pair: tokens of the longest pair.
        pack: tokens of the largest pack, those that pairs share counted for each.
        fault: how the layouts differed, in words for the user; None as long as they agree.

    """

    pair: int = 0
    pack: int = 0
    fault: str | None = None

    def add(self, pairs: Sequence[TokenPair]) -> None:
        """Remember that they were compared on these pairs, packed together."""
        lengths = list(map(_length, pairs))
        self.pair, self.pack = max(self.pair, *lengths), max(self.pack, sum(lengths))


EVERYTHING = Compared(sys.maxsize, sys.maxsize)  # of a layout that somebody asked for


@dataclass(frozen=True)
class Agreement:
    """Whether two layouts agree, and how in words for the user."""

    holds: bool
    words: str


def compare_layouts(
    model: PreTrainedModel, pairs: Sequence[TokenPair], rows: Sequence[int]
) -> Agreement:
    """Score the pairs as a forest, and those at ``rows`` as plain rows.

    They must agree to `score_tolerance`. Attention across branches is off by far more.
    """
    alone = [pairs[row] for row in rows]
    with torch.no_grad(), float32_products():
        plain = answer_logprobs(model, moved(build_padded(alone), model.device))
        try:
            forest = answer_logprobs(model, moved(build_forest(pairs), model.device))
        except Exception as error:  # a model that takes no such mask may fail in any way
            words = f"the model cannot take a branching mask ({type(error).__name__})"
            return Agreement(False, words)
    off = float((plain - forest[list(rows)]).abs().max())
    if off <= score_tolerance(model, alone, plain):
        words = f"same scores as the padded layout (largest difference {off:.1g} nats)"
        return Agreement(True, words)
    return Agreement(
        False, f"the model's attention cannot branch (scores differ by {off:.2g} nats)"
    )


def score_tolerance(model: PreTrainedModel, pairs: Sequence[TokenPair], logprobs: Tensor) -> float:
    """By how much the scores of two layouts may differ, in nats.

    1e-4 in float32, and a millionth of longer sums; in half precision, where even two batch sizes
    of one layout differ, 0.1 for each answer token.
    """
    if model.dtype != torch.float32:
        return 0.1 * max(len(pair.continuation) for pair in pairs)
    return 1e-4 + 1e-6 * float(logprobs.abs().max())


def probe_pairs(model: PreTrainedModel, max_length: int) -> list[TokenPair]:
    """Two prompts with three answers each, long enough to leave a short sliding window."""
    config = model.config.get_text_config()
    window = sliding_window(config) or 0
    length = max(2, min(max(24, window + 8 if window <= MAX_PROBE else 24), max_length - 8))
    draw = random.Random(0)
    vocabulary = range(config.vocab_size)
    prompts = [draw.choices(vocabulary, k=n) for n in (length, max(2, length // 2))]
    return [TokenPair(p, draw.choices(vocabulary, k=4)) for p in prompts for _ in range(3)]


def new_kind(
    model: PreTrainedModel, compared: Compared, pairs: Sequence[TokenPair]
) -> list[TokenPair]:
    """The pack of the longest pair, that one first, if no comparison has covered it; else [].

    Pairs are new where the longest leaves a window of attention for the first time, and where
    packs of them have more than twice the tokens compared so far.
    """
    config = model.config.get_text_config()
    window = sliding_window(config) or getattr(config, "attention_chunk_size", None)
    lengths = list(map(_length, pairs))
    place = max(range(len(pairs)), key=lengths.__getitem__)
    longest, budget = lengths[place], token_budget(model.device.type)
    size = min(sum(lengths), max(budget, 4 * longest))
    leaves_window = window is not None and compared.pair <= window < longest
    if not leaves_window and size <= 2 * compared.pack:
        return []
    # another answer to its prompt, so that there is a branch
    other = [(token + 1) % config.vocab_size for token in pairs[place].continuation]
    batches = batch_indices(pairs, "forest", budget)
    near = next(indices for indices in batches if place in indices)
    branching = [pairs[place], replace(pairs[place], continuation=other)]
    return [*branching, *(pairs[index] for index in near if index != place)]


def spread(count: int) -> range:
    """Up to `ROWS` places among so many, the first one included, evenly spread."""
    return range(0, count, -(-count // ROWS))


def _length(pair: TokenPair) -> int:
    return len(pair.context) + len(pair.continuation) - 1
