"""LoRA heads: adding, loading, saving and taking off, leaving no trace on the base."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from likra.atomic import replacing
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.heads.settings import MLP, LoraSettings
from likra.heads.stamp import CONFIG, write_stamp


@dataclass(frozen=True)
class Head:
    """A saved head of a base model, in a plain PEFT folder; without one, the base itself."""

    base: BaseModel
    folder: Path | None = None

    @contextmanager
    def on(self) -> Iterator[PreTrainedModel]:
        """The model with the head on it; it is taken off at the end.

        Raises:
            LikraError: there is no head in the folder, its file is damaged, or it is of another
                base.

        """
        if self.folder is None:
            yield self.base.model
            return
        head = _load(self.base, self.folder)
        try:
            yield self.base.model  # the adapter's layers are in it
        finally:
            _take_off(self.base, head)


@contextmanager
def heads_on(heads: Sequence[Head]) -> Iterator[Callable[[int], PreTrainedModel]]:
    """Several heads on their bases at once, to take turns; all are taken off at the end.

    Yields:
        ``use(i)``: makes the i-th head the active one of its base, and gives its model. The heads
        are for inference: none is ever trainable.

    Raises:
        LikraError: see `Head.on`.

    """
    loaded: dict[int, tuple[BaseModel, PeftModel]] = {}  # by the base's identity
    # empty at first: which of them PEFT left active is not relied upon
    active: dict[int, int | None] = {}

    def use(index: int) -> PreTrainedModel:
        base, key = heads[index].base, id(heads[index].base.model)
        wanted = None if heads[index].folder is None else index
        if key in loaded and active.get(key, -1) != wanted:
            adapters = loaded[key][1]
            tuner: Any = adapters.base_model
            if wanted is None:
                tuner.disable_adapter_layers()
            else:
                tuner.enable_adapter_layers()
                adapters.set_adapter(_named(index), inference_mode=True)
            active[key] = wanted
        return base.model

    try:
        for index, head in enumerate(heads):
            if head.folder is not None:
                key = id(head.base.model)
                onto = loaded[key][1] if key in loaded else None
                loaded[key] = head.base, _load(head.base, head.folder, _named(index), onto)
        yield use
    finally:
        for base, adapters in loaded.values():
            _take_off(base, adapters)


def _named(index: int) -> str:
    return f"head{index}"


@contextmanager
def fresh_head(base: BaseModel, settings: LoraSettings, seed: int) -> Iterator[PeftModel]:
    """A new LoRA head on the base, trainable, in float32; taken off at the end.

    A fresh head changes no score. Its initialisation depends on the seed alone, so the positive
    and the negative head of one seed begin alike.

    Raises:
        LikraError: the base has no layers of the names in ``settings.target_modules``.

    """
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(base.model, settings.target_modules),
        # GPT-2's Conv1D stores its weight [in, out]
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in base.model.modules()),
        task_type="CAUSAL_LM",
    )
    set_seed(seed)
    use_cache = getattr(base.model.config, "use_cache", None)  # a Trainer switches it off
    try:
        head = get_peft_model(base.model, config)
    except ValueError as error:
        raise LikraError(f"no head fits '{base.name}': {' '.join(str(error).split())}") from error
    try:
        yield head
    finally:
        _take_off(base, head)
        if use_cache is not None:
            base.model.config.use_cache = use_cache


def _load(
    base: BaseModel, folder: Path, name: str = "default", onto: PeftModel | None = None
) -> PeftModel:
    """Load a head onto its base, or beside the heads that are on it."""
    if not (folder / CONFIG).is_file():
        raise LikraError(f"no head in '{folder}': there is no {CONFIG}")
    try:
        if onto is None:
            head = PeftModel.from_pretrained(base.model, str(folder), adapter_name=name)
        else:
            head = onto
            head.load_adapter(str(folder), adapter_name=name)
        head.eval()
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        _remove_leftovers(base)
        raise LikraError(
            f"cannot read the head in '{folder}': {' '.join(str(error).split())[:200]}; "
            "delete the folder to train it again"
        ) from error
    return head


def _take_off(base: BaseModel, head: PeftModel) -> None:
    head.unload()
    base.model.requires_grad_(False)
    base.model.eval()
    _remove_mark(base)


def _remove_mark(base: BaseModel) -> None:
    """PEFT leaves a mark on the base, by which the next head would seem a second adapter."""
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config


def _remove_leftovers(base: BaseModel) -> None:
    """Undo a head whose loading failed half way: PEFT leaves its layers in the base."""
    for parent in list(base.model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BaseTunerLayer):
                setattr(parent, name, layer.get_base_layer())
    _remove_mark(base)


def _targets(model: PreTrainedModel, wanted: str | tuple[str, ...]) -> list[str] | str:
    """What PEFT is to adapt: names of layers, or a pattern where the names are ambiguous."""
    if wanted != MLP:
        return [wanted] if isinstance(wanted, str) else list(wanted)
    kinds = (torch.nn.Linear, Conv1D)
    names = [name for name, layer in model.named_modules() if isinstance(layer, kinds)]
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


def save_head(head: PeftModel, folder: Path, stamp: Mapping[str, object] | None = None) -> None:
    """Write the head as a plain PEFT folder, whole or not at all; one that exists is replaced.

    The stamp is what decided the head, as JSON values: see `likra.heads.stamp`.

    Raises:
        LikraError: the folder cannot be written.

    """
    try:
        with replacing(folder) as temporary:
            temporary.mkdir()
            head.save_pretrained(str(temporary))
            _sort_targets(temporary / CONFIG)
            write_stamp(temporary, stamp or {})
            (temporary / "README.md").unlink(missing_ok=True)  # PEFT's empty form for people
    except (OSError, SafetensorError) as error:  # the latter for a full disk, too
        text = " ".join(str(error).split())
        raise LikraError(f"cannot write the head to '{folder}': {text}") from error


def _sort_targets(path: Path) -> None:
    """PEFT writes the target modules in the order of a set, which is another in each process."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
