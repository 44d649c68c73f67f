"""What is done where memory does not hold a pass: a model that is said to be too large for it."""

import numpy as np
import pytest
import torch
from conftest import nats, tiny_base
from hypothesis import given, settings
from test_forest import pair_lists, random_pairs

from likra.engine.memory import halves, token_budget
from likra.engine.packing import LAYOUTS, build_forest, unpacked
from likra.engine.tokens import TokenPair
from likra.heads.lora import Head
from likra.heads.preference import train_objective
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.together import Together
from likra.heads.train import train_head

LAYOUT_NAMES = sorted(LAYOUTS)


@pytest.fixture
def held(monkeypatch):
    """Have a base's model take so many tokens at once; counts the tokens of those that it did."""

    def hold(base, limit: int) -> list[int]:
        counts: list[int] = []
        trunk = base.model.base_model
        forward = trunk.forward

        def limited(*arguments, **settings):
            n_tokens = settings["input_ids"].numel()
            if n_tokens > limit:
                raise torch.OutOfMemoryError(f"{n_tokens} tokens")
            counts.append(n_tokens)
            return forward(*arguments, **settings)

        monkeypatch.setattr(trunk, "forward", limited)
        return counts

    return hold


@settings(max_examples=25, deadline=None)
@given(pair_lists)
def test_pairs_are_read_back_from_a_batch(pairs):
    for build in LAYOUTS.values():
        assert unpacked(build(pairs)) == pairs


@settings(max_examples=20, deadline=None)
@given(pair_lists)
def test_halves_hold_all_pairs_in_order(pairs):
    for name, build in LAYOUTS.items():
        parts = halves(build(pairs))
        assert [len(unpacked(part)) for part in parts] == (
            [len(pairs) // 2, -(-len(pairs) // 2)] if len(pairs) > 1 else []
        )
        assert {type(part) for part in parts} <= {type(build(pairs))}, name
        if parts:
            assert [pair for part in parts for pair in unpacked(part)] == pairs


def test_halves_of_several_kinds_have_pairs_of_each():
    right, wrong = ([TokenPair([1, n], [kind]) for n in range(2, 5)] for kind in (7, 8))
    first, second = halves(build_forest([*right, *wrong]), kinds=2)
    assert unpacked(first) == [right[0], wrong[0]]
    assert unpacked(second) == [*right[1:], *wrong[1:]]
    assert halves(build_forest([right[0], wrong[0]]), kinds=2) == []


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_scores_are_the_same_in_parts(layout, held, caplog):
    base, pairs = tiny_base("llama", layout), random_pairs()
    packed = base.pack(pairs)
    whole = score(Head(base), packed, greedy=True)
    done = []
    counts = held(base, 60)
    parts = score(Head(base), packed, greedy=True, done=lambda indices, _: done.append(indices))
    assert parts.logprobs.tolist() == nats(whole.logprobs)
    assert np.array_equal(parts.greedy, whole.greedy)
    assert done == list(packed.indices)
    assert len(counts) > len(packed.batches)
    assert "does not fit into the memory: it is computed in two parts" in caplog.text


def test_what_did_not_fit_is_not_tried_again(held, caplog):
    base, pairs = tiny_base("llama"), random_pairs()
    held(base, 60)
    score(Head(base), pairs)
    n_said = len(caplog.records)
    assert n_said
    assert base.budget == base.room.too_large // 2 < 1024
    score(Head(base), pairs)  # packed for the room that there is
    assert len(caplog.records) == n_said


def test_a_pair_that_does_not_fit_is_an_error(held):
    base = tiny_base("llama")
    held(base, 5)
    with pytest.raises(torch.OutOfMemoryError):
        score(Head(base), random_pairs())


def test_several_heads_in_parts(held):
    base, pairs = tiny_base("llama"), random_pairs()
    heads = Together([Head(base), Head(base)])
    packed = base.pack(pairs)
    whole = heads.token_logprobs(packed)
    held(base, 60)
    for own, expected in zip(heads.token_logprobs(packed), whole, strict=True):
        assert [len(row) for row in own] == [len(pair.continuation) for pair in pairs]
        assert np.concatenate(own).tolist() == nats(np.concatenate(expected))


# --------------------------------------------------------------------------------------------
# Training


TRAINED = {"settings": TrainingSettings(batch_size=8, gradient_accumulation_steps=2, epochs=2)}
TRAINED |= {"lora": LoraSettings(dropout=0.0), "name": None}


def test_a_step_in_parts_trains_the_same_head(held, tmp_path, monkeypatch):
    """Also where memory is full on the way back, after some gradients were added."""
    pairs, losses = random_pairs(8, 1), {}
    for name in ("whole", "there", "back"):
        base = tiny_base("llama")
        if name == "there":
            counts = held(base, 45)
        if name == "back":
            n_ways = fail_on_a_way_back(monkeypatch, base, 2)
        losses[name] = train_head(base, pairs, {8: tmp_path / name}, **TRAINED)
    assert len(counts) >= 2 * 4  # four parts of steps, each in two
    assert len(n_ways) > 4
    assert losses["whole"][0] - losses["whole"][1] > 1e-3  # nats: it learned something
    assert losses["there"] == nats(losses["whole"])
    assert losses["back"] == nats(losses["whole"])


def fail_on_a_way_back(monkeypatch, base, number: int) -> list[int]:
    """Have memory be full when gradients reach the first layer for that time; counts the times."""
    layer, ways = base.model.model.layers[0], []
    forward = layer.forward

    def full(gradient):
        ways.append(1)
        if len(ways) == number:
            raise torch.OutOfMemoryError("on the way back")

    def hooked(*arguments, **settings):
        output = forward(*arguments, **settings)
        if output.requires_grad:
            output.register_hook(full)
        return output

    monkeypatch.setattr(layer, "forward", hooked)
    return ways


def test_an_objective_in_parts_keeps_the_answers_to_a_question_together(held, tmp_path):
    pairs = random_pairs(8, 2)
    examples = [pairs[n : n + 2] for n in range(0, 16, 2)]
    losses, counts = [], []
    for limit in (10_000, 60):
        base = tiny_base("llama")
        counts.append(held(base, limit))
        losses.append(train_objective(base, "dpo", examples, {8: tmp_path / "head"}, **TRAINED))
    assert len(counts[1]) > len(counts[0])
    assert losses[0][0] - losses[0][1] > 1e-3
    assert losses[1] == nats(losses[0])


def test_questions_that_are_compared_are_not_divided(held, tmp_path):
    pairs = random_pairs(8, 2)
    examples = [pairs[n : n + 2] for n in range(0, 16, 2)]
    base = tiny_base("llama")
    held(base, 100)
    with pytest.raises(torch.OutOfMemoryError):
        train_objective(base, "kto", examples, {8: tmp_path / "head"}, **TRAINED)


# --------------------------------------------------------------------------------------------
# The budget


@pytest.mark.parametrize(
    ("free", "cached", "dense", "sparse"),
    [
        (0, 0, 1024, 1024),
        (2 * 2**30, 0, 4096, 4096),  # of half a MiB each
        (3 * 2**30, 0, 4096, 4096),
        (3 * 2**30, 2**30, 8192, 8192),
        (12 * 2**30, 0, 8192, 16384),
        (140 * 2**30, 0, 8192, 32768),
    ],
)
def test_free_memory_decides_on_cuda(free, cached, dense, sparse, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 200 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * 2**30 + cached)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5 * 2**30)
    assert token_budget("cuda") == dense
    assert token_budget("cuda", sparse=True) == sparse


def test_other_devices_have_their_number():
    assert token_budget("cpu") == token_budget("cpu", sparse=True) == 1024
