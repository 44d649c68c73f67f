"""The base model: opening it, and the choice of its layout by a probe."""

import difflib
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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

from likra.engine import flex
from likra.engine.memory import Room, token_budget
from likra.engine.packing import LAYOUTS, Batch, Packed, moved, pack
from likra.engine.products import is_small
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.checkpoint import load_complete
from likra.heads.gguf import SMOLLM2, gguf_file, plain_folder
from likra.heads.layout import (
    EVERYTHING,
    Compared,
    check_gradients,
    compare_layouts,
    new_kind,
    probe_pairs,
    spread,
)
from likra.heads.quantized import FOUR_BIT, compute_exactly, computes_in, four_bit
from likra.hub import reading, reason

POCKET = Path(__file__).parent.parent / "pocket" / "model"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

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
        compared: what both layouts were compared on so far.
        room: what the device's memory was found to hold when scoring.

    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    layout: str = "padded"
    layout_reason: str = "not probed"
    compared: Compared = field(default_factory=Compared, repr=False, compare=False)
    room: Room = field(default_factory=Room, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return self.model.device

    @property
    def budget(self) -> int:
        """The tokens of a forward pass that suit the device and its memory."""
        sparse = self.layout == "forest" and flex.is_used(self.model)
        return self.room.budget(token_budget(self.device, sparse=sparse))

    def batch(self, pairs: Sequence[TokenPair], layout: str | None = None) -> Batch:
        """Lay pairs out for this model, on its device."""
        return moved(LAYOUTS[layout or self.layout](pairs), self.device)

    def pack(self, pairs: Sequence[TokenPair], budget: int | None = None) -> Packed:
        """Build the batches of a list of pairs once, to score many heads on them.

        The layout is what `checked_layout` finds for them. A forward pass takes about ``budget``
        tokens; by default `budget`.
        """
        checked = checked_layout(self, pairs)
        return pack(pairs, checked.layout, budget or checked.budget)


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
        else:
            loaded: Any = load_complete(source, dtype=kind)
            model = loaded.to(device)
        compute_exactly(model)
    model.requires_grad_(False)
    model.eval()
    base = BaseModel(name, model, tokenizer, _max_length(model, tokenizer))
    if layout is not None:
        return replace(base, layout=layout, layout_reason="as requested", compared=EVERYTHING)
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
    """Compute with one thread from now on, where that is as fast: a small model on a CPU.

    More threads wait for one another on a busy machine, and with their number the order of sums
    changes. With one, scores are the same on any number of cores.
    """
    if base.device.type == "cpu" and is_small(base.model):
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
    pairs = probe_pairs(base.model, base.max_length)
    found = compare_layouts(base.model, pairs, range(len(pairs)), base.room)
    check_gradients(base.model, pairs)
    compared = Compared()
    compared.add(pairs)
    return replace(
        base,
        layout="forest" if found.holds else "padded",
        layout_reason=f"probe of {compared.pair} tokens: {found.words}",
        compared=compared,
    )


def checked_layout(base: BaseModel, pairs: Sequence[TokenPair]) -> BaseModel:
    """The base, with the padded layout if these pairs show that its forest is not exact.

    The layouts are compared again on pairs of a new kind (`likra.heads.layout.new_kind`), and the
    model remembers the outcome. The fall-back is said once.
    """
    if base.layout != "forest" or not pairs:
        return base
    compared = base.compared
    if compared.fault is None and (sample := new_kind(base.model, compared, pairs)):
        found = compare_layouts(base.model, sample, spread(len(sample)), base.room)
        compared.add(sample)
        if not found.holds:
            compared.fault = f"probe of {compared.pair} tokens: {found.words}"
            logger.warning("'%s' uses the padded layout: %s", base.name, compared.fault)
    if compared.fault is None:
        return base
    return replace(base, layout="padded", layout_reason=compared.fault)


def fingerprint(base: BaseModel) -> str:
    """What tells a base model and its tokenizer from others, wherever it was opened from.

    SHA-256 of the tokenizer's vocabulary and of each parameter's name, shape and first values, in
    bfloat16, so that float32 and bfloat16 copies of a checkpoint are the same. A float16 copy is
    not: it is rounded twice.
    """
    digest = hashlib.sha256()
    vocabulary = sorted(base.tokenizer.get_vocab().items())
    digest.update(json.dumps(vocabulary).encode())
    for part in sampled_weights(base.model):
        digest.update(part)
    return digest.hexdigest()


def sampled_weights(model: PreTrainedModel) -> Iterator[bytes]:
    """Of each parameter, in name order: its name and shape; its first values in bfloat16."""
    for name, tensor in sorted(model.named_parameters()):
        yield f"{name}{tuple(tensor.shape)}".encode()
        values = tensor.detach().reshape(-1)[:64].to(torch.bfloat16).cpu()
        yield values.view(torch.uint8).numpy().tobytes()


def weights_digest(model: PreTrainedModel) -> str:
    """SHA-256 of all parameters and buffers, in name order: has anything changed?"""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        values = tensor.detach().contiguous().cpu().reshape(-1)  # a scalar has no bytes to view
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
