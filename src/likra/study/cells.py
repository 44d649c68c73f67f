"""The cells of a run, and what decides each of them.

A cell is a pure function of its inputs: a head of the base, its examples and how it is trained; a
score table of the head and the evaluated strings. The inputs and their digest, the stamp, are
written into the metadata of the adapter or the table. A cell is valid exactly while they are the
same. Library versions are recorded, too, but do not decide: a difference is reported, and nothing
is recomputed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from likra.errors import LikraError
from likra.scores.table import BY_LIKRA, HeadKey
from likra.study.config import Study
from likra.study.digests import digest_of, examples_digests, model_digest, questions_digest
from likra.study.examples import Training, untrained_of
from likra.study.folder import Record, Run, library_versions, read_record
from likra.study.prepare import Data
from likra.study.tables import StoredTables

Inputs = dict[str, Any]  # JSON: what decides a cell, by name
Stamp = Mapping[str, Any]


def base_inputs(study: Study) -> Inputs:
    """What decides the base model's numbers: weights, tokenizer, dtype, cut prompts."""
    from likra.heads.base import compute_dtype, default_device
    from likra.heads.quantized import FOUR_BIT

    computes_in = str(compute_dtype(study.dtype, default_device()))
    return {
        "base": model_digest(study.model),
        "dtype": f"{FOUR_BIT}, {computes_in}" if study.dtype == FOUR_BIT else computes_in,
        "long_prompts": study.long_prompts,
    }


def head_inputs(study: Study, base: Inputs, training: Training, n: int, examples: str) -> Inputs:
    """What decides a head after n examples, which have this digest."""
    inputs = {
        **base,
        "head": training.head,
        "n": n,
        "seed": training.seed,
        "examples": examples,
        "lora": study.lora.stamped(),
        "training": study.training_of(training.head).stamped(),
    }
    from likra.heads.objectives import REVISION

    beta = beta_of(study, training.head)
    if training.head in BY_LIKRA:
        inputs["objectives"] = REVISION
    return inputs if beta is None else {**inputs, "beta": beta}


def beta_of(study: Study, head: str) -> float | None:
    """Beta of a method's objective, the study's or the method's own; None where there is none."""
    from likra.heads.objectives import OBJECTIVES

    objective = OBJECTIVES.get(head.removeprefix("trl-"))
    return None if objective is None else study.betas.get(head, objective.beta)


def score_inputs(base: Inputs, head: Inputs | str, asked: Inputs) -> Inputs:
    """What decides a score table.

    Args:
        base: as `base_inputs`.
        head: as `head_inputs`; "base" or "prior" for what is not trained.
        asked: the task, its split, and the digest of the questions.

    """
    return {**base, **asked, "head": head}


@dataclass(frozen=True)
class Cells:
    """The cells of a run.

    Attributes:
        run: the run, its snapshots resolved.
        data: its questions.
        base: what decides the base model's numbers.
        trainings: the training runs that the modes need, in order.
        own_positives: all positive heads of single samplers, whatever the modes.

    """

    run: Run
    data: Data
    base: Inputs
    trainings: tuple[Training, ...]
    own_positives: tuple[HeadKey, ...] = ()

    @cached_property
    def heads(self) -> dict[HeadKey, Inputs]:
        """What decides each head."""
        heads = {}
        for training in self.trainings:
            keys = {key.n_train: key for key in training.keys}
            for n, digest in enumerate(examples_digests(training.answers())):
                if n in keys:
                    inputs = head_inputs(self.run.study, self.base, training, n, digest)
                    heads[keys[n]] = inputs
        return heads

    @cached_property
    def record(self) -> Record:
        """The keys of the cells with their digests; no score tables where nothing is evaluated."""
        scores = self.scores if self.data.evaluation else {}
        return Record(
            {str(key): digest_of(inputs) for key, inputs in self.heads.items()},
            {str(key): digest_of(inputs) for key, inputs in scores.items()},
            [str(key) for key in self.own_positives],
        )

    @cached_property
    def scores(self) -> dict[HeadKey, Inputs]:
        """What decides each score table, in the order in which they are computed."""
        data = self.data
        asked = {
            "task": data.task,
            "split": data.eval_split,
            "evaluation": questions_digest(data.evaluation),
        }
        untrained = {
            key: score_inputs(self.base, key.head, asked) for key in untrained_of(self.run.study)
        }
        return untrained | {
            key: score_inputs(self.base, inputs, asked) for key, inputs in self.heads.items()
        }

    def trained(self, keys: Iterable[HeadKey]) -> dict[HeadKey, Stamp]:
        """The stamps of those of the heads that exist.

        Raises:
            LikraError: a head was trained with other inputs, or changed since.

        """
        from likra.heads.stamp import read_stamp

        stamps: dict[HeadKey, Stamp] = {}
        for key in keys:
            folder = self.run.head_folder(key)
            if folder.is_dir():
                stamps[key] = read_stamp(folder)
                check_stamp(folder, stamps[key], self.heads[key])
        return stamps

    def scored(self) -> dict[HeadKey, Stamp]:
        """The stamps of the score tables that exist.

        Raises:
            LikraError: a table is of other inputs, or stored twice with different stamps.

        """
        stored, stamps = StoredTables(self.run), dict[HeadKey, Stamp]()
        for key, inputs in self.scores.items():
            path = stored.path(str(key))
            if path is not None:
                stamps[key] = stored.stamp(str(key))
                check_stamp(path, stamps[key], inputs)
        return stamps


# --------------------------------------------------------------------------------------------
# Stamps


def stamp_of(inputs: Inputs) -> dict[str, Any]:
    """What is written beside a cell's output."""
    return {"digest": digest_of(inputs), "inputs": inputs, "versions": library_versions()}


def check_stamp(path: Path, stamp: Stamp, inputs: Inputs) -> None:
    """Refuse an output whose inputs were others.

    Raises:
        LikraError: names the first input that differs.

    """
    if stamp.get("digest") == digest_of(inputs):
        return
    name, old, new = _difference(dict(stamp.get("inputs") or {}), inputs)
    advice = "name another folder with --output; if it is here by mistake, delete it"
    if name in _CHANGES:
        raise LikraError(f"'{path}' was computed with {_CHANGES[name]}: {advice}")
    there, now = ("the default" if value is None else repr(value) for value in (old, new))
    raise LikraError(
        f"'{path}' was computed with another {name} ({there} there, {now} now): {advice}"
    )


def recorded_head(run: Run, key: HeadKey) -> Stamp:
    """The stamp of a head, if it is the one that the run trained.

    Raises:
        LikraError: there is no such head, it was changed, or it comes from another run.

    """
    from likra.heads.stamp import read_stamp

    folder = run.head_folder(key)
    stamp = read_stamp(folder)
    if stamp.get("digest") != read_record(run.folder).heads.get(str(key)):
        raise LikraError(
            f"the head in '{folder}' is not the one that this run trained: it has other settings, "
            "data or seeds; delete the folder to train it again"
        )
    return stamp


_CHANGES = {
    "base": "another model: its weights or its tokenizer have changed",
    "examples": "other training examples: the data, or how they are read, have changed",
    "evaluation": "other evaluation questions: the data, or how they are read, have changed",
    "prompts": "other training questions: the data, or how they are read, have changed",
}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first input that differs, with both values; of a section, the setting in it."""
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            inner, old, new = _difference(old, new)
            return inner if name == "head" else f"{name}.{inner}", old, new
        if old != new:
            return name, old, new
    return "digest", None, None


def version_note(stamps: Iterable[Stamp]) -> str:
    """What other versions of the libraries computed some of the cells; "" where none did."""
    now = library_versions()
    others = Counter(
        f"{name} {before}"
        for stamp in stamps
        for name, before in stamp.get("versions", {}).items()
        if before != now.get(name)
    )
    shown = ", ".join(f"{version} ({count} cells)" for version, count in sorted(others.items()))
    return f"computed by other versions, and kept: {shown}" if others else ""
