"""Training one head on its answers, with snapshots at given numbers of examples."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
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
from likra.engine.token_pairs import TokenExamples
from likra.engine.tokens import TokenPair
from likra.errors import LikraError, NotFiniteError
from likra.heads import parallel
from likra.heads.base import BaseModel, checked_layout
from likra.heads.lora import fresh_head, save_head
from likra.heads.processes import check_supported, started
from likra.heads.resume import Saved, StateFolder, StateSaver, inputs_of, saved_state
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.stamp import LOSSES, adapter_digest, text_digest
from likra.heads.tracking import tracked
from likra.heads.trainer import PackedTrainer, StepTrainer, trainer_settings
from likra.progress import Advance, progress

Example = TokenPair | Sequence[TokenPair]


def check_can_train(base: BaseModel) -> None:
    """Refuse a base or a launch under which training would go wrong.

    Raises:
        LikraError: a base in float16, whose gradients vanish without a scaler; or several
            processes that do not train together; or see `check_supported`.

    """
    if base.model.dtype == torch.float16:
        raise LikraError("training in float16 is not supported: choose bfloat16 or float32")
    check_supported()
    if started() > 1:
        raise LikraError(
            f"{started()} processes were started together, and each would train the same head: "
            "let them train together (`likra.heads.parallel.together`)"
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
    state: Path | None = None,
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
        state: a folder for the state of a training of more than `likra.heads.resume.SAVE_EVERY`
            seconds; it is removed at the end. A training that was killed goes on from there, if it
            is asked for with the same arguments and only the snapshots that are missing; it ends
            with the same bytes.

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
    examples = TokenExamples.of([e] if isinstance(e, TokenPair) else e for e in pairs[:n_examples])
    layout = checked_layout(base, examples.pairs).layout

    def trainer_of(head: PeftModel, n: int, arguments: dict[str, Any]) -> StepTrainer:
        return HeadTrainer(
            model=head,
            args=TrainingArguments(**trainer_settings(base, settings, seed), **arguments),
            data_collator=partial(_collate, layout),
            **divided(examples[:n], settings),
        )

    def decided_by() -> dict[str, object]:
        others = {"method": "head", "layout": layout}
        if start is not None:
            others["adapter to go on from"] = adapter_digest(start)
        return inputs_of(base, settings, lora, seed, others)

    parallel.tell(
        base,
        None,
        pairs=examples,
        snapshots=folders,
        settings=settings,
        lora=lora,
        seed=seed,
        start=start,
    )
    kept = StateFolder(state, decided_by(), examples) if state else None
    outputs = Outputs(folders, stamps or {}, losses, kept)
    new_head = partial(fresh_head, base, lora, seed, start)
    return train_and_save(new_head, trainer_of, settings, name, outputs)


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


@dataclass(frozen=True)
class Outputs:
    """What a training writes.

    Attributes:
        folders: of the snapshots, by number of examples.
        stamps: likewise, what is written into a snapshot's metadata.
        losses: a file for the losses of the run on most examples.
        state: where a long training keeps its state; None for one that begins anew if it is killed.

    """

    folders: Mapping[int, Path]
    stamps: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    losses: Path | None = None
    state: StateFolder | None = None

    def of_run(self, snapshots: Sequence[int]) -> "Outputs":
        """Those of one of the runs that it takes."""
        folders = {n: self.folders[n] for n in snapshots}
        is_longest = max(folders) == max(self.folders)
        return replace(self, folders=folders, losses=self.losses if is_longest else None)


@dataclass(eq=False)
class SnapshotSaver(TrainerCallback):
    """Saves the head at given numbers of examples; keeps the losses; shows the progress."""

    trainer: StepTrainer
    head: PeftModel
    settings: TrainingSettings
    advance: Advance
    outputs: Outputs
    losses: list[float] = field(default_factory=list)
    n_seen: int = 0

    def __post_init__(self) -> None:
        self.n = max(self.outputs.folders)

    def train(self, saved: Saved | None) -> list[float]:
        """Train to the end, from a saved state if there is one.

        Returns:
            The loss of each optimizer step.

        """
        if patience := self.settings.early_stopping_patience:
            self.trainer.add_callback(EarlyStoppingCallback(patience))
        self.trainer.add_callback(self)
        if self.outputs.state is not None:
            self.trainer.add_callback(StateSaver(self.outputs.state, self.n, self.losses))
        if saved is not None:
            self.losses += saved.losses
            self.n_seen = self.settings.n_seen(self.n, saved.step)
        with float32_products(cast(PreTrainedModel, self.head.get_base_model())):
            self.trainer.train(resume_from_checkpoint=str(saved.checkpoint) if saved else None)
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
        seen = self.settings.n_seen(self.n, state.global_step)
        self.advance(seen - self.n_seen, loss=loss)
        self.n_seen = seen
        # several epochs have one snapshot, at their end
        n, rest = divmod(seen, self.settings.epochs)
        if n in self.outputs.folders and not rest and n < self.n:
            self._save(n)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save the head at the end of the run; after early stopping it is that of the best epoch.

        This snapshot says that the training is complete, so the losses come before it.
        """
        whole = self.settings.epochs * self.settings.n_trained(self.n)
        self.advance(whole - self.n_seen)  # epochs saved
        outputs = self.outputs
        is_taken = self.n in outputs.stamps and outputs.folders[self.n].is_dir()  # by another run
        if outputs.losses is not None and not is_taken and parallel.is_main():
            write_text(outputs.losses, losses_csv(self.losses))
        self._save(self.n)

    def _save(self, n: int) -> None:
        """Save the head; its stamp binds the losses up to here."""
        stamp = self.outputs.stamps.get(n)
        if stamp is not None:
            stamp = {**stamp, LOSSES: text_digest(losses_csv(self.losses))}
        if parallel.is_main():
            save_head(self.head, self.outputs.folders[n], stamp)


def losses_csv(losses: Sequence[float]) -> str:
    """The content of ``losses.csv``."""
    rows = [f"{step},{loss!r}\n" for step, loss in enumerate(losses, start=1)]
    return "".join(["step,loss\n", *rows])


def train_and_save(
    new_head: Callable[[], AbstractContextManager[PeftModel]],
    trainer_of: Callable[[PeftModel, int, dict[str, Any]], StepTrainer],
    settings: TrainingSettings,
    name: str | None,
    outputs: Outputs,
) -> list[float]:
    """Train as many heads as the snapshots take (`TrainingSettings.runs`), and save them.

    Args:
        new_head: puts an untrained head on the base, and takes it off.
        trainer_of: makes the trainer of a head on the first n examples, with these arguments
            beside those of `likra.heads.trainer.trainer_settings`.
        settings: how each head is trained.
        name: of the head, shown with the progress and by a tracker; None shows no progress.
        outputs: what is written.

    Returns:
        The losses of the run on most examples.

    """
    if parallel.count() > 1:  # a state would have to be in the hands of all processes
        outputs = replace(outputs, state=None)
    runs, found = settings.runs(outputs.folders), list[float]()
    total = settings.epochs * sum(settings.n_trained(own[-1]) for own in runs)
    shown = name and f"train {name}"
    with TemporaryDirectory(prefix="likra-") as scratch:
        saved = outputs.state and saved_state(outputs.state, settings, runs, Path(scratch), shown)
        n_seen = settings.n_seen(saved.n, saved.step) if saved else 0
        with progress(total, shown, "examples", initial=n_seen) as advance:
            for own in runs:
                n = own[-1]
                output = Path(scratch) / str(n)
                with new_head() as head:
                    trainer = trainer_of(head, n, {"output_dir": str(output)})
                    saver = SnapshotSaver(trainer, head, settings, advance, outputs.of_run(own))
                    with tracked(trainer, settings.report_to, f"{name or 'head'}, n = {n}"):
                        found = saver.train(saved if saved and saved.n == n else None)
                shutil.rmtree(output, ignore_errors=True)
                if outputs.state is not None:
                    outputs.state.remove()
    return found
