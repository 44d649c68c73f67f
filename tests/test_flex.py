"""Attention by FlexAttention: on a CPU and not compiled, so what it computes and not how fast."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from conftest import SIZES, nats, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_forest import one_by_one, pair_lists, random_pairs
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as torch_flex
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations import flex_attention as hf_flex

from likra.engine import flex, memory
from likra.engine.logprobs import answer_logprobs, copies_logprobs
from likra.engine.masks import dense_mask
from likra.engine.packing import Forest, build_forest
from likra.engine.tokens import TokenPair
from likra.heads.base import BaseModel, checked_layout, probe
from likra.heads.lora import Head
from likra.heads.score import score

KINDS = ["llama", "mistral-window", "qwen3", "gemma3"]


@pytest.fixture
def on_cpu(monkeypatch):
    """FlexAttention where CUDA is not: the same mask and the same sums, without a kernel.

    PyTorch refuses gradients on a CPU, for which it has no kernel; its formulas take them.
    """
    monkeypatch.setattr(flex, "DEVICE", "cpu")
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)

    def not_compiled(*inputs, training, **more):
        return torch_flex.flex_attention(*inputs, **more)

    monkeypatch.setattr(hf_flex, "compile_friendly_flex_attention", not_compiled)


def long_pairs() -> list[TokenPair]:
    """Two prompts of more than a block, branching into answers on either side of a border."""
    prompts = [[1 + (7 * n + length) % 90 for n in range(length)] for length in (300, 127)]
    return [TokenPair(prompt, [2 + n, 3, 4 + n]) for prompt in prompts for n in range(4)]


def seen(forest: Forest, window: int | None) -> torch.Tensor:
    """The definition: [tokens, tokens], whether a node sees another."""
    nodes = range(len(forest.end))
    depth, end = forest.depth.tolist(), forest.end.tolist()
    return torch.tensor(
        [
            [j <= i < end[j] and (window is None or depth[i] - depth[j] < window) for j in nodes]
            for i in nodes
        ]
    )


@settings(max_examples=50, deadline=None)
@given(pair_lists, st.sampled_from([None, 1, 2, 3, 5]))
def test_first_and_end_say_what_a_node_sees(pairs, window):
    forest = build_forest(pairs)
    first, end = flex.first_seen(forest, window), forest.end
    place = torch.arange(len(end))
    i, j = place[:, None], place[None, :]
    assert torch.equal((first[i] <= j) & (j <= i) & (i < end[j]), seen(forest, window))
    dense = dense_mask(forest, window, torch.float32)[0, 0]
    assert torch.equal(dense == 0, seen(forest, window))


@settings(max_examples=30, deadline=None)
@given(pair_lists, st.sampled_from([None, 2, 4]), st.sampled_from([1, 2, 4]))
def test_blocks_hold_all_that_is_seen_and_whole_ones_nothing_else(pairs, window, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "BLOCK", size)
        nodes = flex.padded(build_forest(pairs))
        mask = flex.mask(nodes, window)
    tiles = seen(nodes, window).unfold(0, size, size).unfold(1, size, size).flatten(2)
    listed = {
        kind: torch.stack(
            [
                torch.zeros(tiles.shape[1], dtype=torch.bool).index_fill(0, own[:count].long(), 1)
                for count, own in zip(number[0, 0], which[0, 0], strict=True)
            ]
        )
        for kind, number, which in (
            ("part", mask.kv_num_blocks, mask.kv_indices),
            ("whole", mask.full_kv_num_blocks, mask.full_kv_indices),
        )
    }
    below = torch.ones_like(listed["whole"]).tril(-1)  # a block on the diagonal is never whole
    assert torch.equal(listed["whole"], tiles.all(-1) & below)
    both = listed["part"] | listed["whole"]
    assert (both | ~tiles.any(-1)).all()
    if window is None:  # on a sliding layer, a block may be looked into in vain
        assert torch.equal(both, tiles.any(-1))
    assert not (listed["part"] & listed["whole"]).any()


@settings(max_examples=20, deadline=None)
@given(pair_lists)
def test_padding_is_seen_by_itself_alone(pairs):
    forest = build_forest(pairs)
    nodes, n = flex.padded(forest), len(forest.end)
    matrix = seen(nodes, None)
    assert torch.equal(matrix[:n, :n], seen(forest, None))
    assert torch.equal(matrix[n:], torch.eye(len(matrix), dtype=torch.bool)[n:])
    assert not matrix[:n, n:].any()


def test_lengths_are_few_and_little_longer():
    def length(n: int) -> int:
        none = torch.zeros(n, dtype=torch.int64)
        nodes = flex.padded(Forest(none, none, none, none, none, none))
        assert len(nodes.input_ids) == len(nodes.depth) == len(nodes.end)
        return len(nodes.end)

    found = {n: length(n) for n in [*range(1, 3000), 8191, 8192, 8193, 32768]}
    assert all(n <= own < n + max(128, n / 8) for n, own in found.items())
    assert all(own % 128 == 0 for own in found.values())
    assert (found[128], found[129], found[8192], found[8193]) == (128, 256, 8192, 9216)
    assert len({found[n] for n in range(1024, 2049)}) == 9


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_one_pair_at_a_time(kind):
    model, pairs = tiny_model(kind), random_pairs()
    with torch.no_grad():
        scores = answer_logprobs(model, build_forest(pairs))
    assert flex.is_used(model)
    assert scores.tolist() == nats(one_by_one(model, pairs))
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.usefixtures("on_cpu")
def test_blocks_that_are_seen_as_a_whole_give_the_same_scores_and_gradients():
    """Of five blocks of nodes: some whole, some in part, some not looked at."""
    forest = build_forest(long_pairs())
    mask = flex.mask(flex.padded(forest), None)
    assert mask.full_kv_num_blocks.sum() > 0
    assert mask.sparsity() > 0
    config = LlamaConfig(**SIZES | {"max_position_embeddings": 512})
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    found = {}
    for name, context in (("flex", nullcontext()), ("dense", flex.without(model))):
        with context:
            assert flex.is_used(model) == (name == "flex")
            scores = answer_logprobs(model, forest)
        gradients = torch.autograd.grad(scores.sum(), list(model.parameters()))
        found[name] = scores.tolist(), torch.cat([own.flatten() for own in gradients])
    assert flex.is_used(model)
    assert found["flex"][0] == nats(found["dense"][0])
    assert found["dense"][1].norm() > 1
    assert torch.allclose(found["flex"][1], found["dense"][1], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("on_cpu")
def test_copies_of_a_forest():
    model, forest = tiny_model("gemma3"), build_forest(random_pairs())
    with torch.no_grad():
        one = answer_logprobs(model, forest)
        several = copies_logprobs(model, forest, 3).sum(-1)
    assert several.tolist() == [nats(one)] * 3


@pytest.mark.usefixtures("on_cpu")
def test_what_cannot_be_used_is_said_once_and_the_dense_mask_taken(caplog, monkeypatch):
    for kind in ("gpt2", "llama"):  # GPT-2 does not take it
        model, pairs = tiny_model(kind), random_pairs()
        if kind == "llama":
            monkeypatch.setattr(flex, "mask", None)
        for _ in range(2):
            scores = answer_logprobs(model, build_forest(pairs))
            assert scores.tolist() == nats(one_by_one(model, pairs))
        assert not flex.is_used(model)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("GPT2LMHeadModel attends by SDPA with a dense mask")
    assert "LlamaForCausalLM" in second
    assert "TypeError: 'NoneType' object is not callable" in second


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, KeyError])
def test_errors_that_are_not_its_own_are_passed_on(kind, caplog, monkeypatch):
    """Memory that is full is no reason for a dense mask; what fails with that as well is raised."""
    model, forest = tiny_model("llama"), build_forest(random_pairs())
    monkeypatch.setattr(model.model, "forward", raising(kind))
    with pytest.raises(kind):
        answer_logprobs(model, forest)
    assert flex.is_used(model)
    assert not caplog.records
    assert model.config._attn_implementation == "sdpa"


def raising(kind: type[Exception]):
    def forward(*_, **__):
        raise kind("not this time")

    return forward


def test_on_a_cpu_it_is_not_used(monkeypatch):
    monkeypatch.setattr(flex, "padded", None)
    model, pairs = tiny_model("llama"), random_pairs()
    assert not flex.is_used(model)
    assert answer_logprobs(model, build_forest(pairs)).tolist() == nats(one_by_one(model, pairs))


@pytest.mark.usefixtures("on_cpu")
def test_nothing_is_compiled_for_each_length(monkeypatch):
    """Once for the first length and once for all others; sliding layers take the same kernel."""
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(torch_flex.flex_attention, backend=counter)

    def counted(*inputs, training, **more):
        return compiled(*inputs, **more)

    monkeypatch.setattr(hf_flex, "compile_friendly_flex_attention", counted)
    lengths = set()
    with torch.inference_mode():
        for model in (tiny_model("llama"), tiny_model("mistral-window")):
            for count in (1, 2, 3, 4, 2):
                prompts = [[1 + (7 * n + own) % 90 for n in range(120)] for own in range(count)]
                forest = build_forest([TokenPair(prompt, [2, 3]) for prompt in prompts])
                lengths.add(len(flex.padded(forest).end))
                answer_logprobs(model, forest)
    assert len(lengths) == 4
    assert counter.frame_count == 2


# --------------------------------------------------------------------------------------------
# A kernel that is wrong


def opened(kind: str) -> BaseModel:
    return BaseModel(kind, tiny_model(kind), None, 128)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_probe_lets_a_right_kernel_be(kind, caplog):
    base = probe(opened(kind))
    assert flex.is_used(base.model)
    assert base.layout == "forest"
    assert not caplog.records


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("wrong", ["scores", "gradients", "no gradients"])
def test_the_probe_finds_a_wrong_kernel(wrong, caplog, monkeypatch):
    right = hf_flex.compile_friendly_flex_attention

    def kernel(query, key, value, *, block_mask, **more):
        if wrong == "scores":  # each node sees all before it
            block_mask.mask_mod = lambda copy, head, i, j: j <= i
        if wrong == "gradients":
            value = value.detach()
        output = right(query, key, value, block_mask=block_mask, **more)
        if wrong == "no gradients" and output.requires_grad:
            output.register_hook(raising(RuntimeError))
        return output

    monkeypatch.setattr(hf_flex, "compile_friendly_flex_attention", kernel)
    base = probe(opened("llama"))
    assert base.layout == "forest"
    assert "same scores" in base.layout_reason
    assert not flex.is_used(base.model)
    (record,) = caplog.records
    reason = {
        "scores": "its scores differ from those of plain rows by",
        "gradients": "its gradients differ from those of a dense mask by",
        "no gradients": "its gradients cannot be checked (RuntimeError: not this time)",
    }[wrong]
    assert record.getMessage().startswith(
        f"LlamaForCausalLM attends by SDPA with a dense mask, not by FlexAttention: {reason}"
    )


@pytest.mark.usefixtures("on_cpu")
def test_a_kernel_that_is_wrong_for_large_packs_is_found_when_they_come(caplog, monkeypatch):
    mask = flex.mask

    def wrong(forest, window):
        """Of more than two blocks, the ends of subtrees are forgotten."""
        end = torch.full_like(forest.end, len(forest.end))
        return mask(replace(forest, end=end) if len(end) > 2 * flex.BLOCK else forest, window)

    monkeypatch.setattr(flex, "mask", wrong)
    monkeypatch.setitem(memory.BUDGET, "cpu", 8192)
    base, pairs = probe(opened("llama")), random_pairs(40)
    assert flex.is_used(base.model)
    checked = checked_layout(base, pairs)
    assert checked.layout == "forest"
    assert not flex.is_used(base.model)
    assert "differ from those of plain rows" in caplog.text
    assert score(Head(checked), pairs).logprobs == nats(one_by_one(base.model, pairs))
