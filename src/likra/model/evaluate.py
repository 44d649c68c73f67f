"""Accuracies of a model on a task, in every mode that its heads allow."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from likra.data.leakage import stem_digest
from likra.data.rendering import PLAIN, Rendering, chat_template_of
from likra.errors import LikraError
from likra.heads.lora import Head
from likra.model.data import open_data, read_for
from likra.model.parts import Parts
from likra.model.terms import Prior, Term, Terms
from likra.questions import check_questions
from likra.scores.curves import curve
from likra.scores.selection import modes_of
from likra.scores.table import BASE, PRIOR, HeadKey, Scores, arranged

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    model: Parts, task: str, data: str | None = None, limit: int | None = None
) -> "pd.DataFrame":
    """Accuracies on a task's evaluation questions, as lm-evaluation-harness counts them.

    Of a single file these are all of its questions.

    Args:
        model: with the heads that it was trained with.
        task: for `likra.data.load.load_task`.
        data: for `likra.data.load.load_task`.
        limit: the first so many questions alone.

    Returns:
        A row for each mode and metric: mode, weight, metric, accuracy, ci_low, ci_high; n_trained,
        the questions that the heads were trained on, missing where that is not known; and
        accuracy_untrained, without those.

    Raises:
        LikraError: the task has nothing to evaluate on, or no head fits it.

    """
    import pandas as pd

    opened = open_data(task, read_for(model.prompt, task), data)
    split = opened.eval_split or opened.train_split
    if split is None:
        raise LikraError(f"'{opened.name}' has no questions to evaluate on")
    rendering: Rendering = PLAIN
    if model.prompt.chat or opened.needs_chat_template:
        rendering = Rendering(chat_template=chat_template_of(model.base.tokenizer))
    questions = [q for q in opened.questions(split, rendering=rendering)[:limit] if q.can_be_ranked]
    check_questions(questions)
    heads: Mapping[str, Head] = model.heads or {
        name: term
        for name, term in (("positive", model.positive), ("negative", model.negative))
        if isinstance(term, Head) and term.folder is not None
    }
    terms: dict[HeadKey, Term] = {BASE: Head(model.base), PRIOR: Prior(model.base)}
    terms.update({HeadKey(name, 1, 0): head for name, head in heads.items()})
    logprobs = Terms(list(terms.values())).logprobs(
        questions, truncate=model.truncate, name=f"evaluate {opened.name}"
    )
    scores = arranged(questions, dict(zip(terms, logprobs, strict=True)))

    def points(own: Scores) -> pd.DataFrame:
        found = pd.DataFrame(curve(own, opened.name, modes_of(heads), [model.weight or 1.0]))
        return found[found.seed != "all"].reset_index(drop=True)

    columns = ["mode", "weight", "metric", "accuracy", "ci_low", "ci_high"]
    found = points(scores).rename(columns={"value": "accuracy"})[columns]
    if model.trained is None:
        return found.assign(n_trained=None, accuracy_untrained=math.nan)
    other = np.array([stem_digest(question.stem) not in model.trained for question in questions])
    without = points(scores.of(other)).value if other.any() else math.nan
    return found.assign(n_trained=int((~other).sum()), accuracy_untrained=without)
