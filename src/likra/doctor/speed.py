"""How fast this machine is, beside the rate at which it multiplies matrices of the same shapes."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import median

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from likra.doctor.exactness import random_pairs
from likra.doctor.measured import Measured
from likra.engine.logprobs import answer_loss
from likra.engine.memory import token_budget
from likra.engine.packing import Batch, Packed, moved, pack
from likra.engine.products import float32_products
from likra.heads.base import BaseModel
from likra.heads.lora import Head, fresh_head
from likra.heads.score import score

SECONDS = 0.5  # of one thing that is timed, unless three runs of it take longer
RUNS = 3
PROMPT, ANSWERS = 64, 4  # tokens, and answers to each: about as in ARC
# Products that a pass takes for each of the forward pass: a frozen layer passes its gradient on to
# its inputs, and has none of its own.
TRAINING_PRODUCTS = 2
LINEAR = 0.9  # part of the parameters outside the embedding in linear layers, to speak of a share

Shape = tuple[int, int, int]  # rows, in, out


def speed(base: BaseModel) -> Iterator[Measured]:
    """Tokens per second of a scoring pass and of a training step, and their share of the rate.

    Raises:
        LikraError: LoRA's default layers are not there.

    """
    budget = token_budget(base.device.type)
    vocabulary = base.model.config.get_text_config().vocab_size
    pairs = random_pairs(budget // PROMPT + 1, ANSWERS, PROMPT, vocabulary=vocabulary)
    packed = pack(pairs, base.layout, budget)
    batch = moved(max(packed.batches, key=lambda one: one.input_ids.numel()), base.device)
    count = batch.input_ids.numel()
    with float32_products(base.model):
        shapes = _products(base.model, batch)
        bare = sum(n * _seconds(base, _product(base, shape)) for shape, n in shapes.items())
        passes = {
            "scoring": (_seconds(base, _scoring(base, batch)), 1),
            "training": (_training(base, batch), TRAINING_PRODUCTS),
        }
    flops = sum(2 * n * rows * inner * outer for (rows, inner, outer), n in shapes.items())
    yield Measured("matrix products of the model's shapes", flops / bare / 1e9, "GFLOP/s")
    for name, (seconds, products) in passes.items():
        yield Measured(f"{name}, {count:,} tokens at once", count / seconds, "tokens/s")
        if _is_linear(base.model):
            yield Measured(f"{name}, of the products' rate", products * bare / seconds, "share")


def _products(model: PreTrainedModel, batch: Batch) -> Counter[Shape]:
    """The matrix products of a forward pass, by their shape."""
    head = model.get_output_embeddings()
    tokens, positions = batch.input_ids.numel(), int(batch.answer_positions.max()) + 1
    shapes: Counter[Shape] = Counter()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            rows = positions if layer is head else tokens
            shapes[rows, layer.in_features, layer.out_features] += 1
        elif isinstance(layer, Conv1D):
            shapes[tokens, layer.weight.shape[0], layer.weight.shape[1]] += 1
    return shapes


def _is_linear(model: PreTrainedModel) -> bool:
    """Whether nearly all work is in linear layers; routed experts, say, are others."""
    kinds = (torch.nn.Linear, Conv1D)
    inside = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, kinds)}
    embedding = model.get_input_embeddings().weight
    inside.pop(id(embedding), None)
    others = sum(own.numel() for own in model.parameters() if own is not embedding)
    return sum(inside.values()) >= LINEAR * others


def _product(base: BaseModel, shape: Shape) -> Callable[[], object]:
    rows, inner, outer = shape
    left, right = torch.randn(rows, inner), torch.randn(outer, inner)
    inputs, weights = (own.to(base.device, base.model.dtype) for own in (left, right))
    return lambda: torch.nn.functional.linear(inputs, weights)


def _scoring(base: BaseModel, batch: Batch) -> Callable[[], object]:
    packed = Packed((list(range(len(batch.answers))),), (batch,))
    return lambda: score(Head(base), packed)


def _training(base: BaseModel, batch: Batch) -> float:
    """Seconds of a training step: forward and backward, and the optimizer's."""
    with fresh_head(base, None, seed=0) as head:
        head.train()
        own = [parameter for parameter in head.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(own)

        def step() -> None:
            answer_loss(base.model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()

        return _seconds(base, step)


def _seconds(base: BaseModel, work: Callable[[], object]) -> float:
    """The median of several runs, after one that is not counted."""
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(seconds) <= RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        if base.device.type != "cpu":
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])
