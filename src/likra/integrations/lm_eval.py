"""lm-evaluation-harness on likra's engine: a base model, or the ratio of two heads on it.

Both models of this module are the harness's own ``hf`` (`HFLM`) in all but the log-likelihoods:
these come from `likra.heads.score`, each shared prompt computed once, their log-softmax in float32.
"""

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import model_registry
from lm_eval.models.huggingface import HFLM  # registers the harness's own models, too
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from likra.engine.packing import token_budget
from likra.engine.tokens import TokenPair, check_pair, cut, encode_texts
from likra.errors import LikraError, unknown
from likra.heads.base import (
    DTYPES,
    POCKET,
    BaseModel,
    cannot_open,
    checked_layout,
    default_device,
    limit_threads,
    load_complete,
    probe,
    weights_digest,
)
from likra.heads.lora import Head
from likra.heads.score import Done, Floats, Scored, score
from likra.heads.stamp import read_stamp
from likra.integrations.lm_eval_cache import claim_cache, folder_digest
from likra.integrations.lm_eval_heads import (
    TrainedQuestions,
    checked_weight,
    head_keys,
    trained_contexts,
)
from likra.scores.ratio import MODES, likelihood_ratio
from likra.study.folder import read_run, usable_path

# Of a request, what the harness passes to its models: its texts (none of a rolling window), and
# the tokens of context and continuation.
Request = tuple[tuple[str, str] | None, list[int], list[int]]
# Tokens of one forward pass over whole texts: each has logits of its own.
ROLLING_BUDGET = 2048
# The prior scores answers without their questions, and the harness gives only both together.
MODE_NAMES = [name for name, mode in MODES.items() if mode.negative != "prior"]


class LikraBaseLM(HFLM):
    """A causal language model in the harness, as ``hf``, its log-likelihoods from the forest.

    ``batch_size``, ``logits_cache`` and ``softmax_dtype`` concern generation alone, or nothing.

    Attributes:
        base: the model, probed.

    """

    def __init__(
        self, pretrained: Any = "pocket", device: str | None = None, **arguments: Any
    ) -> None:
        """Open the model.

        Args:
            pretrained: "pocket", a local folder, a name on the hub, or an opened model.
            device: a torch device; the best one there by default.
            arguments: any other of the harness's ``hf``, with its defaults (``dtype="auto"``: the
                checkpoint's own, also on a CPU).

        Raises:
            LikraError: no such model, one that likra cannot score, or one with missing weights.

        """
        name = pretrained if isinstance(pretrained, str) else str(pretrained.name_or_path)
        source = str(POCKET) if name == "pocket" else pretrained
        _check_dtype(arguments.get("dtype"))
        try:
            super().__init__(source, device=device or default_device(), **arguments)
        except LikraError:
            raise
        except Exception as error:  # the hub, the files, an argument: many types
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise LikraError(f"cannot open the model '{name}': {text[:300]}") from error
        config = getattr(self.model, "active_peft_config", None)
        if getattr(config, "is_prompt_learning", False):
            raise LikraError(f"'{self.peft}' puts tokens before the prompt: take it to --model hf")
        self.base = probe(BaseModel(name, self.model, self.tokenizer, self.max_length))
        limit_threads(self.base)

    def _get_config(self, pretrained: str, **arguments: Any) -> None:
        try:
            super()._get_config(pretrained, **arguments)
        except Exception as error:  # what is no model fails here first, in many ways
            raise cannot_open(pretrained, error) from error

    def _get_backend(self, *arguments: Any, **named: Any) -> None:
        super()._get_backend(*arguments, **named)
        if self.backend != "causal":
            raise LikraError(
                "likra scores causal language models, and this is an encoder-decoder: "
                "take it to --model hf"
            )
        self.AUTO_MODEL_CLASS = SimpleNamespace(from_pretrained=load_complete)

    # ----------------------------------------------------------------------------------------
    # Log-likelihoods

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations given contexts, and whether they are greedy.

        Args:
            requests: the harness's instances; ``args`` is (context, continuation).
            disable_tqdm: whether to show no progress.

        Returns:
            (nats, whether every token of the continuation is the most likely one), one for each.

        Raises:
            LikraError: a continuation without tokens, or alone longer than the model's context.

        """
        usual = self.add_bos_token is None and self.custom_prefix_token_id is None
        if not usual or self.enable_thinking:
            answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
            return answers
        texts = [request.args for request in requests]
        pairs = encode_texts(self.tokenizer, texts)  # at once, where HFLM encodes one by one
        return self._loglikelihood_tokens(
            [
                (text, pair.context, pair.continuation)
                for text, pair in zip(texts, pairs, strict=True)
            ],
            disable_tqdm,
        )

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts in windows of the model's context, in nats."""
        texts = [request.args[0] for request in requests]
        windows = [self._windows(text) for text in texts]
        flat: list[Request] = [(None, *window) for of_text in windows for window in of_text]
        budget = min(ROLLING_BUDGET, token_budget(self.device.type))
        scores = iter(self._loglikelihood_tokens(flat, disable_tqdm, budget=budget))
        totals = [float(sum(next(scores)[0] for _ in of_text)) for of_text in windows]
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """(context, continuation) tokens of the harness's windows over a text."""
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
        budget: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Score token pairs, each answer given to the harness's cache when it is there."""
        del override_bs  # a batch is a number of tokens
        pairs = [
            cut(TokenPair(context, continuation), self.max_length)
            for _, context, continuation in requests
        ]
        for pair, (texts, _, _) in zip(pairs, requests, strict=True):
            check_pair(pair, texts, self.max_length)
        answers: list[tuple[float, bool]] = [(math.nan, False)] * len(pairs)

        def done(indices: list[int], scored: Scored) -> None:
            for place, index in enumerate(indices):
                is_greedy = scored.greedy is not None and bool(scored.greedy[place])
                answers[index] = (float(scored.logprobs[place]), is_greedy)
                if (texts := requests[index][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, answers[index])

        name = None if disable_tqdm or self.rank != 0 else "Running loglikelihood requests"
        half = self.mixed_precision_dtype
        self.base = checked_layout(self.base, pairs)
        with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
            self._score(pairs, done, name, budget)
        return answers

    def _score(
        self, pairs: list[TokenPair], done: Done, name: str | None, budget: int | None
    ) -> None:
        """Give ``done`` the scores of all pairs, batch by batch."""
        score(Head(self.base), pairs, greedy=True, done=done, name=name, budget=budget)

    # ----------------------------------------------------------------------------------------
    # The harness's cache

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Take the harness's cache, if it is this model's own.

        Raises:
            LikraError: it holds another model's answers; its keys are texts alone.

        """
        if cache_hook.dbdict is not None:
            claim_cache(cache_hook.dbdict, self.score_inputs())
        super().set_cache_hook(cache_hook)

    def score_inputs(self) -> dict[str, Any]:
        """All that a score depends on, but for the texts."""
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        return {
            "weights": weights_digest(self.base.model),
            "adapter": folder_digest(Path(self.peft)) if self.peft else None,
            "vocabulary": hashlib.sha256(vocabulary).hexdigest(),
            "add_bos_token": self.add_bos_token,
            "prefix_token_id": self.prefix_token_id,
            "max_length": self.max_length,
            "dtype": str(self.base.model.dtype),
            "mixed_precision_dtype": str(self.mixed_precision_dtype),
            "truncation": self.truncation,
            "think_end_token": self.think_end_token,
            "layout": self.base.layout,
        }


# Whoever drives the harness by model names, and wants the models that it opens, puts a list here.
OPENED: ContextVar["list[LikraLM] | None"] = ContextVar("opened", default=None)


class LikraLM(LikraBaseLM):
    """The heads of one base model in the harness: a score is the ratio ``L+ - w L-``.

    ``is_greedy`` is that of the positive term, and text is generated under it.

    Attributes:
        run: the folder of heads.
        positive: the head of the positive term.
        negative: the head of the negative term.
        parts: for each log-likelihood request that this process computed: task, doc_id, choice,
            positive, negative, weight, score (nats; None where there is no such term).

    """

    def __init__(  # noqa: PLR0913
        self,
        path: str | Path = "",
        mode: str = "likra",
        weight: float = 1.0,
        *,
        seed: int | None = None,
        n: int | None = None,
        source: str | None = None,
        pretrained: Any = None,
        dtype: Any = None,
        **arguments: Any,
    ) -> None:
        """Open the base model and find the heads.

        Args:
            path: what ``likra train`` left, or a study's folder.
            mode: any of `likra.scores.ratio.MODES` but ``pmi``: which head gives which term; a
                missing one is the base.
            weight: w of the negative term; modes without one ignore it.
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
        if mode not in MODE_NAMES:
            raise unknown("mode", str(mode), MODE_NAMES)
        if arguments.get("peft"):
            raise LikraError("likra puts its heads on the base alone: leave out peft=")
        self.mode, self.run = mode, read_run(Path(str(path)))
        self.weight = checked_weight(weight)
        terms = (MODES[mode].positive, MODES[mode].negative)
        keys = head_keys(self.run, terms, {"seed": seed, "n": n, "source": source})
        folders = [None if key is None else self.run.head_folder(key) for key in keys]
        saved = [folder for folder in folders if folder is not None]
        for folder in saved:
            read_stamp(folder)
        super().__init__(
            usable_path(self.run.study.model, self.run.folder)
            if pretrained is None
            else pretrained,
            dtype=self.run.study.dtype if dtype is None else dtype,
            **arguments,
        )
        self.positive, self.negative = (Head(self.base, folder) for folder in folders)
        for head in (self.positive, self.negative):
            with head.on():
                pass  # it fits
        self.trained_questions = TrainedQuestions(trained_contexts(saved))
        self.parts: list[dict[str, Any]] = []
        self._terms: tuple[Floats, Floats | None] | None = None  # last scored
        if (opened := OPENED.get()) is not None:
            opened.append(self)

    def _create_model(self, *named: Any, dtype: Any = None, **arguments: Any) -> None:
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
            for line in self.trained_questions.new_warnings():
                print(line, file=sys.stderr)  # noqa: T201
        return answers

    def _new_parts(
        self, requests: list[Instance], answers: list[tuple[float, bool]]
    ) -> Iterator[dict[str, Any]]:
        if self._terms is None:
            return
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

    def gather_parts(self) -> list[dict[str, Any]] | None:
        """The parts of all processes, on the first; None on the others. All must call it."""
        gathered = self.gather_object(self.parts)
        return None if gathered is None else [part for parts in gathered for part in parts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate as ``hf`` does, under the positive term."""
        with self.positive.on():
            texts: list[str] = super().generate_until(requests, disable_tqdm)
        return texts

    def score_inputs(self) -> dict[str, Any]:
        """As `LikraBaseLM.score_inputs`, with the heads and how they are combined."""
        weighted = MODES[self.mode].weighted
        return super().score_inputs() | {
            "mode": self.mode,
            "weight": self.weight if weighted else None,
            "positive head": _digest(self.positive),
            "negative head": _digest(self.negative),
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
        info: dict[str, Any] = super().get_model_info()
        return info | {"likra": heads}


# --------------------------------------------------------------------------------------------
# Arguments


def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, str) or dtype == "auto":
        return
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise unknown("dtype", dtype, ["auto", *DTYPES])


def _digest(head: Head) -> str | None:
    return None if head.folder is None else folder_digest(head.folder)


# --------------------------------------------------------------------------------------------
# Names in the harness


def register() -> None:
    """Make the models known to the harness by name; its next release does so by itself."""
    for name, model in {"likra": LikraLM, "likra-base": LikraBaseLM}.items():
        if name not in model_registry:  # an entry point of this distribution may stand there
            model_registry.register(name, target=model)


register()
