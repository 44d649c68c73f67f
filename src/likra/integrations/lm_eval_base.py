"""lm-evaluation-harness on likra's engine: a base model.

It is the harness's own ``hf`` (`HFLM`) in all but the log-likelihoods: these come from
`likra.heads.score`, each shared prompt computed once, their log-softmax in float32.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM  # registers the harness's own models, too
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel

from likra.engine.memory import token_budget
from likra.engine.tokens import TokenPair, check_pair, cut, encode_texts
from likra.errors import LikraError, unknown
from likra.heads.base import (
    DTYPES,
    BaseModel,
    cannot_open,
    checked_layout,
    default_device,
    limit_threads,
    probe,
    source_of,
    weights_digest,
)
from likra.heads.checkpoint import load_complete
from likra.heads.lora import Head
from likra.heads.quantized import FOUR_BIT, compute_exactly, computes_in, four_bit
from likra.heads.score import Done, Scored, score
from likra.hub import reading
from likra.integrations.lm_eval_trained import warn_unknown

# Of a request, what the harness passes to its models: its texts (none of a rolling window), and
# the tokens of context and continuation.
Request = tuple[tuple[str, str] | None, list[int], list[int]]
# What decides a score, by name.
ScoreInputs = dict[str, str | int | float | bool | None]
# Tokens of one forward pass over whole texts: each has logits of its own.
ROLLING_BUDGET = 2048
OWNER = "likra"  # a key in the harness's cache; all others are SHA-256 digests


class LikraBaseLM(HFLM):
    """A causal language model in the harness, as ``hf``, its log-likelihoods from the forest.

    ``batch_size``, ``logits_cache`` and ``softmax_dtype`` concern generation alone, or nothing.

    Attributes:
        base: the model, probed.

    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel = "pocket",
        device: str | None = None,
        **arguments: Any,
    ) -> None:
        """Open the model.

        Args:
            pretrained: "pocket", "smollm2", a GGUF file, a local folder, a name on the hub, or an
                opened model.
            device: a torch device; the best one found by default.
            arguments: any other of the harness's ``hf``, with its defaults (``dtype="auto"``: the
                checkpoint's own, also on a CPU).

        Raises:
            LikraError: no such model, one that likra cannot score, or one with missing weights.

        """
        name = pretrained if isinstance(pretrained, str) else str(pretrained.name_or_path)
        _check_dtype(arguments.get("dtype"))
        try:
            source = source_of(pretrained) if isinstance(pretrained, str) else pretrained
            named = [own for own in (source, arguments.get("peft")) if isinstance(own, str) and own]
            with reading(*named):
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
        if self.peft and self.rank == 0:
            warn_unknown(f"the adapter '{self.peft}' was")

    def _get_config(self, pretrained: str, **arguments: Any) -> None:
        try:
            super()._get_config(pretrained, **arguments)
        except Exception as error:  # what is no model fails here first, in many ways
            raise cannot_open(pretrained, error) from error

    def _create_model(
        self, *named: Any, dtype: str | torch.dtype | None = None, **arguments: Any
    ) -> None:
        if dtype == FOUR_BIT:
            arguments["quantization_config"] = four_bit(self.device.type)
            dtype = computes_in(self.device.type)
        super()._create_model(*named, dtype=dtype, **arguments)
        compute_exactly(self._model)

    def _get_backend(self, *arguments: Any, **named: Any) -> None:
        super()._get_backend(*arguments, **named)
        if self.backend != "causal":
            raise LikraError(
                "likra scores causal language models, and this is an encoder-decoder: "
                "take it to --model hf"
            )
        self.AUTO_MODEL_CLASS = SimpleNamespace(from_pretrained=load_complete)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of (context, continuation) texts.

        Returns:
            (nats, whether every token of the continuation is the most likely one), one for each.

        Raises:
            LikraError: a continuation without tokens, or alone longer than the model's context.

        """
        usual = self.add_bos_token is None and self.custom_prefix_token_id is None
        if not usual or self.enable_thinking:
            return super().loglikelihood(requests, disable_tqdm)
        texts = [request.args for request in requests]
        pairs = encode_texts(self.tokenizer, texts)  # at once, where HFLM encodes one by one
        encoded: list[Request] = [
            (text, pair.context, pair.continuation) for text, pair in zip(texts, pairs, strict=True)
        ]
        return self._loglikelihood_tokens(encoded, disable_tqdm)

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
        """Score token pairs, each answer given to the harness's cache as soon as it is known."""
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

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the harness's cache, if it is this model's own.

        Raises:
            LikraError: it holds another model's answers; its keys are texts alone.

        """
        if cache_hook.dbdict is not None:
            claim_cache(cache_hook.dbdict, self.score_inputs())
        super().set_cache_hook(cache_hook)

    def score_inputs(self) -> ScoreInputs:
        """All that a score depends on, but for the texts."""
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        return {
            "weights": weights_digest(self.base.model),
            "adapter": adapter_digest(Path(self.peft) if self.peft else None),
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


def _check_dtype(dtype: str | torch.dtype | None) -> None:
    if not isinstance(dtype, str) or dtype == "auto":
        return
    if dtype != FOUR_BIT and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise unknown("dtype", dtype, ["auto", *DTYPES, FOUR_BIT])


def claim_cache(cache: Any, inputs: Mapping[str, object]) -> None:
    """Mark an empty cache as one model's own, and refuse another model's.

    The cache is the harness's ``SqliteDict``. Its own keys are texts alone, so the inputs, all that
    a model's scores depend on, are kept beside them.

    Raises:
        LikraError: the cache holds answers of another model, or does not say of which.

    """
    if not len(cache):
        cache[OWNER] = dict(inputs)
        cache.commit()
    stored = cache.get(OWNER)
    if stored == inputs:
        return
    if stored is None:
        what = "it does not say of which model"
    else:
        keys = [key for key in inputs if stored.get(key) != inputs[key]]
        keys += sorted(set(stored) - set(inputs))
        what = f"with another {keys[0]}: {stored.get(keys[0])} there, {inputs.get(keys[0])} now"
    raise LikraError(
        f"the cache '{cache.filename}' holds answers of another model ({what}): "
        "name another path for use_cache, or delete that file"
    )


def adapter_digest(folder: Path | None) -> str | None:
    """SHA-256 of an adapter's files; of its name where it is not a folder here."""
    if folder is None:
        return None
    digest = hashlib.sha256()
    for path in sorted(folder.glob("adapter_*")) or [folder]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes() if path.is_file() else str(path).encode())
    return digest.hexdigest()
