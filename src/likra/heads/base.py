"""The base model: opening it, and the choice of its layout by a probe."""

import difflib
import hashlib
import json
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import GatedRepoError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from likra.engine.logprobs import answer_logprobs, sliding_window
from likra.engine.packing import LAYOUTS, Batch, Packed, moved, pack, token_budget
from likra.engine.products import float32_products
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.checkpoint import load_complete
from likra.heads.gguf import SMOLLM2, gguf_file, plain_folder
from likra.heads.quantized import FOUR_BIT, compute_exactly, computes_in, four_bit
from likra.hub import reading, reason

POCKET = Path(__file__).parent.parent / "pocket" / "model"
# More threads do not speed up a small model: on a busy machine they wait for one another, and with
# their number the order of sums changes. With one, scores are the same on any number of cores.
ONE_THREAD_BELOW = 10_000_000  # parameters
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_PROBE = 256  # a longer window is left only when pairs that long come: see `checked_layout`

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """A frozen language model, opened and probed.

    Attributes:
        name: as the user named it.
        model: the Hugging Face model, in evaluation mode, without gradients.
        tokenizer: its tokenizer.
        max_length: its context, in tokens.
        layout: "forest", or "padded" where the model cannot branch.
        layout_reason: how that was decided, in words for the user.
        probed_to: tokens of the longest pair that both layouts were compared on.

    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    layout: str = "padded"
    layout_reason: str = "not probed"
    probed_to: int = 0

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return self.model.device

    def batch(self, pairs: Sequence[TokenPair], layout: str | None = None) -> Batch:
        """Lay pairs out for this model, on its device."""
        return moved(LAYOUTS[layout or self.layout](pairs), self.device)

    def pack(self, pairs: Sequence[TokenPair], budget: int | None = None) -> Packed:
        """Build the batches of a list of pairs once, to score many heads on them.

        The layout is what `checked_layout` finds for them. A forward pass takes about ``budget``
        tokens; by default as many as suit the device.
        """
        layout = checked_layout(self, pairs).layout
        return pack(pairs, layout, budget or token_budget(self.device.type))


def default_device() -> str:
    """CUDA where there is one, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_model(
    name: str = "pocket",
    *,
    dtype: str | None = None,
    device: str | None = None,
    layout: str | None = None,
) -> BaseModel:
    """Open a causal language model, freeze it, and choose its layout by a probe.

    Args:
        name: "pocket", "smollm2", a GGUF file, a local folder, or a name on the Hugging Face hub.
        dtype: float32, bfloat16, float16 or 4bit (`likra.heads.quantized`); by default the
            checkpoint's own, on a CPU float32.
        device: a torch device; the best one found by default.
        layout: "forest" or "padded" to skip the probe.

    Raises:
        LikraError: no such model, one that cannot be read, or one with missing weights.

    """
    device = device or default_device()
    kind = compute_dtype(dtype, device)
    with _opening(name) as source:
        tokenizer = AutoTokenizer.from_pretrained(source)
        if dtype == FOUR_BIT:  # quantized on its device, layer by layer
            how = {"quantization_config": four_bit(device), "device_map": {"": device}}
            model = load_complete(source, dtype=kind, **how)
            compute_exactly(model)
        else:
            loaded: Any = load_complete(source, dtype=kind)
            model = loaded.to(device)
    model.requires_grad_(False)
    model.eval()
    base = BaseModel(name, model, tokenizer, _max_length(model, tokenizer))
    if layout is not None:
        reason = "as requested"
        return replace(base, layout=layout, layout_reason=reason, probed_to=base.max_length)
    return probe(base)


def open_without_weights(name: str = "pocket", *, dtype: str | None = None) -> BaseModel:
    """A model's tokenizer, and its shape alone: for counting, not for computing.

    Its layout is assumed to be the forest, for there is nothing to probe.

    Raises:
        LikraError: no such model, or one that cannot be read.

    """
    kind = compute_dtype(dtype, default_device())
    with _opening(name) as source:
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=config.dtype if kind == "auto" else kind
            )
    reason = "assumed: without the weights there is nothing to probe"
    return BaseModel(name, model, tokenizer, _max_length(model, tokenizer), "forest", reason)


def open_tokenizer(name: str = "pocket") -> PreTrainedTokenizerBase:
    """A model's tokenizer alone.

    Raises:
        LikraError: no such model, or one that cannot be read.

    """
    with _opening(name) as source:
        return AutoTokenizer.from_pretrained(source)


def source_of(name: str) -> str:
    """What transformers opens under a model's name: a folder, or a name on the hub.

    A GGUF file is read into a folder of the cache first, if it is not there yet.

    Raises:
        LikraError: a GGUF file that cannot be read.

    """
    if name == "pocket":
        return str(POCKET)
    file = gguf_file(name)
    return name if file is None else str(plain_folder(file))


@contextmanager
def _opening(name: str) -> Iterator[str]:
    """Where a model is; what fails in reading it becomes one clear error."""
    try:
        source = source_of(name)
        with reading(source):
            yield source
    except LikraError:
        raise
    except Exception as error:  # the hub, the folder, the config or the weights: many types
        raise cannot_open(name, error) from error


def limit_threads(base: BaseModel) -> None:
    """Compute with one thread from now on, where that is as fast: a small model on a CPU."""
    if base.device.type == "cpu" and base.model.num_parameters() < ONE_THREAD_BELOW:
        torch.set_num_threads(1)


def compute_dtype(dtype: str | None, device: str) -> torch.dtype | Literal["auto"]:
    """What a model computes in; "auto" is the checkpoint's own.

    Raises:
        LikraError: an unknown dtype.

    """
    if dtype == FOUR_BIT:
        return computes_in(device)
    if dtype is None:
        return torch.float32 if device == "cpu" else "auto"
    if dtype not in DTYPES:
        raise LikraError(f"unknown dtype '{dtype}': known: {', '.join([*DTYPES, FOUR_BIT])}")
    return DTYPES[dtype]


def cannot_open(name: str, error: Exception) -> LikraError:
    """The error for a model that cannot be opened."""
    text = " ".join(str(error).split())
    if Path(name).exists() or name == SMOLLM2:
        return LikraError(f"cannot open the model in '{name}': {text[:300]}")
    if _is_gated(error):
        return LikraError(
            f"'{name}' is gated, and you have no access yet: accept its licence at "
            f"https://huggingface.co/{name}, then run `hf auth login`"
        )
    resembles_pocket = difflib.get_close_matches(name, ["pocket"], cutoff=0.6)
    near = "did you mean 'pocket'? " if resembles_pocket else ""
    return LikraError(
        f"unknown model '{name}': {near}it is neither a local folder or GGUF file "
        f"nor found on the Hugging Face hub ({reason(error)})"
    )


def _is_gated(error: BaseException | None) -> bool:
    """Whether the hub refuses access; transformers wraps its error in one of another type."""
    while error is not None:
        if isinstance(error, GatedRepoError) or "gated repo" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _max_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The context in tokens, found where lm-evaluation-harness looks for it."""
    config = model.config.get_text_config()
    for attribute in ("n_positions", "max_position_embeddings", "n_ctx"):
        if isinstance(length := getattr(config, attribute, None), int):
            return length
    length = int(tokenizer.model_max_length)
    return length if length < int(1e30) else 2048


def probe(base: BaseModel) -> BaseModel:
    """Score fixed pairs in both layouts; the forest is used only where they agree."""
    return _compared(base, _probe_pairs(base))


def checked_layout(base: BaseModel, pairs: Sequence[TokenPair]) -> BaseModel:
    """The base, probed again where pairs leave a window of attention that no probe has left before.

    The probe's own pairs leave a sliding window of up to `MAX_PROBE` tokens. With a longer one, or
    attention in chunks, the longest of the pairs is scored in both layouts, beside another answer
    to its prompt. The base returned remembers the length probed; it has the padded layout where
    the two differed.
    """
    config = base.model.config.get_text_config()
    window = sliding_window(config) or getattr(config, "attention_chunk_size", None)
    if base.layout != "forest" or window is None or base.probed_to > window or not pairs:
        return base
    longest = max(pairs, key=lambda pair: len(pair.tokens))
    if len(longest.tokens) <= window:
        return base
    other = [(token + 1) % config.vocab_size for token in longest.continuation]
    checked = _compared(base, [longest, replace(longest, continuation=other)])
    if checked.layout != base.layout:
        logger.warning("'%s' uses the padded layout: %s", base.name, checked.layout_reason)
    return checked


def _compared(base: BaseModel, pairs: Sequence[TokenPair]) -> BaseModel:
    """The base with the forest if it scores the pairs as the padded layout does.

    They must agree to 1e-4 nats in float32, and a millionth of longer sums; in half precision,
    where even two batch sizes of one layout differ, to 0.1 nats per answer token. Attention across
    branches is off by far more.
    """
    probed_to = max(len(pair.tokens) for pair in pairs)
    with torch.no_grad(), float32_products():
        plain = answer_logprobs(base.model, base.batch(pairs, "padded"))
        try:
            forest = answer_logprobs(base.model, base.batch(pairs, "forest"))
        except Exception as error:  # a model that takes no such mask may fail in any way
            reason = f"the model cannot take a branching mask ({type(error).__name__})"
            return replace(base, layout="padded", layout_reason=reason, probed_to=probed_to)
    difference = float((plain - forest).abs().max())
    tolerance = 1e-4 + 1e-6 * float(plain.abs().max())
    if base.model.dtype != torch.float32:
        tolerance = 0.1 * max(len(pair.continuation) for pair in pairs)
    layout = "padded"
    reason = f"the model's attention cannot branch (scores differ by {difference:.2g} nats)"
    if difference <= tolerance:
        layout = "forest"
        reason = f"same scores as the padded layout (largest difference {difference:.1g} nats)"
    reason = f"probe of {probed_to} tokens: {reason}"
    return replace(base, layout=layout, layout_reason=reason, probed_to=probed_to)


def _probe_pairs(base: BaseModel) -> list[TokenPair]:
    """Two prompts with three answers each, long enough to leave a short sliding window."""
    config = base.model.config.get_text_config()
    window = sliding_window(config) or 0
    length = max(2, min(max(24, window + 8 if window <= MAX_PROBE else 24), base.max_length - 8))
    draw = random.Random(0)
    vocabulary = range(config.vocab_size)
    prompts = [draw.choices(vocabulary, k=n) for n in (length, max(2, length // 2))]
    return [TokenPair(p, draw.choices(vocabulary, k=4)) for p in prompts for _ in range(3)]


def fingerprint(base: BaseModel) -> str:
    """What tells a base model and its tokenizer from others, wherever it was opened from.

    SHA-256 of the tokenizer's vocabulary and of each parameter's name, shape and first values, in
    bfloat16, so that float32 and bfloat16 copies of a checkpoint are the same. A float16 copy is
    not: it is rounded twice.
    """
    digest = hashlib.sha256()
    vocabulary = sorted(base.tokenizer.get_vocab().items())
    digest.update(json.dumps(vocabulary).encode())
    for name, tensor in sorted(base.model.named_parameters()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = tensor.detach().reshape(-1)[:64].to(torch.bfloat16).cpu()
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 of all parameters and buffers, in name order: has anything changed?"""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        values = tensor.detach().contiguous().cpu().reshape(-1)  # a scalar has no bytes to view
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
