"""Heads: the base is untouched, the head is not; snapshots, seeds and layouts."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_base
from safetensors.torch import load_file

from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import weights_digest
from likra.heads.lora import Head, fresh_head
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.train import train_head


def some_pairs(n: int = 12) -> list[TokenPair]:
    draw = random.Random(2)
    return [
        TokenPair([1, *draw.choices(range(3, 20), k=6)], draw.choices(range(3, 9), k=3))
        for _ in range(n)
    ]


PAIRS = some_pairs()
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=4)


def train(base, folder: Path, snapshots=(12,), pairs=PAIRS, seed=0, settings=SETTINGS, **lora):
    folders = {n: folder / f"n={n}" for n in snapshots}
    shape = LoraSettings(**lora)
    return train_head(base, pairs, folders, settings=settings, lora=shape, seed=seed), folders


def adapter(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_the_base_comes_back_bit_identical_and_the_head_did_change(kind, tmp_path):
    base = tiny_base(kind)
    before, scores = weights_digest(base.model), score(Head(base), PAIRS).logprobs
    losses, folders = train(base, tmp_path)
    assert weights_digest(base.model) == before
    assert (score(Head(base), PAIRS).logprobs == scores).all()
    assert not base.model.training
    assert losses[-1] < losses[0]
    head = Head(base, folders[12])
    assert abs(score(head, PAIRS).logprobs - scores).min() > 0.01  # nats
    assert weights_digest(base.model) == before
    assert (score(Head(base), PAIRS).logprobs == scores).all()


def test_a_fresh_head_scores_as_the_base():
    base = tiny_base("llama")
    scores = score(Head(base), PAIRS).logprobs
    with fresh_head(base, LoraSettings(), seed=0):
        assert (score(Head(base), PAIRS).logprobs == scores).all()


def test_a_snapshot_equals_a_run_on_the_first_n(tmp_path):
    base = tiny_base("llama")
    _, long = train(base, tmp_path / "long", snapshots=(4, 8, 12))
    _, short = train(base, tmp_path / "short", snapshots=(8,), pairs=PAIRS[:8])
    assert adapter(long[8]) == adapter(short[8])
    assert adapter(long[8]) != adapter(long[12])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    base = tiny_base("llama")
    first, second, other = (
        train(base, tmp_path / name, seed=seed)[1][12]
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert adapter(first) == adapter(second)
    assert adapter(first) != adapter(other)
    names = [sorted(path.name for path in folder.iterdir()) for folder in (first, second)]
    assert names[0] == names[1] == ["adapter_config.json", "adapter_model.safetensors"]


def test_forest_and_padded_rows_have_the_same_losses(tmp_path):
    base = tiny_base("llama")
    forest, _ = train(base, tmp_path / "forest")
    plain, _ = train(replace(base, layout="padded"), tmp_path / "padded")
    assert forest == pytest.approx(plain, abs=1e-4)
    assert len(forest) == 3


def test_the_first_loss_is_the_bases_mean_loss_per_answer_token(tmp_path):
    """Full-vocabulary cross-entropy over all answer tokens of the batch, computed apart."""
    base = tiny_base("llama")
    total, count = 0.0, 0
    for pair in PAIRS[:4]:
        ids = torch.tensor([pair.context + pair.continuation])
        labels = ids.clone()
        labels[:, : len(pair.context)] = -100
        n = len(pair.continuation)
        total += base.model(input_ids=ids, labels=labels).loss.item() * n
        count += n
    losses, _ = train(base, tmp_path)
    assert losses[0] == pytest.approx(total / count, abs=1e-4)


def test_accumulated_parts_of_a_batch_are_the_batch(tmp_path):
    """With answers of different lengths, the mean of means would be another loss."""
    draw = random.Random(5)
    pairs = [TokenPair([1, 2, 3], draw.choices(range(3, 9), k=1 + i % 4)) for i in range(8)]
    base = tiny_base("llama")
    whole, _ = train(base, tmp_path / "whole", (8,), pairs)
    parts = SETTINGS.model_copy(update={"gradient_accumulation_steps": 4})
    divided, _ = train(base, tmp_path / "divided", (8,), pairs, settings=parts)
    assert divided == pytest.approx(whole, abs=1e-4)


def test_adapters_are_float32_also_on_a_bf16_base(tmp_path):
    base = tiny_base("llama")
    base.model.to(torch.bfloat16)
    _, folders = train(base, tmp_path)
    weights = load_file(folders[12] / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        ((16,), "a snapshot at 16 examples needs as many training questions, and there are 12"),
        ((6, 12), "a snapshot at 6 examples falls within a batch of 4"),
    ],
)
def test_snapshots_that_cannot_be(tmp_path, snapshots, words):
    with pytest.raises(LikraError, match=words):
        train(tiny_base("llama"), tmp_path, snapshots)
    assert not list(tmp_path.iterdir())


def test_unknown_layers_are_refused_and_the_base_stays_usable(tmp_path):
    base = tiny_base("llama")
    before = weights_digest(base.model)
    with pytest.raises(LikraError, match="no head fits 'llama'"):
        train(base, tmp_path, target_modules="nonsense")
    assert weights_digest(base.model) == before
    train(base, tmp_path)


def test_a_model_without_mlp_says_which_layers_it_has(tmp_path):
    with pytest.raises(LikraError, match=r"it has .*in_proj"):
        train(tiny_base("mamba", "padded"), tmp_path)


def test_a_loss_that_is_no_number_is_said(tmp_path):
    base = tiny_base("llama")
    base.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(LikraError, match="the loss became nan at step 1"):
        train(base, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_score_that_is_no_number_is_said():
    base = tiny_base("llama")
    base.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(LikraError, match="the log-likelihood of answer 0 is nan"):
        score(Head(base), PAIRS).logprobs


def test_a_damaged_head_is_named_and_the_base_stays_usable(tmp_path):
    base = tiny_base("llama")
    scores, before = score(Head(base), PAIRS).logprobs, weights_digest(base.model)
    _, folders = train(base, tmp_path)
    file = folders[12] / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with (
        pytest.raises(LikraError, match=r"cannot read the head in '.*n=12'"),
        Head(base, folders[12]).on(),
    ):
        pass
    assert weights_digest(base.model) == before
    assert (score(Head(base), PAIRS).logprobs == scores).all()
    train(base, tmp_path / "again")


def test_a_folder_without_a_head_is_named(tmp_path):
    with (
        pytest.raises(LikraError, match="there is no adapter_config.json"),
        Head(tiny_base("llama"), tmp_path).on(),
    ):
        pass


def test_gpt2_heads_are_on_the_mlp_alone(tmp_path):
    """GPT-2's attention has a layer of the same name as its MLP."""
    _, folders = train(tiny_base("gpt2"), tmp_path)
    names = load_file(folders[12] / "adapter_model.safetensors")
    assert names
    assert all(".mlp." in name for name in names)
