"""What the base model computes before examples can be drawn: two more cells, each one a file.

``hardest`` and ``easiest`` rank the wrong choices of the training questions by the base's scores,
``generated`` draws from its own answers to them.
"""

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.atomic import write_text
from likra.checksum import checked, with_checksum
from likra.data.splits import TRAIN
from likra.errors import LikraError
from likra.negatives.samplers import Material
from likra.questions import Subset
from likra.scores.table import (
    BASE,
    choice_scores,
    choice_table,
    read_scores,
    read_stamp,
    score_table,
    write_scores,
)
from likra.study.cells import Inputs, check_stamp, score_inputs, stamp_of
from likra.study.digests import digest_of, questions_digest
from likra.study.folder import Run
from likra.study.prepare import Data, uses

if TYPE_CHECKING:
    from likra.heads.base import BaseModel

SAMPLES_SEED = 0  # the samples are one set for all seeds of a study


def given_material(run: Run, data: Data) -> Material:
    """What samplers draw from without the base model's help."""
    candidates = {"file": data.listed}
    return Material(data.train, {}, data.others, candidates, run.study.generation.match)


def assumed_material(run: Run, data: Data) -> Material:
    """For counting, what samplers would draw from that the base has yet to compute.

    All wrong choices score the same; the base's own answers are the wrong choices of the question
    and the right answer of the one before.
    """
    scores = {question.id: [0.0] * len(question.choices) for question in data.train}
    rights = [(question.right or question.choices)[0].text for question in data.train]
    samples = {
        question.id: [*(choice.text for choice in question.wrong), rights[place - 1]]
        for place, question in enumerate(data.train)
    }
    material = given_material(run, data)
    candidates = {**material.candidates, "generated": samples}
    return replace(material, scores=scores, candidates=candidates)


def is_complete(run: Run, data: Data, base: Inputs) -> bool:
    """Whether all that the base has to compute first is there.

    Raises:
        LikraError: a file was computed with other settings or other data.

    """
    done = [_is_done(path, inputs) for path, inputs in material_files(run, data, base)]
    return all(done)


def material_files(run: Run, data: Data, base: Inputs) -> list[tuple[Path, Inputs]]:
    """The files of what the base has to compute first, each with what decides it."""
    needed = []
    if uses(run.study, "hardest", "easiest"):
        needed.append((run.train_scores_path, _train_score_inputs(data, base)))
    if uses(run.study, "generated"):
        needed.append((run.samples_path, _sample_inputs(run, data, base)))
    return needed


def _is_done(path: Path, inputs: Inputs) -> bool:
    if not path.is_file():
        return False
    stamp = read_stamp(path) if path.suffix == ".parquet" else _read_samples(path)[0]
    check_stamp(path, stamp, inputs)
    return True


def check_file(path: Path, inputs: Inputs) -> None:
    """Refuse a file that was computed with other inputs, or whose content is damaged.

    Raises:
        LikraError: says which.

    """
    _is_done(path, inputs)
    if path.suffix == ".parquet":
        read_scores(path)


def read_material(run: Run, data: Data) -> Material:
    """What samplers draw from, all of it computed."""
    material = given_material(run, data)
    if uses(run.study, "hardest", "easiest"):
        material = replace(material, scores=choice_scores(read_scores(run.train_scores_path)))
    if uses(run.study, "generated"):
        samples = _read_samples(run.samples_path)[1]
        material = replace(material, candidates={**material.candidates, "generated": samples})
    return material


def compute_material(run: Run, data: Data, inputs: Inputs, base: "BaseModel") -> None:
    """Compute what is missing of what the base has to compute first."""
    for path, own in material_files(run, data, inputs):
        if not _is_done(path, own):
            compute = _score_train if path == run.train_scores_path else _sample
            compute(run, data, base, own)


def ranked_questions(data: Data) -> Subset:
    """The training questions whose wrong choices are ranked."""
    return Subset.where(data.train, lambda question: question.wrong)


def _train_score_inputs(data: Data, base: Inputs) -> Inputs:
    asked = questions_digest(ranked_questions(data))
    return score_inputs(base, "base", {"prompts": asked})


def _score_train(run: Run, data: Data, base: "BaseModel", inputs: Inputs) -> None:
    from likra.heads.lora import Head
    from likra.heads.score import encode_questions, score

    questions = ranked_questions(data)
    truncate = run.study.long_prompts == "truncate"
    pairs = encode_questions(base, questions, truncate=truncate)
    scored = score(Head(base), pairs, name="score base (training questions)")
    n_tokens = array("I", (len(pair.continuation) for pair in pairs))
    choices = choice_table(questions)
    table = score_table(
        data.train_task, TRAIN, choices, BASE, scored.logprobs, n_tokens, base.layout
    )
    write_scores(run.train_scores_path, table, stamp_of(inputs))


def _answered_questions(data: Data) -> Subset:
    """The questions that the base answers itself: a right answer is needed to tell wrong ones."""
    return Subset.where(data.train, lambda question: question.right)


def _sample_inputs(run: Run, data: Data, base: Inputs) -> Inputs:
    settings = run.study.generation.model_dump(mode="json", exclude={"match"})
    prompts = [[question.id, question.right[0].context] for question in _answered_questions(data)]
    return {**base, "generation": settings, "seed": SAMPLES_SEED, "prompts": digest_of(prompts)}


def _sample(run: Run, data: Data, base: "BaseModel", inputs: Inputs) -> None:
    from likra.heads.sample import sample_answers

    questions, settings = _answered_questions(data), run.study.generation
    texts = sample_answers(
        base,
        [question.right[0].context for question in questions],
        samples=settings.samples,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        seed=SAMPLES_SEED,
        name="generate wrong answers",
    )
    rows: list[dict[str, Any]] = [{"likra": stamp_of(inputs)}]
    rows += [
        {"question_id": question.id, "texts": own}
        for question, own in zip(questions, texts, strict=True)
    ]
    lines = [json.dumps(with_checksum(row), ensure_ascii=False, sort_keys=True) for row in rows]
    write_text(run.samples_path, "".join(f"{line}\n" for line in lines))


def _read_samples(path: Path) -> tuple[dict[str, Any], dict[str, Sequence[str]]]:
    """The stamp, and the base's own answers by question id."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        first, *rows = (checked(json.loads(line)) for line in lines)
        return first["likra"], {row["question_id"]: row["texts"] for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise LikraError(
            f"cannot read the samples in '{path}' ({type(error).__name__}); delete the file to "
            "generate them again"
        ) from error
