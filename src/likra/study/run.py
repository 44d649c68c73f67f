"""Running a study: its stages in order, and each missing cell computed once.

prepare (questions) -> material (what the base computes first) -> examples -> heads -> score tables.
Each stage reads values or files. What comes after the score tables is `likra.report`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.atomic import remove_abandoned
from likra.negatives.samplers import Material
from likra.progress import HEAD, TABLE, Finished, FinishedCells, cell_progress
from likra.questions import Choice, Question
from likra.scores.table import (
    BASE,
    BY_LIKRA,
    BY_TRL,
    CLASSIFIER,
    PRIOR,
    HeadKey,
    score_table,
    write_scores,
)
from likra.scores.weights import validation_questions
from likra.study.about import write_examples, write_study
from likra.study.cells import (
    Cells,
    Inputs,
    base_inputs,
    beta_of,
    check_stamp,
    stamp_of,
    version_note,
)
from likra.study.config import Study
from likra.study.describe import cut_lines, evaluation_lines, model_lines, training_lines
from likra.study.examples import (
    Training,
    available,
    heads_of,
    needed,
    trainings,
    with_snapshots,
)
from likra.study.folder import Run, longest_snapshot
from likra.study.material import compute_material, is_complete, read_material
from likra.study.prepare import Data, prepare, uses
from likra.study.shards import WHOLE, Shard
from likra.study.sharing import take_cells, take_material

if TYPE_CHECKING:
    from likra.engine.packing import Packed
    from likra.engine.tokens import TokenPair
    from likra.heads.base import BaseModel
    from likra.heads.preference import Reference

Log = Callable[[str], object]


def run_cells(
    study: Study, folder: Path | None = None, log: Log = print, shard: Shard = WHOLE
) -> Run:
    """Compute the heads and score tables of a study that are missing in its folder.

    Those that another run beside the folder has are taken from there.

    Args:
        study: what to run (`likra.study.config.read_study`).
        folder: of the results; ``runs/NAME`` by default.
        log: is given each line meant for the user.
        shard: the part of the study to compute; all of it by default.

    Returns:
        The run, its snapshots resolved.

    Raises:
        LikraError: bad input, or the folder holds cells of other settings or other data.

    """
    run = Run(study, folder or Path("runs") / study.name)
    remove_abandoned(run.folder)
    data = prepare(study)
    n_aside = set_aside(study, data)
    cells, base = resolve(run, data, log)
    givers = take_cells(cells, log)
    heads, stamps = cells.trained(cells.heads), cells.scored()
    missing = [key for key in cells.scores if key not in stamps]
    if note := version_note([*heads.values(), *stamps.values()]):
        log(f"note   {note}")
    if not missing:
        write_study(cells, base, givers)
        log(f"all {len(cells.scores)} score tables of '{run.folder}' exist: nothing to compute")
        return cells.run
    own = shard.keys(cells)
    missing = [key for key in missing if key in own]
    if not missing:
        log(f"shard {shard.number} of {shard.count} is complete: nothing to compute")
        return cells.run
    from likra.heads.base import checked_layout

    base = base or open_base(study)
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
    to_train = [key for key in missing if key.n_train and key not in heads]
    to_do = {HEAD: len(to_train), TABLE: len(missing)}
    with cell_progress(f"study {study.name}", to_do) as finished:
        _compute(cells, base, pairs, missing, log, finished)
    write_study(cells, base)  # another run in this folder may have written its own meanwhile
    return cells.run


def train_heads(study: Study, folder: Path, log: Log = print) -> list[Path]:
    """Train the heads of a study that are missing in its folder, without scoring them.

    Those that another run beside the folder has are taken from there.

    Args:
        study: its seeds, samplers and snapshots say which heads.
        folder: for ``heads/`` and ``study.yaml``.
        log: is given each line meant for the user.

    Returns:
        The folders of all heads.

    Raises:
        LikraError: as `run_cells`.

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
    with cell_progress("train", {HEAD: len(missing)}) as finished:
        for training in cells.trainings:
            _train(cells, base, training, missing, log, finished)
    write_study(cells, base)
    return [cells.run.head_folder(key) for key in cells.heads]


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


def encode_examples(study: Study, base: "BaseModel", training: Training) -> list[list["TokenPair"]]:
    """The token pairs of each example that a head is trained on, in order.

    Raises:
        LikraError: a pair does not fit the model's context; names its question.

    """
    from likra.heads.objectives import yes_or_no
    from likra.heads.score import CHUNK, encode_answers

    truncate, encoded = study.long_prompts == "truncate", list[list["TokenPair"]]()
    for start in range(0, len(training.examples), CHUNK):
        some = list(training.examples[start : start + CHUNK])
        answers = [example.answers(training.head) for example in some]
        if training.head == CLASSIFIER:
            answers = [
                tuple(verdict for choice in own for verdict in yes_or_no(choice)) for own in answers
            ]
        together = zip(some, answers, strict=True)
        asked = [example.question for example, own in together for _ in own]
        flat = [choice for own in answers for choice in own]
        pairs = iter(encode_answers(base, asked, flat, truncate=truncate))
        encoded += [[next(pairs) for _ in own] for own in answers]
    return encoded


def encode_evaluation(
    study: Study, data: Data, base: "BaseModel", head: str = BASE.head
) -> list["TokenPair"]:
    """The token pairs that a head scores: one for each choice of the evaluation questions.

    The prior scores the choices without the questions; a classifier answers yes and no to each.
    """
    from likra.heads.objectives import yes_or_no
    from likra.heads.score import encode_questions

    questions = list(data.evaluation)
    if head == PRIOR.head:
        questions = [
            _with_choices(q, (replace(c, context="") for c in q.choices)) for q in questions
        ]
    if head == CLASSIFIER:
        questions = [
            _with_choices(q, (verdict for c in q.choices for verdict in yes_or_no(c)))
            for q in questions
        ]
    return encode_questions(base, questions, truncate=study.long_prompts == "truncate")


def _with_choices(question: Question, choices: Iterable[Choice]) -> Question:
    return replace(question, choices=tuple(choices))


# --------------------------------------------------------------------------------------------
# Computing


def _compute(
    cells: Cells,
    base: "BaseModel",
    pairs: Sequence["TokenPair"],
    missing: Collection[HeadKey],
    log: Log,
    finished: Finished,
) -> None:
    """Train and score what is missing, one head after the other."""
    from likra.heads import preference

    evaluation = Evaluation(cells, base, pairs)
    for key in cells.scores:
        if key in missing and not key.n_train:
            _score(evaluation, key, finished)
    seed, reference = None, None  # the methods of a seed train on the same batches
    for training in cells.trainings:
        if training.head in BY_LIKRA and seed != training.seed:
            seed, reference = training.seed, preference.Reference()
        _train(cells, base, training, missing, log, finished, reference)
        for key in training.keys:
            if key in missing:
                _score(evaluation, key, finished)


def _train(
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
    """The evaluation questions, encoded and packed once for all heads that score the same pairs."""

    cells: Cells
    base: "BaseModel"
    pairs: Sequence["TokenPair"]
    _packed: "dict[str, tuple[Packed, list[int]]]" = field(default_factory=dict)

    def packed(self, head: str) -> "tuple[Packed, list[int]]":
        """What a head scores, and how many answer tokens each pair has."""
        form = head if head in {PRIOR.head, CLASSIFIER} else BASE.head
        if form not in self._packed:
            pairs = self.pairs
            if form != BASE.head:
                pairs = encode_evaluation(self.cells.run.study, self.cells.data, self.base, form)
            n_tokens = [len(pair.continuation) for pair in pairs]
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
    logprobs = score(Head(base, folder), packed, name=f"score {key}").logprobs
    check()  # another run may have replaced it
    if key.head == CLASSIFIER:
        logprobs, n_tokens = logprobs[0::2] - logprobs[1::2], n_tokens[0::2]
    table = score_table(
        data.task,
        data.eval_split,
        data.evaluation,
        key,
        logprobs,
        n_tokens,
        base.layout,
    )
    write_scores(run.scores_path(key), table, stamp_of(cells.scores[key]))
    n = [key.n_train] if key.n_train else []
    finished(FinishedCells(TABLE, key.head, n, key.seed, key.source))
