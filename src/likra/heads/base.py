"""The base model and its heads: opening, adding, loading and taking off, leaving no trace."""

import hashlib
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from likra.engine.logprobs import answer_logprobs
from likra.engine.packing import LAYOUTS, Batch
from likra.engine.tokens import TokenPair
from likra.errors import LikraError

POCKET = Path(__file__).parent.parent / "pocket" / "model"
# Threads bring a small model nothing: on a busy machine they wait for one another, and with their
# number the order of sums changes. With one, the numbers are the same on any number of cores.
ONE_THREAD_BELOW = 10_000_000  # parameters
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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

    """

    name: str
    model: Any
    tokenizer: Any
    max_length: int
    layout: str = "padded"
    layout_reason: str = "not probed"

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        device: torch.device = self.model.device
        return device

    def batch(self, pairs: list[TokenPair], layout: str | None = None) -> Batch:
        """Lay pairs out for this model, on its device."""
        built = LAYOUTS[layout or self.layout](pairs)
        moved = {name: tensor.to(self.device) for name, tensor in vars(built).items()}
        return type(built)(**moved)


# --------------------------------------------------------------------------------------------
# The base


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
        name: "pocket", a local folder, or a name on the Hugging Face hub.
        dtype: float32, bfloat16 or float16; the checkpoint's own by default, on a CPU float32.
        device: a torch device; the best one there by default.
        layout: "forest" or "padded" to skip the probe.

    Raises:
        LikraError: no such model, or one that cannot be read.

    """
    device = device or default_device()
    model, tokenizer = _load(str(POCKET) if name == "pocket" else name, name, dtype, device)
    model.requires_grad_(False)
    model.eval()
    base = BaseModel(name, model, tokenizer, _max_length(model, tokenizer))
    if layout is not None:
        return replace(base, layout=layout, layout_reason="as asked for")
    return probe(base)


def open_without_weights(name: str = "pocket", *, dtype: str | None = None) -> BaseModel:
    """A model's tokenizer, and its shape alone: for counting, not for computing.

    Its layout is assumed to be the forest, for there is nothing to probe.

    Raises:
        LikraError: no such model, or one that cannot be read.

    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = str(POCKET) if name == "pocket" else name
    kind = compute_dtype(dtype, default_device())
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=config.dtype if kind == "auto" else kind
            )
    except Exception as error:  # as in _load
        raise cannot_open(name, error) from error
    reason = "assumed: without the weights there is nothing to probe"
    return BaseModel(name, model, tokenizer, _max_length(model, tokenizer), "forest", reason)


def settle_threads(base: BaseModel) -> None:
    """Compute with one thread from now on, where that is as fast: a small model on a CPU."""
    if base.device.type == "cpu" and base.model.num_parameters() < ONE_THREAD_BELOW:
        torch.set_num_threads(1)


def _load(source: str, name: str, dtype: str | None, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind = compute_dtype(dtype, device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=kind).to(device)
    except Exception as error:  # the hub, the folder, the config or the weights: many types
        raise cannot_open(name, error) from error
    return model, tokenizer


def compute_dtype(dtype: str | None, device: str) -> torch.dtype | Literal["auto"]:
    """What a model computes in; "auto" is the checkpoint's own.

    Raises:
        LikraError: an unknown dtype.

    """
    if dtype is None:
        return torch.float32 if device == "cpu" else "auto"
    if dtype not in DTYPES:
        raise LikraError(f"unknown dtype '{dtype}': known: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def cannot_open(name: str, error: Exception) -> LikraError:
    """Say why a model cannot be had."""
    text = " ".join(str(error).split())
    if Path(name).is_dir():
        return LikraError(f"cannot open the model in '{name}': {text[:300]}")
    if _is_gated(error):
        return LikraError(
            f"'{name}' is gated, and you have no access yet: accept its licence at "
            f"https://huggingface.co/{name}, then run `hf auth login`"
        )
    near = "did you mean 'pocket'? " if _resembles_pocket(name) else ""
    return LikraError(
        f"unknown model '{name}': {near}it is neither a folder here "
        f"nor to be had from the Hugging Face hub ({text[:160]})"
    )


def _is_gated(error: BaseException | None) -> bool:
    """Whether the hub refuses access; transformers wraps its error in one of another type."""
    from huggingface_hub.errors import GatedRepoError

    while error is not None:
        if isinstance(error, GatedRepoError) or "gated repo" in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def _resembles_pocket(name: str) -> bool:
    import difflib

    return bool(difflib.get_close_matches(name, ["pocket"], cutoff=0.6))


def _max_length(model: Any, tokenizer: Any) -> int:
    """The context in tokens, found where lm-evaluation-harness looks for it."""
    config = model.config.get_text_config()
    for attribute in ("n_positions", "max_position_embeddings", "n_ctx"):
        if isinstance(length := getattr(config, attribute, None), int):
            return length
    length = int(tokenizer.model_max_length)
    return length if length < int(1e30) else 2048


# --------------------------------------------------------------------------------------------
# The probe


def probe(base: BaseModel) -> BaseModel:
    """Score fixed pairs in both layouts; the forest is used only where they agree.

    They must agree to 1e-4 nats in float32; in half precision, where even two batch sizes of one
    layout differ, to 0.1 nats per answer token. Attention across branches is off by far more.
    """
    pairs = _probe_pairs(base)
    tolerance = 1e-4 if base.model.dtype == torch.float32 else 0.1 * len(pairs[0].continuation)
    with torch.no_grad():
        plain = answer_logprobs(base.model, base.batch(pairs, "padded"))
        try:
            forest = answer_logprobs(base.model, base.batch(pairs, "forest"))
        except Exception as error:  # a model that takes no such mask may fail in any way
            reason = f"the model cannot take a branching mask ({type(error).__name__})"
            return replace(base, layout="padded", layout_reason=reason)
    difference = float((plain - forest).abs().max())
    if not difference <= tolerance:
        reason = f"the model's attention cannot branch (scores differ by {difference:.2g} nats)"
        return replace(base, layout="padded", layout_reason=reason)
    reason = f"probe: same scores as the padded layout (largest difference {difference:.1g} nats)"
    return replace(base, layout="forest", layout_reason=reason)


def _probe_pairs(base: BaseModel) -> list[TokenPair]:
    """Two prompts with three answers each, long enough to leave a short sliding window."""
    config = base.model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    length = max(2, min(max(24, window + 8 if window <= 256 else 24), base.max_length - 8))
    draw = random.Random(0)
    vocabulary = range(config.vocab_size)
    prompts = [draw.choices(vocabulary, k=n) for n in (length, max(2, length // 2))]
    return [TokenPair(p, draw.choices(vocabulary, k=4)) for p in prompts for _ in range(3)]


# --------------------------------------------------------------------------------------------
# Heads


def weights_digest(model: Any) -> str:
    """SHA-256 of all parameters and buffers, in name order: has anything changed?"""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        values = tensor.detach().contiguous().cpu().reshape(-1)  # a scalar has no bytes to view
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
