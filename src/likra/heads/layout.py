"""Do the forest and plain rows give the same scores? What decides the layout of a model."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from likra.engine import flex
from likra.engine.logprobs import answer_logprobs
from likra.engine.masks import sliding_window
from likra.engine.memory import Room, halves, in_parts, token_budget
from likra.engine.packing import (
    Batch,
    batch_indices,
    build_forest,
    build_padded,
    moved,
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
    model: PreTrainedModel, pairs: Sequence[TokenPair], rows: Sequence[int], room: Room
) -> Agreement:
    """Score the pairs as a forest, and those at ``rows`` as plain rows.

    They must agree to `score_tolerance`. Attention across branches is off by far more. Where it is
    FlexAttention that differs, the model attends with a dense mask from then on. What memory does
    not hold at once is computed in parts (`likra.engine.memory.in_parts`).
    """

    def scores(batch: Batch) -> Tensor:
        def compute(part: Batch) -> Tensor:
            return answer_logprobs(model, moved(part, model.device))

        return torch.cat(in_parts(batch, compute, room, halves))

    alone = [pairs[row] for row in rows]
    with torch.no_grad(), float32_products(model):
        plain = scores(build_padded(alone))
        tolerance = score_tolerance(model, alone, plain)

        def difference() -> float:
            return float((plain - scores(build_forest(pairs))[list(rows)]).abs().max())

        try:
            off = difference()
            if not off <= tolerance and flex.is_used(model):
                flex.refuse(model, f"its scores differ from those of plain rows by {off:.2g} nats")
                off = difference()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model that takes no such mask may fail in any way
            words = f"the model cannot take a branching mask ({type(error).__name__})"
            return Agreement(False, words)
    if off <= tolerance:
        words = f"same scores as the padded layout (largest difference {off:.1g} nats)"
        return Agreement(True, words)
    return Agreement(
        False, f"the model's attention cannot branch (scores differ by {off:.2g} nats)"
    )


def check_gradients(model: PreTrainedModel, pairs: Sequence[TokenPair]) -> None:
    """Refuse FlexAttention where its gradients are not those of a dense mask.

    They come from a kernel of their own, and no score would show that it is wrong.
    """
    if not flex.is_used(model):
        return
    batch = moved(build_forest(pairs), model.device)
    try:
        with flex.without(model):
            expected = _gradients(model, batch)
        found = _gradients(model, batch)[: len(expected)]
    except Exception as error:  # of the compiler or the driver, memory that is full: many types
        flex.refuse(model, f"its gradients cannot be checked ({type(error).__name__}: {error})")
        return
    off = float((found - expected).norm() / expected.norm())
    if not off <= (1e-3 if model.dtype == torch.float32 else 0.1):
        flex.refuse(model, f"its gradients differ from those of a dense mask by {off:.2g} of them")


def _gradients(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[nodes, hidden], of the scores' sum, by the embeddings of a forest's nodes."""
    embeddings: list[Tensor] = []

    def keep(module: torch.nn.Module, given: object, output: Tensor) -> None:
        embeddings.append(output.requires_grad_())

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad(), float32_products(model):
            total = answer_logprobs(model, batch).sum()
    finally:
        hook.remove()
    (gradients,) = torch.autograd.grad(total, embeddings[-1])
    return gradients[0].float()


def score_tolerance(model: PreTrainedModel, pairs: Sequence[TokenPair], logprobs: Tensor) -> float:
    """By how much the scores of two layouts may differ, in nats.

    1e-4 in float32, and a millionth of longer sums; in half precision, where even two batch sizes
    of one layout differ, 0.1 for each answer token.
    """
    if model.dtype != torch.float32:
        return 0.1 * max(len(pair.continuation) for pair in pairs)
    return 1e-4 + 1e-6 * float(logprobs.abs().max())


def probe_pairs(model: PreTrainedModel, max_length: int) -> list[TokenPair]:
    """Two prompts with three answers each, long enough to leave a short sliding window.

    For FlexAttention, long enough for blocks of every kind.
    """
    config = model.config.get_text_config()
    window = sliding_window(config) or 0
    least = 3 * flex.BLOCK if flex.is_used(model) else 24
    length = max(2, min(max(least, window + 8 if window <= MAX_PROBE else 0), max_length - 8))
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
    longest = lengths[place]
    budget = token_budget(model.device, sparse=flex.is_used(model))
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
