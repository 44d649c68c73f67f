"""likra doctor: what it finds of exact models, and that it finds what is not exact."""

import json

import pytest
import torch
from conftest import tiny_base, tiny_model
from transformers import Gemma3TextConfig, Phi3Config, Qwen3MoeConfig
from typer.testing import CliRunner

from likra.cli.main import app
from likra.doctor import examine as examination
from likra.doctor import speed
from likra.doctor.exactness import Float64, in_float64, training
from likra.doctor.measured import Measured
from likra.doctor.speed import _products
from likra.doctor.tiny import layers_of, tiny_config
from likra.doctor.tiny import tiny_model as shrunk
from likra.engine import masks, packing
from likra.engine.packing import build_forest
from likra.engine.tokens import TokenPair


def by_name(measured) -> dict[str, Measured]:
    return {one.what: one for one in measured}


# Large models' configurations, as their makers publish them.
GEMMA = Gemma3TextConfig(num_hidden_layers=26, sliding_window=512)
PHI = Phi3Config(
    rope_parameters={
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "long_factor": [1.0] * 48,
        "short_factor": [1.0] * 48,
        "original_max_position_embeddings": 4096,
    },
    max_position_embeddings=131072,
)
MOE = Qwen3MoeConfig(num_hidden_layers=24)


@pytest.mark.parametrize("config", [GEMMA, PHI, MOE], ids=["gemma3", "phi3", "qwen3_moe"])
def test_tiny_models_of_large_ones_are_exact(config):
    found = by_name(in_float64(shrunk(config)))
    assert [one.passed for one in found.values()] == [True] * 3
    assert found["control: a wrong mask"].value > 0.1
    assert shrunk(config).num_parameters() < 1_000_000


def test_a_tiny_configuration_keeps_the_kinds_of_layers_and_the_model_its_own():
    before = GEMMA.to_dict()
    tiny = tiny_config(GEMMA)
    assert tiny.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    assert (tiny.sliding_window, tiny.num_key_value_heads, tiny.num_attention_heads) == (16, 2, 4)
    assert GEMMA.to_dict() == before
    layers = "22 with sliding attention and 4 with full attention, the window 512 tokens"
    assert layers_of(GEMMA) == layers


def test_a_forgotten_window_is_found(monkeypatch):
    monkeypatch.setattr(masks, "sliding_window", lambda config: None)
    found = by_name(in_float64(shrunk(GEMMA)))
    assert found["scores in float64"].passed is False
    assert found["gradients in float64"].passed is False


def test_what_a_model_asks_for_in_float32_is_in_float64():
    third = torch.tensor(1.0, dtype=torch.float64) / 3
    with Float64():
        values = [
            third.float(),
            third.to(torch.float32),
            torch.softmax(third[None], 0, dtype=torch.float32),
        ]
    assert {value.dtype for value in values} == {torch.float64}
    assert third.float().dtype == torch.float32


def test_training_agrees_and_a_wrong_mask_shows_in_it(monkeypatch):
    base, model = tiny_base("llama"), tiny_model("llama")
    assert training(base, model, 3).passed

    def blind(pairs):
        forest = build_forest(pairs)
        forest.end.fill_(len(forest.end))
        return forest

    monkeypatch.setitem(packing.LAYOUTS, "forest", blind)
    assert training(base, model, 3).passed is False


def test_products_of_a_pass_are_counted_by_hand():
    """Of three layers with 4 heads, 2 of keys and values, of 8 dimensions, in a forest of 5."""
    base = tiny_base("llama")
    batch = build_forest([TokenPair([1, 2, 3, 4], [5, 6]), TokenPair([1, 2, 3, 4], [5, 7])])
    assert _products(base.model, batch) == {
        (5, 32, 32): 6,  # queries and output
        (5, 32, 16): 6,  # keys and values
        (5, 32, 48): 6,
        (5, 48, 32): 3,
        (2, 32, 120): 1,  # the LM head, where an answer token is predicted
    }


# --------------------------------------------------------------------------------------------
# The command


def test_pocket_is_exact(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    monkeypatch.setattr(examination, "N_STEPS_QUICK", 2)
    lines = []
    found = examination.examine("pocket", lines.append, quick=True)
    judged = [one for one in found if one.limit is not None]
    assert [one.passed for one in judged] == [True] * 5
    assert {one.unit for one in found if one.limit is None} == {
        "GFLOP/s", "tokens/s", "share", "nats",
    }  # fmt: skip
    assert all(0 < one.value < 1 for one in found if "rate" in one.what)
    assert "layers 4 with full attention" in lines


def found_of(*values: float) -> list[Measured]:
    return [
        Measured("speed", 12345.6, "tokens/s"),
        *(Measured("it", v, "nats", 1.0) for v in values),
    ]


def test_a_limit_that_is_not_kept_is_exit_code_1(monkeypatch):
    monkeypatch.setattr(examination, "examine", lambda *_, **__: found_of(0.5, 2.0))
    result = CliRunner().invoke(app, ["doctor", "any"])
    assert result.exit_code == 1
    assert "1 of 2 checks failed: it" in result.output
    assert "12,346 tokens/s" in result.output


def test_as_json(monkeypatch):
    monkeypatch.setattr(examination, "examine", lambda *_, **__: found_of(0.5))
    result = CliRunner().invoke(app, ["doctor", "any", "--json"])
    content = json.loads(result.output)
    assert (result.exit_code, content["passed"]) == (0, True)
    assert content["measured"][1] == {
        "what": "it", "value": 0.5, "unit": "nats", "limit": 1.0, "at_least": False, "passed": True,
    }  # fmt: skip
