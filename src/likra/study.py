"""Running a study: cells (head x seed x source x n), each computed once, then the results."""

import json
import os
import platform
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from likra.errors import LikraError
from likra.negatives import draw_negatives
from likra.questions import Choice, Question, leaks
from likra.ratio import curve
from likra.settings import Study, parse_study
from likra.table import BASE, HeadKey, Scores, combine, prompt_sha, read_scores
from likra.tasks import load_task

# Threads bring a small model nothing: on a busy machine they wait for one another, and with their
# number the order of sums changes. With one, the numbers are the same on any number of cores.
ONE_THREAD_BELOW = 10_000_000  # parameters
LIBRARIES = ("likra", "torch", "transformers", "peft", "lm_eval", "datasets", "pyarrow")


@dataclass(frozen=True)
class Run:
    """The folder of a study, and where everything in it lies."""

    study: Study
    folder: Path

    def head_folder(self, key: HeadKey) -> Path:
        """The plain PEFT folder of one snapshot."""
        return self.training_folder(key) / f"n={key.n_train}"

    def training_folder(self, key: HeadKey) -> Path:
        """What one training run leaves: its snapshots, losses and examples."""
        folder = self.folder / "heads" / key.head / f"seed={key.seed}"
        return folder / f"source={key.source}" if key.source else folder

    def scores_path(self, key: HeadKey) -> Path:
        """The score table of one head."""
        return self.folder / "scores" / f"{key}.parquet"

    @property
    def trainings(self) -> list[list[HeadKey]]:
        """The snapshots of each training run: both heads of a seed, for every source."""
        lines: list[tuple[str, int, str | None]] = []
        for seed in self.study.seeds:
            lines.append(("positive", seed, None))
            lines += [("negative", seed, source) for source in self.study.negatives]
        return [
            [HeadKey(head, n, seed, source) for n in self.study.snapshots]
            for head, seed, source in lines
        ]

    @property
    def keys(self) -> list[HeadKey]:
        """Everything that is scored."""
        return [BASE, *(key for snapshots in self.trainings for key in snapshots)]

    def heads_done(self) -> bool:
        """Whether every snapshot of every head is there."""
        return all(self.head_folder(key).is_dir() for key in self.keys if key != BASE)

    def scores_done(self) -> bool:
        """Whether every score table is there."""
        return all(self.scores_path(key).is_file() for key in self.keys)


@dataclass
class Workbench:
    """What the cells of a study share: questions, answers, the opened base. Made when first used.

    All input is checked before anything is computed or written.
    """

    study: Study
    say: Any = field(default=print)

    @cached_property
    def task(self) -> Any:
        """The opened task."""
        return load_task(self.study.task, self.study.data)

    @cached_property
    def train(self) -> list[Question]:
        """The training questions, in the order of their split."""
        split = self.study.train_split or self.task.train_split
        if split is None:
            raise LikraError(f"task '{self.task.name}' has no training split here: set train_split")
        questions: list[Question] = self.task.questions(split)
        return questions

    @cached_property
    def eval_split(self) -> str:
        """The name of the split that is evaluated."""
        return self.study.eval_split or str(self.task.eval_split)

    @cached_property
    def evaluation(self) -> list[Question]:
        """The evaluation questions."""
        questions: list[Question] = self.task.questions(self.eval_split, self.study.num_fewshot)
        return questions

    @cached_property
    def base(self) -> Any:
        """The opened base model."""
        from likra.heads import open_model

        base = open_model(self.study.model, dtype=self.study.dtype)
        if base.device.type == "cpu" and base.model.num_parameters() < ONE_THREAD_BELOW:
            import torch

            torch.set_num_threads(1)
        return base

    @cached_property
    def encoded(self) -> Any:
        """The token pairs of the evaluation's choices."""
        from likra.scoring import encode_questions

        truncate = self.study.long_prompts == "truncate"
        return encode_questions(self.base, self.evaluation, truncate=truncate)

    @property
    def lora(self) -> Any:
        """The shape of the heads."""
        from likra.heads import LoraSettings

        settings = self.study.lora.model_dump()
        if isinstance(settings["target_modules"], list):
            settings["target_modules"] = tuple(settings["target_modules"])
        return LoraSettings(**settings)

    def encode(self, choices: Sequence[Choice]) -> Any:
        """The token pairs of answers to train on."""
        from likra.forest import encode

        truncate = self.study.long_prompts == "truncate"
        return encode(self.base.tokenizer, choices, self.base.max_length, truncate=truncate)

    def answers(self, seed: int, source: str | None) -> tuple[list[str], list[Choice]]:
        """Ids and answers that a head is trained on, in order; without a source the right ones.

        One seeded shuffle of the questions, made before either head: at every n all heads of a
        seed have seen answers to the same n questions.
        """
        order = random.Random(seed).sample(range(len(self.train)), len(self.train))
        order = order[: self.study.snapshots[-1]]
        chosen = (
            draw_negatives(source, self.train, seed)
            if source
            else [question.right[0] for question in self.train]
        )
        return [self.train[i].id for i in order], [chosen[i] for i in order]

    def check(self) -> None:
        """Refuse bad input before anything is written.

        Raises:
            LikraError: whatever is wrong with the model, the task, the questions or the snapshots.

        """
        from likra.heads import fresh_head
        from likra.training import check_snapshots

        batch_size = self.study.training.batch_size
        check_snapshots(self.study.snapshots, batch_size, len(self.train))
        for source in (None, *self.study.negatives):
            for seed in self.study.seeds:
                self.encode(self.answers(seed, source)[1])
        with fresh_head(self.base, self.lora, seed=0):
            pass  # the layers that it adapts are there

    def describe(self) -> None:
        """Say what will be computed with what."""
        base = self.base
        size = base.model.num_parameters()
        self.say(f"model  {base.name}: {size:,} parameters on {base.device}, {base.model.dtype}")
        self.say(f"layout {base.layout} ({base.layout_reason})")


def run_study(
    study: Study, folder: Path | None = None, say: Any = print
) -> tuple[Run, pd.DataFrame]:
    """Train and score what is missing of a study, then write its results.

    Args:
        study: what to run (`likra.settings.read_study`).
        folder: of the results; ``runs/NAME`` by default.
        say: is given each line meant for the user.

    Returns:
        The run, and its curves (see `likra.ratio.Point` for the columns).

    Raises:
        LikraError: bad input, or the folder holds a study with other settings.

    """
    run = Run(study, folder or Path("runs") / study.name)
    check_folder(run)
    if not run.scores_done():
        bench = Workbench(study, say)
        _prepare(run, bench, scoring=True)
        cells = len(run.keys)
        with tqdm(total=cells, desc=f"study {study.name}", unit=" heads") as bar:
            _score_base(run, bench, bar)
            for snapshots in run.trainings:
                _train(run, bench, snapshots)
                _score(run, bench, snapshots, bar)
    else:
        say(f"all {len(run.keys)} heads of '{run.folder}' are scored: nothing to compute")
    return run, write_results(run)


def train_heads(study: Study, folder: Path, say: Any = print) -> Run:
    """Train the heads of a study, without scoring them.

    Args:
        study: its seeds, sources and snapshots say which heads.
        folder: for ``heads/`` and ``study.yaml``.
        say: is given each line meant for the user.

    Raises:
        LikraError: as `run_study`.

    """
    run = Run(study, folder)
    check_folder(run)
    if run.heads_done():
        say(f"all heads of '{folder}' are trained: nothing to compute")
        return run
    bench = Workbench(study, say)
    _prepare(run, bench, scoring=False)
    for snapshots in run.trainings:
        _train(run, bench, snapshots)
    return run


def check_folder(run: Run) -> None:
    """Refuse a folder that holds a study with other settings.

    Raises:
        LikraError: naming the first setting that differs.

    """
    path = run.folder / "study.yaml"
    if not path.is_file():
        return
    there = read_run(run.folder).study.model_dump()
    here = run.study.model_dump()
    for key, value in here.items():
        if there[key] != value:
            raise LikraError(
                f"'{run.folder}' holds a study with another '{key}' ({there[key]!r} there, "
                f"{value!r} now): name another folder with --output, or delete this one"
            )


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        LikraError: there is none, or its settings cannot be read.

    """
    path = folder / "study.yaml"
    if not path.is_file():
        raise LikraError(f"no run in '{folder}': there is no study.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = content["study"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise LikraError(f"cannot read '{path}': {type(error).__name__}") from error
    return Run(parse_study(settings, f"'{path}'"), folder)


# --------------------------------------------------------------------------------------------
# Cells


def _prepare(run: Run, bench: Workbench, *, scoring: bool) -> None:
    """Check all input, say what will be computed, and only then write the first file."""
    n_train = len(bench.train)  # faults of the data are found before the model is opened
    bench.describe()
    bench.check()
    bench.say(f"task   {bench.task.name}: {n_train:,} training questions")
    leaked = _announce_evaluation(bench) if scoring else None
    content = {
        "study": run.study.model_dump(),
        "versions": {name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
        "layout": bench.base.layout,
        "layout_reason": bench.base.layout_reason,
        "n_train_questions": n_train,
        "n_eval_questions": len(bench.evaluation) if scoring else None,
        "leaks": leaked,
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(run.folder / "study.yaml", text)


def _announce_evaluation(bench: Workbench) -> list[list[str]]:
    """Say what is evaluated; returns the leaking (training id, evaluation id) pairs."""
    n_cut = sum(pair.n_cut > 0 for pair in bench.encoded)
    bench.say(f"       {len(bench.evaluation):,} evaluation questions ({bench.eval_split})")
    if n_cut:
        bench.say(
            f"       {n_cut:,} of {len(bench.encoded):,} prompts are cut from the left "
            f"to the model's context of {bench.base.max_length} tokens"
        )
    leaked = leaks(bench.train, bench.evaluation)
    bench.say(_leakage_line(leaked))
    return [list(pair) for pair in leaked]


def _leakage_line(leaked: Sequence[tuple[str, str]]) -> str:
    if not leaked:
        return "leaks  none: no evaluation question stands in the training split"
    shown = ", ".join(f"{train} = {test}" for train, test in leaked[:3])
    more = ", ..." if len(leaked) > 3 else ""
    return f"leaks  {len(leaked)} questions stand in training and evaluation: {shown}{more}"


def _train(run: Run, bench: Workbench, snapshots: Sequence[HeadKey]) -> None:
    if all(run.head_folder(key).is_dir() for key in snapshots):
        return
    from likra.training import TrainingSettings, train_head, write_losses

    first = snapshots[0]
    seed = first.seed if first.seed is not None else 0
    ids, choices = bench.answers(seed, first.source)
    folder = run.training_folder(first)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"question_id": name, "answer": choice.continuation}, ensure_ascii=False)
        for name, choice in zip(ids, choices, strict=True)
    ]
    write_text(folder / "examples.jsonl", "\n".join(lines) + "\n")
    losses = train_head(
        bench.base,
        bench.encode(choices),
        {key.n_train: run.head_folder(key) for key in snapshots},
        settings=TrainingSettings(**run.study.training.model_dump()),
        lora=bench.lora,
        seed=seed,
        name=f"train {first.head}{f' ({first.source})' if first.source else ''}, seed {seed}",
    )
    write_losses(folder / "losses.csv", losses)


def _score_base(run: Run, bench: Workbench, bar: Any) -> None:
    if not _is_scored(run, bench, BASE):
        _write(run, bench, BASE)
    bar.update()


def _score(run: Run, bench: Workbench, snapshots: Sequence[HeadKey], bar: Any) -> None:
    from likra.heads import saved_head

    for key in snapshots:
        if not _is_scored(run, bench, key):
            with saved_head(bench.base, run.head_folder(key)):
                _write(run, bench, key)
        bar.update()


def _write(run: Run, bench: Workbench, key: HeadKey) -> None:
    from likra.scoring import score_pairs
    from likra.table import score_table, write_scores

    logprobs = score_pairs(bench.base, bench.encoded, name=f"score {key}")
    n_tokens = [len(pair.continuation) for pair in bench.encoded]
    table = score_table(
        bench.task.name,
        bench.eval_split,
        bench.evaluation,
        key,
        logprobs,
        n_tokens,
        bench.base.layout,
    )
    write_scores(run.scores_path(key), table)


def _is_scored(run: Run, bench: Workbench, key: HeadKey) -> bool:
    """Whether the table is there, and of the questions as they are now."""
    path = run.scores_path(key)
    if not path.is_file():
        return False
    there = read_scores(path)["prompt_sha"].to_pylist()
    now = [prompt_sha(choice) for question in bench.evaluation for choice in question.choices]
    if there != now:
        raise LikraError(
            f"'{path}' is of other questions: the data changed since. "
            "Name another folder with --output, or delete this one"
        )
    return True


# --------------------------------------------------------------------------------------------
# Results


def read_run_scores(run: Run) -> Scores:
    """The scores of all heads of a finished run.

    Raises:
        LikraError: a table is missing, damaged, not of the head that its name says, or of other
            questions.

    """
    return combine(_tables(run))


def _tables(run: Run) -> Iterator[Any]:
    for key in run.keys:
        path = run.scores_path(key)
        if not path.is_file():
            raise LikraError(f"'{run.folder}' is not finished: there is no '{path.name}'")
        table = read_scores(path)
        row = table.select(["head", "n_train", "seed", "source"]).slice(0, 1).to_pylist()
        if row != [vars(key)]:
            raise LikraError(f"'{path}' does not hold the scores of {key}")
        yield table


def write_results(run: Run) -> pd.DataFrame:
    """Write ``curve.csv``, ``summary.json``, the figures and the report of a finished run."""
    from likra.report.figures import write_figures
    from likra.report.page import write_report

    study = run.study
    scores = read_run_scores(run)
    points = pd.DataFrame(curve(scores, study.task, study.modes, study.all_weights))
    write_text(run.folder / "curve.csv", points.to_csv(index=False))
    about = yaml.safe_load((run.folder / "study.yaml").read_text(encoding="utf-8"))
    summary = _summary(study, points, about, len(scores.question_ids))
    write_text(run.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_figures(points, study, run.folder / "figures")
    write_report(run.folder, study, points, about)
    return points


def _summary(
    study: Study, points: pd.DataFrame, about: dict[str, Any], n_questions: int
) -> dict[str, Any]:
    chosen = points[(points.seed == "all") & (points.weight.isin([0.0, study.weight]))]
    chosen = chosen[(chosen.weight == study.weight) | ~chosen["mode"].isin(_weighted())]
    rows = json.loads(chosen.drop(columns=["task", "seed"]).to_json(orient="records"))
    return {
        "study": study.name,
        "task": study.task,
        "model": study.model,
        "n_questions": n_questions,
        "n_seeds": len(study.seeds),
        "weight": study.weight,
        "leaks": about["leaks"],
        "versions": about["versions"],
        "accuracy": rows,
    }


def _weighted() -> list[str]:
    from likra.ratio import MODES

    return [name for name, mode in MODES.items() if mode.weighted]


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
