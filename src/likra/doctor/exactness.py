"""Is the forest exact? Scores, gradients and training beside plain rows, one row for each pair."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from likra.doctor.measured import Measured
from likra.doctor.tiny import WINDOW
from likra.engine.logprobs import answer_logprobs
from likra.engine.packing import Batch, build_forest, build_padded
from likra.engine.tokens import TokenPair
from likra.heads.base import BaseModel
from likra.heads.layout import EVERYTHING
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.train import train_head

IN_FLOAT64 = 1e-10  # nats; of gradients, relative to the largest
WRONG_MASK = 1e-3  # nats: what a wrong mask must be off by, for the others to mean something
TRAINING = 1e-4  # nats per answer token, at any step: float32 rounds each step on its way
BATCH = 4


class Float64(TorchFunctionMode):
    """Compute in float64 where a model asks for float32, as for its norms and rotations."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function with the other dtype."""
        func = torch.Tensor.double if func is torch.Tensor.float else func
        args = tuple(map(_wider, args))
        return func(*args, **{name: _wider(value) for name, value in (kwargs or {}).items()})


def _wider(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def check_computes(model: PreTrainedModel) -> None:
    """Compute a plain row in float64; what a model cannot do raises its own error."""
    pairs = random_pairs(1, 1, vocabulary=_vocabulary(model))
    _scores_and_gradients(model.double().requires_grad_(True), build_padded(pairs))


def in_float64(model: PreTrainedModel) -> Iterator[Measured]:
    """Scores and gradients of all parameters in float64, beside those of plain rows.

    With the control: a mask by which answers see one another gives other scores.
    """
    model = model.double().requires_grad_(True)
    pairs = random_pairs(3, 4, vocabulary=_vocabulary(model))
    forest, rows = build_forest(pairs), build_padded(pairs)
    scores, gradients = _scores_and_gradients(model, rows)
    own_scores, own_gradients = _scores_and_gradients(model, forest)
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    off = max(
        float((own - gradient).abs().max())
        for own, gradient in zip(own_gradients, gradients, strict=True)
    )
    everything_before = replace(forest, end=torch.full_like(forest.end, len(forest.end)))
    wrong, _ = _scores_and_gradients(model, everything_before)
    yield Measured("scores in float64", _difference(own_scores, scores), "nats", IN_FLOAT64)
    yield Measured("gradients in float64", off / largest, "of the largest", IN_FLOAT64)
    yield Measured(
        "control: a wrong mask", _difference(wrong, scores), "nats", WRONG_MASK, at_least=True
    )


def _scores_and_gradients(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """[pairs], and the gradient of their sum for each parameter that has one."""
    model.zero_grad()
    with Float64():
        scores = answer_logprobs(model, batch)
        scores.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return scores.detach(), gradients


def _difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def training(base: BaseModel, model: PreTrainedModel, steps: int) -> Measured:
    """The largest difference of the loss at any step of training a head on the same examples.

    The head is on the model, which takes the place of the base's own.
    """
    examples = random_pairs(steps * BATCH, 1, vocabulary=_vocabulary(model))
    model = model.float().requires_grad_(False)
    lora = LoraSettings(target_modules=_linear_layers(model))
    settings = TrainingSettings(batch_size=BATCH)
    losses = []
    for layout in ("forest", "padded"):
        tiny = replace(base, model=model, layout=layout, compared=EVERYTHING)
        with TemporaryDirectory(prefix="likra-") as folder:
            snapshots = {len(examples): Path(folder) / "head"}
            losses.append(
                train_head(tiny, examples, snapshots, settings=settings, lora=lora, name=None)
            )
    off = _difference(*map(torch.tensor, losses))
    return Measured(f"loss in {steps} training steps", off, "nats per token", TRAINING)


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def _linear_layers(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of all linear layers but the LM head."""
    kinds, head = (torch.nn.Linear, Conv1D), model.get_output_embeddings()
    layers = {n: layer for n, layer in model.named_modules() if isinstance(layer, kinds)}
    return tuple(sorted({n.rsplit(".", 1)[-1] for n, layer in layers.items() if layer is not head}))


def random_pairs(
    n_prompts: int, n_answers: int, longest: int = 2 * WINDOW + 8, *, vocabulary: int
) -> list[TokenPair]:
    """Prompts of random tokens, up to the longest, each with so many answers that share beginnings.

    The first prompt is the longest, and leaves the window of a tiny model.
    """
    draw, pairs = random.Random(0), []
    for number in range(n_prompts):
        length = longest if number == 0 else draw.randint(2, longest)
        prompt = draw.choices(range(3, vocabulary), k=length)
        start = draw.choices(range(3, vocabulary), k=2)
        for _ in range(n_answers):
            own = draw.choices(range(3, vocabulary), k=draw.randint(1, 4))
            pairs.append(TokenPair(prompt, start[: draw.randint(0, 2)] + own))
    return pairs
