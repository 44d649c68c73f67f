"""Training one head: one pass over its answers, with snapshots at given numbers of examples."""

import csv
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from likra.engine.logprobs import answer_loss
from likra.engine.packing import LAYOUTS, PADDING, Forest, Padded
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.heads.lora import fresh_head, save_head
from likra.heads.settings import LoraSettings, TrainingSettings


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


def train_head(
    base: BaseModel,
    pairs: Sequence[TokenPair] | Sequence[Sequence[TokenPair]],
    snapshots: Mapping[int, Path | str],
    *,
    settings: TrainingSettings | None = None,
    lora: LoraSettings | None = None,
    seed: int = 0,
    name: str = "head",
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
        name: shown on the progress bar.

    Returns:
        The loss of each optimizer step: nats per answer token.

    Raises:
        LikraError: see `check_snapshots`; or the loss is not a number.

    """
    settings = settings or TrainingSettings()
    folders = {n: Path(folder) for n, folder in snapshots.items()}
    ends = sorted(folders)
    check_snapshots(ends, settings.batch_size, len(pairs))
    bar = tqdm(total=ends[-1], desc=name, unit=" examples", leave=False)
    with fresh_head(base, lora or LoraSettings(), seed) as head, scratch_folder() as scratch, bar:
        trainer = HeadTrainer(
            model=head,
            args=_arguments(base, settings, seed, scratch),
            data_collator=_Collator(base.layout),
            train_dataset=list(pairs[: ends[-1]]),
        )
        watch = SnapshotSaver(trainer, folders, settings.batch_size, bar)
        trainer.add_callback(watch)
        trainer.train()
    return watch.losses


def write_losses(path: Path, losses: Sequence[float]) -> None:
    """``step,loss`` as CSV, written whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss"])
        writer.writerows([step, repr(loss)] for step, loss in enumerate(losses, start=1))
    temporary.replace(path)


class HeadTrainer(Trainer):
    """`transformers.Trainer` with the loss on the answers of a packed batch.

    Everything else (precision, accumulation, data parallelism, sharding) is the library's.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the tokens of the whole step

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.part_losses: list[torch.Tensor] = []  # of the optimizer step under way
        self.remove_callback(PrinterCallback)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The parts of the next optimizer step, and how many answer tokens they hold.

        The library counts the column ``labels``, less its first place in each row, which for
        answers alone is wrong.
        """
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(int((part["answers"] != PADDING).sum()) for part in parts))
        return parts, self.accelerator.gather(count.to(device)).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This part's share of the mean negative log-probability per answer token, in nats."""
        kind = Forest if "depth" in inputs else Padded
        loss = answer_loss(model, kind(**inputs), num_items_in_batch)
        self.part_losses.append(loss.detach())
        loss = loss * self.accelerator.num_processes  # gradients are averaged over them
        return (loss, {}) if return_outputs else loss

    def step_loss(self) -> float:
        """The loss of the optimizer step just done, summed over its parts and processes."""
        total = torch.stack(self.part_losses).sum()
        self.part_losses.clear()
        return float(self.accelerator.gather(total).sum())


class _Collator:
    """Pairs to one batch, as the mapping of tensors that the Trainer moves to its device."""

    def __init__(self, layout: str) -> None:
        self.layout = layout

    def __call__(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        pairs = [p for e in examples for p in ([e] if isinstance(e, TokenPair) else e)]
        return dict(vars(LAYOUTS[self.layout](pairs)))


class SnapshotSaver(TrainerCallback):
    """Saves the head at given numbers of examples; keeps the losses; shows the progress."""

    def __init__(
        self, trainer: HeadTrainer, folders: dict[int, Path], batch_size: int, bar: Any
    ) -> None:
        self.trainer = trainer
        self.folders = folders
        self.batch_size = batch_size
        self.losses: list[float] = []
        self.bar = bar

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the step's loss, and save the head where a snapshot is due."""
        loss = self.trainer.step_loss()
        if not math.isfinite(loss):
            raise LikraError(
                f"the loss became {loss} at step {state.global_step}: lower the learning rate"
            )
        self.losses.append(loss)
        seen = min(state.global_step * self.batch_size, max(self.folders))
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update(seen - self.bar.n)
        if seen in self.folders and state.is_world_process_zero:
            save_head(self.trainer.model, self.folders[seen])


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for what the library's trainers insist on writing; gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="likra-")


def _arguments(
    base: BaseModel, settings: TrainingSettings, seed: int, scratch: str
) -> TrainingArguments:
    parts = settings.gradient_accumulation_steps
    if parts < 1 or settings.batch_size % parts:
        raise LikraError(
            f"a batch of {settings.batch_size} cannot be divided into {parts} equal parts"
        )
    on_cpu = base.device.type == "cpu"
    return TrainingArguments(
        output_dir=scratch,
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch_size // parts,
        gradient_accumulation_steps=parts,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        optim="adamw_torch",
        bf16=base.model.dtype == torch.bfloat16,
        train_sampling_strategy="sequential",  # both heads see the questions in one order
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        use_cpu=on_cpu,
        logging_strategy="no",  # SnapshotSaver keeps the losses
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        seed=seed,
    )
