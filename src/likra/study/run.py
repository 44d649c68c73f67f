"""Running a study: cells (head x seed x source x n), each computed once, then the results."""

import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from likra.data.splits import TRAIN
from likra.errors import LikraError
from likra.questions import Question
from likra.scores.table import (
    BASE,
    BASELINES,
    PRIOR,
    HeadKey,
    Scores,
    choice_scores,
    combine,
    file_name,
    prompt_sha,
    read_scores,
)
from likra.study.config import Study, parse_study
from likra.study.workbench import Examples, Workbench, account

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
        return folder / f"source={file_name(key.source)}" if key.source else folder

    def scores_path(self, key: HeadKey) -> Path:
        """The score table of one head."""
        return self.folder / "scores" / f"{key}.parquet"

    @property
    def train_scores_path(self) -> Path:
        """The base's scores of the training choices, for the sources that ask for them."""
        return self.folder / "scores" / "train" / f"{BASE}.parquet"

    @property
    def trainings(self) -> list[list[HeadKey]]:
        """The snapshots of each training run: both heads of a seed, for every source."""
        return [
            [HeadKey(head, n, seed, source) for n in self.study.snapshots]
            for seed in self.study.seeds
            for head, source in self.study.trained
        ]

    @property
    def keys(self) -> list[HeadKey]:
        """Everything that is scored."""
        return [*self.study.untrained, *(key for line in self.trainings for key in line)]

    def heads_done(self) -> bool:
        """Whether every snapshot of every head is there."""
        return all(self.head_folder(key).is_dir() for line in self.trainings for key in line)

    def scores_done(self) -> bool:
        """Whether every score table is there."""
        return all(self.scores_path(key).is_file() for key in self.keys)


def run_study(
    study: Study, folder: Path | None = None, say: Any = print
) -> tuple[Run, pd.DataFrame]:
    """Train and score what is missing of a study, then write its results.

    Args:
        study: what to run (`likra.study.config.read_study`).
        folder: of the results; ``runs/NAME`` by default.
        say: is given each line meant for the user.

    Returns:
        The run, and its curves (see `likra.scores.curves.Point` for the columns).

    Raises:
        LikraError: bad input, or the folder holds a study with other settings.

    """
    from likra.report.results import write_results

    bench = Workbench(study, say)
    run = settled(bench, folder or Path("runs") / study.name)
    if not run.scores_done():
        _prepare(run, bench, scoring=True)
        cells = len(run.keys)
        with tqdm(total=cells, desc=f"study {study.name}", unit=" heads") as bar:
            for key in study.untrained:
                _score_untrained(run, bench, key, bar)
            _make_material(run, bench)
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
    bench = Workbench(study, say, evaluates=False)
    run = settled(bench, folder)
    if run.heads_done():
        say(f"all heads of '{folder}' are trained: nothing to compute")
        return run
    _prepare(run, bench, scoring=False)
    _make_material(run, bench)
    for snapshots in run.trainings:
        _train(run, bench, snapshots)
    return run


def settled(bench: Workbench, folder: Path) -> Run:
    """The run, with the numbers of training examples that the study leaves to the data.

    A folder that has begun has settled them already.

    Raises:
        LikraError: nothing can be trained on, or the folder holds a study with other settings.

    """
    study = bench.study
    if not study.snapshots:
        begun = (folder / "study.yaml").is_file()
        chosen = read_run(folder).study.snapshots if begun else bench.snapshots
        if not chosen:
            raise LikraError(bench.nothing_to_train_on(*bench.lacking))
        study = bench.study = study.model_copy(update={"snapshots": chosen})
    run = Run(study, folder)
    check_folder(run)
    _check_data(run, bench)
    return run


def _check_data(run: Run, bench: Workbench) -> None:
    """Refuse a folder whose heads or scores come from other data.

    Raises:
        LikraError: a local file has changed since.

    """
    path = run.folder / "study.yaml"
    if not path.is_file():
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8")).get("data") or {}
    for file, digest in bench.digests.items():
        if before.get(file, digest) != digest:
            raise LikraError(
                f"'{file}' has changed since '{run.folder}' was begun: name another folder with "
                "--output, or delete this one"
            )


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
    if not any((run.folder / "heads").glob("*/*")):
        there["snapshots"] = here["snapshots"]  # nothing depends on them yet
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
    leaks = bench.leaks if scoring else []
    bench.describe()
    bench.check()
    if scoring:
        _ = bench.encoded
    bench.describe_notes()
    bench.describe_train()
    if scoring:
        bench.describe_evaluation()
    content = {
        "study": run.study.model_dump(),
        "versions": {name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
        "layout": bench.base.layout,
        "layout_reason": bench.base.layout_reason,
        "n_train_questions": n_train,
        "n_eval_questions": len(bench.evaluation) if scoring else None,
        "data": bench.digests,
        "notes": [*dict.fromkeys([*bench.train_task.notes, *bench.task.notes])],
        "leaks": [[leak.train_id, leak.eval_id, round(leak.similarity, 4)] for leak in leaks],
    }
    if scoring:
        write_text(run.folder / "questions.jsonl", _question_lines(bench.evaluation))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(run.folder / "study.yaml", text)


def _question_lines(questions: Sequence[Question]) -> str:
    """The texts of the evaluation questions, for the report: score tables hold none."""
    rows = [
        {
            "id": question.id,
            "stem": question.stem,
            "choices": [choice.text for choice in question.choices],
            "is_right": [choice.is_right for choice in question.choices],
        }
        for question in questions
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _train(run: Run, bench: Workbench, snapshots: Sequence[HeadKey]) -> None:
    if all(run.head_folder(key).is_dir() for key in snapshots):
        return
    from likra.heads.settings import TrainingSettings
    from likra.heads.train import train_head, write_losses

    first = snapshots[0]
    seed = first.seed if first.seed is not None else 0
    examples = bench.examples(seed, first.head, first.source, snapshots[-1].n_train)
    if first.source and (said := account(first.source, examples)):
        bench.say(f"       {first.source}, seed {seed}: {said}")
    folder = run.training_folder(first)
    write_text(folder / "examples.jsonl", _example_lines(examples, first.head))
    name = f"train {first.head}{f' ({first.source})' if first.source else ''}, seed {seed}"
    folders = {key.n_train: run.head_folder(key) for key in snapshots}
    settings = TrainingSettings(**run.study.training.model_dump())
    if first.head in BASELINES:
        from likra.heads.trl import train_baseline

        losses = train_baseline(
            bench.base,
            first.head,
            examples.right,
            [
                wrong[0] if wrong else right
                for wrong, right in zip(examples.wrong, examples.right, strict=True)
            ],
            folders,
            settings=settings,
            lora=bench.lora,
            seed=seed,
            beta=run.study.beta,
            name=name,
        )
    else:
        losses = train_head(
            bench.base,
            bench.encode(examples, first.head),
            folders,
            settings=settings,
            lora=bench.lora,
            seed=seed,
            name=name,
        )
    write_losses(folder / "losses.csv", losses)


def _example_lines(examples: Examples, head: str) -> str:
    """Which answers a head was trained on, a line for each question."""
    lines = []
    for question, right, wrong in zip(
        examples.questions, examples.right, examples.wrong, strict=True
    ):
        line: dict[str, Any] = {"question_id": question.id}
        if head != "negative":
            line["answer"] = right.continuation
        if wrong:
            line["wrong"] = [choice.continuation for choice in wrong]
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _make_material(run: Run, bench: Workbench) -> None:
    """Compute what the sources of negatives draw from, or read it where it stands."""
    if bench.uses("hardest", "easiest"):
        _score_train(run, bench)
    if bench.uses("generated"):
        _generate(run, bench)
    if bench.uses("hardest", "easiest", "generated"):
        bench.check_examples()  # now all is known, and with it which questions come first


def _score_train(run: Run, bench: Workbench) -> None:
    """The base's scores of the training choices: one more cell."""
    from likra.heads.score import encode_questions, score_pairs
    from likra.scores.table import score_table, write_scores

    path = run.train_scores_path
    questions = [question for question in bench.train if question.wrong]
    if not path.is_file():
        truncate = run.study.long_prompts == "truncate"
        pairs = encode_questions(bench.base, questions, truncate=truncate)
        logprobs = score_pairs(bench.base, pairs, name="score base (training questions)")
        n_tokens = [len(pair.continuation) for pair in pairs]
        table = score_table(
            bench.train_task.name, TRAIN, questions, BASE, logprobs, n_tokens, bench.base.layout
        )
        write_scores(path, table)
    bench.train_scores.update(choice_scores(read_scores(path), questions, run.study.metric))


def _generate(run: Run, bench: Workbench) -> None:
    """The base's own answers to the training questions: one more cell."""
    from likra.heads.sample import sample_answers

    path = run.folder / "generated.jsonl"
    questions = [question for question in bench.train if question.right]
    if not path.is_file():
        settings = run.study.generation
        texts = sample_answers(
            bench.base,
            [question.right[0].context for question in questions],
            samples=settings.samples,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=run.study.seeds[0],
            name="generate wrong answers",
        )
        lines = [
            json.dumps({"question_id": question.id, "texts": own}, ensure_ascii=False)
            for question, own in zip(questions, texts, strict=True)
        ]
        write_text(path, "\n".join(lines) + "\n")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    bench.generated.update((row["question_id"], row["texts"]) for row in rows)


def _score_untrained(run: Run, bench: Workbench, key: HeadKey, bar: Any) -> None:
    if not _is_scored(run, bench, key):
        _write(run, bench, key)
    bar.update()


def _score(run: Run, bench: Workbench, snapshots: Sequence[HeadKey], bar: Any) -> None:
    from likra.heads.lora import saved_head

    for key in snapshots:
        if not _is_scored(run, bench, key):
            with saved_head(bench.base, run.head_folder(key)):
                _write(run, bench, key)
        bar.update()


def _write(run: Run, bench: Workbench, key: HeadKey) -> None:
    from likra.heads.score import score_pairs
    from likra.scores.table import score_table, write_scores

    pairs = bench.encoded_alone if key == PRIOR else bench.encoded
    logprobs = score_pairs(bench.base, pairs, name=f"score {key}")
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
