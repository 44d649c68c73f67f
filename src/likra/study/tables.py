"""The score tables of a run, checked against its settings and against one another."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from likra.errors import LikraError
from likra.scores.table import BASELINES, HeadKey, Scores, combine, read_scores, read_stamp
from likra.study.cells import Inputs, mismatch
from likra.study.config import Study
from likra.study.examples import heads_of, untrained_of
from likra.study.folder import Run, read_about

OF_ALL = ("base", "dtype", "evaluation")  # inputs that all tables of a run have in common


def read_run_scores(run: Run) -> Scores:
    """The scores of all heads that the modes of a run need.

    Raises:
        LikraError: a table is missing, damaged, of another head than its name says, or was
            computed with other settings or on other questions than the others.

    """
    return combine(_tables(run))


def score_keys(run: Run) -> list[HeadKey]:
    """The heads whose scores the modes of a run need."""
    study = run.study
    keys = [
        HeadKey(head, n, seed, source)
        for seed in study.seeds
        for head, source in heads_of(study)
        for n in study.snapshots
    ]
    return [*untrained_of(study), *keys, *_own_positives(run)]


def _own_positives(run: Run) -> list[HeadKey]:
    """The positive heads that were trained for one sampler's negative head alone."""
    study = run.study
    if "likra" not in study.modes:
        return []
    trained = [tuple(one) for one in read_about(run.folder).get("trained") or ()]
    return [
        HeadKey("positive", n, seed, source)
        for head, seed, source in trained
        if head == "positive" and source in study.negatives and seed in study.seeds
        for n in study.snapshots
    ]


def _tables(run: Run) -> Iterator[pa.Table]:
    shared: Inputs = {}
    for key in score_keys(run):
        path = run.scores_path(key)
        if not path.is_file():
            raise LikraError(
                f"'{run.folder}' has no scores of {key} ('{path.name}'): `likra run` with the same "
                "settings computes what is missing"
            )
        inputs = read_stamp(path)["inputs"]
        shared = shared or {name: inputs.get(name) for name in OF_ALL}
        expected = _expected(run.study, key, inputs) | shared
        if inputs != expected:
            raise mismatch(path, inputs, expected)
        table = read_scores(path)
        row = table.select(["head", "n_train", "seed", "source"]).slice(0, 1).to_pylist()
        if row != [vars(key)]:
            raise LikraError(f"'{path}' does not hold the scores of {key}")
        yield table


def _expected(study: Study, key: HeadKey, inputs: Mapping[str, Any]) -> Inputs:
    """The inputs of a table, with those in the place that the study's settings decide."""
    expected: Inputs = {**inputs, "head": key.head, "long_prompts": study.long_prompts}
    if key.n_train and isinstance(inputs.get("head"), dict):
        expected["head"] = inputs["head"] | {
            "head": key.head,
            "n": key.n_train,
            "seed": key.seed,
            "lora": study.lora.model_dump(mode="json"),
            "training": study.training.model_dump(mode="json"),
            **({"beta": study.beta} if key.head in BASELINES else {}),
        }
    return expected
