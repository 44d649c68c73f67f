"""A Likra model as a reward of TRL's online trainers (GRPO, RLOO)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from likra.data.formats import Text
from likra.data.prompts import as_text
from likra.engine.tokens import encode_texts
from likra.errors import LikraError
from likra.model.explain import token_shares
from likra.model.likra import Likra
from likra.model.parts import Parts
from likra.model.prompt import Prompt
from likra.model.rank import scores_of
from likra.questions import Question

EMPTY = -100.0  # nats; below the score of any answer of a few words


def reward_function(
    model: Likra | Path | str, *, per_token: bool = False, empty: float = EMPTY
) -> "Reward":
    """A function for ``reward_funcs`` of `trl.GRPOTrainer` and `trl.RLOOTrainer`.

    The reward of a completion is the model's score of it, given its prompt, in nats:
    ``log p+(completion | prompt) - w log p-(completion | prompt)``; per character where the model
    divides by length. Plain prompts and completions are scored as they are, whatever form of
    prompts the model has; conversational ones through its base's chat template, with the end of
    the assistant's turn.

    A completion without text, or without tokens of its own behind its prompt, has no score: its
    reward is ``empty``.

    Args:
        model: a Likra model, or the folder or hub name of one. Its base is not the policy: a model
            that is trained would change its own reward.
        per_token: divide by the completion's tokens.
        empty: the reward of an empty completion.

    Raises:
        LikraError: no model there.

    """
    opened = model if isinstance(model, Likra) else Likra.from_pretrained(model)
    if not np.isfinite(empty):
        raise LikraError(f"empty takes a finite number, not {empty}")
    return Reward(opened.parts, per_token=per_token, empty=empty)


class Reward:
    """See `reward_function`."""

    __name__ = "likra"  # TRL names the reward's logs by it

    def __init__(self, parts: Parts, *, per_token: bool, empty: float) -> None:
        self.empty = float(empty)
        self.per_token = per_token
        own = parts.per_character and not per_token
        # one of each, for they keep the heads that they have read
        self._plain = replace(parts, prompt=Prompt("verbatim"), per_character=own)
        self._chat = replace(parts, prompt=Prompt("verbatim", chat=True), per_character=own)

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> list[float]:
        """The reward of each completion; TRL's other columns are not used.

        Raises:
            LikraError: as many prompts as completions are needed; an empty prompt; messages, and
                no chat template; a pair longer than the model's context; or the model is being
                trained.

        """
        if self.per_token:
            shares = self.token_rewards(prompts, completions)
            return [sum(own) if own else self.empty for own in shares]
        rewards = [self.empty] * len(completions)
        for parts, places, questions in self._asked(prompts, completions):
            for place, score in zip(places, scores_of(parts, questions)[0].tolist(), strict=True):
                rewards[place] = score
        return rewards

    def token_rewards(
        self, prompts: Sequence[Text], completions: Sequence[Text]
    ) -> list[list[float]]:
        """For each completion the share of each of its tokens, as the reward's base has them.

        They sum to the completion's reward; an empty completion has none.

        Raises:
            LikraError: as the call; or the two terms divide a completion into different tokens.

        """
        rewards: list[list[float]] = [[] for _ in completions]
        for parts, places, questions in self._asked(prompts, completions):
            for place, share in zip(places, token_shares(parts, questions), strict=True):
                count = len(share.tokens) if self.per_token else 1
                rewards[place] = (share.scores / count).tolist()
        return rewards

    def _asked(
        self, prompts: Sequence[Text], completions: Sequence[Text]
    ) -> Iterator[tuple[Parts, list[int], list[Question]]]:
        """The completions that can be scored, with their places: plain ones, then chats."""
        if len(prompts) != len(completions):
            raise LikraError(f"there are {len(prompts)} prompts and {len(completions)} completions")
        self._check_frozen()
        for parts in (self._plain, self._chat):
            tokenizer = parts.base.tokenizer
            own = [
                (place, parts.prompt.question(tokenizer, prompt, [completion]))
                for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
                if isinstance(prompt, str) != parts.prompt.chat and as_text(completion).strip()
            ]
            texts = [(q.choices[0].context, q.choices[0].continuation) for _, q in own]
            pairs = encode_texts(tokenizer, texts) if texts else []
            kept = [each for each, pair in zip(own, pairs, strict=True) if pair.continuation]
            if kept:
                yield parts, [place for place, _ in kept], [question for _, question in kept]

    def _check_frozen(self) -> None:
        for term in self._plain.terms.terms:
            if any(parameter.requires_grad for parameter in term.base.model.parameters()):
                raise LikraError(
                    f"the reward's model '{term.base.name}' is being trained: open it a second "
                    "time, for the policy or for the reward"
                )
