"""Distillation: two terms and a weight, taught to one head, which is served at the cost of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import inf, isfinite
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, TrainingArguments

from likra.data.reading import Reading
from likra.engine.logprobs import answer_logits
from likra.engine.packing import (
    LAYOUTS,
    PADDING,
    Batch,
    batch_indices,
)
from likra.engine.products import float32_products
from likra.engine.tokens import TokenPair, prefix_token
from likra.errors import LikraError
from likra.heads.base import checked_layout
from likra.heads.lora import Head, fresh_head, heads_on
from likra.heads.score import encode_questions
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.stamp import CONFIG
from likra.heads.train import Outputs, check_can_train, train_and_save
from likra.heads.trainer import PackedTrainer, StepTrainer, trainer_settings
from likra.model.data import open_data, read_for, read_questions
from likra.model.generate import check_alpha, plausible
from likra.model.parts import Parts, check_weight
from likra.model.terms import Prior, Term, head_of
from likra.progress import progress
from likra.questions import Question


@dataclass(frozen=True)
class Taught:
    """An answer with the distributions that a head is to learn where its tokens are predicted.

    Attributes:
        pair: prompt and answer.
        tokens: [answer tokens, kept] int64, the tokens with a probability, padded with 0.
        probabilities: [answer tokens, kept] float32, likewise.

    """

    pair: TokenPair
    tokens: Tensor
    probabilities: Tensor


def distill(
    parts: Parts,
    data: Any,
    output: Path,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: str = "error",
    answer_base: int = 0,
    prompt_template: str | None = None,
    **settings: Any,
) -> Parts:
    """Train one head whose next-token distribution is the combined one of the two terms.

    Args:
        parts: the model.
        data: questions with answers, as for `likra.model.fit.fit`. The head learns along all
            answers of a question, right or wrong.
        output: the head's folder, a plain PEFT adapter.
        columns: of a file, by role, where its names are others.
        on_bad_row: "error", or "skip" to leave out what cannot be used.
        answer_base: of a file: 1 if its answers are counted from 1.
        prompt_template: of a file: what stands before an answer; by default as the model asks.
        settings: see `distill_questions`.

    Returns:
        The head as a model of one term.

    Raises:
        LikraError: data that cannot be used; or see `distill_questions`.

    """
    reading = Reading(columns or {}, on_bad_row, answer_base, prompt_template)
    task = open_data(data, read_for(parts.prompt, data, reading))
    questions, _ = read_questions(parts.base, task, parts.prompt.chat, on_bad_row)
    return distill_questions(parts, questions, output, **settings)


def distill_questions(  # noqa: PLR0913 - its settings, each with a default
    parts: Parts,
    questions: Sequence[Question],
    output: Path,
    *,
    weight: float | None = None,
    beta: float = 1.0,
    alpha: float = 0.1,
    passes: int = 4,
    seed: int = 0,
    training: TrainingSettings | None = None,
    lora: LoraSettings | None = None,
    name: str | None = "distilled head",
) -> Parts:
    """`distill` on questions that were read.

    Args:
        parts: the model.
        questions: the questions.
        output: the head's folder.
        weight: w; by default the model's own.
        beta: how far the ratio moves the positive term.
        alpha: the cut-off of plausible tokens.
        passes: over the questions.
        seed: of the head's initialisation.
        training: learning rate and batch; a batch is so many questions.
        lora: the shape of the head.
        name: shown with the progress; None shows nothing.

    Raises:
        LikraError: a model of one term, a number out of its range, or a folder that holds
            something else.

    """
    if parts.negative is None:
        raise LikraError("a model of one term is one already: there is nothing to distill")
    check_alpha(alpha)
    if passes < 1:
        raise LikraError(f"passes must be at least 1, not {passes}")
    if not (isfinite(beta) and beta >= 0):
        raise LikraError(f"beta takes a number of at least 0, not {beta}")
    if output.is_file() or (
        output.is_dir() and any(output.iterdir()) and not (output / CONFIG).is_file()
    ):
        raise LikraError(f"'{output}' holds something else than a head: give another output")
    check_can_train(parts.base)
    settings = training or TrainingSettings()
    if weight is not None:
        check_weight(weight)
        parts = replace(parts, weight=weight)
    pairs = encode_questions(parts.base, questions, truncate=parts.truncate)
    taught = iter(teach(parts, pairs, beta, alpha, name))
    examples = [list(islice(taught, len(question.choices))) for question in questions] * passes
    layout = checked_layout(parts.base, pairs).layout

    def trainer_of(head: PeftModel, n: int, arguments: dict[str, Any]) -> StepTrainer:
        return DistillTrainer(
            model=head,
            args=TrainingArguments(**trainer_settings(parts.base, settings, seed), **arguments),
            data_collator=partial(_collate, layout),
            train_dataset=examples[:n],
        )

    new_head = partial(fresh_head, parts.base, lora or LoraSettings(), seed)
    train_and_save(new_head, trainer_of, settings, name, Outputs({len(examples): output}))
    return Parts(
        Head(parts.base, output),
        prompt=parts.prompt,
        per_character=parts.per_character,
        truncate=parts.truncate,
    )


# --------------------------------------------------------------------------------------------
# What is taught


def teach(
    parts: Parts, pairs: Sequence[TokenPair], beta: float, alpha: float, name: str | None = None
) -> list[Taught]:
    """What the two terms have to say along each answer, in the order of the pairs.

    Only the plausible tokens are kept, which with a cut-off are few.

    Raises:
        LikraError: an answer that is longer than the context of the negative term.

    """
    base, terms = parts.base, parts.terms.terms
    layout = checked_layout(base, pairs).layout
    taught: dict[int, Taught] = {}
    with (
        heads_on([head_of(term) for term in terms]) as use,
        torch.inference_mode(),
        float32_products(base.model),
        progress(len(pairs), name and f"{name}: the teacher", "answers") as advance,
    ):
        for indices in batch_indices(pairs, layout, base.budget):
            own = [pairs[index] for index in indices]
            positive, negative = (
                logprobs_along(use(place), term, own) for place, term in enumerate(terms)
            )
            combined = combine(positive, negative.to(positive.device), parts.weight, beta, alpha)
            lengths = [len(pair.continuation) for pair in own]
            for index, rows in zip(indices, combined.split(lengths), strict=True):
                taught[index] = Taught(pairs[index], *_kept(rows))
            advance(len(indices))
    return [taught[index] for index in range(len(pairs))]


def logprobs_along(model: PreTrainedModel, term: Term, pairs: Sequence[TokenPair]) -> Tensor:
    """Next-token distributions along the answers, one after the other, as a term sees them.

    [answer tokens of all pairs, vocabulary] float32, nats.
    """
    if isinstance(term, Prior):
        prefix = [prefix_token(term.base.tokenizer)]
        pairs = [TokenPair(prefix, pair.continuation) for pair in pairs]
    longest = max(len(pair.tokens) for pair in pairs)
    if longest > term.base.max_length:
        raise LikraError(
            f"prompt and answer take {longest} tokens, and the context of '{term.base.name}' is "
            f"{term.base.max_length}"
        )
    batch = term.base.batch(pairs, checked_layout(term.base, pairs).layout)
    places = batch.answer_positions[batch.answers != PADDING]
    return answer_logits(model, batch)[places].log_softmax(-1)


def combine(positive: Tensor, negative: Tensor, weight: float, beta: float, alpha: float) -> Tensor:
    """``softmax(log p+ + beta (log p+ - w log p-))`` over the plausible tokens, 0 elsewhere.

    [..., vocabulary], from log-probabilities likewise.
    """
    # of one tokenizer; but a model may have places in its vocabulary for no token at all
    width = min(positive.shape[-1], negative.shape[-1])
    positive = positive[..., :width]
    value = positive + beta * (positive - weight * negative[..., :width])
    return value.masked_fill(~plausible(positive, alpha), -inf).softmax(-1)


def _kept(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that have a probability, and it: each [rows, kept], padded with 0."""
    most = int((probabilities > 0).sum(-1).max())
    values, tokens = probabilities.topk(most, dim=-1)
    return tokens.masked_fill(values == 0, 0).cpu(), values.cpu()


# --------------------------------------------------------------------------------------------
# Learning it


def distillation_loss(
    model: PreTrainedModel,
    batch: Batch,
    tokens: Tensor,
    probabilities: Tensor,
    n_tokens: Tensor | int | None = None,
) -> Tensor:
    """Mean over answer tokens of ``KL(taught || model)``, in nats; 0 where they are the same.

    Args:
        model: a Hugging Face causal language model, with or without adapters.
        batch: the pairs, on the model's device.
        tokens: [pairs, answer tokens, kept], those with a probability.
        probabilities: [pairs, answer tokens, kept], theirs, which sum to 1 at each answer token;
            0 on padding.
        n_tokens: what the sum is divided by; by default the batch's own answer tokens.

    """
    logits = answer_logits(model, batch)
    places = batch.answer_positions[..., None]
    logprobs = logits[places, tokens] - logits.logsumexp(-1)[places]
    divergence = torch.xlogy(probabilities, probabilities) - probabilities * logprobs
    count = (batch.answers != PADDING).sum() if n_tokens is None else n_tokens
    return divergence.sum() / count


def _collate(layout: str, examples: list[list[Taught]]) -> dict[str, Tensor]:
    """Questions to one batch: that of the layout, and what is taught on it."""
    taught = [answer for answers in examples for answer in answers]
    batch = LAYOUTS[layout]([answer.pair for answer in taught])
    return {
        **vars(batch),
        "tokens": _stacked([answer.tokens for answer in taught]),
        "probabilities": _stacked([answer.probabilities for answer in taught]),
    }


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """[answers, answer tokens, kept] of [answer tokens, kept] of each, padded with 0."""
    most = max(tensor.shape[1] for tensor in tensors)
    wide = [pad(tensor, (0, most - tensor.shape[1])) for tensor in tensors]
    return pad_sequence(wide, batch_first=True)


class DistillTrainer(PackedTrainer):
    """A trainer with the distillation loss per answer token, in nats."""

    def packed_loss(
        self, model: PeftModel, batch: Batch, more: dict[str, Tensor], count: Tensor | int | None
    ) -> Tensor:
        """See `distillation_loss`."""
        # a PeftModel has all attributes of its base
        head = cast(PreTrainedModel, model)
        return distillation_loss(head, batch, more["tokens"], more["probabilities"], count)
