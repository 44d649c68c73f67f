"""Running a study: its stages in order, and each missing cell computed once.

prepare (questions) -> material (what the base computes first) -> examples -> heads -> score tables.
Each stage reads values or files. What comes after the score tables is `likra.report`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from likra.atomic import remove_abandoned
from likra.negatives.samplers import Material
from likra.progress import HEAD, TABLE, Log, cell_progress
from likra.scores.table import BY_LIKRA, BY_TRL, CLASSIFIER, HeadKey
from likra.scores.weights import validation_questions
from likra.study.about import write_study
from likra.study.cells import Cells, Inputs, Stamp, base_inputs, version_note
from likra.study.compute import compute_cells, train_missing
from likra.study.config import Study
from likra.study.describe import cut_lines, evaluation_lines, model_lines, training_lines
from likra.study.encode import encode_evaluation, encode_examples
from likra.study.examples import available, heads_of, needed, trainings, with_snapshots
from likra.study.failures import (
    TRAINING,
    FailedCells,
    IncompleteError,
    clear_failures,
    failure_lines,
)
from likra.study.folder import Run
from likra.study.garbage import imports_set_aside
from likra.study.material import compute_material, is_complete, read_material
from likra.study.prepare import Data, prepare, uses
from likra.study.shards import WHOLE, Part
from likra.study.sharing import take_cells, take_material

if TYPE_CHECKING:
    from likra.heads.base import BaseModel


def run_cells(
    study: Study, folder: Path | None = None, log: Log = print, part: Part = WHOLE
) -> Run:
    """Compute the heads and score tables of a study that are missing in its folder.

    Those that another run beside the folder has are taken from there. A cell whose computation
    fails is recorded (`likra.study.failures`), and the others go on.

    Args:
        study: what to run (`likra.study.config.read_study`).
        folder: of the results; ``runs/NAME`` by default.
        log: is given each line meant for the user.
        part: of the study to compute; all of it by default.

    Returns:
        The run, its snapshots resolved.

    Raises:
        LikraError: bad input, or the folder holds cells of other settings or other data.

    """
    run = Run(study, folder or Path("runs") / study.name)
    remove_abandoned(run.folder)
    data = prepare(study)
    n_aside = set_aside(study, data)
    pending = find_pending(run, data, log)
    if not pending.tables:
        return say_complete(pending, log)
    cells, own = pending.cells, part.keys(pending.cells)
    missing = [key for key in pending.tables if key in own]
    if not missing:
        log(f"{part} is complete: nothing to compute")
        return cells.run
    from likra.heads.base import checked_layout

    base = pending.base or open_base(study)
    check_heads(cells, base)
    pairs = encode_evaluation(study, data, base)
    base = checked_layout(base, pairs)
    for lines in (
        model_lines(base),
        training_lines(data),
        evaluation_lines(study, data, n_aside),
        cut_lines(pairs, base.max_length),
    ):
        for line in lines:
            log(line)
    write_study(cells, base)
    clear_failures(cells.run, keep=set(pending.tables) - own)
    to_train = [key for key in missing if key.n_train and key not in pending.heads]
    to_do = {HEAD: len(to_train), TABLE: len(missing)}
    with cell_progress(f"study {study.name}", to_do) as finished, imports_set_aside():
        compute_cells(cells, base, pairs, missing, log, finished)
    write_study(cells, base)  # another run in this folder may have written its own meanwhile
    return cells.run


@dataclass(frozen=True)
class Pending:
    """The cells of a run, and what of them is still to compute.

    Attributes:
        cells: of the run.
        base: the base model, where it had to be opened already.
        givers: the other runs that cells were taken from.
        heads: the stamps of the heads that are there.
        tables: the score tables that are missing, in the order in which they are computed.

    """

    cells: Cells
    base: "BaseModel | None"
    givers: Sequence[Run]
    heads: Mapping[HeadKey, Stamp]
    tables: Sequence[HeadKey]


def find_pending(run: Run, data: Data, log: Log) -> Pending:
    """What of a run is still to compute, after what other runs have was taken from them.

    Raises:
        LikraError: as `run_cells`.

    """
    cells, base = resolve(run, data, log)
    givers = take_cells(cells, log)
    heads, stamps = cells.trained(cells.heads), cells.scored()
    if note := version_note([*heads.values(), *stamps.values()]):
        log(f"note   {note}")
    return Pending(cells, base, givers, heads, [key for key in cells.scores if key not in stamps])


def say_complete(pending: Pending, log: Log) -> Run:
    """Write the settings of a run that lacks nothing, and tell the user."""
    cells, run = pending.cells, pending.cells.run
    write_study(cells, pending.base, pending.givers)
    clear_failures(run)
    log(f"all {len(cells.scores)} score tables of '{run.folder}' exist: nothing to compute")
    return run


def train_heads(study: Study, folder: Path, log: Log = print) -> list[Path]:
    """Train the heads of a study that are missing in its folder, without scoring them.

    Those that another run beside the folder has are taken from there. A head that fails is said,
    and the others go on.

    Args:
        study: its seeds, samplers and snapshots say which heads.
        folder: for ``heads/`` and ``study.yaml``.
        log: is given each line meant for the user.

    Returns:
        The folders of all heads.

    Raises:
        LikraError: as `run_cells`.
        IncompleteError: heads failed; its results are the folders of the others.

    """
    run = Run(study, folder)
    remove_abandoned(run.folder)
    data = prepare(study, evaluates=False)
    cells, base = resolve(run, data, log)
    givers = take_cells(cells, log)
    stamps = cells.trained(cells.heads)
    if note := version_note(stamps.values()):
        log(f"note   {note}")
    missing = [key for key in cells.heads if key not in stamps]
    if not missing:
        write_study(cells, base, givers)
        log(f"all heads of '{folder}' are trained: nothing to compute")
        return [cells.run.head_folder(key) for key in cells.heads]
    base = base or open_base(study)
    check_heads(cells, base)
    for line in (*model_lines(base), *training_lines(data)):
        log(line)
    write_study(cells, base)
    failed = FailedCells(cells, log, recorded=False)
    with cell_progress("train", {HEAD: len(missing)}) as finished, imports_set_aside():
        for training in cells.trainings:
            with failed.kept(TRAINING, [key for key in training.keys if key in missing]):
                train_missing(cells, base, training, missing, log, finished)
    write_study(cells, base)
    folders = [cells.run.head_folder(key) for key in cells.heads if key not in failed.failures]
    if failed.failures:
        raise IncompleteError(failure_lines(failed.failures), folders)
    return folders


# --------------------------------------------------------------------------------------------
# Before anything is computed


def set_aside(study: Study, data: Data) -> int:
    """How many evaluation questions are set aside to choose the weight on.

    Raises:
        LikraError: too few on either side.

    """
    if study.validation_fraction is None:
        return 0
    ids = [question.id for question in data.evaluation]
    return int(validation_questions(ids, study.validation_fraction).sum())


def resolve(run: Run, data: Data, log: Log) -> tuple[Cells, "BaseModel | None"]:
    """The cells of a run; and the base, where it had to be opened to compute material.

    Raises:
        LikraError: a head has too few examples, or a file was computed with other inputs.

    """
    inputs, base = base_inputs(run.study), None
    take_material(run, data, inputs, log)
    if not is_complete(run, data, inputs):
        base = open_base(run.study)
        _check_before_material(run.study, data, base)
        compute_material(run, data, inputs, base)
    return cells_of(run, data, inputs, read_material(run, data)), base


def cells_of(run: Run, data: Data, inputs: Inputs, material: Material) -> Cells:
    """The cells of a run whose material is there, its snapshots resolved."""
    from likra.heads.train import check_snapshots

    study = run.study
    if not study.snapshots:
        study = with_snapshots(study, available(data.train, material, study))
    if heads_of(study):
        check_snapshots(study.snapshots, study.training, len(data.train))
    runs = list(trainings(study, data.train, material))
    own = tuple(key for one in runs if one.is_own_positive for key in one.keys)
    return Cells(Run(study, run.folder), data, inputs, needed(study, runs), own)


def _check_before_material(study: Study, data: Data, base: "BaseModel") -> None:
    """Find what is wrong with the model or the evaluation before the base computes for hours."""
    from likra.heads.sample import check_room

    check_can_learn(study, base)
    if uses(study, "generated"):
        check_room(base, study.generation.max_new_tokens)
    if data.evaluation:
        encode_evaluation(study, data, base)


def open_base(study: Study) -> "BaseModel":
    """The base model of a study."""
    from likra.heads.base import limit_threads, open_model

    base = open_model(study.model, dtype=study.dtype)
    limit_threads(base)
    return base


def check_heads(cells: Cells, base: "BaseModel") -> None:
    """Refuse heads that do not fit the base, or examples that do not fit its context.

    Raises:
        LikraError: naming the layers, or the question.

    """
    from likra.heads.objectives import check_batch, check_examples
    from likra.heads.trainer import part_size

    study = cells.run.study
    check_can_learn(study, base)
    size = part_size(study.training)
    for training in cells.trainings:
        examples = encode_examples(study, base, training)
        if training.head in BY_LIKRA:
            check_examples(training.head, examples, size, base.max_length)
        if training.head == "trl-kto":
            check_batch(training.head, size)
    if cells.data.evaluation and any(key.head == CLASSIFIER for key in cells.heads):
        encode_evaluation(study, cells.data, base, CLASSIFIER)  # its prompts are longer


def check_can_learn(study: Study, base: "BaseModel") -> None:
    """Refuse a base that cannot be trained, or does not have the layers that LoRA adapts."""
    from likra.heads.lora import fresh_head
    from likra.heads.tracking import check_tracker
    from likra.heads.train import check_can_train
    from likra.heads.trl import check_trl

    heads = [head for head, _ in heads_of(study)]
    if not heads:
        return
    check_can_train(base)
    check_tracker(study.training.report_to)
    if set(heads) & set(BY_TRL):
        check_trl()
    with fresh_head(base, study.lora, seed=0):
        pass  # the layers that it adapts exist
