"""Several heads in one pass: each on a copy of the batch of its own.

The base's part of a layer is one product over all copies, and each head adds its low-rank update
to its copy. Weights are read once for all heads, and there are fewer and larger products.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import numpy as np
import torch
from peft.tuners.lora import Linear
from torch import Tensor
from torch.nn.functional import pad

from likra.engine.logprobs import copies_logprobs, token_logprobs
from likra.engine.memory import halves, in_parts
from likra.engine.packing import PADDING, Batch, Packed, moved
from likra.engine.products import float32_products
from likra.heads.base import BaseModel
from likra.heads.lora import Head, Layer, layers_on
from likra.heads.score import Floats, check_finite
from likra.progress import progress


class OtherShapeError(Exception):
    """A layer is not given the copies one after the other: a routed expert, say."""


class Stacked(torch.nn.Module):
    """A linear layer with the LoRA updates of several heads, each on a copy of its own.

    Attributes:
        plain: the base's layer.
        down: [heads, in, rank], float32; zeros where a head does not adapt the layer.
        up: [heads, rank, out], float32, scaled.

    """

    down: Tensor
    up: Tensor

    def __init__(self, plain: torch.nn.Module, adapted: Sequence[Linear | None]) -> None:
        super().__init__()
        self.plain = plain
        factors = [None if layer is None else _factors(layer) for layer in adapted]
        down, up = next(own for own in factors if own is not None)
        rank = max(own[0].shape[1] for own in factors if own is not None)
        none = down.new_zeros(down.shape[0], 0), up.new_zeros(0, up.shape[1])
        some = [own or none for own in factors]
        downs = [pad(own, (0, rank - own.shape[1])) for own, _ in some]
        ups = [pad(own, (0, 0, 0, rank - own.shape[0])) for _, own in some]
        self.register_buffer("down", torch.stack(downs))
        self.register_buffer("up", torch.stack(ups))

    def forward(self, inputs: Tensor) -> Tensor:
        """[copies of the batch, tokens, in] to [copies of the batch, tokens, out]."""
        heads = len(self.down)
        if inputs.dim() != 3 or len(inputs) % heads:
            raise OtherShapeError
        output: Tensor = self.plain(inputs)
        low = torch.bmm(inputs.reshape(heads, -1, inputs.shape[-1]).to(self.down.dtype), self.down)
        whole = output.reshape(heads, -1, output.shape[-1]).to(self.up.dtype)
        return torch.baddbmm(whole, low, self.up).view(output.shape).to(output.dtype)


def _factors(layer: Linear) -> tuple[Tensor, Tensor]:
    """[in, rank] and, scaled, [rank, out]."""
    (name,) = layer.active_adapters
    down, up = (cast(torch.nn.Linear, own[name]).weight for own in (layer.lora_A, layer.lora_B))
    return down.T, up.T * layer.scaling[name]


def stacked_layers(heads: Sequence[Head]) -> tuple[Layer, ...] | None:
    """The layers of all heads together; None where a head is more than plain LoRA.

    Raises:
        LikraError: a head cannot be read.

    """
    places: dict[tuple[torch.nn.Module, str], list[Linear | None]] = {}
    for number, head in enumerate(heads):
        for layer in head.layers:
            if not _is_plain_lora(layer.adapted):
                return None
            own = places.setdefault((layer.parent, layer.name), [None] * len(heads))
            own[number] = cast(Linear, layer.adapted)
    plain = {(own.parent, own.name): own.plain for head in heads for own in head.layers}
    return tuple(
        Layer(*place, plain[place], Stacked(plain[place], adapted))
        for place, adapted in places.items()
    )


def _is_plain_lora(layer: torch.nn.Module) -> bool:
    return (
        type(layer) is Linear
        and not layer.lora_variant  # DoRA and others
        and not any(layer.lora_bias.values())
        and len(layer.active_adapters) == 1
        and layer.active_adapters[0] in layer.lora_A
    )


class Together:
    """Heads of one base, scored in one pass where that is faster."""

    def __init__(self, heads: Sequence[Head]) -> None:
        """Read the heads; see `likra.heads.lora.Head.layers` for the errors."""
        self.heads = tuple(heads)
        self.base: BaseModel = heads[0].base
        self.layers = stacked_layers(heads) if len(heads) > 1 else None

    def is_small(self, packed: Packed) -> bool:
        """Whether the copies of a single batch fit into one; then one pass is faster.

        Of more, each head has passes of its own: batches that are full read the weights as rarely,
        and halved ones would be more of them (`python -m benchmarks.ranking`).
        """
        most = self.base.budget // len(self.heads)
        tokens = accumulate(batch.input_ids.numel() for batch in packed.batches)
        return all(count <= most for count in tokens)  # stops at the batch that is too much

    def logprobs(self, packed: Packed, name: str | None = None) -> list[Floats]:
        """Log-likelihood of each pair's answer under each head: for each [pairs], nats.

        Args:
            packed: the pairs, packed by the base.
            name: of the work, to show its progress.

        Raises:
            NotFiniteError: a score is not a finite number.

        """
        values = np.zeros((len(self.heads), len(packed)))
        together = self.is_small(packed)
        with progress(len(packed), name, "answers") as advance:
            for indices, batch in zip(packed.indices, packed.batches, strict=True):
                found = self._of_batch(batch, indices, together=together)
                values[:, indices] = found.sum(-1).double().cpu().numpy()
                advance(len(indices))
        return list(values)

    def token_logprobs(self, packed: Packed) -> list[list[Floats]]:
        """Log-probability of each token: for each head, for each pair [answer tokens], nats.

        Raises:
            NotFiniteError: a score is not a finite number.

        """
        values: list[list[Floats]] = [[np.zeros(0)] * len(packed) for _ in self.heads]
        together = self.is_small(packed)
        for indices, batch in zip(packed.indices, packed.batches, strict=True):
            scored = self._of_batch(batch, indices, together=together)
            found = scored.double().cpu().numpy()
            lengths = (batch.answers != PADDING).sum(-1).tolist()
            for own, rows in zip(values, found, strict=True):
                for index, row, length in zip(indices, rows, lengths, strict=True):
                    own[index] = row[:length]
        return values

    def _of_batch(self, batch: Batch, indices: Sequence[int], *, together: bool) -> Tensor:
        """[heads, pairs, answer tokens] float32."""

        def compute(part: Batch) -> Tensor:
            part = moved(part, self.base.device)
            found = self._in_one_pass(part) if together else None
            if found is None:
                found = torch.stack([self._alone(head, part) for head in self.heads])
            return pad(found, (0, batch.answers.shape[-1] - found.shape[-1]))

        with torch.inference_mode(), float32_products(self.base.model):
            values = torch.cat(in_parts(batch, compute, self.base.room, halves), dim=1)
        for own in values.sum(-1).tolist():
            check_finite(own, indices)
        return values

    def _in_one_pass(self, batch: Batch) -> Tensor | None:
        if self.layers is None:
            return None
        try:
            with layers_on(self.base, self.layers):
                return copies_logprobs(self.base.model, batch, len(self.heads))
        except OtherShapeError:
            self.layers = None
            return None

    @staticmethod
    def _alone(head: Head, batch: Batch) -> Tensor:
        with head.on() as model:
            return token_logprobs(model, batch)
