"""Opening models: what is said of one that is not to be had, and a shape without weights."""

import json
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import GatedRepoError

from likra.errors import LikraError
from likra.heads.base import open_model, open_without_weights
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
