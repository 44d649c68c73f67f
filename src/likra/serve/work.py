"""What can be asked of a model, and the answers to many such requests at once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from likra.data.formats import Text
from likra.data.prompts import as_text
from likra.engine.tokens import tokens_of
from likra.model.explain import explain
from likra.model.generate import Writing, generate_many
from likra.model.parts import Parts
from likra.model.rank import Ranked, rank_together, score_pairs


@dataclass(frozen=True)
class Rank:
    """Rank different options; one alone has the probability 1."""

    question: Text
    options: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """Options with their places in the request, best first, and what was read for them."""

    best_first: tuple[tuple[int, Ranked], ...]
    n_tokens: int


@dataclass(frozen=True)
class Score:
    """Score each (question, answer) pair by itself."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scores:
    """The score of each pair, in nats; as a share by `likra.serve.work.share`."""

    values: tuple[float, ...]
    shares: tuple[float, ...]
    n_tokens: int


@dataclass(frozen=True)
class Explain:
    """Explain an answer."""

    question: Text
    answer: str


@dataclass(frozen=True)
class Generate:
    """Write an answer."""

    question: Text
    writing: Writing


Ask = Rank | Score | Explain | Generate


def kind(ask: Ask) -> Hashable:
    """Requests of an equal kind are answered together."""
    return type(ask), ask.writing if isinstance(ask, Generate) else None


def texts_of(ask: Ask) -> tuple[list[str], list[str]]:
    """The questions and the answers that a request brings."""
    match ask:
        case Rank(question, options):
            return [as_text(question)], list(options)
        case Score(pairs):
            return [question for question, _ in pairs], [answer for _, answer in pairs]
        case Explain(question, answer):
            return [as_text(question)], [answer]
        case Generate(question, _):
            return [as_text(question)], []


def answer(model: Parts, asks: Sequence[Any]) -> list[Any]:
    """The answers to requests of one kind, in their order.

    Raises:
        LikraError: what is wrong with one of them.

    """
    match asks[0]:
        case Rank():
            return rank(model, asks)
        case Score():
            return score(model, asks)
        case Explain():
            return [explain(model, ask.question, ask.answer) for ask in asks]
        case Generate(_, writing):
            return list(generate_many(model, [ask.question for ask in asks], writing))
    raise TypeError(type(asks[0]))


def rank(model: Parts, asks: Sequence[Rank]) -> list[Ranking]:
    """All options of all requests in one packed pass."""
    ranked = rank_together(model, [(ask.question, ask.options) for ask in asks])
    counts = _token_counts(model, asks)
    answers = []
    for ask, own, count in zip(asks, ranked, counts, strict=True):
        places = {option: place for place, option in enumerate(ask.options)}
        answers.append(Ranking(tuple((places[one.text], one) for one in own), count))
    return answers


def score(model: Parts, asks: Sequence[Score]) -> list[Scores]:
    """All pairs of all requests in one packed pass."""
    values = score_pairs(model, [pair for ask in asks for pair in ask.pairs])
    temperature = 1.0 if model.chosen is None else model.chosen.temperature
    shares = share(values, temperature)
    counts = _token_counts(model, asks)
    answers, start = [], 0
    for ask, count in zip(asks, counts, strict=True):
        own = slice(start, start := start + len(ask.pairs))
        answers.append(Scores(tuple(values[own].tolist()), tuple(shares[own].tolist()), count))
    return answers


def share(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Scores [pairs] as numbers from 0 to 1, each by itself: ``1 / (1 + exp(-score / T))``.

    At T = 1 and w = 1 it is the probability that an answer is right if it was drawn by a fair coin
    from the positive or the negative term.
    """
    from scipy.special import expit

    return np.asarray(expit(scores / temperature))


def _token_counts(model: Parts, asks: Sequence[Ask]) -> list[int]:
    """Tokens of each request's questions and answers, whatever the prompt puts around them."""
    texts = [[text for side in texts_of(ask) for text in side] for ask in asks]
    tokens = iter(tokens_of(model.base.tokenizer, [text for own in texts for text in own]))
    return [sum(len(next(tokens)) for _ in own) for own in texts]
