"""Settings of LoRA, of training and of sampling. Needs no torch."""

import math
from collections.abc import Iterable
from enum import Enum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from likra.errors import LikraError

MLP = "mlp"  # the default target of LoRA: every linear layer of the MLPs, as in the paper

Count = Annotated[int, Field(ge=1, lt=2**31)]  # score tables hold it in 32 bits, with a sign
# not strict: YAML reads 1e-4 as text
Positive = Annotated[float, Field(gt=0, strict=False)]


class InStamp(Enum):
    """Whether a setting is in the stamp of what it decides, in a field's ``Annotated``.

    Without it: always.
    """

    UNLESS_DEFAULT = "unless default"  # it came after the first stamps, which so stay valid
    NEVER = "never"  # it decides no number


class Settings(BaseModel):
    """Values that are checked when they are set; the text below a field describes it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def stamped(self) -> dict[str, object]:
        """What of it enters a stamp, as JSON values: see `InStamp`."""
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            is_default = getattr(self, name) == field.default
            if InStamp.NEVER in field.metadata or (
                InStamp.UNLESS_DEFAULT in field.metadata and is_default
            ):
                del values[name]
        return values


class LoraSettings(Settings):
    """The shape of a head. The defaults are the paper's (section 3)."""

    r: Annotated[int, Field(ge=1, le=4096)] = 8
    """Rank of LoRA."""
    alpha: Count = 8
    """Updates of LoRA are scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    """Dropout before LoRA."""
    target_modules: str | Annotated[tuple[str, ...], Field(strict=False)] = MLP
    """'mlp' for every linear layer of the MLPs, or names of layers."""
    use_dora: Annotated[bool, InStamp.UNLESS_DEFAULT] = False
    """DoRA: the length of each row of a weight is learned apart from its direction."""
    use_rslora: Annotated[bool, InStamp.UNLESS_DEFAULT] = False
    """rsLoRA: updates are scaled by alpha / sqrt(r), and not by alpha / r."""


Schedule = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "polynomial", "inverse_sqrt"
]

Tracker = Literal["none", "tensorboard", "wandb", "trackio", "mlflow"]


class TrainingSettings(Settings):
    """How a head is trained: by AdamW without weight decay."""

    learning_rate: Positive = 1e-3
    """Learning rate of the heads."""
    batch_size: Count = 8
    """Training examples of one optimizer step."""
    gradient_accumulation_steps: Count = 1
    """Equal parts that a batch is divided into, where memory requires it."""
    epochs: Annotated[Count, InStamp.UNLESS_DEFAULT] = 1
    """Passes over the training examples, each in the same order."""
    lr_scheduler_type: Annotated[Schedule, InStamp.UNLESS_DEFAULT] = "constant"
    """How the learning rate changes, by the Trainer's names: constant, constant_with_warmup,
    linear, cosine, polynomial or inverse_sqrt."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1, strict=False), InStamp.UNLESS_DEFAULT] = 0.0
    """Part of the steps over which the learning rate rises from 0, in all schedules but
    constant."""

    early_stopping_patience: Annotated[int, Field(ge=0), InStamp.UNLESS_DEFAULT] = 0
    """Epochs without a lower loss on the examples set aside, after which a training run stops; the
    head of its best epoch is kept. 0 trains all epochs, on all examples."""
    set_aside: Annotated[float, Field(gt=0, lt=1, strict=False), InStamp.UNLESS_DEFAULT] = 0.1
    """Part of the examples that early stopping sets aside: the last ones of each run."""

    report_to: Annotated[Tracker, InStamp.NEVER] = "none"
    """Where the loss and the learning rate of each step are shown: none, tensorboard, wandb,
    trackio or mlflow."""

    @model_validator(mode="after")
    def _stops_early(self) -> "TrainingSettings":
        if self.early_stopping_patience and self.epochs == 1:
            raise LikraError(
                "training.early_stopping_patience is for several epochs: set training.epochs to "
                "the most that are worth training"
            )
        is_default = self.set_aside == type(self).model_fields["set_aside"].default
        if not is_default and not self.early_stopping_patience:
            raise LikraError(
                "training.set_aside is for early stopping: set training.early_stopping_patience"
            )
        return self

    @model_validator(mode="after")
    def _warms_up(self) -> "TrainingSettings":
        if self.warmup_ratio and self.lr_scheduler_type == "constant":
            raise LikraError(
                "training.warmup_ratio needs a schedule that warms up: set "
                "training.lr_scheduler_type to constant_with_warmup, linear or cosine"
            )
        return self

    @property
    def is_one_pass(self) -> bool:
        """Whether a run on more examples begins as a run on fewer."""
        return self.epochs == 1 and self.lr_scheduler_type == "constant"

    def n_trained(self, n: int) -> int:
        """How many of a run's n examples are trained on; those set aside are the last ones."""
        return n - (math.ceil(n * self.set_aside) if self.early_stopping_patience else 0)

    def n_seen(self, n: int, step: int) -> int:
        """How many examples have gone through the model after so many steps, in all epochs.

        Those of a run on n examples.
        """
        of_epoch = self.n_trained(n)
        epoch, rest = divmod(step, math.ceil(of_epoch / self.batch_size))
        return epoch * of_epoch + min(rest * self.batch_size, of_epoch)

    def runs(self, snapshots: Iterable[int]) -> list[tuple[int, ...]]:
        """The snapshots, in numbers of examples, by the training run that saves them.

        A snapshot after n examples is a run on the first n. Where a longer run does not begin as
        a shorter one, each snapshot takes a run of its own.
        """
        numbers = tuple(sorted(snapshots))
        return [numbers] if self.is_one_pass else [(n,) for n in numbers]


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
