"""Objectives that train one head on right and wrong answers together: pure functions.

Each is a function of log-likelihoods that the engine gives differentiably, so it trains on the same
forest as likra's own heads, on which the two answers to a question share its prompt. In the
equations, for each question:

    r, s    log-likelihood of the right and of the wrong answer under the head
    R, S    r and s less those of the base: the log-ratios, beta times which are implicit rewards

`likra.heads.trl` trains DPO, NCA and KTO by TRL: the reference that the tests compare with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.questions import Choice

REVISION = 1  # raised when a change here gives other heads
# The question that a classifier answers with yes or no after each answer.
ASKED, VERDICTS = "\nIs this answer right?", (" yes", " no")
SIMPO_MARGIN = 0.5  # over beta: Meng et al. 2024, appendix
LEAST = 1e-5  # 1 - p is no less: Welleck et al. 2020 do the same


@dataclass(frozen=True)
class Answers:
    """Log-probabilities of answers to a batch of questions, in nats.

    The first dimension holds kinds of answers: the right one and the wrong one; for other
    objectives more (see `Objective.pairs`).

    Attributes:
        policy: [kinds, questions, tokens] under the head, 0 on padding; differentiable.
        reference: [kinds, questions] under the base; zeros where the objective needs none.
        lengths: [kinds, questions], tokens.

    """

    policy: Tensor
    reference: Tensor
    lengths: Tensor

    @cached_property
    def sums(self) -> Tensor:
        """[kinds, questions], log-likelihoods under the head."""
        return self.policy.sum(-1)

    @cached_property
    def means(self) -> Tensor:
        """[kinds, questions], mean log-probability per token under the head."""
        return self.sums / self.lengths

    @cached_property
    def ratios(self) -> Tensor:
        """[kinds, questions], log-ratios of head and base."""
        return self.sums - self.reference


def dpo(answers: Answers, beta: float) -> Tensor:
    """``-log sigmoid(beta (R - S))`` (Rafailov et al. 2023, eq. 7, arXiv:2305.18290)."""
    right, wrong = answers.ratios
    return -logsigmoid(beta * (right - wrong))


def ipo(answers: Answers, beta: float) -> Tensor:
    """``(R / |right| - S / |wrong| - 1 / (2 beta))^2`` (Azar et al. 2023, eq. 17).

    arXiv:2310.12036; per token as in TRL, which has it from the authors.
    """
    right, wrong = answers.ratios / answers.lengths
    return (right - wrong - 1 / (2 * beta)) ** 2


def nca(answers: Answers, beta: float) -> Tensor:
    """``-log sigmoid(beta R) - (log sigmoid(-beta R) + log sigmoid(-beta S)) / 2``.

    Noise-contrastive alignment of pairs (Chen et al. 2024, arXiv:2402.05369).
    """
    right, wrong = beta * answers.ratios
    return -logsigmoid(right) - (logsigmoid(-right) + logsigmoid(-wrong)) / 2


def kto(answers: Answers, beta: float) -> Tensor:
    """``(2 - sigmoid(beta (R - z)) - sigmoid(beta (z - S))) / 2`` (Ethayarajh et al. 2024).

    arXiv:2402.01306, eq. 7. z is the mean log-ratio of the answers to other questions, at least 0:
    the third and the fourth kind (`mismatched`).
    """
    right, wrong, *others = answers.ratios
    drift = torch.stack(others).mean().detach().clamp(min=0)
    return (2 - torch.sigmoid(beta * (right - drift)) - torch.sigmoid(beta * (drift - wrong))) / 2


def simpo(answers: Answers, beta: float) -> Tensor:
    """``-log sigmoid(beta (r / |right| - s / |wrong|) - gamma)``, gamma being beta / 2.

    Without a base to refer to (Meng et al. 2024, eq. 6, arXiv:2405.14734).
    """
    right, wrong = answers.means
    return -logsigmoid(beta * (right - wrong - SIMPO_MARGIN))


def unlikelihood(answers: Answers, beta: float) -> Tensor:
    """Mean over tokens of ``-log p`` of the right and ``-beta log(1 - p)`` of the wrong answer.

    Welleck et al. 2020, arXiv:1908.04319.
    """
    right, _ = answers.means
    of_wrong = answers.policy[1]
    unlikely = torch.log(torch.clamp(-torch.expm1(of_wrong), min=LEAST))
    # padding has log-probability 0, and 1 - p = 0 there
    unlikely = unlikely.masked_fill(_padding(answers)[1], 0.0)
    return -right - beta * unlikely.sum(-1) / answers.lengths[1]


def classifier(answers: Answers, beta: float) -> Tensor:
    """Cross-entropy of yes and no: ``-log sigmoid(beta a) - log sigmoid(-beta b)``.

    a and b are the log-odds of yes against no after the right and after the wrong answer
    (`yes_or_no`), as rerankers made of language models are trained. ``beta`` is 1.
    """
    right_yes, right_no, wrong_yes, wrong_no = answers.sums
    return -logsigmoid(beta * (right_yes - right_no)) - logsigmoid(beta * (wrong_no - wrong_yes))


def _padding(answers: Answers) -> Tensor:
    """[kinds, questions, tokens] bool."""
    place = torch.arange(answers.policy.shape[-1], device=answers.policy.device)
    return place >= answers.lengths[..., None]


# --------------------------------------------------------------------------------------------
# What an objective is


Example = Sequence[TokenPair]  # of one question: the answers of each kind


@dataclass(frozen=True)
class Objective:
    """A loss, and what it is a function of.

    Attributes:
        loss: of `Answers` and beta: [questions].
        beta: its default.
        refers: whether it needs the log-likelihoods under the base.
        n_kinds: kinds of answers that go through the model for each question.
        mismatches: whether the third and fourth kind are the answers of other questions.

    """

    loss: Callable[[Answers, float], Tensor]
    beta: float = 0.1
    refers: bool = True
    n_kinds: int = 2
    mismatches: bool = False

    def pairs(self, batch: Sequence[Example]) -> list[TokenPair]:
        """The pairs of a batch, kind by kind."""
        kinds = [list(kind) for kind in zip(*batch, strict=True)]
        if self.mismatches:
            kinds += mismatched(*kinds)
        return [pair for kind in kinds for pair in kind]


def mismatched(right: list[TokenPair], wrong: list[TokenPair]) -> list[list[TokenPair]]:
    """Each prompt of a batch with the answer of the question before it, right and wrong ones.

    The first question has the last one's answers. In a batch of one, which only the end of a run
    has, it is the question's own.
    """
    return [
        [
            replace(pair, continuation=other.continuation)
            for pair, other in zip(kind, [before[-1], *kind[:-1]], strict=True)
        ]
        for kind, before in ((right, wrong), (wrong, right))
    ]


def yes_or_no(choice: Choice) -> tuple[Choice, Choice]:
    """The two answers that a classifier gives to the question whether the choice is right."""
    context = choice.context + choice.continuation + ASKED
    yes, no = (Choice(context, verdict, verdict.strip(), choice.is_right) for verdict in VERDICTS)
    return yes, replace(no, is_right=not choice.is_right)


OBJECTIVES = {
    "dpo": Objective(dpo),
    "ipo": Objective(ipo),
    "nca": Objective(nca),
    "kto": Objective(kto, n_kinds=4, mismatches=True),
    "simpo": Objective(simpo, beta=2.0, refers=False),
    "unlikelihood": Objective(unlikelihood, beta=1.0, refers=False),
    "bradley-terry": Objective(dpo, beta=1.0),  # a reward model whose reward is the log-ratio
    "classifier": Objective(classifier, beta=1.0, refers=False, n_kinds=4),
}


def check_examples(
    name: str, examples: Sequence[Example], batch_size: int, max_length: int
) -> None:
    """Refuse examples on which an objective cannot be trained.

    Args:
        name: of the objective.
        examples: of each question its answers.
        batch_size: questions of one forward pass.
        max_length: the model's context, in tokens.

    Raises:
        LikraError: another number of answers than the objective takes; or, where it needs the
            answers of other questions, a batch of one, or a prompt that leaves no room for them.

    """
    objective = OBJECTIVES[name]
    n_given = objective.n_kinds - (2 if objective.mismatches else 0)
    for number, example in enumerate(examples):
        if len(example) != n_given:
            raise LikraError(
                f"{name} takes {n_given} answers to each question, and question {number} has "
                f"{len(example)}"
            )
    if not objective.mismatches:
        return
    check_batch(name, batch_size)
    for start in range(0, len(examples), batch_size):
        pairs = objective.pairs(examples[start : start + batch_size])
        longest = max(len(pair.tokens) for pair in pairs)
        if longest > max_length:
            raise LikraError(
                f"{name} gives each prompt the answers of another question: one of them takes "
                f"{longest} tokens so, and the model's context is {max_length}; shorten the "
                "prompts, or use another method"
            )


def check_batch(name: str, size: int) -> None:
    """Refuse a batch in which KTO does not find the answers of other questions.

    Raises:
        LikraError: it has one question.

    """
    if OBJECTIVES[name.removeprefix("trl-")].mismatches and size < 2:
        raise LikraError(
            f"{name} compares the questions of a batch, and it has one: "
            "raise batch_size or lower gradient_accumulation_steps"
        )
