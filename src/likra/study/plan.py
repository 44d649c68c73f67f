"""What a study will take: cells, tokens, disk and time, before anything of it is computed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from likra.errors import LikraError
from likra.progress import Log
from likra.questions import Question
from likra.scores.table import (
    BASE,
    BY_LIKRA,
    BY_TRL,
    CLASSIFIER,
    PRIOR,
    HeadKey,
    choice_table,
    score_table,
)
from likra.study.cells import Cells, base_inputs
from likra.study.config import Study
from likra.study.describe import cut_lines, evaluation_lines, model_lines, training_lines
from likra.study.encode import encode_evaluation, encode_examples
from likra.study.examples import Training, heads_of
from likra.study.folder import Run
from likra.study.material import assumed_material, ranked_questions, read_material
from likra.study.prepare import prepare, uses
from likra.study.run import cells_of, set_aside
from likra.study.sharing import Shared, missing_cells, shared_cells, with_material
from likra.study.work import (
    FORWARD_FLOPS,
    TRAINING_PASSES,
    TRL_PASSES,
    Work,
    answers_of,
    passes_of,
    scoring_work,
    sum_of,
    training_work,
)
from likra.text import duration

if TYPE_CHECKING:
    from likra.engine.token_pairs import TokenPairs
    from likra.heads.base import BaseModel
    from likra.study.pace import Pace

FLOAT32 = 4  # bytes of a head's parameter


@dataclass(frozen=True)
class Stage:
    """Training or scoring: how many runs there are, and what the missing ones will take.

    A run trains one head through all its snapshots, or scores one head on all questions.

    Attributes:
        runs: of the whole study.
        done: those that are there already, here or in another run beside this one.
        answers: to train on or to score in the missing runs.
        work: of the missing runs; None without the model.
        seconds: (low, high) of the missing runs; None where nothing was timed.

    """

    runs: int
    done: int
    answers: int
    work: Work | None = None
    seconds: tuple[float, float] | None = None

    @property
    def to_do(self) -> int:
        """The runs that are missing."""
        return self.runs - self.done


@dataclass(frozen=True)
class Plan:
    """What a study will take, beside what its folder holds already.

    Attributes:
        folder: of the results.
        training: the training runs.
        scoring: the score tables.
        heads: snapshots of heads, of the whole study.
        heads_done: those that are there already, here or in another run beside this one.
        head_bytes: of one head; None without the model.
        score_bytes: of the score tables to write.
        shared: what is taken from other runs.
        notes: what the figures leave out, in words.
        missing: why the model cannot be opened; or None.

    """

    folder: Path
    training: Stage
    scoring: Stage
    heads: int
    heads_done: int
    head_bytes: int | None
    score_bytes: int
    shared: Shared
    notes: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def disk(self) -> int | None:
        """Bytes of the heads and score tables to write."""
        if self.head_bytes is None:
            return None
        return (self.heads - self.heads_done) * self.head_bytes + self.score_bytes


def plan_study(
    study: Study, folder: Path | None = None, log: Log = print, *, calibrate: bool = True
) -> Plan:
    """Find out what `likra.study.run.run_cells` would compute. Writes nothing.

    Args:
        study: what would be run.
        folder: of the results; ``runs/NAME`` by default.
        log: is given each line meant for the user.
        calibrate: time a few batches, for an estimate of the time. Without, the model's weights
            are not read: its configuration and tokenizer are enough.

    Raises:
        LikraError: as `run_cells`; but if only the model cannot be opened, the plan says so.

    """
    run = Run(study, folder or Path("runs") / study.name)
    data = prepare(study)
    n_aside = set_aside(study, data)
    base, missing = _open(study, calibrate=calibrate)
    inputs = base_inputs(study) if base else {}
    home = with_material(run, data, inputs) if base else None
    material = read_material(home, data) if home else assumed_material(run, data)
    cells = cells_of(run, data, inputs, material)
    if home:  # refuses what the run would refuse
        cells.trained(cells.heads)
        cells.scored()
    todo = _to_do(cells, knows_material=home is not None)
    plan = _count(todo)
    lines = [*(model_lines(base) if base else ()), *training_lines(data)]
    for line in [*lines, *evaluation_lines(study, data, n_aside)]:
        log(line)
    if base is None:
        return replace(plan, missing=missing)
    pairs = encode_evaluation(study, data, base)
    for line in cut_lines(pairs, base.max_length):
        log(line)
    return _measure(plan, todo, base, pairs, calibrate=calibrate)


def _open(study: Study, *, calibrate: bool) -> "tuple[BaseModel | None, str | None]":
    """The model; or why it cannot be opened."""
    from likra.heads.base import compute_dtype, default_device, open_without_weights
    from likra.study.run import open_base

    compute_dtype(study.dtype, default_device())  # a wrong dtype is the user's to correct
    try:
        if calibrate:
            return open_base(study), None
        return open_without_weights(study.model, dtype=study.dtype), None
    except LikraError as error:
        return None, str(error)


# --------------------------------------------------------------------------------------------
# Counting


@dataclass(frozen=True)
class _ToDo:
    """What a run would compute.

    Attributes:
        cells: of the run; only whether their files exist is asked.
        trainings: those that have snapshots to save, with no others in them.
        tables: to score.
        shared: what is taken from other runs.
        ranked: training questions that the base scores first, for ``hardest`` and ``easiest``.

    """

    cells: Cells
    trainings: list[Training]
    tables: list[HeadKey]
    shared: Shared
    ranked: Sequence[Question]


def _to_do(cells: Cells, *, knows_material: bool) -> _ToDo:
    run, missing, shared = cells.run, missing_cells(cells), shared_cells(cells)
    tables = [key for key in missing.tables if key not in shared.tables]
    heads = {key for key in missing.heads if key in tables and key not in shared.heads}
    runs = [
        replace(training, snapshots=own, examples=training.examples[: own[-1]])
        for training in cells.trainings
        if (own := tuple(key.n_train for key in training.keys if key in heads))
    ]
    is_ranked = knows_material or run.train_scores_path.is_file()
    ranks = uses(run.study, "hardest", "easiest") and not is_ranked
    return _ToDo(cells, runs, tables, shared, ranked_questions(cells.data) if ranks else ())


def _count(todo: _ToDo) -> Plan:
    cells, run = todo.cells, todo.cells.run
    n_tables, ranks = len(todo.tables), bool(todo.ranked)
    n_classified = sum(key.head == CLASSIFIER for key in todo.tables)  # with yes and no
    n_evaluated = sum(len(question.choices) for question in cells.data.evaluation)
    n_ranked = sum(len(question.choices) for question in todo.ranked)
    table_bytes = _table_bytes(cells.data.evaluation)
    return Plan(
        folder=run.folder,
        training=Stage(
            len(cells.trainings),
            len(cells.trainings) - len(todo.trainings),
            sum(answers_of(run.study.training, training) for training in todo.trainings),
        ),
        scoring=Stage(
            len(cells.scores) + ranks,
            len(cells.scores) - n_tables,
            (n_tables + n_classified) * n_evaluated + n_ranked,
        ),
        heads=len(cells.heads),
        heads_done=sum(run.head_folder(key).is_dir() for key in cells.heads)
        + len(todo.shared.heads),
        head_bytes=None,
        score_bytes=(n_tables + len(todo.shared.tables)) * table_bytes + _table_bytes(todo.ranked),
        notes=tuple(_notes(run.study)),
        shared=todo.shared,
    )


def _table_bytes(questions: Sequence[Question]) -> int:
    """The size of a score table of the questions: one is made in memory, with random scores."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not questions:
        return 0
    choices = choice_table(questions)
    lengths = choices["n_chars"].to_numpy()
    scores = np.random.default_rng(0).normal(size=len(lengths))
    table = score_table("task", "split", choices, BASE, scores, lengths, "forest")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    pa.default_memory_pool().release_unused()  # it would keep several times the table's size
    return int(sink.getvalue().size)


def _notes(study: Study) -> Iterator[str]:
    if uses(study, "hardest", "easiest", "generated"):
        yield (
            "what hardest, easiest and generated give is known only in the run: other wrong "
            "answers are counted in their place"
        )
    if uses(study, "generated"):
        yield "sampling the base's own answers is not counted"
    heads = {head for head, _ in heads_of(study)}
    if heads & set(BY_LIKRA):
        yield (
            "the base's log-likelihoods that other methods refer to are one forward pass more, "
            "once for those of a seed that have the same batches"
        )
    if heads & set(BY_TRL):
        yield (
            f"by TRL, training is {TRL_PASSES['trl-dpo']} forward passes with DPO and NCA, "
            f"{TRL_PASSES['trl-kto']} with KTO, on rows that are not packed"
        )


# --------------------------------------------------------------------------------------------
# What takes the model


def _measure(
    plan: Plan, todo: _ToDo, base: "BaseModel", pairs: "TokenPairs", *, calibrate: bool
) -> Plan:
    """Add tokens, operations, the size of a head and, where asked for, the time."""
    from likra.study.pace import other_load, time_scoring

    study = todo.cells.run.study
    together = zip(todo.trainings, passes_of(todo.trainings), strict=True)
    works = (
        training_work(
            study, base, one.head, encode_examples(study, base, one), one.snapshots, passes
        )
        for one, passes in together
    )
    training = replace(plan.training, work=sum_of(works))
    scoring = replace(plan.scoring, work=_scoring_work(todo, base, pairs))
    notes = plan.notes
    if calibrate:
        if load := other_load():
            notes = (load, *notes)
        training = _timed(training, partial(_time_training, study, base, todo))
        scoring = _timed(scoring, partial(time_scoring, study, base, pairs))
    head_bytes = FLOAT32 * _head_parameters(study, base)
    return replace(plan, training=training, scoring=scoring, head_bytes=head_bytes, notes=notes)


def _time_training(study: Study, base: "BaseModel", todo: _ToDo) -> "tuple[Pace, Pace]":
    from likra.study.pace import time_training

    return time_training(study, base, encode_examples(study, base, todo.trainings[0]))


def _timed(stage: Stage, measure: "Callable[[], tuple[Pace, Pace]]") -> Stage:
    if not stage.to_do or stage.work is None:
        return replace(stage, seconds=(0.0, 0.0))
    times = [pace.seconds(stage.to_do, stage.work.flops) for pace in measure()]
    return replace(stage, seconds=(min(times), max(times)))


def _head_parameters(study: Study, base: "BaseModel") -> int:
    from likra.heads.lora import fresh_head

    with fresh_head(base, study.lora, seed=0) as head:
        return sum(p.numel() for p in head.parameters() if p.requires_grad)


def _scoring_work(todo: _ToDo, base: "BaseModel", pairs: "TokenPairs") -> Work:
    from likra.heads.score import encode_questions

    study, data = todo.cells.run.study, todo.cells.data
    truncate = study.long_prompts == "truncate"
    others = [key.head for key in todo.tables if key.head in {PRIOR.head, CLASSIFIER}]
    works = [scoring_work(base, pairs)] * (len(todo.tables) - len(others))
    for head in dict.fromkeys(others):
        own = scoring_work(base, encode_evaluation(study, data, base, head))
        works += [own] * others.count(head)
    ranked = encode_questions(base, todo.ranked, truncate=truncate)
    return sum_of([*works, scoring_work(base, ranked)])


# --------------------------------------------------------------------------------------------
# In words


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan for a person."""
    training, scoring = plan.training, plan.scoring
    yield (
        f"plan   '{plan.folder}': {training.runs:,} training runs ({training.done:,} done) with "
        f"{plan.heads:,} snapshots ({plan.heads_done:,} done), {scoring.runs:,} score tables "
        f"({scoring.done:,} done)"
    )
    if plan.shared:
        yield f"taken  {plan.shared} from other runs beside it: these count as done"
    if not training.to_do and not scoring.to_do:
        yield "       nothing to compute"
        return
    yield ""
    yield _row("to do", "runs", "answers", "tokens given", "computed", "FLOPs", "time")
    yield _row("training", *_columns(training))
    yield _row("scoring", *_columns(scoring))
    yield ""
    yield (
        f"disk   {plan.heads - plan.heads_done:,} heads, each {_size(plan.head_bytes)}; score "
        f"tables {_size(plan.score_bytes)}; together {_size(plan.disk)}"
    )
    yield (
        f"FLOPs  {FORWARD_FLOPS} x parameters x tokens computed (after packing); training "
        f"{TRAINING_PASSES} times that"
    )
    if training.seconds is not None and scoring.seconds is not None:
        low, high = (a + b for a, b in zip(training.seconds, scoring.seconds, strict=True))
        yield (
            f"time   {_duration((low, high))}: estimated from batches timed here; opening the "
            "model and drawing the results come on top"
        )
    for note in plan.notes:
        yield f"note   {note}"
    if plan.missing is not None:
        yield f"?      not known without the model: {plan.missing}"


def _columns(stage: Stage) -> list[str]:
    work = stage.work
    counts = (stage.to_do, stage.answers, work and work.given, work and work.computed)
    columns = ["?" if count is None else f"{count:,}" for count in counts]
    return [*columns, f"{work.flops:.1e}" if work else "?", _duration(stage.seconds)]


def _row(first: str, *columns: str) -> str:
    widths = (6, 12, 16, 16, 10, 26)
    aligned = (column.rjust(width) for column, width in zip(columns, widths, strict=True))
    return f"       {first:<9}{''.join(aligned)}"


def _size(n_bytes: float | None) -> str:
    if n_bytes is None:
        return "?"
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def _duration(seconds: tuple[float, float] | None) -> str:
    """A range of seconds: "53 to 61 min"."""
    if seconds is None:
        return "?"
    low, high = (duration(value) for value in seconds)
    if low == high:
        return low
    same_unit = low.rpartition(" ")[2] == high.rpartition(" ")[2] and low.count(" ") == 1
    return f"{low.rpartition(' ')[0] if same_unit else low} to {high}"
