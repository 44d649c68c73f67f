"""Settings of LoRA, of training and of sampling. Needs no torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MLP = "mlp"  # the default target of LoRA: every linear layer of the MLPs, as in the paper

Count = Annotated[int, Field(ge=1)]
# not strict: YAML reads 1e-4 as text
Positive = Annotated[float, Field(gt=0, strict=False)]


class Settings(BaseModel):
    """Values that are checked when they are set; the text below a field describes it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class LoraSettings(Settings):
    """The shape of a head. The defaults are the paper's (section 3)."""

    r: Count = 8
    """Rank of LoRA."""
    alpha: Count = 8
    """Updates of LoRA are scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    """Dropout before LoRA."""
    target_modules: str | Annotated[tuple[str, ...], Field(strict=False)] = MLP
    """'mlp' for every linear layer of the MLPs, or names of layers."""


class TrainingSettings(Settings):
    """How a head is trained: AdamW, constant learning rate, no weight decay, one pass."""

    learning_rate: Positive = 1e-3
    """Learning rate of the heads."""
    batch_size: Count = 8
    """Training examples of one optimizer step."""
    gradient_accumulation_steps: Count = 1
    """Equal parts that a batch is divided into, where memory requires it."""


class SamplingSettings(Settings):
    """How the base model's own answers are sampled, for the sampler ``generated``."""

    samples: Count = 8
    """Samples for each question."""
    temperature: Positive = 1.0
    """Temperature of the sampling."""
    max_new_tokens: Count = 24
    """Length at which a sample is cut, in tokens."""
    match: Literal["near", "exact"] = "near"
    """Samples that count as right answers: near matches, or exact ones only."""
