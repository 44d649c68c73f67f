"""What a study will take: cells, tokens, disk and time, before anything of it is computed."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from likra.errors import LikraError
from likra.questions import Question
from likra.scores.table import BASE, BASELINES, PRIOR, HeadKey
from likra.study.config import Study
from likra.study.run import Run, settled
from likra.study.workbench import Examples, Workbench

FORWARD_FLOPS = 2  # of each parameter and token: one multiplication and one addition
# Training in forward passes: one forward, and twice as much on the way back. DPO and NCA ask the
# base as well; KTO does so twice, with a second forward pass of its own.
PASSES = {"dpo": 4, "nca": 4, "kto": 6}
TRAINING_PASSES = 3
FLOAT32 = 4  # bytes of a head's parameter
CALIBRATION = 4.0  # seconds, of training and of scoring

# --------------------------------------------------------------------------------------------
# Arithmetic


@dataclass(frozen=True)
class Work:
    """Answers that go through the model, and their tokens.

    ``given`` counts prompt and answer of each as if it stood alone; ``computed`` what goes through
    the model: in a forest shared prefixes once, in plain rows padding too. ``flops`` leaves out
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


@dataclass(frozen=True)
class Pace:
    """Seconds of a run: what it takes however short it is, and what each operation adds."""

    fixed: float
    per_flop: float

    def seconds(self, runs: int, flops: int) -> float:
        """Of so many runs of so many operations in all."""
        return runs * self.fixed + flops * self.per_flop


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


@dataclass(frozen=True)
class Stage:
    """Training or scoring: how many runs there are, and what those to do will take.

    A run trains one head through all its snapshots, or scores one head on all questions.

    Attributes:
        runs: of the whole study.
        done: of these, what is there already.
        answers: to train on or to score in the runs to do.
        work: of the runs to do; None without the model.
        seconds: of the runs to do; None where nothing was timed.

    """

    runs: int
    done: int
    answers: int
    work: Work | None = None
    seconds: float | None = None

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
        heads_done: of these, what is there already.
        head_bytes: of one head; None without the model.
        score_bytes: of the score tables to write.
        notes: what the figures leave out, in words.
        missing: why the model is not to be had; or None.

    """

    folder: Path
    training: Stage
    scoring: Stage
    heads: int
    heads_done: int
    head_bytes: int | None
    score_bytes: int
    notes: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def disk(self) -> int | None:
        """Bytes of the heads and score tables to write."""
        if self.head_bytes is None:
            return None
        return (self.heads - self.heads_done) * self.head_bytes + self.score_bytes


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
    if not training.to_do and not scoring.to_do:
        yield "       nothing to compute"
        return
    yield ""
    yield _row("to do", "runs", "answers", "tokens given", "computed", "FLOPs", "time")
    yield _row("training", *_cells(training))
    yield _row("scoring", *_cells(scoring))
    yield ""
    yield (
        f"disk   {plan.heads - plan.heads_done:,} heads of {_size(plan.head_bytes)}, score tables "
        f"of {_size(plan.score_bytes)} together: {_size(plan.disk)}"
    )
    yield (
        f"FLOPs  {FORWARD_FLOPS} x parameters x tokens computed (after packing); training "
        f"{TRAINING_PASSES} times that"
    )
    if training.seconds is not None and scoring.seconds is not None:
        yield (
            f"time   {_duration(training.seconds + scoring.seconds)}: an estimate from a few "
            "batches timed here; opening the model and drawing the results come on top"
        )
    for note in plan.notes:
        yield f"note   {note}"
    if plan.missing is not None:
        yield f"?      not known without the model: {plan.missing}"


def _cells(stage: Stage) -> list[str]:
    work = stage.work
    counts = (stage.to_do, stage.answers, work and work.given, work and work.computed)
    cells = ["?" if count is None else f"{count:,}" for count in counts]
    return [*cells, f"{work.flops:.1e}" if work else "?", _duration(stage.seconds)]


def _row(first: str, *cells: str) -> str:
    widths = (6, 12, 16, 16, 10, 12)
    columns = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"       {first:<9}{''.join(columns)}"


def _size(n_bytes: float | None) -> str:
    if n_bytes is None:
        return "?"
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


# --------------------------------------------------------------------------------------------
# Counting


@dataclass(frozen=True)
class _ToDo:
    """What a run would compute: heads with what they are trained on, and score tables."""

    trainings: list[tuple[str, Examples]]
    tables: list[HeadKey]
    train_table: list[Question]  # scored first, if a source of negatives asks for it


def plan_study(
    study: Study, folder: Path | None = None, say: Any = print, *, calibrate: bool = True
) -> Plan:
    """Find out what `likra.study.run.run_study` would compute. Writes nothing.

    Args:
        study: what would be run.
        folder: of the results; ``runs/NAME`` by default.
        say: is given each line meant for the user.
        calibrate: time a few batches, for an estimate of the time. Without, the model's weights
            are not read: its configuration and tokenizer are enough.

    Raises:
        LikraError: as `run_study`; but if only the model is not to be had, the plan says so.

    """
    bench = Workbench(study, say)
    run = settled(bench, folder or Path("runs") / study.name)
    bench.check_answers()
    missing = _open(bench, calibrate=calibrate)
    _describe(bench, missing)
    _stand_in(bench)
    to_do = _to_do(run, bench)
    plan = _without_model(run, bench, to_do)
    if missing is not None:
        return replace(plan, missing=missing)
    return _with_model(plan, bench, to_do, calibrate=calibrate)


def _open(bench: Workbench, *, calibrate: bool) -> str | None:
    """Open the model; if it is not to be had, say why."""
    from likra.heads.base import compute_dtype, default_device, open_without_weights

    compute_dtype(bench.study.dtype, default_device())  # this the user can mend
    try:
        if not calibrate:
            bench.base = open_without_weights(bench.study.model, dtype=bench.study.dtype)
        _ = bench.base
    except LikraError as error:
        return str(error)
    return None


def _describe(bench: Workbench, missing: str | None) -> None:
    if missing is None:
        bench.describe()
    bench.describe_notes()
    bench.describe_train()
    if missing is None:
        bench.describe_evaluation()
    else:
        bench.say(f"       {len(bench.evaluation):,} evaluation questions ({bench.eval_split})")


def _stand_in(bench: Workbench) -> None:
    """Give the sources that draw from what only the run computes something to draw from."""
    if bench.uses("hardest", "easiest"):
        bench.train_scores.update((q.id, [0.0] * len(q.choices)) for q in bench.train)
    if bench.uses("generated"):
        answers = [(question.right or question.choices)[0].text for question in bench.train]
        bench.generated.update(
            (question.id, [*(choice.text for choice in question.wrong), answers[place - 1]])
            for place, question in enumerate(bench.train)
        )


def _to_do(run: Run, bench: Workbench) -> _ToDo:
    trainings = []
    for keys in run.trainings:
        if not all(run.head_folder(key).is_dir() for key in keys):
            last = keys[-1]
            found = bench.examples(last.seed or 0, last.head, last.source, last.n_train)
            trainings.append((last.head, found))
    tables = [key for key in run.keys if not run.scores_path(key).is_file()]
    asked = trainings and bench.uses("hardest", "easiest") and not run.train_scores_path.is_file()
    return _ToDo(trainings, tables, [q for q in bench.train if q.wrong] if asked else [])


def _without_model(run: Run, bench: Workbench, to_do: _ToDo) -> Plan:
    n_tables, n_trained = len(to_do.tables), len(to_do.trainings)
    asked = len(to_do.train_table) > 0
    answers = n_tables * _n_choices(bench.evaluation) + _n_choices(to_do.train_table)
    heads = [run.head_folder(key) for keys in run.trainings for key in keys]
    return Plan(
        folder=run.folder,
        training=Stage(
            len(run.trainings),
            len(run.trainings) - n_trained,
            sum(_n_answers(head, found) for head, found in to_do.trainings),
        ),
        scoring=Stage(len(run.keys) + asked, len(run.keys) - n_tables, answers),
        heads=len(heads),
        heads_done=sum(folder.is_dir() for folder in heads),
        head_bytes=None,
        score_bytes=n_tables * _table_bytes(bench.evaluation) + _table_bytes(to_do.train_table),
        notes=_notes(bench),
    )


def _n_choices(questions: Sequence[Question]) -> int:
    return sum(len(question.choices) for question in questions)


def _n_answers(head: str, examples: Examples) -> int:
    """How many answers a head is trained on. The negative one sees no right ones."""
    if head == "negative":
        return sum(map(len, examples.wrong))
    return sum(1 + len(wrong[:1]) for wrong in examples.wrong)


def _table_bytes(questions: Sequence[Question]) -> int:
    """The size of a score table of the questions: one is made in memory, with random scores."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from likra.scores.table import score_table

    if not questions:
        return 0
    lengths = [len(choice.text) for question in questions for choice in question.choices]
    scores = np.random.default_rng(0).normal(size=len(lengths))
    table = score_table("task", "split", questions, BASE, scores, lengths, "forest")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return int(sink.getvalue().size)


def _notes(bench: Workbench) -> tuple[str, ...]:
    notes = []
    if bench.uses("hardest", "easiest", "generated"):
        notes.append(
            "what hardest, easiest and generated give is known only in the run: other wrong "
            "answers are counted in their place"
        )
    if bench.uses("generated"):
        notes.append("sampling the base's own answers is not counted")
    if {head for head, _ in bench.study.trained} & set(PASSES):
        notes.append(
            f"training is {PASSES['dpo']} forward passes with DPO and NCA, {PASSES['kto']} with "
            "KTO, on rows that are not packed"
        )
    return tuple(notes)


def _with_model(plan: Plan, bench: Workbench, to_do: _ToDo, *, calibrate: bool) -> Plan:
    """Add what takes the model: tokens, operations, the size of a head, the time."""
    trained = [(head, _pairs(bench, head, found)) for head, found in to_do.trainings]
    training = replace(plan.training, work=_total(_head_work(bench, *one) for one in trained))
    scoring = replace(plan.scoring, work=_tables_work(bench, to_do))
    if calibrate:
        training = _timed(training, lambda: _time_training(bench, trained[0][1]))
        scoring = _timed(scoring, lambda: _time_scoring(bench))
    head_bytes = FLOAT32 * _head_parameters(bench)
    return replace(plan, training=training, scoring=scoring, head_bytes=head_bytes)


def _pairs(bench: Workbench, head: str, examples: Examples) -> list[list[Any]]:
    """The token pairs of each example that a head is trained on, in order."""
    wrong: list[list[Any]] = bench.encode(examples, "negative")
    if head == "negative":
        return wrong
    right = bench.encode(examples, "positive")
    return [[*own, *others[:1]] for own, others in zip(right, wrong, strict=True)]


def _head_work(bench: Workbench, head: str, examples: Sequence[Sequence[Any]]) -> Work:
    if head in BASELINES:
        return training_work(bench, examples, "padded", PASSES.get(head, TRAINING_PASSES))
    return training_work(bench, examples, bench.base.layout, TRAINING_PASSES)


def _tables_work(bench: Workbench, to_do: _ToDo) -> Work:
    from likra.heads.score import encode_questions

    priors = to_do.tables.count(PRIOR)
    truncate = bench.study.long_prompts == "truncate"
    train_pairs = encode_questions(bench.base, to_do.train_table, truncate=truncate)
    works = [scoring_work(bench, bench.encoded)] * (len(to_do.tables) - priors)
    works += [scoring_work(bench, bench.encoded_alone) for _ in range(priors)]
    return _total([*works, scoring_work(bench, train_pairs)])


def _total(works: Iterable[Work]) -> Work:
    return sum(works, Work())


def _timed(stage: Stage, measure: Callable[[], Pace]) -> Stage:
    if not stage.to_do or stage.work is None:
        return replace(stage, seconds=0.0)
    return replace(stage, seconds=measure().seconds(stage.to_do, stage.work.flops))


def _head_parameters(bench: Workbench) -> int:
    from likra.heads.lora import fresh_head

    with fresh_head(bench.base, bench.lora, seed=0) as head:
        return sum(p.numel() for p in head.parameters() if p.requires_grad)


def training_work(
    bench: Workbench, examples: Sequence[Sequence[Any]], layout: str, passes: int
) -> Work:
    """Of one training run on the token pairs of the examples, batch by batch."""
    settings = bench.study.training
    size = settings.batch_size // settings.gradient_accumulation_steps
    parts = [examples[start : start + size] for start in range(0, len(examples), size)]
    return _work(bench, [[p for own in part for p in own] for part in parts], layout, passes)


def scoring_work(bench: Workbench, pairs: Sequence[Any]) -> Work:
    """Of one pass over the token pairs, packed as `likra.heads.score` packs them."""
    from likra.engine.packing import batch_indices, token_budget
    from likra.heads.base import default_device

    layout = bench.base.layout
    batches = batch_indices(pairs, layout, token_budget(default_device()))
    return _work(bench, ([pairs[place] for place in batch] for batch in batches), layout, 1)


def _work(bench: Workbench, batches: Iterable[list[Any]], layout: str, passes: int) -> Work:
    from likra.engine.packing import LAYOUTS

    flops = FORWARD_FLOPS * bench.base.model.num_parameters() * passes
    work = Work()
    for batch in batches:
        computed = LAYOUTS[layout](batch).input_ids.numel()
        given = sum(len(pair.tokens) for pair in batch)
        work += Work(len(batch), given, computed, flops * computed)
    return work


# --------------------------------------------------------------------------------------------
# Timing


def _time_training(bench: Workbench, examples: Sequence[Sequence[Any]]) -> Pace:
    from likra.heads.settings import TrainingSettings
    from likra.heads.train import train_head

    settings = TrainingSettings(**bench.study.training.model_dump())

    def flops(count: int) -> int:
        part = examples[:count]
        return training_work(bench, part, bench.base.layout, TRAINING_PASSES).flops

    with tempfile.TemporaryDirectory(prefix="likra-") as folder:

        def train(count: int) -> None:
            snapshots = {count: Path(folder) / "head"}
            train_head(
                bench.base,
                examples,
                snapshots,
                settings=settings,
                lora=bench.lora,
                name=None,
            )

        return _pace_of(train, flops, len(examples))


def _time_scoring(bench: Workbench) -> Pace:
    from likra.heads.lora import Head, fresh_head, save_head
    from likra.heads.score import score as score_head

    with tempfile.TemporaryDirectory(prefix="likra-") as folder:
        saved = Path(folder) / "head"
        with fresh_head(bench.base, bench.lora, seed=0) as head:
            save_head(head, saved)

        def score(count: int) -> None:
            score_head(Head(bench.base, saved), bench.encoded[:count])

        def flops(count: int) -> int:
            return scoring_work(bench, bench.encoded[:count]).flops

        return _pace_of(score, flops, len(bench.encoded))


def _pace_of(work: Callable[[int], None], flops: Callable[[int], int], most: int) -> Pace:
    """Time ever larger parts of the work, each twice the one before, as long as there is time."""
    work(1)  # imports, and what a device sets up at first use
    points: list[tuple[int, float]] = []
    count, spent = 1, 0.0
    while True:
        start = time.perf_counter()
        work(count)
        seconds = time.perf_counter() - start
        points.append((flops(count), seconds))
        spent += seconds
        if count == most or spent + 2 * seconds > CALIBRATION:
            return pace(points)
        count = min(2 * count, most)
