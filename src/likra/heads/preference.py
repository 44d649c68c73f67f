"""Training one head on right and wrong answers together: the objectives on the forest."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, TrainingArguments

from likra.engine.logprobs import answer_logprobs, token_logprobs
from likra.engine.memory import halves
from likra.engine.packing import LAYOUTS, PADDING, Batch
from likra.engine.token_pairs import TokenExamples
from likra.errors import unknown
from likra.heads import parallel
from likra.heads.base import BaseModel, checked_layout
from likra.heads.lora import fresh_head
from likra.heads.objectives import (
    OBJECTIVES,
    Answers,
    Example,
    Objective,
    check_examples,
)
from likra.heads.resume import StateFolder, inputs_of
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.train import Outputs, check_can_train, check_snapshots, divided, train_and_save
from likra.heads.trainer import PackedTrainer, StepTrainer, part_size, trainer_settings


class Reference:
    """Log-likelihoods of batches under the base, each computed once.

    Several objectives train on the same batches. Each batch is computed by itself, in the packing
    in which it trains, so what is remembered does not change a result.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, ...], Tensor] = {}

    def of(self, head: PeftModel, batch: Batch) -> Tensor:
        """[pairs] float32, nats: the head's base on the batch."""
        key = tuple(tensor.cpu().numpy().tobytes() for tensor in vars(batch).values())
        if key not in self._known:
            with head.disable_adapter(), torch.no_grad():
                self._known[key] = answer_logprobs(cast(PreTrainedModel, head), batch)
        return self._known[key]


def train_objective(  # noqa: PLR0913 - those of train_head, and the objective's own
    base: BaseModel,
    objective: str,
    examples: Sequence[Example],
    snapshots: Mapping[int, Path | str],
    *,
    settings: TrainingSettings | None = None,
    lora: LoraSettings | None = None,
    seed: int = 0,
    beta: float | None = None,
    reference: Reference | None = None,
    name: str | None = "head",
    stamps: Mapping[int, Mapping[str, object]] | None = None,
    losses: Path | None = None,
    state: Path | None = None,
) -> list[float]:
    """Train one head on right and wrong answers, and save it at the given numbers of questions.

    As `likra.heads.train.train_head`: in order, by AdamW without weight decay; a snapshot after n
    questions equals a run on the first n; the base comes back bit-identical. The base is the
    reference, and there is no dropout, for the two would differ by its noise.

    Args:
        base: the frozen base model.
        objective: one of `likra.heads.objectives.OBJECTIVES`.
        examples: of each question its right and its wrong answer; for the classifier yes and no
            after the right one, and yes and no after the wrong one
            (`likra.heads.objectives.yes_or_no`).
        snapshots: folder by number of questions.
        settings: learning rate and batch; a batch is so many questions.
        lora: the shape of the head; its dropout is not used.
        seed: of the head's initialisation, which is that of a head of likra.
        beta: of the objective; by default its own.
        reference: to share the base's log-likelihoods with other objectives on the same batches.
        name: shown with the progress; None shows nothing.
        stamps: as in `likra.heads.train.train_head`.
        losses: likewise.
        state: likewise.

    Returns:
        The loss of each optimizer step, mean over its questions. KTO compares the questions of a
        part of a batch, where gradients are accumulated.

    Raises:
        LikraError: an unknown objective; an example with another number of answers; KTO with a
            batch of one, or with prompts that leave no room for the answers of other questions;
            see `likra.heads.train.train_head`.

    """
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    chosen, settings = OBJECTIVES[objective], settings or TrainingSettings()
    reference = reference or Reference()
    folders = {n: Path(folder) for n, folder in snapshots.items()}
    n_questions = max(folders, default=0)
    check_snapshots(sorted(folders), settings, len(examples))
    check_can_train(base)
    used = TokenExamples.of(examples[:n_questions])
    check_examples(objective, used, part_size(settings), base.max_length)
    layout = checked_layout(base, used.pairs).layout

    divides = not chosen.mismatches  # else the questions of a batch are compared
    if divides:
        parallel.tell(
            base,
            objective,
            examples=used,
            snapshots=folders,
            settings=settings,
            lora=lora,
            seed=seed,
            beta=beta,
        )

    def trainer_of(head: PeftModel, n: int, arguments: dict[str, Any]) -> StepTrainer:
        trainer = ObjectiveTrainer(
            model=head,
            args=TrainingArguments(**trainer_settings(base, settings, seed), **arguments),
            data_collator=partial(_collate, layout, chosen),
            divided=divides,
            **divided(used[:n], settings),
        )
        trainer.objective = chosen
        trainer.beta = chosen.beta if beta is None else beta
        trainer.reference = reference
        return trainer

    others = {"method": objective, "layout": layout, "beta": beta}
    kept = None
    if state is not None:
        kept = StateFolder(state, inputs_of(base, settings, lora, seed, others), used)
    outputs = Outputs(folders, stamps or {}, losses, kept)
    new_head = partial(fresh_head, base, lora or LoraSettings(), seed)
    return train_and_save(new_head, trainer_of, settings, name, outputs)


def _collate(layout: str, objective: Objective, batch: list[list[Any]]) -> dict[str, Tensor]:
    """The pairs of a batch, kind by kind, as the tensors of a layout."""
    return dict(vars(LAYOUTS[layout](objective.pairs(batch))))


class ObjectiveTrainer(PackedTrainer):
    """A trainer with the loss of an objective, averaged over questions."""

    objective: Objective
    beta: float
    reference: Reference

    def count(self, part: dict[str, Tensor]) -> int:
        """The questions of a part."""
        return len(part["answers"]) // self.objective.n_kinds

    def halves(self, batch: Batch) -> list[Batch]:
        """Two batches of half the questions; none where the questions are compared."""
        return [] if self.objective.mismatches else halves(batch, self.objective.n_kinds)

    def packed_loss(
        self, model: PeftModel, batch: Batch, more: dict[str, Tensor], count: Tensor | int | None
    ) -> Tensor:
        """The objective's loss, without dropout anywhere in the model."""
        model.eval()
        losses = self.objective.loss(self.answers(model, batch), self.beta)
        return losses.sum() / (len(losses) if count is None else count)

    def answers(self, head: PeftModel, batch: Batch) -> Answers:
        """The log-probabilities of a batch, kind by kind."""
        # a PeftModel has all attributes of its base
        policy = token_logprobs(cast(PreTrainedModel, head), batch)
        lengths = (batch.answers != PADDING).sum(-1)
        reference = torch.zeros_like(lengths, dtype=policy.dtype)
        if self.objective.refers:
            reference = self.reference.of(head, batch)
        shape = (self.objective.n_kinds, -1)
        return Answers(
            policy.view(*shape, policy.shape[-1]), reference.view(shape), lengths.view(shape)
        )
