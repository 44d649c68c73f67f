"""The base model and its heads: opening, adding, loading and taking off, leaving no trace."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from likra.errors import LikraError
from likra.forest import LAYOUTS, Batch, TokenPair
from likra.likelihood import answer_logprobs

POCKET = Path(__file__).parent / "pocket" / "model"
MLP = "mlp"  # the default target of LoRA: every linear layer of the MLPs, as in the paper
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
        layout: "forest", or "plain" where the model cannot branch.
        layout_reason: how that was decided, in words for the user.

    """

    name: str
    model: Any
    tokenizer: Any
    max_length: int
    layout: str = "plain"
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


@dataclass(frozen=True)
class LoraSettings:
    """The shape of a head. The defaults are the paper's (section 3)."""

    r: int = 8
    alpha: int = 8
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = MLP


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
        layout: "forest" or "plain" to skip the probe.

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
        plain = answer_logprobs(base.model, base.batch(pairs, "plain"))
        try:
            forest = answer_logprobs(base.model, base.batch(pairs, "forest"))
        except Exception as error:  # a model that takes no such mask may fail in any way
            reason = f"the model cannot take a branching mask ({type(error).__name__})"
            return replace(base, layout="plain", layout_reason=reason)
    difference = float((plain - forest).abs().max())
    if not difference <= tolerance:
        reason = f"the model's attention cannot branch (scores differ by {difference:.2g} nats)"
        return replace(base, layout="plain", layout_reason=reason)
    reason = f"probe: same scores as the plain layout (largest difference {difference:.1g} nats)"
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


@contextmanager
def fresh_head(base: BaseModel, settings: LoraSettings, seed: int) -> Iterator[Any]:
    """A new LoRA head on the base, trainable, in float32; taken off at the end.

    A fresh head changes no score. Its initialisation depends on the seed alone, so the positive
    and the negative head of one seed begin alike.

    Raises:
        LikraError: the base has no layers of the names in ``settings.target_modules``.

    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(base.model, settings.target_modules),
        fan_in_fan_out=_stores_transposed(base.model),
        task_type="CAUSAL_LM",
    )
    set_seed(seed)
    try:
        head = get_peft_model(base.model, config)
    except ValueError as error:
        raise LikraError(f"no head fits '{base.name}': {' '.join(str(error).split())}") from error
    try:
        yield head
    finally:
        _take_off(base, head)


@contextmanager
def saved_head(base: BaseModel, folder: Path | str) -> Iterator[Any]:
    """The head in ``folder`` (a plain PEFT folder) on the base; taken off at the end.

    Raises:
        LikraError: there is no head in the folder, its file is damaged, or it is of another base.

    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (Path(folder) / "adapter_config.json").is_file():
        raise LikraError(f"no head in '{folder}': there is no adapter_config.json")
    head = None
    try:
        head = PeftModel.from_pretrained(base.model, str(folder))
        head.eval()
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        _remove_leftovers(base)
        raise LikraError(
            f"cannot read the head in '{folder}': {' '.join(str(error).split())[:200]}; "
            "delete the folder to train it again"
        ) from error
    try:
        yield head
    finally:
        _take_off(base, head)


def _take_off(base: BaseModel, head: Any) -> None:
    head.unload()
    base.model.requires_grad_(False)
    base.model.eval()
    # unload() leaves this mark, and the next get_peft_model would warn of a second adapter
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config


def _remove_leftovers(base: BaseModel) -> None:
    """Undo a head whose loading failed half way: PEFT leaves its layers in the base."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(base.model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BaseTunerLayer):
                setattr(parent, name, layer.get_base_layer())
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config


def _linear_layers(model: Any) -> dict[str, Any]:
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, Conv1D)
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, kinds)}


def _targets(model: Any, wanted: str | tuple[str, ...]) -> list[str] | str:
    """What PEFT is to adapt: names of layers, or a pattern where names alone would say too much."""
    if wanted != MLP:
        return [wanted] if isinstance(wanted, str) else list(wanted)
    names = list(_linear_layers(model))
    inside = {name.rsplit(".", 1)[-1] for name in names if ".mlp." in name}
    if not inside:
        known = sorted({name.rsplit(".", 1)[-1] for name in names})
        raise LikraError(
            "the model has no linear layers under 'mlp': name the layers that LoRA shall adapt "
            f"(lora.target_modules); it has {', '.join(known)}"
        )
    outside = {name.rsplit(".", 1)[-1] for name in names if ".mlp." not in name}
    if inside & outside:  # GPT-2 calls a layer of its attention c_proj, too
        return rf".*\.mlp\.({'|'.join(sorted(inside))})"
    return sorted(inside)


def _stores_transposed(model: Any) -> bool:
    """GPT-2's Conv1D stores its weight [in, out]; PEFT wants to know."""
    return any(type(layer).__name__ == "Conv1D" for layer in _linear_layers(model).values())


def weights_digest(model: Any) -> str:
    """SHA-256 of all parameters and buffers, in name order: has anything changed?"""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        values = tensor.detach().contiguous().cpu().reshape(-1)  # a scalar has no bytes to view
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
