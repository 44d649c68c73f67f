"""Which heads of a run give which term, and which questions they were trained on."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.instance import Instance

from likra.errors import LikraError, unknown
from likra.scores.table import HeadKey
from likra.study.digests import model_digest
from likra.study.folder import Run, read_record

BREAK = "\n\n"  # between few-shot examples


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
            raise unknown(f"{name} of '{run.folder}'", str(given[name]), listed)
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


def trained_contexts(run: Run, keys: Iterable[HeadKey]) -> frozenset[str]:
    """The prompts that heads of a run were trained on."""
    contexts: set[str] = set()
    for key in keys:
        path = run.training_folder(key) / "examples.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
            try:  # a later snapshot may have seen more
                contexts |= {json.loads(line)["context"] for line in lines[: key.n_train]}
            except (ValueError, TypeError, KeyError) as error:
                raise LikraError(f"cannot read '{path}' ({type(error).__name__})") from error
    return frozenset(contexts)


class TrainedQuestions:
    """Counts, task by task, the scored questions that the heads were trained on."""

    def __init__(self, contexts: frozenset[str]) -> None:
        self.contexts = contexts
        self.scored: dict[str, set[int]] = defaultdict(set)
        self.trained: dict[str, set[int]] = defaultdict(set)
        self.warned: set[str] = set()

    def note(self, requests: Sequence[Instance]) -> None:
        """Count the questions of log-likelihood requests."""
        for request in requests if self.contexts else ():
            self.scored[request.task_name].add(request.doc_id)
            # the prompt is known, or what follows its few-shot examples is
            parts = request.args[0].split(BREAK)
            if any(BREAK.join(parts[start:]) in self.contexts for start in range(len(parts))):
                self.trained[request.task_name].add(request.doc_id)

    @property
    def counts(self) -> dict[str, int]:
        """Questions that the heads were trained on, by task; tasks without any are left out."""
        return {task: len(documents) for task, documents in self.trained.items()}

    def new_warnings(self) -> list[str]:
        """A line for each task that has such questions, once."""
        new = [task for task in self.trained if task not in self.warned]
        self.warned.update(new)
        return [
            f"warning: the heads were trained on {len(self.trained[task])} of the "
            f"{len(self.scored[task])} questions of '{task}': accuracy on them is no test"
            for task in new
        ]
