"""`transformers.Trainer` for heads: its settings, and a loss on packed batches."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments

from likra.engine.memory import Room, halves, in_parts
from likra.engine.packing import PADDING, Batch, Forest, Padded
from likra.errors import LikraError
from likra.heads import parallel
from likra.heads.base import BaseModel
from likra.heads.settings import TrainingSettings


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

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """None: to count them, the library walks through the whole model at each step."""
        return 0

    def _save_checkpoint(self, *arguments: Any) -> None:
        try:
            super()._save_checkpoint(*arguments)
        except (OSError, RuntimeError, SafetensorError) as error:  # a full disk, say
            text = " ".join(str(error).split())
            raise LikraError(
                f"cannot write the state of the training to '{self.args.output_dir}': {text} "
                "(TMPDIR names another place)"
            ) from error


class PackedTrainer(StepTrainer):
    """A trainer with a loss on packed batches, averaged over what `count` counts.

    Everything else (precision, accumulation) is the library's.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by the count of the whole step

    def __init__(
        self, *, data_collator: Callable[[list[Any]], Any], divided: bool = True, **settings: Any
    ) -> None:
        self.divided = divided and parallel.count() > 1  # each process has its share of a batch
        if self.divided:
            data_collator = partial(_collate_share, data_collator)
        super().__init__(data_collator=data_collator, **settings)
        self.room = Room()

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

    def halves(self, batch: Batch) -> list[Batch]:
        """A part in two whose losses add up to its own; none where it cannot be divided."""
        return halves(batch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The parts of the next optimizer step, and their count.

        The library counts the column ``labels``, less its first place in each row, which for
        answers alone is wrong.
        """
        parts, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(self.count(part) for part in parts if part), device=device)
        return parts, self._of_all(count)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One part of a step, forward and back; after the last one gradients are those of all.

        What memory does not hold is divided: sums divided by the count of the step add up.

        Returns:
            Its loss, that of all processes.

        """
        loss = torch.zeros((), device=self.args.device)
        if inputs:
            batch, more = _batch_of(inputs)
            compute = partial(self._there_and_back, model, more, num_items_in_batch)
            no_more: list[Batch] = []  # what the collator has put beside a batch is not divided
            halve = (lambda _: no_more) if more else self.halves
            loss = torch.stack(in_parts(batch, compute, self.room, halve)).sum()
        if self.divided and self.accelerator.sync_gradients:
            parallel.sum_gradients(model.parameters())
        loss = self._of_all(loss)
        self.part_losses.append(loss)
        return loss

    def _there_and_back(
        self,
        model: torch.nn.Module,
        more: dict[str, Tensor],
        count: Tensor | int | None,
        batch: Batch,
    ) -> Tensor:
        """The loss of a batch, its gradients added; where memory is full they are as before."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        before = [own.grad if own.grad is None else own.grad.clone() for own in trained]
        try:
            return super().training_step(model, {**vars(batch), **more}, count)
        except torch.OutOfMemoryError:
            for own, gradient in zip(trained, before, strict=True):
                own.grad = gradient
            raise

    def _of_all(self, value: Tensor) -> Tensor:
        return parallel.summed(value) if self.divided else value

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The loss on the examples set aside, averaged as that of a step.

        The library would average over its batches, and finds a loss by the column ``labels`` alone.
        """
        total = torch.zeros(2, dtype=torch.float64)  # of the loss, and of what it is averaged over
        model = cast(torch.nn.Module, self.model)
        model.eval()
        with torch.no_grad():
            for part in filter(None, self.get_eval_dataloader()):
                inputs, count = self._prepare_inputs(part), self.count(part)
                loss = cast(Tensor, self.compute_loss(model, inputs))
                total += torch.tensor([float(loss) * count, count], dtype=total.dtype)
        loss, count = self._of_all(total).tolist()
        metrics = {"eval_loss": loss / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """This part's share of the loss of its step."""
        batch, more = _batch_of(inputs)
        loss = self.packed_loss(cast(PeftModel, model), batch, more, num_items_in_batch)
        return (loss, {}) if return_outputs else loss


def _batch_of(inputs: dict[str, Tensor]) -> tuple[Batch, dict[str, Tensor]]:
    """The batch among a mapping of tensors, and what is beside it."""
    kind = Forest if "depth" in inputs else Padded
    names = {own.name for own in fields(kind)}
    batch = kind(**{name: tensor for name, tensor in inputs.items() if name in names})
    return batch, {name: tensor for name, tensor in inputs.items() if name not in names}


def _collate_share(collate: Callable[[list[Any]], Any], examples: list[Any]) -> Any:
    share = parallel.own_share(examples)
    return collate(share) if share else {}


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
    """The library's training arguments."""
    on_cpu = base.device.type == "cpu"
    return {
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": part_size(settings),
        "per_device_eval_batch_size": part_size(settings),
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_ratio,  # below 1, a part of all steps
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "bf16": base.model.dtype == torch.bfloat16,
        "train_sampling_strategy": "sequential",  # both heads see the questions in one order
        "remove_unused_columns": False,
        "dataloader_pin_memory": not on_cpu,
        "use_cpu": on_cpu,
        # SnapshotSaver keeps the losses; a tracker's callback is added by `likra.heads.tracking`
        "logging_strategy": "no" if settings.report_to == "none" else "steps",
        "logging_steps": 1,
        "project": "likra",
        "disable_tqdm": True,
        "report_to": "none",
        "seed": seed,
        "save_total_limit": 1,  # beside the best one
        **(_EARLY_STOPPING if settings.early_stopping_patience else {"save_strategy": "no"}),
    }


# A checkpoint after each epoch, in the scratch folder of the run, for EarlyStoppingCallback. Its
# count of epochs is part of the checkpoint, and is to be read back.
_EARLY_STOPPING = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "restore_callback_states_from_checkpoint": True,
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "greater_is_better": False,
}
