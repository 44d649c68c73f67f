"""DoRA, rsLoRA, and adapters to go on from: as PEFT has them, and a base without a trace."""

from pathlib import Path

import pytest
import torch
from conftest import adapter, nats, state, tiny_base, tiny_model, tiny_with_words
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from test_both_heads import a_head, by_peft
from test_schedules import by_hand
from test_training import PAIRS

from likra.errors import LikraError
from likra.heads.lora import Head, fresh_head, save_head
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.together import Together
from likra.heads.train import train_head

SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=4)
DORA = {"use_dora": True}


def close(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    saved = load_file(folder / "adapter_model.safetensors")
    assert set(saved) == set(weights)
    for name, weight in saved.items():
        torch.testing.assert_close(weight, weights[name], atol=2e-4, rtol=1e-3)


# --------------------------------------------------------------------------------------------
# DoRA and rsLoRA


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_dora_scores_as_peft_beside_another_head(kind, layout, tmp_path):
    base = tiny_base(kind, layout)
    heads = [
        a_head(base, tmp_path / "dora", 0, r=4, alpha=8, **DORA),
        a_head(base, tmp_path / "plain", 1),
    ]
    together = Together(heads)
    assert together.layers is None  # each head in a pass of its own
    packed = base.pack(PAIRS)
    for head, own in zip(heads, together.logprobs(packed), strict=True):
        assert own.tolist() == nats(by_peft(head, PAIRS))


def test_rslora_scores_as_peft_in_one_pass_with_another_head(tmp_path):
    base = tiny_base("llama")
    shape = {"r": 4, "alpha": 8}
    heads = [
        a_head(base, tmp_path / "rs", 0, **shape, use_rslora=True),
        a_head(base, tmp_path / "plain", 0, **shape),
    ]
    together = Together(heads)
    assert together.layers is not None
    values = together.logprobs(base.pack(PAIRS))
    for head, own in zip(heads, values, strict=True):
        assert own.tolist() == nats(by_peft(head, PAIRS))
    assert abs(values[0] - values[1]).max() > 0.01  # 8 / sqrt(4) is not 8 / 4


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("shape", [{}, DORA])
def test_a_head_like_another_scores_as_when_peft_loads_it(shape, kind, tmp_path, monkeypatch):
    base = tiny_base(kind)
    first, second = (a_head(base, tmp_path / str(seed), seed, **shape) for seed in (0, 1))
    before, expected = (score(head, PAIRS).logprobs.tolist() for head in (first, second))
    if not shape:  # PEFT has no part in it; DoRA's vectors have other names in the file
        monkeypatch.setattr("likra.heads.lora._load", None)
    copied = Head(base, second.folder, like=first)
    assert score(copied, PAIRS).logprobs.tolist() == expected != before
    assert score(first, PAIRS).logprobs.tolist() == before
    assert {id(own.plain) for own in copied.layers} == {id(own.plain) for own in first.layers}


def test_a_head_of_another_shape_than_the_one_it_is_like_is_loaded(tmp_path):
    base = tiny_base("llama")
    first, second = (a_head(base, tmp_path / str(r), 0, r=r) for r in (2, 4))
    expected = score(second, PAIRS).logprobs.tolist()
    assert score(Head(base, second.folder, like=first), PAIRS).logprobs.tolist() == expected


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_fresh_dora_head_scores_as_the_base(kind):
    base = tiny_base(kind)
    scores = score(Head(base), PAIRS).logprobs
    with fresh_head(base, LoraSettings(**DORA), seed=0):
        assert score(Head(base), PAIRS).logprobs == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("shape", [DORA, {"use_rslora": True}])
def test_training_is_that_of_a_plain_loop(shape, layout, tmp_path):
    base = tiny_with_words(layout=layout)
    before = state(base)
    losses = train_head(
        base, PAIRS, {12: tmp_path / "head"}, settings=SETTINGS, lora=LoraSettings(**shape)
    )
    expected, weights = by_hand(PAIRS, [1e-2] * 3, **shape)
    assert losses == pytest.approx(expected, abs=1e-4)
    close(tmp_path / "head", weights)
    assert state(base) == before


# --------------------------------------------------------------------------------------------
# Going on


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A head of other settings than the default ones, after 8 examples."""
    folder = tmp_path_factory.mktemp("saved") / "head"
    lora = LoraSettings(r=4, alpha=2, **DORA)
    train_head(tiny_base("llama"), PAIRS[:8], {8: folder}, settings=SETTINGS, lora=lora)
    return folder


def test_training_goes_on_from_a_saved_head_as_a_plain_loop_does(saved, tmp_path):
    base = tiny_with_words()
    before, file = state(base), adapter(saved)
    folder = tmp_path / "head"
    losses = train_head(base, PAIRS[4:], {8: folder}, settings=SETTINGS, start=saved)
    expected, weights = by_hand(PAIRS[4:], [1e-2] * 2, start=saved)
    assert losses == pytest.approx(expected, abs=1e-4)
    close(folder, weights)
    assert (state(base), adapter(saved)) == (before, file)


def test_settings_that_were_given_agree_with_the_adapter(saved, tmp_path):
    base = tiny_with_words()
    before = state(base)
    with fresh_head(base, LoraSettings(r=4, target_modules="mlp"), 0, saved) as head:
        assert head.peft_config["default"].lora_alpha == 2  # taken over
    for lora, words in (
        (LoraSettings(r=16), "has r = 4, and lora.r asks for 16: leave lora.r out"),
        (LoraSettings(alpha=8), "has lora_alpha = 2, and lora.alpha asks for 8"),
        (LoraSettings(use_dora=False), "has use_dora = True"),
        (LoraSettings(target_modules="up_proj"), "has target_modules = "),
    ):
        with pytest.raises(LikraError, match=words):
            train_head(base, PAIRS, {12: tmp_path / "head"}, lora=lora, start=saved)
    assert state(base) == before
    assert not list(tmp_path.iterdir())


def test_what_is_no_head_of_the_base_is_refused_and_leaves_no_trace(saved, tmp_path):
    base = tiny_with_words()
    before = state(base)
    shape = {"r": 4, "target_modules": ["up_proj"], "task_type": "CAUSAL_LM"}
    shallow = tiny_model("llama")
    shallow.model.layers = shallow.model.layers[:2]
    get_peft_model(shallow, LoraConfig(**shape)).save_pretrained(str(tmp_path / "shallow"))
    prompt = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model("llama"), prompt).save_pretrained(str(tmp_path / "prompt"))
    with fresh_head(tiny_base("gpt2"), LoraSettings(), seed=0) as head:
        save_head(head, tmp_path / "gpt2")
    for name, words in (
        ("nowhere", "no adapter to go on from in '.*nowhere': there is no adapter_config.json"),
        ("gpt2", "cannot read the head in '.*gpt2': Target modules .* not found"),
        ("prompt", "its type is PROMPT_TUNING, and not LORA"),
        ("shallow", "is of another base than 'llama'"),
    ):
        with pytest.raises(LikraError, match=words), fresh_head(base, None, 0, tmp_path / name):
            pass
        assert state(base) == before, name
