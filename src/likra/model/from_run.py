"""A model of heads that a study has trained, with the evidence of its score tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from likra.data.splits import folds as folds_of
from likra.errors import LikraError, unknown
from likra.heads.base import open_model
from likra.model.evidence import FEWEST, choose
from likra.model.parts import Parts, parts_of
from likra.model.prompt import prompt_of
from likra.model.trained import digests_of
from likra.questions import Question
from likra.report.modes import reported_scores
from likra.scores.selection import modes_of, scores_of_pair
from likra.study.about import read_examples
from likra.study.cells import recorded_head
from likra.study.folder import read_run, usable_path
from likra.study.prepare import open_task, rendering

FOLDS = 5
SHOWN = 50  # questions that the form of prompts is found from


def from_run(
    folder: Path, *, seed: int | None = None, n: int | None = None, source: str | None = None
) -> Parts:
    """The model of a finished run's heads.

    Mode, weight and length normalisation are chosen on the run's evaluation questions.

    Args:
        folder: of the run.
        seed: of the heads; by default the first.
        n: their training questions; by default all.
        source: of the negative head's wrong answers; by default the first.

    Raises:
        LikraError: no such run or heads, or a head that was changed after training.

    """
    run = read_run(folder)
    study = run.study
    if study.num_fewshot:
        raise LikraError(
            f"'{folder}' was evaluated with {study.num_fewshot} examples before each question, and "
            "a model asks without: run the study without examples"
        )
    seed = _known("seed", seed, study.seeds, study.seeds[0], folder)
    n = _known("n", n, study.snapshots, study.snapshots[-1], folder)
    source = _known("source", source, study.negatives, study.negatives[0], folder)
    scores = scores_of_pair(reported_scores(run), seed, source, n)
    count = len(scores.question_ids)
    if count < FEWEST:
        raise LikraError(
            f"'{folder}' has {count} evaluation questions, too few to choose a mode by"
        )
    folders, examples = {}, []
    for key in scores.logprob:
        if key.n_train == n and key.head in {"positive", "negative"}:
            recorded_head(run, key)  # it is as it was trained
            folders[key.head] = run.head_folder(key)
            examples.append(read_examples(run, key))
    if not folders:
        raise LikraError(f"'{folder}' has no positive or negative head of {n} questions")
    folds = np.array(folds_of(scores.question_ids, FOLDS, 0))
    how = f"evaluation questions of {study.task}"
    chosen = choose(scores, folds, how, modes_of(folders))
    task = open_task(study, study.train_task or study.task, study.train_data or study.data)
    split = study.train_split or task.train_split or task.splits[0]
    chat = rendering(study, task)
    questions = list(task.questions(split, rendering=replace(chat, fewshot="per-question")))
    return parts_of(
        open_model(usable_path(study.model, folder), dtype=study.dtype),
        prompt_of(task, questions[:SHOWN], chat),
        folders,
        chosen,
        study.long_prompts == "truncate",
        _trained(questions, examples),
    )


def _trained(
    questions: Sequence[Question], examples: Sequence[Sequence[Mapping[str, Any]] | None]
) -> frozenset[str] | None:
    """The digests of what heads were trained on; None where the run or its data lack some."""
    ids = {row["question_id"] for own in examples for row in own or ()}
    found = [question for question in questions if question.id in ids]
    return digests_of(found) if len(found) == len(ids) and None not in examples else None


def _known(name: str, given: object, known: Sequence[object], default: object, folder: Path) -> Any:
    if given is None:
        return default
    if given not in known:
        raise unknown(name, str(given), map(str, known), f"'{folder}'")
    return given
