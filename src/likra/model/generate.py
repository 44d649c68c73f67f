"""Answers that the model writes itself: guided by the ratio, or the best of several samples."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from math import inf, isfinite, log
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from likra.data.formats import Text
from likra.engine.products import float32_products
from likra.engine.tokens import prefix_token, tokens_of
from likra.errors import LikraError, unknown
from likra.heads.lora import heads_on
from likra.heads.sample import left_padded, padding_token
from likra.model.parts import Parts
from likra.model.prompt import Fields, Prompt
from likra.model.rank import Ranked, chunks, rank_together
from likra.model.terms import Prior, Term, head_of

Way = Literal["guided", "best-of-n", "positive"]
WAYS: tuple[Way, ...] = get_args(Way)
ROWS = 64  # texts that are written together


@dataclass(frozen=True)
class Writing:
    """How answers are written.

    Attributes:
        way: "guided", each token by ``log p+ - w log p-`` among the plausible ones; "best-of-n",
            samples of the positive term, of which the model ranks one first; "positive", the
            positive term alone.
        n: samples of "best-of-n".
        alpha: of "guided": a token is plausible if the positive term gives it at least this share
            of what it gives its likeliest token (arXiv:2210.15097, eq. 2); from 0, all tokens, to
            1, the likeliest alone.
        weight: w of the negative term; None for the model's own.
        max_new_tokens: where an answer without an end is cut.
        do_sample: draw tokens rather than take the best one; "best-of-n" always draws.
        temperature: of the drawing.
        seed: of the drawing. What is drawn for a question depends on it and the question alone.
        stop: what ends an answer beside the model's end of text: by default that of the first
            line. None to go on.

    """

    way: Way = "positive"
    n: int = 8
    alpha: float = 0.1
    weight: float | None = None
    max_new_tokens: int = 32
    do_sample: bool = False
    temperature: float = 1.0
    seed: int = 0
    stop: str | None = "\n"

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            LikraError: an unknown way, or a number out of its range.

        """
        if self.way not in WAYS:
            raise unknown("way to generate", str(self.way), WAYS)
        for name in ("n", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise LikraError(f"{name} must be at least 1, not {getattr(self, name)}")
        check_alpha(self.alpha)
        if not isfinite(self.temperature) or self.temperature <= 0:
            raise LikraError(
                f"temperature takes a number above 0, not {self.temperature} "
                "(without do_sample the best token is taken)"
            )
        if self.weight is not None and not (isfinite(self.weight) and self.weight >= 0):
            raise LikraError(f"weight takes a number of at least 0, not {self.weight}")
        if self.stop == "":
            raise LikraError("stop is empty: give a text, or None to go on")


def check_alpha(alpha: float) -> None:
    """Refuse a cut-off that is not a share.

    Raises:
        LikraError: it is not from 0 to 1.

    """
    if not 0 <= alpha <= 1:
        raise LikraError(f"alpha takes a number from 0 to 1, not {alpha}")


def generate_many(
    parts: Parts, questions: Iterable[Text | Fields], writing: Writing | None = None
) -> Iterator[str]:
    """An answer to each question, in their order; see `likra.model.likra.Likra.generate`.

    Questions are read and answered in chunks, so memory does not grow with their number.
    """
    writing = writing or Writing()
    samples = writing.n if writing.way == "best-of-n" else 1
    for chunk in chunks(questions, max(1, ROWS // samples)):
        if writing.way == "best-of-n":
            for ranked in best_of(parts, chunk, writing):
                yield ranked[0].text if ranked else ""
        else:
            for (text,) in write(parts, chunk, writing):
                yield text


def best_of(
    parts: Parts, questions: Sequence[Text | Fields], writing: Writing
) -> list[list[Ranked]]:
    """The different samples of each question under the positive term, best first.

    An empty sample is no answer, so there may be none.

    Raises:
        LikraError: see `write`.

    """
    drawing = replace(writing, way="positive", do_sample=True)
    samples = write(parts, questions, drawing, writing.n)
    texts = [list(dict.fromkeys(text for text in own if text)) for own in samples]
    if parts.prompt.style == "verbatim" and not parts.prompt.chat:
        # an answer is put as it is there, and the space before it belongs to it
        parts = replace(parts, prompt=Prompt("continuation"))
    asked = [(q, own) for q, own in zip(questions, texts, strict=True) if own]
    if writing.weight is not None and parts.negative is not None:
        parts = replace(parts, weight=writing.weight)
    ranked = rank_together(parts, asked) if asked else iter(())
    return [next(ranked) if own else [] for own in texts]


def write(
    parts: Parts, questions: Sequence[Text | Fields], writing: Writing, samples: int = 1
) -> list[list[str]]:
    """Write so many texts for each question, guided or under the positive term alone.

    Returns:
        For each question its texts, without surrounding white space; some may be empty or the same.

    Raises:
        LikraError: an empty question, or a prompt that leaves no room for the answer.

    """
    tokenizer = parts.base.tokenizer
    contexts = [context_of(parts, question) for question in questions for _ in range(samples)]
    weight = parts.weight if writing.weight is None else writing.weight
    terms = [parts.positive]
    if writing.way == "guided" and parts.negative is not None and weight > 0:
        terms.append(parts.negative)
    prompts = [
        left_padded(
            prompt_tokens(term, tokenizer, contexts, writing.max_new_tokens, parts.truncate),
            padding_token(tokenizer),
        )
        for term in terms
    ]
    ids, mask = (tensor.to(parts.base.device) for tensor in prompts[0])
    start = ids.shape[1]
    processors = LogitsProcessorList()
    with (
        heads_on([head_of(term) for term in terms]) as use,
        torch.inference_mode(),
        float32_products(parts.base.model),
    ):
        if writing.way == "guided":
            negative = NextToken(lambda: use(1), *prompts[1]) if len(terms) == 2 else None
            processors.append(RatioLogits(negative, weight, writing.alpha, start, lambda: use(0)))
        if writing.do_sample:
            seeds = [
                seed_of(writing.seed, index % samples, context)
                for index, context in enumerate(contexts)
            ]
            processors.append(Drawing(seeds, writing.temperature))
        generate: Any = use(0).generate  # of a mixin that the checker does not see
        output = generate(
            input_ids=ids,
            attention_mask=mask,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([Ending(tokenizer, start, writing.stop)]),
            max_new_tokens=writing.max_new_tokens,
            pad_token_id=padding_token(tokenizer),
            **PLAIN,
        )
    texts = [
        _cut(text, writing.stop)
        for text in tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)
    ]
    return [texts[i : i + samples] for i in range(0, len(texts), samples)]


# A checkpoint may come with habits of its own (a penalty for repetition, say), which would change
# the distributions. Greedy throughout: `Drawing` draws.
PLAIN: dict[str, Any] = {
    "do_sample": False,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,  # the library's default, which says nothing where there is no sampling
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
}


def context_of(parts: Parts, question: Text | Fields) -> str:
    """What stands before an answer, as it did when the heads were trained.

    Raises:
        LikraError: an empty question.

    """
    # any answer will do: the context ends where the answer begins
    return parts.prompt.question(parts.base.tokenizer, question, ["x"]).choices[0].context


def prompt_tokens(
    term: Term,
    tokenizer: PreTrainedTokenizerBase,
    contexts: Sequence[str],
    max_new_tokens: int,
    truncate: bool,
) -> list[list[int]]:
    """The tokens before an answer as the term sees them, for each context.

    Spaces at a context's end are left to the answer, as in scoring (`likra.engine.tokens`).

    Raises:
        LikraError: prompt and answer may take more tokens than the model's context.

    """
    if isinstance(term, Prior):
        contexts = [""] * len(contexts)
    prompts = tokens_of(tokenizer, [context.rstrip() for context in contexts])
    prompts = [
        tokens if context.rstrip() else [prefix_token(tokenizer)]
        for tokens, context in zip(prompts, contexts, strict=True)
    ]
    room = term.base.max_length - max_new_tokens
    longest = max(map(len, prompts))
    if room < 1 or (longest > room and not truncate):
        raise LikraError(
            f"the prompt takes {longest} tokens and the answer up to {max_new_tokens} "
            f"(max_new_tokens), and the context of '{term.base.name}' is {term.base.max_length}"
        )
    return [tokens[-room:] for tokens in prompts]


def plausible(positive: Tensor, alpha: float) -> Tensor:
    """Which tokens the positive term finds plausible: ``p+ >= alpha * max p+`` (bool).

    The adaptive plausibility constraint of contrastive decoding (arXiv:2210.15097, eq. 2).
    ``positive`` are log-probabilities [..., vocabulary]. A token without probability never is.
    """
    least = log(alpha) if alpha > 0 else -inf
    return (positive >= positive.amax(-1, keepdim=True) + least) & positive.isfinite()


class RatioLogits(LogitsProcessor):
    """Scores of the next token: ``log p+ - w log p-`` where it is plausible, else -inf."""

    def __init__(
        self,
        negative: "NextToken | None",
        weight: float,
        alpha: float,
        start: int,
        back: Callable[[], object],
    ) -> None:
        """Guide the generation of the positive term.

        Args:
            negative: the negative term; without one the plausible tokens keep their ``log p+``.
            weight: w.
            alpha: see `plausible`.
            start: tokens of the positive term's prompt, padding counted.
            back: makes the positive term the active one again.

        """
        self.negative, self.weight, self.alpha = negative, weight, alpha
        self.start, self.back = start, back

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[rows, vocabulary] from the positive term's logits, likewise."""
        positive = scores.float().log_softmax(-1)
        value = positive
        if self.negative is not None:
            negative = self.negative(input_ids[:, self.start :]).to(scores.device)
            self.back()
            # of one tokenizer; but a model may have places in its vocabulary for no token at all
            width = min(positive.shape[-1], negative.shape[-1])
            positive = positive[:, :width]
            value = positive - self.weight * negative[:, :width]
        result = torch.full_like(scores, -inf, dtype=torch.float32)
        kept = value.masked_fill(~plausible(positive, self.alpha), -inf)
        result[:, : kept.shape[-1]] = kept
        return result


class NextToken:
    """The next-token distribution of a term along texts that another term writes.

    The term keeps keys and values of its own, so that a step costs it one token for each text. A
    model that keeps none computes the texts again.
    """

    def __init__(self, model: Callable[[], PreTrainedModel], ids: Tensor, mask: Tensor) -> None:
        """Begin after the prompts.

        Args:
            model: gives the model with the term's head on it.
            ids: the term's prompts, [rows, tokens], padded on the left.
            mask: likewise, 0 on padding.

        """
        self.model, self.prompts, self.mask = model, ids, mask
        self.cache: Any = None
        self.n_seen = 0  # tokens that the cache holds

    def __call__(self, written: Tensor) -> Tensor:
        """[rows, vocabulary] float32, log-probabilities after what is written: [rows, n] tokens."""
        model = self.model()
        prompts, mask = self.prompts.to(model.device), self.mask.to(model.device)
        written = written.to(model.device)
        ids = torch.cat([prompts, written], dim=-1)
        mask = torch.cat([mask, torch.ones_like(written)], dim=-1)
        keeps = "past_key_values" in signature(model.forward).parameters
        new = slice(self.n_seen, None)
        inputs = {
            "input_ids": ids[:, new],
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, new],
            "logits_to_keep": 1,
        }
        if keeps:
            output = model(**inputs, past_key_values=self.cache, use_cache=True)
            self.cache, self.n_seen = output.past_key_values, ids.shape[1]
        else:
            output = model(**inputs, use_cache=False)
        logits: Tensor = output.logits[:, -1]
        return logits.float().log_softmax(-1)


class Drawing(LogitsProcessor):
    """Makes the greedy choice a draw from ``softmax(scores / temperature)``.

    The largest of the scores with Gumbel noise on them is such a draw. Each row has a generator of
    its own, so what is drawn for a question is the same whatever stands beside it.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        """One seed for each row."""
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[rows, vocabulary], with noise of minus the logarithm of exponential numbers."""
        noise = [
            torch.empty(scores.shape[-1]).exponential_(generator=generator)
            for generator in self.generators
        ]
        return scores.float() / self.temperature - torch.stack(noise).log().to(scores.device)


def seed_of(seed: int, sample: int, context: str) -> int:
    """The seed of a sample: 63 bits, from the seed, its number and what stands before it."""
    digest = hashlib.sha256(f"{seed}\n{sample}\n{context}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Ending(StoppingCriteria):
    """Ends a row whose answer, white space before it aside, holds a text."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, start: int, stop: str | None = None
    ) -> None:
        """Begin after ``start`` tokens of prompt; without a text nothing is ended."""
        self.tokenizer, self.start, self.stop = tokenizer, start, stop

    def __call__(self, input_ids: Tensor, scores: object, **kwargs: Any) -> Tensor:
        """[rows] bool."""
        done = [False] * len(input_ids)
        if self.stop is not None:
            written = self.tokenizer.batch_decode(input_ids[:, self.start :])
            done = [self.stop in text.lstrip() for text in written]
        return torch.tensor(done, device=input_ids.device)


def _cut(text: str, stop: str | None) -> str:
    text = text.strip()
    return text if stop is None else text.split(stop)[0].strip()


def is_one(question: Text | Fields | Sequence[Text | Fields]) -> bool:
    """Whether it is one question (a text, fields, the messages of a chat) and not a list."""
    if isinstance(question, str | Mapping):
        return True
    return any(isinstance(item, dict) and "role" in item for item in question)
