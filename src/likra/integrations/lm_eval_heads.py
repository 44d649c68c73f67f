"""Which heads of a folder give which term, and what they were trained on."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from likra.data.leakage import stem_digest
from likra.errors import LikraError, unknown
from likra.model import trained
from likra.model.folder import check_heads
from likra.model.folder import read as read_model
from likra.scores.ratio import MODES
from likra.scores.table import CLASSIFIER, PRIOR, HeadKey
from likra.study.about import read_examples
from likra.study.cells import recorded_head
from likra.study.digests import model_digest
from likra.study.folder import Run, read_record, read_run, usable_path

# The prior scores answers without their questions, and the harness gives only both together.
MODE_NAMES = [
    name for name, mode in MODES.items() if mode.negative != PRIOR.head and name != CLASSIFIER
]


def checked_weight(weight: str | float) -> float:
    """A weight given as text or number.

    Raises:
        LikraError: it is no number of at least 0.

    """
    try:
        number = float(weight)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or isinstance(weight, bool):
        raise LikraError(f"weight takes a number of at least 0, not '{weight}'")
    return number


@dataclass(frozen=True)
class FoundHeads:
    """What a folder gives for a mode.

    Attributes:
        mode: which head gives which term.
        weight: of the negative term.
        base: the base model's name.
        dtype: what the heads were trained in, if that is known.
        positive: the folder of the positive term's head; None for the base.
        negative: the folder of the negative term's head; None for the base.
        trained: digests of what the heads were trained on, their prompts or what these ask; None
            where it is not known.
        fingerprint: of the base, where it is checked once it is open.

    """

    mode: str
    weight: float
    base: str
    dtype: str | None
    positive: Path | None
    negative: Path | None
    trained: frozenset[str] | None = None
    fingerprint: str | None = None


def check_mode(mode: str) -> None:
    """Refuse a mode that the harness cannot ask for.

    Raises:
        LikraError: an unknown mode, or one that asks other things than the harness gives.

    """
    if mode == CLASSIFIER:
        raise LikraError(
            "mode=classifier is not for the harness: it asks after each answer whether it is "
            "right; `likra run --modes classifier` does"
        )
    if mode not in MODE_NAMES:
        raise unknown("mode", mode, MODE_NAMES)


def heads_of_run(
    folder: Path, mode: str, which: Mapping[str, str | int | None], *, checks_base: bool
) -> FoundHeads:
    """The heads of a study's folder, or of what ``likra train`` left.

    Raises:
        LikraError: no such heads, a choice that is unknown or not made, a head that was changed
            after training, or with ``checks_base`` a base that was.

    """
    check_mode(mode)
    run = read_run(folder)
    keys = head_keys(run, (MODES[mode].positive, MODES[mode].negative), which)
    used = [key for key in keys if key is not None]
    stamps = [recorded_head(run, key) for key in used]
    base = usable_path(run.study.model, folder)
    if checks_base:
        check_model(base, stamps)
    positive, negative = (None if key is None else run.head_folder(key) for key in keys)
    known = trained_prompts(run, used)
    return FoundHeads(mode, 1.0, base, run.study.dtype, positive, negative, known)


def heads_of_model(
    folder: Path, mode: str | None, which: Mapping[str, str | int | None]
) -> FoundHeads:
    """The heads of a model that ``likra fit`` made, in its own mode or another one.

    Raises:
        LikraError: the model cannot be read, a head is missing or was changed, or there is
            nothing to choose from.

    """
    content = read_model(folder)
    if given := [f"{name}=" for name, value in which.items() if value is not None]:
        raise LikraError(f"'{folder}' is one model: leave out {', '.join(given)}")
    weight = content["weight"]
    if mode is None:
        mode = _mode_of(folder, content["positive"], content["negative"])
    else:
        check_mode(mode)
        weight = weight or 1.0
    terms = (MODES[mode].positive, MODES[mode].negative)
    if lacking := set(terms) - {"base", *content["heads"]}:
        raise LikraError(f"mode {mode} needs a {lacking.pop()} head, and '{folder}' has none")
    check_heads(folder, content)
    positive, negative = (None if term == "base" else folder / term for term in terms)
    base = content["base"]
    known = frozenset() if set(terms) == {"base"} else trained.read(folder, content)
    dtype, fingerprint = base.get("dtype"), base["fingerprint"]
    return FoundHeads(mode, weight, base["name"], dtype, positive, negative, known, fingerprint)


def _mode_of(folder: Path, positive: str, negative: str | None) -> str:
    """The mode in which a model combines its terms."""
    for name, mode in MODES.items():
        own = mode.negative if mode.weighted else None
        if (mode.positive, own) == (positive, negative) and name in MODE_NAMES:
            return name
    raise LikraError(
        f"'{folder}' ranks by {positive} and {negative}, for which the harness has no mode: "
        "add mode="
    )


def head_keys(
    run: Run, terms: tuple[str, str], given: Mapping[str, str | int | None]
) -> tuple[HeadKey | None, HeadKey | None]:
    """Which heads give the positive and the negative term; None is the base.

    Raises:
        LikraError: an unknown seed, snapshot or source, or one that must be given.

    """
    study = run.study
    known: dict[str, list[Any]] = {
        "seed": study.seeds,
        "n": study.snapshots,
        "source": study.negatives,
    }
    heads = set(terms) - {"base"}
    needed = {"seed": heads, "n": heads, "source": {"negative"} & heads}
    chosen = {}
    for name, values in known.items():
        listed = [str(value) for value in values]
        if given[name] is not None and str(given[name]) not in listed:
            raise unknown(name, str(given[name]), listed, f"'{run.folder}'")
        if given[name] is None and needed[name] and len(values) > 1:
            raise LikraError(
                f"'{run.folder}' has several: add {name}= and one of {', '.join(listed)}"
            )
        chosen[name] = values[0 if given[name] is None else listed.index(str(given[name]))]

    def key(term: str) -> HeadKey | None:
        if term == "base":
            return None
        source = chosen["source"] if term == "negative" else study.negatives[0]
        has_source = term not in {"positive", "trl-sft"}
        return HeadKey(term, chosen["n"], chosen["seed"], source if has_source else None)

    positive, negative = map(key, terms)
    if positive and negative and positive.head == "positive":
        # of a sampler that has no answers to some questions: both heads saw the same ones
        own = replace(positive, source=negative.source)
        positive = own if str(own) in read_record(run.folder).own_positives else positive
    return positive, negative


def check_model(name: str, stamps: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a base model that is not the one that the heads were trained on.

    Raises:
        LikraError: it has other weights, or another tokenizer.

    """
    for stamp in stamps:
        if stamp["inputs"]["base"] != model_digest(name):
            raise LikraError(
                f"the heads were trained on another model than '{name}' is now: its weights or its "
                "tokenizer have changed (pretrained= names another one on purpose)"
            )


def trained_prompts(run: Run, keys: Iterable[HeadKey]) -> frozenset[str] | None:
    """Digests of the prompts that heads of a run were trained on; None where one does not know."""
    rows = [read_examples(run, key) for key in keys]
    if None in rows:
        return None
    return frozenset(stem_digest(row["context"]) for own in rows for row in own or ())
