"""How fast this machine trains and scores: a few batches timed."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from likra.study.config import Study
from likra.study.work import TRAINING_PASSES, scoring_work, training_work

if TYPE_CHECKING:
    from likra.engine.tokens import TokenPair
    from likra.heads.base import BaseModel

CALIBRATION = 4.0  # seconds, of training and of scoring
BUSY = 0.6  # of the cores, taken by other processes on average over the last minute


@dataclass(frozen=True)
class Pace:
    """Seconds of a run: what it takes however short it is, and what each operation adds."""

    fixed: float
    per_flop: float

    def seconds(self, runs: int, flops: int) -> float:
        """The time of so many runs with so many operations in all."""
        return runs * self.fixed + flops * self.per_flop


def other_load() -> str:
    """What to say where other processes keep the machine busy; "" where they do not."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # not known on this system
        return ""
    if load < BUSY * (os.cpu_count() or 1):
        return ""
    return (
        f"this machine is busy (load {load:.1f} before the timing): on an idle one the run may "
        "take a small part of this time"
    )


def pace(points: Sequence[tuple[int, float]]) -> Pace:
    """The line through the first and the last of the measured (operations, seconds).

    Where noise leaves no line that rises from above 0, time is taken as proportional.
    """
    (few, short), (many, long) = points[0], points[-1]
    if many > few and long > short:
        per_flop = (long - short) / (many - few)
        if (fixed := long - per_flop * many) > 0:
            return Pace(fixed, per_flop)
    return Pace(0.0, long / many)


def time_training(
    study: Study, base: "BaseModel", examples: "Sequence[Sequence[TokenPair]]"
) -> tuple[Pace, Pace]:
    """The pace of training, measured twice: the faster and the slower."""
    from likra.heads.train import train_head

    batch = study.training.batch_size

    def flops(batches: int) -> int:
        own = examples[: batches * batch]
        return training_work(study, base, "positive", own, [len(own)], TRAINING_PASSES).flops

    with tempfile.TemporaryDirectory(prefix="likra-") as folder:

        def train(batches: int) -> None:
            count = min(batches * batch, len(examples))
            train_head(
                base,
                examples,
                {count: Path(folder) / "head"},
                settings=study.training.model_copy(update={"report_to": "none"}),
                lora=study.lora,
                name=None,
            )

        return _measured(train, flops, -(-len(examples) // batch))


def time_scoring(
    study: Study, base: "BaseModel", pairs: "Sequence[TokenPair]"
) -> tuple[Pace, Pace]:
    """The pace of scoring whole packs under a head, measured twice: the faster and the slower."""
    from likra.heads.lora import Head, fresh_head, save_head
    from likra.heads.score import score

    packed = base.pack(pairs)

    def first(packs: int) -> "list[TokenPair]":
        return [pairs[index] for part in packed.indices[:packs] for index in part]

    with tempfile.TemporaryDirectory(prefix="likra-") as folder:
        head = Head(base, Path(folder) / "head")
        with fresh_head(base, study.lora, seed=0) as model:
            save_head(model, Path(folder) / "head")

        def run(packs: int) -> None:
            score(head, base.pack(first(packs)))

        def flops(packs: int) -> int:
            return scoring_work(base, first(packs)).flops

        return _measured(run, flops, len(packed.batches))


def _measured(
    work: Callable[[int], None], flops: Callable[[int], int], most: int
) -> tuple[Pace, Pace]:
    """Time ever larger parts of the work, each twice the one before; then all of that again."""
    work(1)  # imports, and what a device sets up at first use
    rounds: list[list[tuple[int, float]]] = [[], []]
    counts, spent = [1], 0.0
    while True:
        seconds = _seconds(work, counts[-1])
        rounds[0].append((flops(counts[-1]), seconds))
        spent += seconds
        if counts[-1] == most or spent + 2 * seconds > CALIBRATION / 2:
            break
        counts.append(min(2 * counts[-1], most))
    rounds[1] = [(flops(count), _seconds(work, count)) for count in counts]
    return pace(rounds[0]), pace(rounds[1])


def _seconds(work: Callable[[int], None], count: int) -> float:
    start = time.perf_counter()
    work(count)
    return time.perf_counter() - start
