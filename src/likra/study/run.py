"""Running a study: its stages in order, and each missing cell computed once.

prepare (questions) -> material (what the base computes first) -> examples -> heads -> score tables.
Each stage reads values or files. What comes after the score tables is `likra.report`.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.atomic import write_text
from likra.errors import LikraError
from likra.negatives.samplers import Material
from likra.progress import Advance, progress
from likra.questions import Choice, Question
from likra.scores.table import BASELINES, PRIOR, HeadKey, score_table, write_scores
from likra.scores.weights import split_validation
from likra.study.cells import Cells, Inputs, base_inputs, check_stamp, stamp_of, version_note
from likra.study.config import CellSettings, Study
from likra.study.describe import cut_lines, evaluation_lines, model_lines, training_lines
from likra.study.examples import Example, Training, available, trainings, with_snapshots
from likra.study.folder import Run, library_versions, read_about, read_run, write_about
from likra.study.material import compute_material, is_complete, read_material
from likra.study.prepare import Data, prepare, uses

if TYPE_CHECKING:
    from likra.engine.packing import Packed
    from likra.engine.tokens import TokenPair
    from likra.heads.base import BaseModel

Log = Callable[[str], Any]
VALIDATION = 20  # fewer questions can neither choose a weight nor test it
# Settings that some cells alone depend on, whose stamps tell.
OF_SOME_CELLS = {"generation", "beta", "other_data"}


def run_cells(study: Study, folder: Path | None = None, log: Log = print) -> Run:
    """Compute the heads and score tables of a study that are missing in its folder.

    Args:
        study: what to run (`likra.study.config.read_study`).
        folder: of the results; ``runs/NAME`` by default.
        log: is given each line meant for the user.

    Returns:
        The run, its snapshots resolved.

    Raises:
        LikraError: bad input, or the folder holds cells of other settings or other data.

    """
    run = Run(study, folder or Path("runs") / study.name)
    check_folder(run)
    data = prepare(study)
    n_aside = set_aside(study, data)
    cells, base = resolve(run, data)
    stamps = cells.scored()
    missing = [key for key in cells.scores if key not in stamps]
    if note := version_note(stamps.values()):
        log(f"note   {note}")
    if not missing:
        write_study(cells, base)
        log(f"all {len(cells.scores)} heads of '{run.folder}' are scored: nothing to compute")
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
    with progress(len(missing), f"study {study.name}", "heads") as advance:
        _compute(cells, base, pairs, missing, log, advance)
    return cells.run


def train_heads(study: Study, folder: Path, log: Log = print) -> list[Path]:
    """Train the heads of a study that are missing in its folder, without scoring them.

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
    check_folder(run)
    data = prepare(study, evaluates=False)
    cells, base = resolve(run, data)
    stamps = cells.trained(cells.heads)
    if note := version_note(stamps.values()):
        log(f"note   {note}")
    missing = [key for key in cells.heads if key not in stamps]
    if missing:
        base = base or open_base(study)
        check_heads(cells, base)
        for line in (*model_lines(base), *training_lines(data)):
            log(line)
        write_study(cells, base)
        for training in cells.trainings:
            _train(cells, base, training, missing, log)
    else:
        log(f"all heads of '{folder}' are trained: nothing to compute")
    return [cells.run.head_folder(key) for key in cells.heads]


# --------------------------------------------------------------------------------------------
# Before anything is computed


def check_folder(run: Run) -> None:
    """Refuse a folder whose study has other settings that all of its cells depend on.

    Seeds, samplers, snapshots and all analysis settings may differ: what is new is computed.

    Raises:
        LikraError: names the first setting that differs.

    """
    if not run.study_path.is_file():
        return
    before, now = read_run(run.folder).study, run.study
    for name in CellSettings.model_fields:
        old, new = getattr(before, name), getattr(now, name)
        if name not in OF_SOME_CELLS and old != new:
            raise LikraError(
                f"'{run.folder}' holds a study with another '{name}' ({old!r} there, {new!r} now): "
                "name another folder with --output, or delete this one"
            )


def set_aside(study: Study, data: Data) -> int:
    """How many evaluation questions are set aside to choose the weight on.

    Raises:
        LikraError: too few on either side.

    """
    fraction = study.validation_fraction
    if fraction is None:
        return 0
    aside = int(split_validation([q.id for q in data.evaluation], fraction).sum())
    left = len(data.evaluation) - aside
    if min(aside, left) < VALIDATION:
        raise LikraError(
            f"validation_fraction {fraction} sets {aside} questions aside and leaves {left}: "
            f"each side needs {VALIDATION}"
        )
    return aside


def resolve(run: Run, data: Data) -> tuple[Cells, "BaseModel | None"]:
    """The cells of a run; and the base, where it had to be opened to compute material.

    Raises:
        LikraError: a head has too few examples, or a file was computed with other inputs.

    """
    inputs, base = base_inputs(run.study), None
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
    check_snapshots(study.snapshots, study.training.batch_size, len(data.train))
    runs = tuple(trainings(study, data.train, material))
    return Cells(Run(study, run.folder), data, inputs, runs)


def _check_before_material(study: Study, data: Data, base: "BaseModel") -> None:
    """Find what is wrong with the evaluation before the base has computed for hours."""
    from likra.heads.sample import check_room

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
    from likra.heads.lora import fresh_head
    from likra.heads.train import check_can_train

    if cells.trainings:
        check_can_train(base)
    with fresh_head(base, cells.run.study.lora, seed=0):
        pass  # the layers that it adapts exist
    for training in cells.trainings:
        encode_examples(cells.run.study, base, training)


def encode_examples(study: Study, base: "BaseModel", training: Training) -> list[list["TokenPair"]]:
    """The token pairs of each example that a head is trained on, in order.

    Raises:
        LikraError: a pair does not fit the model's context; names its question.

    """
    answers = training.answers()
    asked = [
        example.question
        for example, own in zip(training.examples, answers, strict=True)
        for _ in own
    ]
    pairs = iter(_encode(study, base, asked, [choice for own in answers for choice in own]))
    return [[next(pairs) for _ in own] for own in answers]


def encode_evaluation(study: Study, data: Data, base: "BaseModel") -> list["TokenPair"]:
    """The token pairs of all choices of the evaluation questions."""
    asked = [(question, choice) for question in data.evaluation for choice in question.choices]
    return _encode(study, base, [q for q, _ in asked], [c for _, c in asked])


def encode_alone(study: Study, data: Data, base: "BaseModel") -> list["TokenPair"]:
    """The token pairs of the choices without their questions."""
    asked = [
        (question, Choice("", choice.continuation, choice.text, choice.is_right))
        for question in data.evaluation
        for choice in question.choices
    ]
    return _encode(study, base, [q for q, _ in asked], [c for _, c in asked])


def _encode(
    study: Study, base: "BaseModel", questions: Sequence[Question], choices: Sequence[Choice]
) -> list["TokenPair"]:
    from likra.heads.score import encode_answers

    return encode_answers(base, questions, choices, truncate=study.long_prompts == "truncate")


# --------------------------------------------------------------------------------------------
# What is written about a run


def write_study(cells: Cells, base: "BaseModel | None") -> None:
    """Write ``study.yaml`` and the texts of the evaluation questions."""
    run, data = cells.run, cells.data
    if base is not None:
        layout = {"layout": base.layout, "layout_reason": base.layout_reason}
    else:
        before = read_about(run.folder) if run.study_path.is_file() else {}
        layout = {name: before.get(name, "unknown") for name in ("layout", "layout_reason")}
    facts = {
        "versions": library_versions(),
        **layout,
        **_starting_point(cells.run.study),
        "n_train_questions": len(data.train),
        "n_eval_questions": len(data.evaluation),
        "trained": [[one.head, one.seed, one.source] for one in cells.trainings],
        "notes": list(data.notes),
        "leaks": [[leak.train_id, leak.eval_id, round(leak.similarity, 4)] for leak in data.leaks],
    }
    if data.evaluation:
        write_text(run.questions_path, _lines(map(_question_row, data.evaluation)))
    write_about(run, facts)


def _starting_point(study: Study) -> dict[str, str]:
    """Where a relative path to the model counts from (`likra.study.folder.usable_path`)."""
    model = Path(study.model)
    is_relative = model.is_dir() and not model.is_absolute() and study.model != "pocket"
    return {"started_in": str(Path.cwd())} if is_relative else {}


def _question_row(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "stem": question.stem,
        "choices": [choice.text for choice in question.choices],
        "is_right": [choice.is_right for choice in question.choices],
    }


def _example_row(example: Example, head: str) -> dict[str, Any]:
    """What a head was trained on; `likra eval` looks for evaluated questions among these."""
    answers = example.answers(head)
    row: dict[str, Any] = {"question_id": example.question.id, "context": answers[0].context}
    if head != "negative" and example.right is not None:
        row["answer"] = example.right.continuation
    if head not in {"positive", "trl-sft"}:
        row["wrong"] = [choice.continuation for choice in answers if not choice.is_right]
    return row


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# --------------------------------------------------------------------------------------------
# Computing


def _compute(
    cells: Cells,
    base: "BaseModel",
    pairs: Sequence["TokenPair"],
    missing: Collection[HeadKey],
    log: Log,
    advance: Advance,
) -> None:
    """Train and score what is missing, one head after the other."""
    packed, n_tokens = base.pack(pairs), [len(pair.continuation) for pair in pairs]
    for key in cells.scores:
        if key in missing and not key.n_train:
            _score(cells, base, key, packed, n_tokens)
            advance(1)
    for training in cells.trainings:
        _train(cells, base, training, missing, log)
        for key in training.keys:
            if key in missing:
                _score(cells, base, key, packed, n_tokens)
                advance(1)


def _train(
    cells: Cells, base: "BaseModel", training: Training, missing: Collection[HeadKey], log: Log
) -> None:
    """Train a head as far as its snapshots are missing."""
    run = cells.run
    wanted = [key for key in training.keys if key in missing]
    there = cells.trained(wanted)
    wanted = [key for key in wanted if key not in there]
    if not wanted:
        return
    if training.report:
        log(f"       {training.source}, seed {training.seed}: {training.report}")
    folder = run.training_folder(wanted[-1])
    rows = [_example_row(example, training.head) for example in training.examples]
    write_text(folder / "examples.jsonl", _lines(rows))
    _train_head(cells, base, training, wanted, folder / "losses.csv")


def _train_head(
    cells: Cells,
    base: "BaseModel",
    training: Training,
    keys: Sequence[HeadKey],
    losses: Path,
) -> None:
    study = cells.run.study
    source = f" ({training.source})" if training.source else ""
    shared: dict[str, Any] = {
        "settings": study.training,
        "lora": study.lora,
        "seed": training.seed,
        "name": f"train {training.head}{source}, seed {training.seed}",
        "stamps": {key.n_train: stamp_of(cells.heads[key]) for key in keys},
        "losses": losses,
    }
    folders = {key.n_train: cells.run.head_folder(key) for key in keys}
    if training.head in BASELINES:
        from likra.heads.trl import train_baseline

        answers = training.answers()
        right, wrong = [own[0] for own in answers], [own[-1] for own in answers]
        train_baseline(base, training.head, right, wrong, folders, beta=study.beta, **shared)
    else:
        from likra.heads.train import train_head

        train_head(base, encode_examples(study, base, training), folders, **shared)


def _score(
    cells: Cells, base: "BaseModel", key: HeadKey, packed: "Packed", n_tokens: Sequence[int]
) -> None:
    """Score one head on the evaluation questions."""
    from likra.heads.lora import Head
    from likra.heads.score import score
    from likra.heads.stamp import read_stamp

    run, data = cells.run, cells.data
    folder = run.head_folder(key) if key.n_train else None
    if folder is not None:  # another run may have replaced it
        check_stamp(folder, read_stamp(folder), cells.heads[key])
    if key == PRIOR:
        alone = encode_alone(run.study, data, base)
        packed, n_tokens = base.pack(alone), [len(pair.continuation) for pair in alone]
    scored = score(Head(base, folder), packed, name=f"score {key}")
    table = score_table(
        data.task,
        data.eval_split,
        data.evaluation,
        key,
        scored.logprobs,
        n_tokens,
        base.layout,
    )
    write_scores(run.scores_path(key), table, stamp_of(cells.scores[key]))
