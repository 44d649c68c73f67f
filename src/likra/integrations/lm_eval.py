"""lm-evaluation-harness on likra's engine: the ratio of two heads of one base model.

Its base class, `LikraBaseLM`, is the base model alone; both are known to the harness by name.
"""

from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypedDict

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import model_registry
from transformers import PreTrainedModel

from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.lora import Head
from likra.heads.score import Done, Floats, Scored, score
from likra.integrations.lm_eval_base import LikraBaseLM, ScoreInputs, adapter_digest
from likra.integrations.lm_eval_heads import checked_weight, heads_of_model, heads_of_run
from likra.integrations.lm_eval_trained import TrainedQuestions
from likra.model.folder import check_base, is_model
from likra.scores.ratio import MODES, likelihood_ratio

__all__ = ["OPENED", "LikraBaseLM", "LikraLM", "Part"]

LIKRA = "likra"  # the mode of heads that were not fitted
# Whoever drives the harness by model names, and wants the models that it opens, puts a list here.
OPENED: ContextVar["list[LikraLM] | None"] = ContextVar("opened", default=None)


class Part(TypedDict):
    """The two terms of one score, in nats; None where there is no such term."""

    task: str
    doc_id: int
    choice: int
    positive: float
    negative: float | None
    weight: float | None
    score: float


class LikraLM(LikraBaseLM):
    """The heads of one base model in the harness: a score is the ratio ``L+ - w L-``.

    ``is_greedy`` is that of the positive term, and text is generated under it.

    Attributes:
        positive: the head of the positive term.
        negative: the head of the negative term.
        parts: the terms of each log-likelihood request that this process computed.
        trained_questions: the scored questions that the heads were trained on.

    """

    _terms: tuple[Floats, Floats | None]  # last scored

    def __init__(  # noqa: PLR0913
        self,
        path: str | Path = "",
        mode: str | None = None,
        weight: float | None = None,
        *,
        seed: int | None = None,
        n: int | None = None,
        source: str | None = None,
        pretrained: str | PreTrainedModel | None = None,
        dtype: str | torch.dtype | None = None,
        **arguments: Any,
    ) -> None:
        """Open the base model and find the heads.

        Args:
            path: a model of ``likra fit``, what ``likra train`` left, or a study's folder.
            mode: any of `likra.scores.ratio.MODES` but ``pmi`` and ``classifier``: which head
                gives which term; a missing one is the base. By default the model's own; of other
                folders "likra".
            weight: w of the negative term; modes without one ignore it. By default the model's
                own; of other folders 1.
            seed: of the heads' training; needed where the folder has several.
            n: the snapshot, in training examples; likewise.
            source: of the negative head's wrong answers; likewise.
            pretrained: another base model than the folder's own; as in `LikraBaseLM`.
            dtype: by default the study's, else float32 on a CPU and the checkpoint's elsewhere.
            arguments: as in `LikraBaseLM`.

        Raises:
            LikraError: no such heads, an argument that is unknown or not decided, or a head that
                does not fit the base or was changed after training.

        """
        if not path:
            raise LikraError("path= is missing: the folder that `likra train` or `likra run` left")
        if arguments.get("peft"):
            raise LikraError("likra puts its heads on the base alone: leave out peft=")
        given_weight = None if weight is None else checked_weight(weight)
        folder, which = Path(str(path)), {"seed": seed, "n": n, "source": source}
        if is_model(folder):
            found = heads_of_model(folder, mode, which)
        else:
            found = heads_of_run(folder, mode or LIKRA, which, checks_base=pretrained is None)
        self.mode = found.mode
        self.weight = found.weight if given_weight is None else given_weight
        super().__init__(
            found.base if pretrained is None else pretrained,
            dtype=found.dtype if dtype is None else dtype,
            **arguments,
        )
        if found.fingerprint is not None:
            check_base(self.base, folder, found.fingerprint)
        self.positive = Head(self.base, found.positive)
        self.negative = Head(self.base, found.negative)
        for head in (self.positive, self.negative):
            with head.on():
                pass  # it fits
        self.trained_questions = TrainedQuestions(found.trained)
        self.parts: list[Part] = []
        if (opened := OPENED.get()) is not None:
            opened.append(self)

    def _create_model(
        self, *named: Any, dtype: str | torch.dtype | None = None, **arguments: Any
    ) -> None:
        if dtype is None:  # as `likra.heads.base.open_model`
            dtype = "float32" if self.device.type == "cpu" else "auto"
        super()._create_model(*named, dtype=dtype, **arguments)

    def _score(
        self, pairs: list[TokenPair], done: Done, name: str | None, budget: int | None
    ) -> None:
        packed = self.base.pack(pairs, budget)
        if not MODES[self.mode].weighted:
            scored = score(self.positive, packed, greedy=True, done=done, name=name)
            self._terms = scored.logprobs, None
            return
        both = name and f"{name} (positive)", name and f"{name} (negative)"
        positive = score(self.positive, packed, greedy=True, name=both[0])

        def combine(indices: list[int], negative: Scored) -> None:
            ratio = likelihood_ratio(positive.logprobs[indices], negative.logprobs, self.weight)
            flags = None if positive.greedy is None else positive.greedy[indices]
            done(indices, Scored(ratio, flags))

        negative = score(self.negative, packed, done=combine, name=both[1])
        self._terms = positive.logprobs, negative.logprobs

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """As `LikraBaseLM.loglikelihood`, the ratio in place of the log-likelihood."""
        answers = super().loglikelihood(requests, disable_tqdm)
        self.parts += self._new_parts(requests, answers)
        self.trained_questions.note(requests)
        if self.rank == 0:
            self.trained_questions.warn()
        return answers

    def _new_parts(
        self, requests: list[Instance], answers: list[tuple[float, bool]]
    ) -> Iterator[Part]:
        positive, negative = self._terms
        seen = set()  # the harness evens out its processes by repeating a request
        for index, (request, (ratio, _)) in enumerate(zip(requests, answers, strict=True)):
            if id(request) not in seen:
                seen.add(id(request))
                yield {
                    "task": request.task_name,
                    "doc_id": request.doc_id,
                    "choice": request.idx,
                    "positive": float(positive[index]),
                    "negative": None if negative is None else float(negative[index]),
                    "weight": None if negative is None else self.weight,
                    "score": ratio,
                }

    def gather_parts(self) -> list[Part] | None:
        """The parts of all processes, on the first; None on the others. All must call it."""
        gathered = self.gather_object(self.parts)
        return None if gathered is None else [part for parts in gathered for part in parts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate as ``hf`` does, under the positive term."""
        with self.positive.on():
            return super().generate_until(requests, disable_tqdm)

    def score_inputs(self) -> ScoreInputs:
        """As `LikraBaseLM.score_inputs`, with the heads and how they are combined."""
        return super().score_inputs() | {
            "mode": self.mode,
            "weight": self.weight if MODES[self.mode].weighted else None,
            "positive head": adapter_digest(self.positive.folder),
            "negative head": adapter_digest(self.negative.folder),
        }

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results, with the heads."""
        heads = {
            "mode": self.mode,
            "weight": self.weight,
            "positive": self.positive.folder and str(self.positive.folder),
            "negative": self.negative.folder and str(self.negative.folder),
            "trained_on": self.trained_questions.counts,
        }
        return super().get_model_info() | {"likra": heads}


# The harness finds models by name; its next release finds these by the entry points of likra.
for _name, _model in {"likra": LikraLM, "likra-base": LikraBaseLM}.items():
    if _name not in model_registry:
        model_registry.register(_name, target=_model)
