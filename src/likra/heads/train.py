"""Training one head on its answers, with snapshots at given numbers of examples."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from accelerate.utils import get_int_from_env
from peft import PeftModel
from torch import Tensor
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from likra.atomic import write_text
from likra.engine.logprobs import answer_loss
from likra.engine.packing import LAYOUTS, Batch
from likra.engine.products import float32_products
from likra.engine.tokens import TokenPair
from likra.errors import LikraError, NotFiniteError
from likra.heads.base import BaseModel, checked_layout
from likra.heads.lora import fresh_head, save_head
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.tracking import tracked
from likra.heads.trainer import PackedTrainer, StepTrainer, trainer_settings
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


def check_snapshots(snapshots: Sequence[int], settings: TrainingSettings, n_questions: int) -> None:
    """Refuse numbers of examples at which no snapshot can be taken.

    A snapshot after n examples equals a run on the first n. That holds where n is a whole number
    of batches, or the end of a run.

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
    if not settings.n_trained(snapshots[0]):
        raise LikraError(
            f"training.set_aside: of {snapshots[0]} examples, {settings.set_aside:g} set aside "
            "leaves none to train on"
        )
    for run in settings.runs(snapshots):
        for n in run[:-1]:
            if n % settings.batch_size:
                raise LikraError(
                    f"a snapshot at {n} examples falls within a batch of {settings.batch_size}: "
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
    start: Path | None = None,
    name: str | None = "head",
    stamps: Mapping[int, Mapping[str, object]] | None = None,
    losses: Path | None = None,
) -> list[float]:
    """Train one head on the pairs, in their order, and save it at the given numbers of examples.

    Each snapshot is a plain PEFT folder, written whole or not at all. A snapshot after n examples
    equals a run on the first n: see `TrainingSettings.runs`. The base comes back bit-identical.

    Args:
        base: the frozen base model.
        pairs: the (prompt, answer) pair of each example, or all its pairs; those after the last
            snapshot are not used.
        snapshots: folder by number of examples.
        settings: learning rate, batch, epochs and early stopping.
        lora: the shape of the head.
        seed: of the head's initialisation.
        start: a saved head to go on from, in a PEFT folder: see `likra.heads.lora.fresh_head`.
        name: shown with the progress; None shows nothing.
        stamps: by number of examples, what is written into the snapshot's metadata: see
            `likra.heads.stamp`.
        losses: a file for the losses as CSV; it is complete before the last snapshot is written.

    Returns:
        The loss of each optimizer step of the run on most examples: nats per answer token.

    Raises:
        LikraError: see `check_snapshots` and `check_can_train`.
        NotFiniteError: the loss is not a finite number.

    """
    settings = settings or TrainingSettings()
    folders = {n: Path(folder) for n, folder in snapshots.items()}
    n_examples = max(folders, default=0)
    check_snapshots(sorted(folders), settings, len(pairs))
    check_can_train(base)
    examples = [[e] if isinstance(e, TokenPair) else list(e) for e in pairs[:n_examples]]
    layout = checked_layout(base, [pair for example in examples for pair in example]).layout

    def trainer_of(head: PeftModel, n: int, arguments: dict[str, Any]) -> StepTrainer:
        return HeadTrainer(
            model=head,
            args=TrainingArguments(**trainer_settings(base, settings, seed), **arguments),
            data_collator=partial(_collate, layout),
            **divided(examples[:n], settings),
        )

    new_head = partial(fresh_head, base, lora, seed, start)
    return train_and_save(new_head, trainer_of, folders, settings, name, stamps, losses)


def divided(examples: Sequence[Any], settings: TrainingSettings) -> dict[str, Any]:
    """A run's examples as a Trainer's data sets: those to train on, and those set aside."""
    n = settings.n_trained(len(examples))
    return {"train_dataset": examples[:n], "eval_dataset": examples[n:] or None}


def _collate(layout: str, examples: list[list[TokenPair]]) -> dict[str, Tensor]:
    """Examples to one batch, as the mapping of tensors that the Trainer moves to its device."""
    return dict(vars(LAYOUTS[layout]([pair for pairs in examples for pair in pairs])))


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
    settings: TrainingSettings
    advance: Advance
    folders: Mapping[int, Path]
    stamps: Mapping[int, Mapping[str, object]]
    losses_file: Path | None
    losses: list[float] = field(default_factory=list)
    n_seen: int = 0

    def __post_init__(self) -> None:
        self.n_examples = self.settings.n_trained(max(self.folders))  # of an epoch

    def train(self) -> list[float]:
        """Train to the end, and return the loss of each optimizer step."""
        if patience := self.settings.early_stopping_patience:
            self.trainer.add_callback(EarlyStoppingCallback(patience))
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
            raise NotFiniteError(
                f"the loss became {loss} at step {state.global_step}: lower the learning rate"
            )
        self.losses.append(loss)
        epochs, batch = self.settings.epochs, self.settings.batch_size
        epoch, step = divmod(state.global_step, math.ceil(self.n_examples / batch))
        seen = epoch * self.n_examples + min(step * batch, self.n_examples)
        self.advance(seen - self.n_seen, loss=loss)
        self.n_seen = seen
        n, rest = divmod(seen, epochs)  # several epochs have one snapshot, at their end
        if n in self.folders and not rest and n < max(self.folders):
            save_head(self.head, self.folders[n], self.stamps.get(n))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the head at the end of the run; after early stopping it is that of the best epoch.

        This snapshot says that the training is complete, so the losses come before it.
        """
        self.advance(self.settings.epochs * self.n_examples - self.n_seen)  # epochs saved
        if self.losses_file is not None:
            rows = [f"{step},{loss!r}\n" for step, loss in enumerate(self.losses, start=1)]
            write_text(self.losses_file, "".join(["step,loss\n", *rows]))
        last = max(self.folders)
        save_head(self.head, self.folders[last], self.stamps.get(last))


def train_and_save(
    new_head: Callable[[], AbstractContextManager[PeftModel]],
    trainer_of: Callable[[PeftModel, int, dict[str, Any]], StepTrainer],
    folders: Mapping[int, Path],
    settings: TrainingSettings,
    name: str | None,
    stamps: Mapping[int, Mapping[str, object]] | None,
    losses: Path | None,
) -> list[float]:
    """Train as many heads as the snapshots take (`TrainingSettings.runs`), and save them.

    Args:
        new_head: puts an untrained head on the base, and takes it off.
        trainer_of: makes the trainer of a head on the first n examples, with these arguments
            beside those of `likra.heads.trainer.trainer_settings`.
        folders: folder by number of examples.
        settings: how each head is trained.
        name: of the head, shown with the progress and by a tracker; None shows no progress.
        stamps: as in `train_head`.
        losses: likewise, of the run on most examples.

    Returns:
        The losses of the run on most examples.

    """
    runs, found = settings.runs(folders), list[float]()
    total = settings.epochs * sum(settings.n_trained(own[-1]) for own in runs)
    with progress(total, name and f"train {name}", "examples") as advance:
        for own in runs:
            run = f"{name or 'head'}, n = {own[-1]}"
            with TemporaryDirectory(prefix="likra-") as scratch, new_head() as head:
                trainer = trainer_of(head, own[-1], {"output_dir": scratch})
                saver = SnapshotSaver(
                    trainer,
                    head,
                    settings,
                    advance,
                    {n: folders[n] for n in own},
                    stamps or {},
                    losses if own == runs[-1] else None,
                )
                with tracked(trainer, settings.report_to, run):
                    found = saver.train()
    return found
