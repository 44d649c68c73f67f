"""Forest = plain layout = one pair at a time, and the laws of the packing."""

import random
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import SIZES, VOCABULARY, nats, tiny_base, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from likra.engine import attention, blockwise, masks, packing
from likra.engine.logprobs import answer_logprobs, token_logprobs
from likra.engine.packing import PADDING, batch_indices, build_forest, build_padded
from likra.engine.tokens import TokenPair
from likra.heads import base as opening
from likra.heads.base import BaseModel, checked_layout, probe
from likra.heads.layout import new_kind
from likra.heads.lora import Head
from likra.heads.score import score

BRANCHING = ["llama", "mistral-window", "qwen3", "gemma3", "gpt2"]

tokens = st.integers(0, 5)  # few, so that prefixes are often shared
token_pairs = st.builds(
    TokenPair,
    st.lists(tokens, min_size=1, max_size=8),
    st.lists(tokens, min_size=1, max_size=5),
)
pair_lists = st.lists(token_pairs, min_size=1, max_size=12)


def random_pairs(n_prompts: int = 5, n_answers: int = 4) -> list[TokenPair]:
    draw = random.Random(1)
    pairs = []
    for _ in range(n_prompts):
        prompt = [1, *(draw.randrange(2, VOCABULARY) for _ in range(draw.randrange(3, 30)))]
        for _ in range(n_answers):  # answers share beginnings, too
            answer = [draw.randrange(2, 6) for _ in range(draw.randrange(1, 9))]
            pairs.append(TokenPair(prompt, answer))
    return pairs


def one_by_one(model, pairs: list[TokenPair]) -> torch.Tensor:
    """The definition: log-softmax at each place, summed over the answer, a pair at a time."""
    sums = []
    for pair in pairs:
        ids = torch.tensor([pair.context + pair.continuation])
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
        places = range(len(pair.context) - 1, ids.shape[1] - 1)
        sums.append(sum(logprobs[i, ids[0, i + 1]] for i in places))
    return torch.stack(sums)


@pytest.fixture(params=[blockwise.BLOCK, 7], ids=["whole", "in blocks"])
def block(request, monkeypatch) -> int:
    """Tokens of a block of attention; the forests here are smaller than one, and larger than 7."""
    monkeypatch.setattr(blockwise, "BLOCK", request.param)
    monkeypatch.setattr(blockwise, "LARGEST_PART", 1.0)
    return request.param


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("kind", BRANCHING)
def test_forest_equals_plain_equals_one_pair_at_a_time(kind):
    model, pairs = tiny_model(kind), random_pairs()
    single = one_by_one(model, pairs)
    assert single.std() > 1  # nats: there is something to get wrong
    for build in (build_forest, build_padded):
        together = answer_logprobs(model, build(pairs))
        assert together.tolist() == nats(single)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("kind", BRANCHING)
@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_packing_changes_no_score(kind, layout, budget):
    base, pairs = tiny_base(kind, layout), random_pairs()
    scores = torch.zeros(len(pairs))
    for indices in batch_indices(pairs, layout, budget):
        scores[indices] = answer_logprobs(base.model, base.batch([pairs[i] for i in indices]))
    assert scores.tolist() == nats(one_by_one(base.model, pairs))


def test_a_forgotten_window_would_show():
    """The control: without its sliding window the model gives other scores."""
    model, pairs = tiny_model("mistral-window"), random_pairs()
    forest = build_forest(pairs)
    with_window = answer_logprobs(model, forest)
    model.config.sliding_window = None
    assert (answer_logprobs(model, forest) - with_window).abs().max() > 0.1


@pytest.mark.parametrize("kind", BRANCHING)
def test_the_probe_chooses_the_forest(kind):
    base = BaseModel(kind, tiny_model(kind), None, 128)
    assert probe(base).layout == "forest"


@pytest.mark.filterwarnings("default")  # transformers warns that its kernels are not installed
def test_a_state_space_model_falls_back_and_says_so():
    model, pairs = tiny_model("mamba"), random_pairs()
    base = probe(BaseModel("mamba", model, None, 128))
    assert base.layout == "padded"
    assert "cannot" in base.layout_reason
    scores = answer_logprobs(model, base.batch(pairs))
    assert scores.tolist() == nats(one_by_one(model, pairs))


def test_token_logprobs_of_a_uniform_model():
    """With an LM head of zeros every token has probability 1/V, whatever the layout."""
    model = tiny_model("llama")
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    pairs = [TokenPair([1, 2], [3, 4, 5]), TokenPair([1, 2], [3])]
    for build in (build_forest, build_padded):
        batch = build(pairs)
        expected = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
        expected *= -torch.log(torch.tensor(float(VOCABULARY)))
        assert torch.allclose(token_logprobs(model, batch), expected, atol=1e-6)


@pytest.mark.usefixtures("block")
def test_gradients_agree():
    pairs = random_pairs(2, 2)
    gradients = []
    for build in (build_forest, build_padded):
        model = tiny_model("llama").requires_grad_(True)
        answer_logprobs(model, build(pairs)).sum().backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    assert gradients[0].abs().max() > 0.1
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", BRANCHING)
def test_every_layer_attends_in_blocks_and_the_model_is_as_before(kind, monkeypatch):
    calls = []
    plain = blockwise.sdpa_attention_forward

    def counting(module, query, key, *arguments, **settings):
        calls.append((query.shape[2], key.shape[2]))
        return plain(module, query, key, *arguments, **settings)

    monkeypatch.setattr(blockwise, "BLOCK", 7)
    monkeypatch.setattr(blockwise, "LARGEST_PART", 1.0)
    monkeypatch.setattr(blockwise, "sdpa_attention_forward", counting)
    model, forest = tiny_model(kind), build_forest(random_pairs())
    answer_logprobs(model, forest)
    blocks = blockwise.Blocks.of(forest, 7)
    expected = [len(keys) for keys in blocks.keys] * model.config.num_hidden_layers
    assert [n_keys for _, n_keys in calls] == expected
    assert sum(q * k for q, k in calls) == blocks.n_products * model.config.num_hidden_layers
    assert sum(q * k for q, k in calls) < len(forest.end) ** 2 * model.config.num_hidden_layers / 2
    assert model.config._attn_implementation == "sdpa"
    calls.clear()
    answer_logprobs(model, build_padded(random_pairs()))
    assert not calls


def test_a_long_prompt_is_attended_to_as_a_whole(monkeypatch):
    """Of a chain of 60 nodes, blocks of 7 leave more than a half of the matrix."""
    calls = []
    plain = blockwise.sdpa_attention_forward
    monkeypatch.setattr(blockwise, "BLOCK", 7)
    monkeypatch.setattr(
        blockwise,
        "sdpa_attention_forward",
        lambda *own, **named: calls.append(1) or plain(*own, **named),
    )
    pairs = [TokenPair(list(range(2, 62)), [3])]
    assert 2 * blockwise.Blocks.of(build_forest(pairs), 7).n_products > 60**2
    answer_logprobs(tiny_model("llama"), build_forest(pairs))
    assert not calls


def test_a_pass_that_fails_leaves_the_model_as_it_was(monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK", 7)
    monkeypatch.setattr(blockwise, "LARGEST_PART", 1.0)
    model, forest = tiny_model("llama"), build_forest(random_pairs())
    monkeypatch.setattr(model.model.layers[1], "forward", None)
    with pytest.raises(TypeError):
        answer_logprobs(model, forest)
    assert model.config._attn_implementation == "sdpa"


@given(pair_lists, st.integers(1, 9))
def test_blocks_hold_all_that_their_nodes_attend_to(pairs, size):
    forest = build_forest(pairs)
    blocks = blockwise.Blocks.of(forest, size)
    nodes = range(len(forest.end))
    assert [node for rows in blocks.queries for node in nodes[rows]] == list(nodes)
    for rows, keys in zip(blocks.queries, blocks.keys, strict=True):
        own = set(nodes[rows])
        assert 1 <= len(own) <= size
        ancestors = {j for i in own for j in nodes if j <= i < forest.end[j]}
        assert set(keys.tolist()) == ancestors | own
        assert keys.tolist() == sorted(set(keys.tolist()))


def test_a_forest_by_hand():
    """Tries of 1-2-3 and 1-2-4-5, and of 9. The last token of an answer is never an input."""
    pairs = [
        TokenPair([1, 2], [4, 5, 8]),
        TokenPair([9], [7]),
        TokenPair([1, 2], [3, 7]),
    ]
    forest = build_forest(pairs)
    assert forest.input_ids.tolist() == [1, 2, 3, 4, 5, 9]
    assert forest.depth.tolist() == [0, 1, 2, 2, 3, 0]
    assert forest.end.tolist() == [5, 5, 3, 5, 5, 6]
    assert forest.logit_positions.tolist() == [1, 2, 3, 4, 5]
    assert forest.answers.tolist() == [[4, 5, 8], [7, PADDING, PADDING], [3, 7, PADDING]]
    assert forest.answer_positions.tolist() == [[0, 2, 3], [4, 0, 0], [0, 1, 0]]


@given(pair_lists)
def test_every_pair_is_a_path_in_the_forest(pairs):
    forest = build_forest(pairs)
    ids, depth, end = (v.tolist() for v in (forest.input_ids, forest.depth, forest.end))
    for number, pair in enumerate(pairs):
        row = forest.logit_positions[
            forest.answer_positions[number, len(pair.continuation) - 1]
        ].item()
        path = [j for j in range(row + 1) if row < end[j]]  # the last row's ancestors and itself
        assert [ids[j] for j in path] == pair.tokens
        assert [depth[j] for j in path] == list(range(len(pair.tokens)))
        answer = [token for token in forest.answers[number].tolist() if token != PADDING]
        assert answer == pair.continuation


@given(pair_lists)
def test_the_forest_has_no_node_twice(pairs):
    prefixes = {tuple(pair.tokens[:n]) for pair in pairs for n in range(1, len(pair.tokens) + 1)}
    assert len(build_forest(pairs).input_ids) == len(prefixes)


@given(pair_lists, st.sampled_from(["forest", "padded"]), st.integers(1, 60))
def test_packing_takes_every_pair_once(pairs, layout, budget):
    packed = [index for batch in batch_indices(pairs, layout, budget) for index in batch]
    assert sorted(packed) == list(range(len(pairs)))


@given(pair_lists, st.integers(1, 60))
def test_a_pack_goes_over_its_budget_only_for_a_shared_prefix(pairs, budget):
    longest = max(len(pair.tokens) for pair in pairs)
    for batch in batch_indices(pairs, "forest", budget):
        size = len(build_forest([pairs[index] for index in batch]).input_ids)
        assert size <= max(budget, 4 * longest)


@settings(max_examples=25, deadline=None)
@given(pair_lists)
def test_forest_equals_plain_on_any_pairs(pairs):
    model = tiny_model("llama")
    plain = answer_logprobs(model, build_padded(pairs))
    assert answer_logprobs(model, build_forest(pairs)).tolist() == nats(plain)


# --------------------------------------------------------------------------------------------
# Pairs longer than a sliding window


WINDOW = 300


def windowed() -> BaseModel:
    """A model whose window is longer than what the probe's own pairs reach."""
    config = MistralConfig(**SIZES | {"max_position_embeddings": 512}, sliding_window=WINDOW)
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return probe(BaseModel("windowed", model, None, 512))


def long_pairs(length: int) -> list[TokenPair]:
    draw = random.Random(3)
    prompt = draw.choices(range(3, VOCABULARY), k=length - 2)
    return [TokenPair(prompt, draw.choices(range(3, VOCABULARY), k=3)) for _ in range(3)]


def forget_the_window(monkeypatch) -> None:
    """Break the forest's mask: all ancestors are seen, however far away."""
    monkeypatch.setattr(masks, "sliding_window", lambda config: None)


def test_a_broken_mask_is_found_when_the_first_pairs_leave_the_window(monkeypatch, caplog):
    forget_the_window(monkeypatch)
    base, pairs = windowed(), long_pairs(WINDOW + 60)
    assert base.layout == "forest"  # the probe cannot know
    checked = checked_layout(base, pairs)
    assert checked.layout == "padded"
    assert "cannot branch" in checked.layout_reason
    (record,) = caplog.records
    assert "'windowed' uses the padded layout" in record.getMessage()
    expected = one_by_one(base.model, pairs)
    assert score(Head(base), pairs).logprobs == nats(expected)
    wrong = answer_logprobs(base.model, base.batch(pairs))
    assert (wrong - expected).abs().max() > 0.1  # nats: there was something to find


def test_a_good_mask_is_checked_once(monkeypatch):
    base, pairs = windowed(), long_pairs(WINDOW + 60)
    assert checked_layout(base, pairs) is base
    assert base.compared.pair == WINDOW + 60
    monkeypatch.setattr(opening, "compare_layouts", lambda *_: pytest.fail("checked again"))
    assert checked_layout(base, pairs) is base
    assert checked_layout(base, pairs[:1]) is base
    assert score(Head(base), pairs).logprobs == nats(one_by_one(base.model, pairs))


# --------------------------------------------------------------------------------------------
# Packs larger than any before


def test_a_fault_of_large_packs_alone_is_found_and_said_once(monkeypatch, caplog):
    def broken(forest, *more):
        """Of more than 100 nodes, each sees all before it."""
        everything = torch.full_like(forest.end, len(forest.end))
        few = len(forest.end) <= 100
        return masks.dense_mask(forest if few else replace(forest, end=everything), *more)

    monkeypatch.setattr(attention, "dense_mask", broken)
    base, pairs = probe(BaseModel("llama", tiny_model("llama"), None, 128)), random_pairs(12)
    assert base.layout == "forest"
    expected = one_by_one(base.model, pairs)
    for _ in range(2):
        assert score(Head(base), pairs).logprobs == nats(expected)
    (record,) = caplog.records
    assert "'llama' uses the padded layout" in record.getMessage()
    wrong = answer_logprobs(base.model, base.batch(pairs))
    assert (wrong - expected).abs().max() > 0.1  # nats: there was something to find


def test_the_pack_that_is_compared_is_one_that_is_scored():
    """A new kind of computing, as attention in blocks, begins at a number of nodes."""
    base, pairs = tiny_base("llama"), random_pairs(60)
    sample = new_kind(base.model, base.compared, pairs)
    n_nodes = len(build_forest(sample).end)
    assert n_nodes > blockwise.LEAST * blockwise.BLOCK
    assert n_nodes >= max(len(batch.end) for batch in base.pack(pairs).batches)


def test_larger_packs_are_compared_again_when_they_have_doubled(monkeypatch):
    """From 10 answers to 400 that is some five times, and not 400."""
    base, compared = tiny_base("llama"), []
    real = opening.compare_layouts

    def counting(model, pairs, rows, room):
        assert len(rows) <= 4
        compared.append(sum(len(pair.tokens) for pair in pairs))
        return real(model, pairs, rows, room)

    monkeypatch.setattr(opening, "compare_layouts", counting)
    pairs = [TokenPair([1], [2 + number % 90, 3]) for number in range(400)]
    for count in range(10, 400):
        assert checked_layout(base, pairs[:count]) is base
    assert 2 <= len(compared) <= 6
    assert compared == sorted(compared)
    assert compared[-1] >= 256  # half of what a pack holds


# --------------------------------------------------------------------------------------------
# Packs that serve many heads


@pytest.mark.parametrize("layout", ["forest", "padded"])
def test_packed_pairs_score_as_the_pairs(layout, monkeypatch):
    base, pairs = tiny_base("llama", layout), random_pairs()
    packed = base.pack(pairs, budget=60)
    assert len(packed) == len(pairs)
    assert len(packed.batches) > 2
    one_budget = score(Head(base), pairs, budget=60, greedy=True)
    score(Head(base), packed)
    monkeypatch.setattr(packing, "LAYOUTS", {})  # nothing is built again
    monkeypatch.setattr(packing, "batch_indices", None)
    again = score(Head(base), packed, greedy=True)
    assert np.array_equal(again.logprobs, one_budget.logprobs)
    assert np.array_equal(again.greedy, one_budget.greedy)
    assert score(Head(base), packed).greedy is None
    assert again.logprobs.dtype == np.float64


def test_packs_beyond_those_kept_are_built_for_each_head(monkeypatch):
    base, pairs = tiny_base("llama"), random_pairs()
    every = score(Head(base), pairs, budget=60).logprobs
    monkeypatch.setattr(packing, "KEPT", 1)
    built = []
    build = packing.LAYOUTS["forest"]
    monkeypatch.setitem(packing.LAYOUTS, "forest", lambda own: built.append(own) or build(own))
    packed = base.pack(pairs, budget=60)
    for _ in range(2):
        assert np.array_equal(score(Head(base), packed).logprobs, every)
    assert len(built) == 1 + 2 * (len(packed.batches) - 1)


@given(pair_lists)
@settings(max_examples=50)
def test_many_pairs_are_sorted_as_few(pairs):
    """By all their tokens, and equal ones in their order; also where parts are a few pairs."""
    expected = sorted(range(len(pairs)), key=lambda index: pairs[index].tokens)
    with mock.patch.multiple(packing, SORTED=2, KEY=2):
        found = [n for batch in batch_indices(pairs, "forest", 10_000) for n in batch]
    assert found == expected


def test_done_gets_every_batch_of_scores():
    base, pairs = tiny_base("llama"), random_pairs()
    collected = np.zeros(len(pairs))
    calls = []

    def done(indices, scored):
        calls.append(indices)
        collected[indices] = scored.logprobs

    scored = score(Head(base), pairs, budget=60, done=done)
    assert len(calls) > 2
    assert np.array_equal(collected, scored.logprobs)
