"""Base models in 4 bits: the same as plain ones with the rounded weights."""

import sys

import bitsandbytes
import pytest
import torch
from commands import likra
from conftest import nats
from safetensors.torch import load_file

from likra import Likra, load_task
from likra.engine.tokens import encode
from likra.errors import LikraError
from likra.heads import quantized
from likra.heads.base import BaseModel, open_model, weights_digest
from likra.heads.lora import Head
from likra.heads.score import score
from likra.heads.train import train_head
from likra.integrations.lm_eval import LikraBaseLM, LikraLM


@pytest.fixture(scope="module")
def four() -> BaseModel:
    return open_model("pocket", dtype="4bit", device="cpu")


@pytest.fixture(scope="module")
def rounded(four) -> BaseModel:
    """Pocket in float32 with the weights that 4 bits stand for."""
    base = open_model("pocket", device="cpu")
    plain = dict(base.model.named_modules())
    for name, layer in four.model.named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(
                layer.weight.data, layer.weight.quant_state
            )
            assert not torch.equal(weight, plain[name].weight)
            plain[name].weight.data.copy_(weight)
    return base


@pytest.fixture(scope="module")
def pairs(four):
    questions = load_task("pocket").questions("test")[:12]
    choices = [choice for question in questions for choice in question.choices]
    return encode(four.tokenizer, choices, four.max_length)


def test_scores_are_those_of_the_rounded_weights(four, rounded, pairs):
    assert four.layout == "forest"
    assert score(Head(four), pairs).logprobs == nats(score(Head(rounded), pairs).logprobs)


def test_a_head_is_that_of_the_rounded_weights_and_the_base_stays(four, rounded, pairs, tmp_path):
    before = weights_digest(four.model)
    losses = [
        train_head(base, pairs[:24], {24: tmp_path / name}, name=None)
        for name, base in (("four", four), ("rounded", rounded))
    ]
    assert weights_digest(four.model) == before
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    ours, plain = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("four", "rounded")
    )
    for name, weight in ours.items():
        torch.testing.assert_close(weight, plain[name], atol=2e-4, rtol=1e-3)
    scores = [score(Head(base, tmp_path / "four"), pairs).logprobs for base in (four, rounded)]
    assert scores[0] == nats(scores[1])


def test_a_fitted_model_is_opened_in_4_bits_again(four, tmp_path):
    rows = [
        {"question": f"What is the capital of {land}?", "choices": [city, "Oslo"], "answer": 0}
        for land, city in (("Peru", "Lima"), ("Italy", "Rome"), ("Ghana", "Accra"))
    ]
    fitted = Likra.fit("pocket", rows, tmp_path / "model", dtype="4bit", folds=2)
    opened = Likra.from_pretrained(tmp_path / "model")
    assert quantized.is_four_bit(opened.parts.base.model)
    asked = ("What is the capital of Chad?", ["Rome", "Lima"])
    scores = [[option.score for option in model.rank(*asked)] for model in (fitted, opened)]
    assert scores[0] == scores[1]
    with pytest.raises(LikraError, match="is not the base that the heads"):
        Likra.from_pretrained(tmp_path / "model", dtype="float32")
    harness = LikraLM(tmp_path / "model", device="cpu")
    assert weights_digest(harness.base.model) == weights_digest(four.model)


def test_a_study_in_4_bits_is_another_one(tmp_path):
    options = ["run", "pocket", "--modes", "base", "--eval-questions", "8", "-o", "out"]
    options += ["--set", "figures=[learning_curve]"]
    assert likra(*options, "--dtype", "4bit", cwd=tmp_path).returncode == 0
    (table,) = (tmp_path / "out/scores").glob("*.parquet")
    refused = likra(*options, "--dtype", "float32", cwd=tmp_path)
    assert refused.returncode == 2
    assert "dtype" in refused.stderr
    assert table.is_file()


def test_plain_models_need_no_bitsandbytes(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn.modules", None)
    assert open_model("pocket", device="cpu").layout == "forest"
    assert LikraBaseLM("pocket", device="cpu").base.layout == "forest"


def test_without_bitsandbytes_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(LikraError, match=r"pip install 'likra\[bitsandbytes\]'"):
        open_model("pocket", dtype="4bit")
