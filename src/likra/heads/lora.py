"""LoRA heads: adding, loading, saving and taking off, leaving no trace on the base."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from likra.atomic import replacing
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.heads.settings import MLP, LoraSettings
from likra.heads.stamp import CONFIG, WEIGHTS, write_stamp


@dataclass(frozen=True)
class Layer:
    """A layer of a base model, and what a head puts in its place.

    Attributes:
        parent: the module that holds the layer.
        name: its name there.
        plain: the base's own layer.
        adapted: the head's, with the plain one in it.

    """

    parent: torch.nn.Module
    name: str
    plain: torch.nn.Module
    adapted: torch.nn.Module


@dataclass(frozen=True)
class Head:
    """A saved head of a base model, in a plain PEFT folder; without one, the base itself.

    Its file is read when it is first put on; the head is kept in memory from then on.

    Attributes:
        base: the base model.
        folder: of the head.
        like: another head of the base. Where it has the same configuration, its layers are copied
            and filled, which takes a fraction of the time that PEFT takes to make new ones.

    """

    base: BaseModel
    folder: Path | None = None
    like: "Head | None" = None

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What the head changes of the base, which stays as it is.

        Raises:
            LikraError: there is no head in the folder, its file is damaged, it is of another
                base, or it is no adapter of layers; or a head is on the base.

        """
        if self.folder is None:
            return ()
        check_is_bare(self.base)
        if self.like is not None and (copied := _copied(self.like, self.folder)):
            return copied
        plain = {
            (parent, name): layer
            for parent in self.base.model.modules()
            for name, layer in parent.named_children()
        }
        _load(self.base, self.folder)
        layers = tuple(
            Layer(parent, name, layer, getattr(parent, name))
            for (parent, name), layer in plain.items()
            if getattr(parent, name) is not layer
        )
        _put_back(layers)
        _remove_mark(self.base)
        return layers

    @contextmanager
    def on(self) -> Iterator[PreTrainedModel]:
        """The model with the head on it; it is taken off at the end.

        Raises:
            LikraError: see `layers`.

        """
        with layers_on(self.base, self.layers):
            yield self.base.model


@contextmanager
def layers_on(base: BaseModel, layers: Sequence[Layer]) -> Iterator[None]:
    """The base with other layers in the place of some of its own; they go back at the end.

    Raises:
        LikraError: a head is on the base.

    """
    if layers:
        check_is_bare(base)
    try:
        _put_on(layers)
        yield
    finally:
        _put_back(layers)


def _put_on(layers: Sequence[Layer]) -> None:
    for layer in layers:
        setattr(layer.parent, layer.name, layer.adapted)


def _put_back(layers: Sequence[Layer]) -> None:
    for layer in layers:
        setattr(layer.parent, layer.name, layer.plain)


def _copied(other: Head, folder: Path) -> tuple[Layer, ...] | None:
    """The layers of a head with the weights of another one; None where these do not fit."""
    if other.folder is None:
        return None
    try:
        if (folder / CONFIG).read_bytes() != (other.folder / CONFIG).read_bytes():
            return None
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError):
        return None
    paths = {module: path for path, module in other.base.model.named_modules()}
    layers = tuple(
        replace(layer, adapted=copy.deepcopy(layer.adapted, {id(layer.plain): layer.plain}))
        for layer in other.layers
    )
    for layer in layers:
        for name, parameter in layer.adapted.named_parameters():
            if name.startswith("base_layer."):
                continue
            key = f"base_model.model.{paths[layer.parent]}.{layer.name}.{name}"
            weight = weights.pop(key.replace(".default", ""), None)  # the adapter's name
            if weight is None or weight.shape != parameter.shape:
                return None
            parameter.data = weight.to(parameter)
    return None if weights else layers


def check_is_bare(base: BaseModel) -> None:
    """Refuse a base that has a head on it: a second one would be added to the first.

    Raises:
        LikraError: it has.

    """
    if any(isinstance(layer, BaseTunerLayer) for layer in base.model.modules()):
        raise LikraError(
            f"'{base.name}' has an adapter on it already, and heads are on a base one at a time"
        )


@contextmanager
def heads_on(heads: Sequence[Head]) -> Iterator[Callable[[int], PreTrainedModel]]:
    """Several heads, of one base or of several, to take turns; all are off at the end.

    Yields:
        ``use(i)``: puts the i-th head on its base, in the place of the one that is there, and
        gives the model.

    Raises:
        LikraError: see `Head.on`.

    """
    on: dict[int, tuple[Layer, ...]] = {}  # by the base's identity
    for head in heads:
        check_is_bare(head.base)
    layers = [head.layers for head in heads]

    def use(index: int) -> PreTrainedModel:
        base, wanted = heads[index].base, layers[index]
        if on.get(id(base.model), ()) is not wanted:
            _put_back(on.pop(id(base.model), ()))
            _put_on(wanted)
            on[id(base.model)] = wanted
        return base.model

    try:
        yield use
    finally:
        for own in on.values():
            _put_back(own)


@contextmanager
def fresh_head(
    base: BaseModel, settings: LoraSettings | None, seed: int, start: Path | None = None
) -> Iterator[PeftModel]:
    """A LoRA head on the base, trainable, in float32; taken off at the end.

    A new head changes no score. Its initialisation depends on the seed alone, so the positive and
    the negative head of one seed begin alike.

    Args:
        base: the base model.
        settings: the shape; by default the paper's, or that of the head to go on from.
        seed: of the initialisation, and of dropout.
        start: the PEFT folder of a saved LoRA head to go on from; it stays as it is.

    Raises:
        LikraError: the base has no layers of the names in ``settings.target_modules``; or the
            head to go on from cannot be read, is of another base or of another shape.

    """
    use_cache = getattr(base.model.config, "use_cache", None)  # a Trainer switches it off
    set_seed(seed)
    if start is None:
        head = _new(base, settings or LoraSettings())
    else:
        head = _saved(base, settings, start)
    try:
        yield head
    finally:
        _take_off(base, head)
        if use_cache is not None:
            base.model.config.use_cache = use_cache


def _config(base: BaseModel, settings: LoraSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(base.model, settings.target_modules),
        # GPT-2's Conv1D stores its weight [in, out]
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in base.model.modules()),
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        task_type="CAUSAL_LM",
    )


def _new(base: BaseModel, settings: LoraSettings) -> PeftModel:
    try:
        return cast(PeftModel, get_peft_model(base.model, _config(base, settings)))
    except (ValueError, RuntimeError) as error:  # the latter where memory does not do
        _remove_leftovers(base)
        raise LikraError(f"no head fits '{base.name}': {' '.join(str(error).split())}") from error


def _saved(base: BaseModel, settings: LoraSettings | None, folder: Path) -> PeftModel:
    """A saved head, trainable: it has the shape asked for, and all of its weights have a place."""
    _check_shape(folder, settings, base)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # found below
        head = _load(base, folder, is_trainable=True)
    if set(load_file(folder / WEIGHTS)) != set(get_peft_model_state_dict(head)):
        _take_off(base, head)
        raise LikraError(f"the adapter in '{folder}' is of another base than '{base.name}'")
    return head


def _check_shape(folder: Path, settings: LoraSettings | None, base: BaseModel) -> None:
    """Refuse an adapter that is not LoRA, or of which the settings that were given say otherwise.

    Raises:
        LikraError: naming the setting.

    """
    try:
        for name in (CONFIG, WEIGHTS):  # else PEFT asks the hub, or reads a pickle
            if not (folder / name).is_file():
                raise ValueError(f"there is no {name}")
        own = PeftConfig.from_pretrained(str(folder))
        if not isinstance(own, LoraConfig):
            raise ValueError(f"its type is {own.peft_type.value}, and not LORA")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LikraError(f"no adapter to go on from in '{folder}': {error}") from error
    if settings is None:
        return
    asked = _config(base, settings)
    for name in sorted(settings.model_fields_set):
        key = {"alpha": "lora_alpha", "dropout": "lora_dropout"}.get(name, name)
        if getattr(own, key) != getattr(asked, key):
            raise LikraError(
                f"the adapter in '{folder}' has {key} = {_text(getattr(own, key))}, and "
                f"lora.{name} asks for {_text(getattr(asked, key))}: leave lora.{name} out"
            )


def _text(value: object) -> str:
    return ", ".join(sorted(value)) if isinstance(value, set) else str(value)


def _load(base: BaseModel, folder: Path, *, is_trainable: bool = False) -> PeftModel:
    """Put a head's layers into the base, by PEFT, which would also read a pickle of weights."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise LikraError(f"no head in '{folder}': there is no {name}")
    advice = "" if is_trainable else "; delete the folder to train it again"
    try:
        head = PeftModel.from_pretrained(base.model, str(folder), is_trainable=is_trainable)
        if not isinstance(head.base_model, BaseTuner):
            raise ValueError("it is a learned prompt, and not an adapter of layers")
        head.train(is_trainable)
    except (torch.AcceleratorError, torch.OutOfMemoryError):  # not the files' fault
        _remove_leftovers(base)
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        _remove_leftovers(base)
        raise LikraError(
            f"cannot read the head in '{folder}': {' '.join(str(error).split())[:200]}{advice}"
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
    """Write the head as a plain PEFT folder, whole or not at all.

    A head that is there already is replaced. With a stamp it stays: of two runs at once the first
    one has the folder, and its stamp tells the other whether the head is its own, too.

    Args:
        head: to save.
        folder: where to.
        stamp: what decided the head, as JSON values: see `likra.heads.stamp`.

    Raises:
        LikraError: the folder cannot be written.

    """
    try:
        with replacing(folder, keep=bool(stamp)) as temporary:
            temporary.mkdir()
            # the form of a model card, whose template takes longer than the weights
            vars(head)["create_or_update_model_card"] = lambda folder: None
            head.save_pretrained(str(temporary))
            _sort_targets(temporary / CONFIG)
            write_stamp(temporary, stamp or {})
    except (OSError, SafetensorError) as error:  # the latter for a full disk, too
        text = " ".join(str(error).split())
        raise LikraError(f"cannot write the head to '{folder}': {text}") from error


def _sort_targets(path: Path) -> None:
    """PEFT writes the target modules in the order of a set, which is another in each process."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
