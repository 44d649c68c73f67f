"""`Likra`, the model that people hold: its terms, its weight, and what it is asked.

This file is the public surface; what a method does is in the module that it calls.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from likra.data.formats import Text
from likra.heads.base import BaseModel, open_model
from likra.model.evidence import Evidence, sentences
from likra.model.explain import Explanation, explain
from likra.model.folder import load, push, save
from likra.model.generate import Way, Writing, generate_many, is_one
from likra.model.parts import Parts, check_weight
from likra.model.prompt import Fields, Prompt
from likra.model.rank import Asked, Ranked, coverage, rank_many, score_pairs, threshold
from likra.model.terms import Prior, Term, check_tokenizers, open_term

if TYPE_CHECKING:
    import pandas as pd


class Likra:
    """A likelihood ratio of two terms: it ranks the answers to a question.

    A term is the base model ("base"), the base without the question ("prior"), the folder of any
    PEFT adapter, or another model of the same tokenizer.

        Likra(positive="heads/positive", negative="heads/negative")       # Likra
        Likra(base="pocket", negative="prior")                            # PMI, without training
        Likra(positive="my-dpo-adapter", negative="base")                 # DPO's implicit reward

    Attributes:
        parts: the terms, the weight, and what was chosen and measured (`likra.model.parts.Parts`).

    """

    def __init__(
        self,
        positive: Term | str | Path = "base",
        negative: Term | str | Path | None = None,
        weight: float = 1.0,
        *,
        base: BaseModel | str | None = None,
        prompt: Prompt | None = None,
        per_character: bool = False,
        truncate: bool = False,
    ) -> None:
        """Put two terms together.

        Args:
            positive: the positive term.
            negative: the negative term; without one the positive term alone is the score.
            weight: w of the negative term.
            base: the base model of adapters, "base" and "prior"; an adapter names its own.
            prompt: how a question and an answer are put to the model.
            per_character: divide scores by the characters of an answer.
            truncate: cut prompts longer than the model's context from the left.

        Raises:
            LikraError: a term that cannot be opened, two models with different tokens, or a
                weight that is not a number of at least 0.

        """
        check_weight(weight)
        opened = open_model(base) if isinstance(base, str) else base
        first = open_term(positive, opened)
        second = None if negative is None else open_term(negative, opened, near=first.base)
        if second is not None:
            check_tokenizers(first, second)
        own_weight = 0.0 if second is None else float(weight)
        own_prompt = prompt or Prompt()
        self.parts = Parts(first, second, own_weight, own_prompt, per_character, truncate)

    @classmethod
    def of(cls, parts: Parts) -> "Likra":
        """The model of parts that were put together elsewhere."""
        model = cls.__new__(cls)
        model.parts = parts
        return model

    # ----------------------------------------------------------------------------------------
    # Making and keeping one

    @classmethod
    def fit(
        cls,
        base: BaseModel | str,
        data: Any,
        output: Path | str | None = None,
        **settings: Any,
    ) -> "Likra":
        """Train the heads on right and wrong answers, and choose how to use them.

        See `likra.model.fit.fit` for the settings: negatives, evaluation, folds, seed and more.
        """
        from likra.model.fit import fit  # with the trainer, a second of imports

        return cls.of(fit(base, data, output, **settings))

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        base: BaseModel | str | None = None,
        mode: str | None = None,
        weight: float | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> "Likra":
        """Open a model that `save_pretrained` wrote, from a folder or from the Hugging Face hub.

        Args:
            name: the folder, or OWNER/NAME.
            base: the base model; by default the one that the model names.
            mode: another one than was chosen; its probabilities are not calibrated.
            weight: another one than was chosen; likewise.
            dtype: as in `likra.heads.base.open_model`.
            device: as in `likra.heads.base.open_model`.

        Raises:
            LikraError: no model there, a newer format, a head that is missing or was changed, or a
                base with other weights than the heads were trained on.

        """
        return cls.of(load(name, base=base, mode=mode, weight=weight, dtype=dtype, device=device))

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the model to a folder, whole or not at all; a model that is there is replaced.

        It holds likra.json, README.md, and each head as a plain PEFT adapter.

        Raises:
            LikraError: a term that cannot be kept, or a folder that holds something else.

        """
        return save(self.parts, Path(folder))

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the Hugging Face hub as OWNER/NAME, and return its address.

        Raises:
            LikraError: the hub refuses it.

        """
        return push(self.parts, name, private=private, token=token)

    # ----------------------------------------------------------------------------------------
    # Asking it

    def rank(self, question: Text | Fields, options: Sequence[Text]) -> list[Ranked]:
        """The options, best first.

        Args:
            question: a text, or the messages of a chat; for a model with a prompt template of
                several fields a mapping with their values.
            options: the candidates.

        Raises:
            LikraError: fewer than two options, one that is empty or stands there twice, or a
                prompt longer than the model's context.

        """
        (ranked,) = self.rank_many([(question, options)])
        return ranked

    def rank_many(self, asked: Iterable[Asked]) -> Iterator[list[Ranked]]:
        """`rank` for any number of questions with their options, in their order.

        They are read and answered in chunks, so memory does not grow with their number.
        """
        return rank_many(self.parts, asked)

    def predict(
        self, question: Text | Fields, options: Sequence[Text], *, abstain: float | None = None
    ) -> str | None:
        """The best option; with ``abstain``, None where it is not sure enough.

        Args:
            question: what is asked.
            options: the candidates.
            abstain: the share of wrong answers that is accepted among those given, such as 0.05.

        Raises:
            LikraError: as `rank`; or abstaining, and the model has nothing to calibrate it by.

        """
        (best,) = self.predict_many([(question, options)], abstain=abstain)
        return best

    def predict_many(
        self, asked: Iterable[Asked], *, abstain: float | None = None
    ) -> Iterator[str | None]:
        """`predict` for any number of questions with their options, in their order."""
        least = 0.0 if abstain is None else self.threshold(abstain)
        for ranked in self.rank_many(asked):
            yield ranked[0].text if ranked[0].probability >= least else None

    def threshold(self, abstain: float) -> float:
        """The probability from which on an answer is given at that share of wrong answers.

        It is conformal (`likra.scores.abstention`), from questions that the heads were not trained
        on, and holds for questions like those; infinity where no answer is safe.
        """
        return threshold(self.parts, abstain)

    def coverage(self, abstain: float) -> float:
        """The share of the calibration questions that are answered at that share of wrong ones."""
        return coverage(self.parts, abstain)

    def score(self, pairs: Iterable[tuple[Text | Fields, Text]]) -> np.ndarray:
        """The score of each (question, answer) pair: [pairs] float64.

        Nats; nats per character where the model divides by length.
        """
        return score_pairs(self.parts, pairs)

    def explain(self, question: Text | Fields, answer: Text) -> Explanation:
        """Which tokens and words speak for an answer, and which against it.

        Raises:
            LikraError: the answer is empty, or the negative term sees other tokens.

        """
        return explain(self.parts, question, answer)

    @overload
    def generate(
        self, question: str | Fields, *, way: Way = "positive", **settings: Any
    ) -> str: ...
    @overload
    def generate(
        self, question: Sequence[Text | Fields], *, way: Way = "positive", **settings: Any
    ) -> Any: ...
    def generate(
        self,
        question: Text | Fields | Sequence[Text | Fields],
        *,
        way: Way = "positive",
        **settings: Any,
    ) -> str | list[str]:
        """Write an answer; to a list of questions, a list of answers.

        Args:
            question: a text, the messages of a chat or fields, as in `rank`; or a list of these.
                An answer does not depend on the questions beside it.
            way: "guided", each token by the ratio, among those that the positive term finds
                plausible; "best-of-n", the sample of the positive term that `rank` puts first;
                "positive", the positive term alone.
            settings: n, alpha, weight, and as in `generate` of transformers max_new_tokens,
                do_sample, temperature; seed, stop: see `likra.model.generate.Writing`.

        Raises:
            LikraError: an empty question, a number out of its range, or a prompt that leaves no
                room for the answer.

        """
        one = is_one(question)
        asked: Any = [question] if one else question
        answers = list(generate_many(self.parts, asked, Writing(way, **settings)))
        return answers[0] if one else answers

    def distill(self, data: Any, output: Path | str, **settings: Any) -> "Likra":
        """Teach one head what two terms and a weight say, to serve it at the cost of one.

        Writes a plain PEFT folder, and returns it as a model of one term. See
        `likra.model.distill.distill` for the settings, and for what is lost.
        """
        from likra.model.distill import distill

        return type(self).of(distill(self.parts, data, Path(output), **settings))

    def evaluate(
        self, task: str, data: str | None = None, limit: int | None = None
    ) -> "pd.DataFrame":
        """Accuracies on a task of lm-evaluation-harness or a data file, in all modes.

        See `likra.model.evaluate.evaluate`.
        """
        from likra.model.evaluate import evaluate

        return evaluate(self.parts, task, data, limit)

    # ----------------------------------------------------------------------------------------
    # About it

    @property
    def base(self) -> BaseModel:
        """The base model of the positive term."""
        return self.parts.base

    @property
    def evidence(self) -> Evidence | None:
        """What `fit` measured; None for a model that was put together by hand."""
        return None if self.parts.chosen is None else self.parts.chosen.evidence

    @property
    def findings(self) -> list[str]:
        """What `fit` found, in words: which mode it chose, and whether it is worth using."""
        chosen = self.parts.chosen
        return [] if chosen is None else sentences(chosen.ranking, chosen.evidence)

    def __repr__(self) -> str:
        """The terms and the weight."""
        parts = self.parts
        second = "" if parts.negative is None else f", negative={_named(parts.negative)}"
        weight = "" if parts.negative is None else f", weight={parts.weight:g}"
        return f"Likra(base='{self.base.name}', positive={_named(parts.positive)}{second}{weight})"


def _named(term: Term) -> str:
    if isinstance(term, Prior):
        return "'prior'"
    return "'base'" if term.folder is None else f"'{term.folder}'"
