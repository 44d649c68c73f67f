"""Evaluated questions that the heads were trained on: counted, and accuracies without them."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean_stderr

from likra.data.leakage import ending_digests, stem_digest

BREAK = "\n\n"  # between few-shot examples
METRICS = ("acc", "acc_norm", "exact_match")  # those that are a mean over questions
UNKNOWN = (
    "warning: it is not recorded which questions {what} trained on: the accuracy may be on some "
    "of them"
)


class TrainedQuestions:
    """Counts, task by task, the scored questions that the heads were trained on.

    Attributes:
        digests: of what the heads were trained on (`likra.data.leakage.stem_digest`), prompts or
            what these ask; None where that is not known.
        scored: the questions that were scored, by task.
        trained: those among them that the heads were trained on.

    """

    def __init__(self, digests: frozenset[str] | None) -> None:
        self.digests = digests
        self.scored: dict[str, set[int]] = defaultdict(set)
        self.trained: dict[str, set[int]] = defaultdict(set)
        self.warned: set[str] = set()

    def has(self, prompt: str, document: Mapping[str, Any]) -> bool:
        """Whether the heads were trained on a question.

        They were where its prompt is known, or what follows the few-shot examples in it, or the
        field of the document that it shows.
        """
        if not self.digests:
            return False
        fields = {v.strip() for v in document.values() if isinstance(v, str)}
        shown = map(stem_digest, (field for field in fields if field and field in prompt))
        return not self.digests.isdisjoint({*shown, *_endings(prompt)})

    def note(self, requests: Sequence[Instance]) -> None:
        """Count the questions of log-likelihood requests."""
        for request in requests if self.digests else ():
            self.scored[request.task_name].add(request.doc_id)
            if self.has(request.args[0], request.doc):
                self.trained[request.task_name].add(request.doc_id)

    @property
    def counts(self) -> dict[str, int] | None:
        """Questions that the heads were trained on, by task, without those that have none."""
        if self.digests is None:
            return None
        return {task: len(documents) for task, documents in self.trained.items()}

    def warn(self) -> None:
        """Write a line on stderr for each task that has such questions, once."""
        if self.digests is None and not self.warned:
            self.warned.add("")
            warn_unknown("the heads were")
        for task in [task for task in self.trained if task not in self.warned]:
            self.warned.add(task)
            _warn(
                f"warning: the heads were trained on {len(self.trained[task])} of the "
                f"{len(self.scored[task])} questions of '{task}': accuracy on them is no test"
            )


def warn_unknown(what: str) -> None:
    """Say on stderr that nobody knows what something was trained on."""
    _warn(UNKNOWN.format(what=what))


def _warn(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201


@lru_cache(64)  # the choices of a question follow one another
def _endings(prompt: str) -> frozenset[str]:
    """The digests of a prompt, and of what is left of it behind any of its examples."""
    return ending_digests(prompt, BREAK)


# --------------------------------------------------------------------------------------------
# In the harness's results


@contextmanager
def untrained_accuracies(trained: Callable[[], TrainedQuestions | None]) -> Iterator[None]:
    """Within it, the command of the harness reports accuracies without the trained questions, too.

    Args:
        trained: gives the counter of the model that was evaluated, if it has one.

    """
    evaluate = lm_eval.simple_evaluate
    vars(lm_eval)["simple_evaluate"] = partial(_evaluated, evaluate, trained)
    try:
        yield
    finally:
        vars(lm_eval)["simple_evaluate"] = evaluate


def _evaluated(
    evaluate: Callable[..., Any],
    trained: Callable[[], TrainedQuestions | None],
    *,
    log_samples: bool,
    **arguments: Any,
) -> Any:
    results = evaluate(log_samples=True, **arguments)
    if results is not None:  # it is None on all processes but the first
        samples = results["samples"] if log_samples else results.pop("samples")
        if (known := trained()) is not None:
            for task, own in samples.items():
                results["results"][task] |= untrained_rows(own, known)
    return results


def untrained_rows(
    samples: Sequence[Mapping[str, Any]], known: TrainedQuestions
) -> dict[str, float]:
    """What a task's results say beside: the trained questions, and accuracies without them.

    Nothing where there are none; no accuracy where there are no others.
    """
    rows: dict[str, float] = {}
    by_filter: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        by_filter[sample["filter"]].append(sample)
    for name, own in by_filter.items():
        others = [s for s in own if not any(known.has(a[0], s["doc"]) for a in s["arguments"])]
        if len(others) == len(own):
            continue
        rows[f"trained_questions,{name}"] = len(own) - len(others)
        for metric in METRICS:
            values = [float(sample[metric]) for sample in others if metric in sample]
            if values:
                rows[f"{metric}_untrained,{name}"] = sum(values) / len(values)
            if len(values) > 1:
                rows[f"{metric}_untrained_stderr,{name}"] = mean_stderr(values)
    return rows
