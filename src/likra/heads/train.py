"""Training one head: one pass over its answers, with snapshots at given numbers of examples."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from accelerate.utils import get_int_from_env
from peft import PeftModel
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from likra.atomic import write_text
from likra.engine.logprobs import answer_loss
from likra.engine.packing import LAYOUTS, PADDING, Batch, Forest, Padded
from likra.engine.products import float32_products
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import BaseModel, checked_layout
from likra.heads.lora import fresh_head, save_head
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.progress import Advance, progress

# How many processes were started together, as accelerate finds it.
WORLD = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]

Example = TokenPair | Sequence[TokenPair]


def check_can_train(base: BaseModel) -> None:
    """Refuse a base or a launch under which training would go wrong.

    Raises:
        LikraError: a base in float16, whose gradients vanish without a scaler; or several
            processes, which would train the same head.

    """
    if base.model.dtype == torch.float16:
        raise LikraError("training in float16 is not supported: choose bfloat16 or float32")
    if get_int_from_env(WORLD, 1) > 1:
        raise LikraError(
            "training runs in one process: start it without `accelerate launch` and torchrun"
        )


def check_snapshots(snapshots: Sequence[int], batch_size: int, n_questions: int) -> None:
    """Refuse numbers of examples at which no snapshot can be taken.

    A snapshot after n examples equals a run on the first n. That holds where n is a whole number
    of batches, or the end of the run.

    Raises:
        LikraError: not ascending, more than there are questions, or within a batch.

    """
    if not snapshots or list(snapshots) != sorted(set(snapshots)) or snapshots[0] < 1:
        raise LikraError(f"snapshots must be ascending positive numbers, not {list(snapshots)}")
    if snapshots[-1] > n_questions:
        raise LikraError(
            f"a snapshot at {snapshots[-1]} examples needs as many training questions, "
            f"and there are {n_questions}"
        )
    for n in snapshots[:-1]:
        if n % batch_size:
            raise LikraError(
                f"a snapshot at {n} examples falls within a batch of {batch_size}: "
                "only the last one may"
            )


def train_head(  # noqa: PLR0913 - what is trained, how, and what is kept
    base: BaseModel,
    pairs: Sequence[Example],
    snapshots: Mapping[int, Path | str],
    *,
    settings: TrainingSettings | None = None,
    lora: LoraSettings | None = None,
    seed: int = 0,
    name: str | None = "head",
    stamps: Mapping[int, Mapping[str, object]] | None = None,
    losses: Path | None = None,
) -> list[float]:
    """Train one head on the pairs, in their order, and save it at the given numbers of examples.

    Each snapshot is a plain PEFT folder, written whole or not at all. The base comes back
    bit-identical.

    Args:
        base: the frozen base model.
        pairs: the (prompt, answer) pair of each example, or all its pairs; those after the last
            snapshot are not used.
        snapshots: folder by number of examples.
        settings: learning rate and batch.
        lora: the shape of the head.
        seed: of the head's initialisation.
        name: shown with the progress; None shows nothing.
        stamps: by number of examples, what is written into the snapshot's metadata: see
            `likra.heads.stamp`.
        losses: a file for the losses as CSV; it is complete before the last snapshot is written.

    Returns:
        The loss of each optimizer step: nats per answer token.

    Raises:
        LikraError: see `check_snapshots` and `check_can_train`; or the loss is not a number.

    """
    settings = settings or TrainingSettings()
    folders = {n: Path(folder) for n, folder in snapshots.items()}
    n_examples = max(folders, default=0)
    check_snapshots(sorted(folders), settings.batch_size, len(pairs))
    check_can_train(base)
    examples = [[e] if isinstance(e, TokenPair) else list(e) for e in pairs[:n_examples]]
    layout = checked_layout(base, [pair for example in examples for pair in example]).layout

    def trainer_of(head: PeftModel, scratch: str) -> StepTrainer:
        return HeadTrainer(
            model=head,
            args=TrainingArguments(output_dir=scratch, **trainer_settings(base, settings, seed)),
            data_collator=partial(_collate, layout),
            train_dataset=examples,
        )

    with fresh_head(base, lora or LoraSettings(), seed) as head:
        return train_and_save(head, trainer_of, folders, settings, name, stamps, losses)


def _collate(layout: str, examples: list[list[TokenPair]]) -> dict[str, Tensor]:
    """Examples to one batch, as the mapping of tensors that the Trainer moves to its device."""
    return dict(vars(LAYOUTS[layout]([pair for pairs in examples for pair in pairs])))


class StepTrainer(Trainer):
    """`transformers.Trainer` on one device, which tells the loss of its optimizer steps."""

    def __init__(self, *, args: TrainingArguments, **settings: Any) -> None:
        # With several GPUs visible, the Trainer would wrap the model in DataParallel, which has no
        # ``config``, and a step would take a batch on each.
        if args.n_gpu > 1:
            args._n_gpu = 1
        super().__init__(args=args, **settings)
        self.part_losses: list[Tensor] = []  # of the optimizer step under way
        self.remove_callback(PrinterCallback)

    def step_loss(self) -> float:
        """The loss of the optimizer step just done, summed over its parts."""
        total = torch.stack(self.part_losses).sum()
        self.part_losses.clear()
        return float(total)


class PackedTrainer(StepTrainer):
    """A trainer with a loss on packed batches, averaged over what `count` counts.

    Everything else (precision, accumulation) is the library's.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the count of the whole step

    def count(self, part: dict[str, Tensor]) -> int:
        """What the loss of a part is averaged over: its answer tokens."""
        return int((part["answers"] != PADDING).sum())

    def packed_loss(
        self, model: PeftModel, batch: Batch, more: dict[str, Tensor], count: Tensor | int | None
    ) -> Tensor:
        """The loss of a part, summed and divided by the count (None for the part's own).

        ``more`` is what the collator has put beside the batch.
        """
        raise NotImplementedError

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The parts of the next optimizer step, and their count.

        The library counts the column ``labels``, less its first place in each row, which for
        answers alone is wrong.
        """
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return parts, torch.tensor(sum(map(self.count, parts)), device=device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """This part's share of the loss of its step."""
        kind = Forest if "depth" in inputs else Padded
        names = {own.name for own in fields(kind)}
        batch = kind(**{name: tensor for name, tensor in inputs.items() if name in names})
        more = {name: tensor for name, tensor in inputs.items() if name not in names}
        loss = self.packed_loss(cast(PeftModel, model), batch, more, num_items_in_batch)
        self.part_losses.append(loss.detach())
        return (loss, {}) if return_outputs else loss


class HeadTrainer(PackedTrainer):
    """A trainer with the mean negative log-probability per answer token, in nats."""

    def packed_loss(
        self, model: PeftModel, batch: Batch, more: dict[str, Tensor], count: Tensor | int | None
    ) -> Tensor:
        """See `likra.engine.logprobs.answer_loss`."""
        # a PeftModel has all attributes of its base
        return answer_loss(cast(PreTrainedModel, model), batch, count)


@dataclass(eq=False)
class SnapshotSaver(TrainerCallback):
    """Saves the head at given numbers of examples; keeps the losses; shows the progress."""

    trainer: StepTrainer
    head: PeftModel
    batch_size: int
    advance: Advance
    folders: Mapping[int, Path]
    stamps: Mapping[int, Mapping[str, object]]
    losses_file: Path | None
    losses: list[float] = field(default_factory=list)
    n_seen: int = 0

    def train(self) -> list[float]:
        """Train to the end, and return the loss of each optimizer step."""
        self.trainer.add_callback(self)
        with float32_products():
            self.trainer.train()
        return self.losses

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the step's loss, and save the head where a snapshot is due."""
        loss = self.trainer.step_loss()
        if not math.isfinite(loss):
            raise LikraError(
                f"the loss became {loss} at step {state.global_step}: lower the learning rate"
            )
        self.losses.append(loss)
        last = max(self.folders)
        seen = min(state.global_step * self.batch_size, last)
        self.advance(seen - self.n_seen, loss=loss)
        self.n_seen = seen
        # the last snapshot says that the training is complete, so the losses come before it
        if seen == last and self.losses_file is not None:
            rows = [f"{step},{loss!r}\n" for step, loss in enumerate(self.losses, start=1)]
            write_text(self.losses_file, "".join(["step,loss\n", *rows]))
        if seen in self.folders:
            save_head(self.head, self.folders[seen], self.stamps.get(seen))


def train_and_save(
    head: PeftModel,
    trainer_of: Callable[[PeftModel, str], StepTrainer],
    folders: Mapping[int, Path],
    settings: TrainingSettings,
    name: str | None,
    stamps: Mapping[int, Mapping[str, object]] | None,
    losses: Path | None,
) -> list[float]:
    """Train a head to its last snapshot, with its progress shown, and return the losses.

    ``trainer_of`` makes the trainer of the head; it is given a folder that is removed at the end.
    """
    with (
        TemporaryDirectory(prefix="likra-") as scratch,
        progress(max(folders), name, "examples") as advance,
    ):
        trainer = trainer_of(head, scratch)
        batch = settings.batch_size
        return SnapshotSaver(trainer, head, batch, advance, folders, stamps or {}, losses).train()


def part_size(settings: TrainingSettings) -> int:
    """Examples of one forward pass.

    Raises:
        LikraError: the batch cannot be divided into so many parts.

    """
    parts = settings.gradient_accumulation_steps
    if parts < 1 or settings.batch_size % parts:
        raise LikraError(
            f"a batch of {settings.batch_size} cannot be divided into {parts} equal parts"
        )
    return settings.batch_size // parts


def trainer_settings(base: BaseModel, settings: TrainingSettings, seed: int) -> dict[str, Any]:
    """The library's training arguments: one pass in order, at a constant learning rate."""
    on_cpu = base.device.type == "cpu"
    return {
        "num_train_epochs": 1,
        "per_device_train_batch_size": part_size(settings),
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "bf16": base.model.dtype == torch.bfloat16,
        "train_sampling_strategy": "sequential",  # both heads see the questions in one order
        "remove_unused_columns": False,
        "dataloader_pin_memory": not on_cpu,
        "use_cpu": on_cpu,
        "logging_strategy": "no",  # SnapshotSaver keeps the losses
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": "none",
        "seed": seed,
    }
