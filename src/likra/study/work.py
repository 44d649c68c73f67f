"""How much goes through the model: answers, tokens, operations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from likra.heads.settings import TrainingSettings
from likra.scores.table import BY_TRL
from likra.study.config import Study
from likra.study.examples import Training

if TYPE_CHECKING:
    from likra.engine.tokens import TokenPair
    from likra.heads.base import BaseModel

FORWARD_FLOPS = 2  # of each parameter and token: one multiplication and one addition
TRAINING_PASSES = 3  # in forward passes: one forward, and twice as much on the way back
# In TRL, DPO and NCA score with the base as well; KTO does so twice, with a second forward pass of
# its own.
TRL_PASSES = {"trl-dpo": 4, "trl-nca": 4, "trl-kto": 6, "trl-sft": TRAINING_PASSES}


@dataclass(frozen=True)
class Work:
    """Answers that go through the model, and their tokens.

    ``given`` counts prompt and answer of each as if it stood alone; ``computed`` what goes through
    the model: in a forest shared prefixes once, in padded rows padding too. ``flops`` leaves out
    attention between tokens, the heads' own parameters and the optimizer.
    """

    answers: int = 0
    given: int = 0
    computed: int = 0
    flops: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.answers + other.answers,
            self.given + other.given,
            self.computed + other.computed,
            self.flops + other.flops,
        )


def sum_of(works: Iterable[Work]) -> Work:
    """All of the work."""
    return sum(works, Work())


def answers_of(settings: TrainingSettings, training: Training) -> int:
    """The answers that the snapshots of a training run put through the model."""
    from likra.heads.objectives import OBJECTIVES

    counts = [len(answers) for answers in training.answers()]
    if training.head in OBJECTIVES:
        counts = [OBJECTIVES[training.head].n_kinds] * len(counts)
    runs = settings.runs(training.snapshots)
    return settings.epochs * sum(sum(counts[: settings.n_trained(run[-1])]) for run in runs)


def passes_of(trainings: Iterable[Training]) -> Iterator[int]:
    """The forward passes that each training run takes for each of its batches.

    The base's log-likelihoods are one more, once for the objectives of a seed with the same
    batches.
    """
    from likra.heads.objectives import OBJECTIVES

    known = set()
    for training in trainings:
        objective = OBJECTIVES.get(training.head)
        if objective is None:
            yield TRL_PASSES.get(training.head, TRAINING_PASSES)
            continue
        batches = training.seed, objective.mismatches
        yield TRAINING_PASSES + (objective.refers and batches not in known)
        if objective.refers:
            known.add(batches)


def training_work(
    study: Study,
    base: "BaseModel",
    head: str,
    examples: "Sequence[Sequence[TokenPair]]",
    snapshots: Iterable[int],
    passes: int,
) -> Work:
    """Training for the snapshots on the token pairs of the examples, batch by batch."""
    from likra.heads.objectives import OBJECTIVES

    settings = study.training
    size = settings.batch_size // settings.gradient_accumulation_steps
    layout = "padded" if head in BY_TRL else base.layout
    parts = (
        list(examples[start : min(start + size, n)])
        for n in (settings.n_trained(run[-1]) for run in settings.runs(snapshots))
        for start in range(0, n, size)
    )
    batches = (
        OBJECTIVES[head].pairs(part)
        if head in OBJECTIVES
        else [pair for own in part for pair in own]
        for part in parts
    )
    return sum_of([batches_work(base, batches, layout, passes)] * settings.epochs)


def scoring_work(base: "BaseModel", pairs: "Sequence[TokenPair]") -> Work:
    """One pass over the token pairs, packed as `likra.heads.score` packs them."""
    from likra.engine.memory import token_budget
    from likra.engine.packing import pack
    from likra.heads.base import default_device

    # not `base.pack`: a model without weights is on no device, and cannot be probed
    packed = pack(pairs, base.layout, token_budget(default_device()))
    return sum_of(
        _work_of(base, [pairs[place] for place in indices], batch.input_ids.numel(), 1)
        for indices, batch in zip(packed.indices, packed.batches, strict=True)
    )


def batches_work(
    base: "BaseModel", batches: "Iterable[list[TokenPair]]", layout: str, passes: int
) -> Work:
    """Batches that are laid out and go through the model one after the other."""
    from likra.engine.packing import LAYOUTS

    return sum_of(
        _work_of(base, batch, LAYOUTS[layout](batch).input_ids.numel(), passes) for batch in batches
    )


def _work_of(base: "BaseModel", pairs: "Sequence[TokenPair]", computed: int, passes: int) -> Work:
    given = sum(len(pair.tokens) for pair in pairs)
    flops = FORWARD_FLOPS * base.model.num_parameters() * passes * computed
    return Work(len(pairs), given, computed, flops)
