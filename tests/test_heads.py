"""Opening models: those that are not found or not complete, and a shape without weights."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import tiny_model
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file

from likra.errors import LikraError
from likra.heads.base import POCKET, open_model, open_without_weights
from likra.heads.lora import fresh_head
from likra.heads.settings import LoraSettings


def refused(*_, **__):
    """As transformers raises it: in an error of another type."""
    response = SimpleNamespace(headers={}, request=None)
    try:
        raise GatedRepoError("401 Client Error", response=response)
    except GatedRepoError as error:
        raise OSError("there was a problem") from error


@pytest.mark.parametrize("open_it", [open_model, open_without_weights])
def test_a_gated_model_without_access_names_both_steps(monkeypatch, open_it):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refused)
    with pytest.raises(LikraError) as caught:
        open_it("meta-llama/Llama-3.2-3B-Instruct")
    assert "is gated" in str(caught.value)
    for step in (
        "accept its licence at https://huggingface.co/meta-llama/Llama-3.2-3B-Instruct",
        "then run `hf auth login`",
    ):
        assert step in str(caught.value)


def trained_shapes(base) -> dict[str, tuple[int, ...]]:
    with fresh_head(base, LoraSettings(), seed=0) as head:
        return {n: tuple(p.shape) for n, p in head.named_parameters() if p.requires_grad}


def test_a_shape_without_weights_counts_as_the_model(pocket):
    shape = open_without_weights("pocket")
    assert shape.model.num_parameters() == pocket.model.num_parameters()
    assert shape.max_length == pocket.max_length
    assert shape.layout == pocket.layout
    assert all(parameter.is_meta for parameter in shape.model.parameters())
    assert trained_shapes(shape) == trained_shapes(pocket)


def test_a_shape_needs_no_weights_and_reports_a_bad_folder(tmp_path):
    with pytest.raises(LikraError, match="cannot open the model in"):
        open_without_weights(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(LikraError, match="cannot open the model in"):
        open_without_weights(str(tmp_path))
    with pytest.raises(LikraError, match="unknown dtype 'int4'"):
        open_without_weights("pocket", dtype="int4")


# --------------------------------------------------------------------------------------------
# A checkpoint that is not complete would run on random weights


def edited(folder: Path, weights: Callable[[dict], Any] = id, **config) -> str:
    """The pocket model with other weights or settings."""
    shutil.copytree(POCKET, folder)
    tensors = load_file(folder / "model.safetensors")
    weights(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | config))
    return str(folder)


def without_a_layer(tensors: dict) -> None:
    del tensors["model.layers.0.mlp.up_proj.weight"]


def cut_norm(tensors: dict) -> None:
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:5].clone()


@pytest.mark.parametrize(
    ("weights", "config", "words"),
    [
        (without_a_layer, {}, "model.layers.0.mlp.up_proj.weight is missing"),
        (cut_norm, {}, "model.norm.weight is [5] and not [128]"),
        # four layers are there; each has nine weights
        (id, {"num_hidden_layers": 99}, "model.layers.10.input_layernorm.weight is missing"),
        (id, {"num_hidden_layers": 99}, "and 852 more"),
    ],
)
def test_an_incomplete_checkpoint_is_refused(tmp_path, weights, config, words):
    folder = edited(tmp_path / "model", weights, **config)
    with pytest.raises(LikraError, match=re.escape(words)) as caught:
        open_model(folder, device="cpu")
    assert f"the checkpoint '{folder}' lacks weights" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_complete_checkpoint_is_opened(tmp_path):
    folder = edited(tmp_path / "model")
    assert open_model(folder, device="cpu").model.num_parameters() == 935_040


def test_tied_weights_are_not_missing(tmp_path, pocket):
    pocket.tokenizer.save_pretrained(tmp_path)
    tiny_model("gpt2").save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert open_model(str(tmp_path), device="cpu", layout="forest").max_length == 128
