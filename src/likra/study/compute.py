"""Computing the missing cells of a run: each head is trained, and then scored once."""

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from likra.progress import HEAD, TABLE, Finished, FinishedCells, Log
from likra.scores.table import (
    BASE,
    BY_LIKRA,
    BY_TRL,
    CLASSIFIER,
    PRIOR,
    HeadKey,
    choice_table,
    score_table,
    write_scores,
)
from likra.study.about import write_examples
from likra.study.cells import Cells, beta_of, check_stamp, stamp_of
from likra.study.encode import encode_evaluation, encode_examples
from likra.study.examples import Training
from likra.study.failures import SCORING, TRAINING, FailedCells
from likra.study.folder import longest_snapshot

if TYPE_CHECKING:
    from likra.engine.packing import Packed
    from likra.engine.token_pairs import TokenPairs
    from likra.heads.base import BaseModel
    from likra.heads.lora import Head
    from likra.heads.preference import Reference


def compute_cells(
    cells: Cells,
    base: "BaseModel",
    pairs: "TokenPairs",
    missing: Collection[HeadKey],
    log: Log,
    finished: Finished,
) -> None:
    """Train and score what is missing, one head after the other.

    A cell that fails is recorded (`likra.study.failures`), and the others go on.

    Args:
        cells: of the run.
        base: the base model.
        pairs: the evaluation questions (`likra.study.encode.encode_evaluation`).
        missing: the score tables to compute.
        log: is given each line meant for the user.
        finished: is told of each cell that is done.

    Raises:
        LikraError: bad input that was found only now.

    """
    from likra.heads import preference

    evaluation, failed = Evaluation(cells, base, pairs), FailedCells(cells, log)

    def score_all(keys: Iterable[HeadKey]) -> None:
        for key in keys:
            if key in missing and key not in failed.failures:
                with failed.kept(SCORING, [key]):
                    _score(evaluation, key, finished)

    score_all(key for key in cells.scores if not key.n_train)
    seed, reference = None, None  # the methods of a seed train on the same batches
    for training in cells.trainings:
        if training.head in BY_LIKRA and seed != training.seed:
            seed, reference = training.seed, preference.Reference()
        with failed.kept(TRAINING, [key for key in training.keys if key in missing]):
            train_missing(cells, base, training, missing, log, finished, reference)
        score_all(training.keys)


def train_missing(
    cells: Cells,
    base: "BaseModel",
    training: Training,
    missing: Collection[HeadKey],
    log: Log,
    finished: Finished,
    reference: "Reference | None" = None,
) -> None:
    """Train a head as far as its snapshots are missing."""
    run = cells.run
    wanted = [key for key in training.keys if key in missing]
    stamps = cells.trained(wanted)
    wanted = [key for key in wanted if key not in stamps]
    if not wanted:
        return
    if training.report:
        log(f"       {training.source}, seed {training.seed}: {training.report}")
    folder = run.training_folder(wanted[-1])
    write_examples(run, training)
    is_longest = wanted[-1].n_train >= longest_snapshot(folder)
    losses = folder / "losses.csv" if is_longest else None
    _train_head(cells, base, training, wanted, losses, reference)
    n = [key.n_train for key in wanted]
    finished(FinishedCells(HEAD, training.head, n, training.seed, training.source))


def _called(training: Training) -> str:
    source = f" ({training.source})" if training.source else ""
    return f"{training.head}{source}, seed {training.seed}"


def _train_head(
    cells: Cells,
    base: "BaseModel",
    training: Training,
    keys: Sequence[HeadKey],
    losses: Path | None,
    reference: "Reference | None",
) -> None:
    study = cells.run.study
    name = _called(training)
    shared: dict[str, Any] = {
        "settings": study.training_of(training.head),
        "lora": study.lora,
        "seed": training.seed,
        "stamps": {key.n_train: stamp_of(cells.heads[key]) for key in keys},
        "losses": losses,
        "state": cells.run.state_folder(keys[-1]),
    }
    folders = {key.n_train: cells.run.head_folder(key) for key in keys}
    beta = beta_of(study, training.head)
    if training.head in BY_TRL:
        from likra.heads.trl import train_baseline

        answers = list(training.answers())
        right, wrong = [own[0] for own in answers], [own[-1] for own in answers]
        if beta is not None:
            shared["beta"] = beta
        train_baseline(base, training.head, right, wrong, folders, name=name, **shared)
        return
    examples = encode_examples(study, base, training)
    if training.head in BY_LIKRA:
        from likra.heads.preference import train_objective

        train_objective(
            base,
            training.head,
            examples,
            folders,
            beta=beta,
            reference=reference,
            name=name,
            **shared,
        )
    else:
        from likra.heads.train import train_head

        train_head(base, examples, folders, name=name, **shared)


@dataclass
class Evaluation:
    """The evaluation questions, encoded and packed once for all heads that score the same pairs.

    ``first`` is the first head that has scored them.
    """

    cells: Cells
    base: "BaseModel"
    pairs: "TokenPairs"
    first: "Head | None" = None
    _packed: "dict[str, tuple[Packed, array[int]]]" = field(default_factory=dict)

    @cached_property
    def choices(self) -> pa.Table:
        """What all score tables say of the questions."""
        return choice_table(self.cells.data.evaluation)

    def packed(self, head: str) -> "tuple[Packed, array[int]]":
        """What a head scores, and how many answer tokens each pair has."""
        form = head if head in {PRIOR.head, CLASSIFIER} else BASE.head
        if form not in self._packed:
            pairs = self.pairs
            if form != BASE.head:
                pairs = encode_evaluation(self.cells.run.study, self.cells.data, self.base, form)
            n_tokens = array("I", (len(pair.continuation) for pair in pairs))
            self._packed[form] = self.base.pack(pairs), n_tokens
        return self._packed[form]


def _score(evaluation: Evaluation, key: HeadKey, finished: Finished) -> None:
    """Score one head on the evaluation questions."""
    from likra.heads.lora import Head
    from likra.heads.score import score
    from likra.heads.stamp import read_stamp

    cells, base = evaluation.cells, evaluation.base
    run, data = cells.run, cells.data
    folder = run.head_folder(key) if key.n_train else None

    def check() -> None:
        if folder is not None:
            check_stamp(folder, read_stamp(folder), cells.heads[key])

    check()
    packed, n_tokens = evaluation.packed(key.head)
    head = Head(base, folder, evaluation.first)
    logprobs = score(head, packed, name=f"score {key}").logprobs
    if folder is not None and evaluation.first is None:
        evaluation.first = head
    check()  # another run may have replaced it
    if key.head == CLASSIFIER:
        logprobs, n_tokens = logprobs[0::2] - logprobs[1::2], n_tokens[0::2]
    table = score_table(
        data.task,
        data.eval_split,
        evaluation.choices,
        key,
        logprobs,
        n_tokens,
        base.layout,
    )
    write_scores(run.scores_path(key), table, stamp_of(cells.scores[key]))
    n = [key.n_train] if key.n_train else []
    finished(FinishedCells(TABLE, key.head, n, key.seed, key.source))
