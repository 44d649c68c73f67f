"""Settings of LoRA and of training. Needs no torch."""

from dataclasses import dataclass

MLP = "mlp"  # the default target of LoRA: every linear layer of the MLPs, as in the paper


@dataclass(frozen=True)
class LoraSettings:
    """The shape of a head. The defaults are the paper's (section 3)."""

    r: int = 8
    alpha: int = 8
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = MLP


@dataclass(frozen=True)
class TrainingSettings:
    """How a head is trained. AdamW, constant learning rate, no weight decay, one pass.

    ``batch_size`` is the number of examples of one optimizer step; it is divided into
    ``gradient_accumulation_steps`` parts to save memory.
    """

    learning_rate: float = 1e-3
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
