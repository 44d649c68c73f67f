"""Heads: the base is untouched, the head is not; snapshots, seeds, layouts and stamps."""

import hashlib
import json
import logging
import random
import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import show_two_gpus, tiny_base, tiny_model
from peft import PeftModel
from safetensors.torch import load_file

from likra.engine.tokens import TokenPair
from likra.errors import LikraError, NotFiniteError
from likra.heads.base import weights_digest
from likra.heads.lora import Head, fresh_head
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.stamp import read_stamp
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
    with pytest.raises(NotFiniteError, match="the loss became nan at step 1"):
        train(base, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_score_that_is_no_number_is_said():
    base = tiny_base("llama")
    base.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="the log-likelihood of answer 0 is nan"):
        score(Head(base), PAIRS)


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


# --------------------------------------------------------------------------------------------
# Losses and stamps


def test_the_losses_are_there_before_the_last_snapshot(tmp_path, monkeypatch):
    """A kill between the two would leave a training that looks complete, without its losses."""
    from likra.heads import train as module

    losses, save = tmp_path / "losses.csv", module.save_head

    def killed_at_the_last(head, folder, *stamp):
        assert losses.exists() == (folder.name == "n=12")
        if folder.name == "n=12":
            raise KeyboardInterrupt
        save(head, folder, *stamp)

    monkeypatch.setattr(module, "save_head", killed_at_the_last)
    folders = {n: tmp_path / f"n={n}" for n in (4, 8, 12)}
    with pytest.raises(KeyboardInterrupt):
        train_head(tiny_base("llama"), PAIRS, folders, settings=SETTINGS, losses=losses)
    lines = losses.read_text().splitlines()
    assert lines[0] == "step,loss"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.csv", "n=4", "n=8"]


STAMP = {"inputs": {"base": "abc", "n": 12}, "versions": {"likra": "1"}}


@pytest.fixture
def stamped(tmp_path) -> Path:
    """A head with a stamp."""
    folder = tmp_path / "stamped"
    snapshots, stamps = {8: tmp_path / "early", 12: folder}, {12: STAMP}
    losses = tmp_path / "losses.csv"
    train_head(
        tiny_base("llama"), PAIRS, snapshots, settings=SETTINGS, stamps=stamps, losses=losses
    )
    return folder


def test_a_stamp_is_read_back_with_the_digests_of_the_files(stamped):
    stamp = read_stamp(stamped)
    config = hashlib.sha256((stamped / "adapter_config.json").read_bytes()).hexdigest()
    losses = hashlib.sha256((stamped.parent / "losses.csv").read_bytes()).hexdigest()
    digests = {"config": config, "weights": stamp["weights"], "losses": losses}
    assert stamp == {**STAMP, **digests}
    assert set(read_stamp(stamped.with_name("early"))) == {"config", "weights"}


def test_a_stamp_is_written_in_one_order_and_the_tensors_stay_aligned(stamped):
    content = (stamped / "adapter_model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    assert list(metadata) == ["format", "likra"]
    assert metadata["format"] == "pt"
    assert metadata["likra"] == json.dumps(json.loads(metadata["likra"]), sort_keys=True)
    assert length % 8 == 0


def test_a_stamped_head_is_a_head_to_the_libraries(stamped, caplog):
    base = tiny_base("llama")
    expected = score(Head(base, stamped), PAIRS).logprobs
    assert abs(expected - score(Head(base), PAIRS).logprobs).min() > 0.01  # nats
    by_transformers = tiny_model("llama")
    with caplog.at_level(logging.WARNING):
        by_peft = PeftModel.from_pretrained(tiny_model("llama"), str(stamped)).eval()
        by_transformers.load_adapter(str(stamped))
    assert not caplog.records
    for model in (by_peft, by_transformers):
        scores = score(Head(replace(base, model=model)), PAIRS).logprobs
        assert scores == pytest.approx(expected, abs=1e-6)


def test_an_edited_config_is_caught(stamped):
    path = stamped / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    with pytest.raises(LikraError, match=r"adapter_config.json' was changed after training"):
        read_stamp(stamped)


@pytest.mark.parametrize("place", [-1, -1000])
def test_changed_weights_are_caught(stamped, place):
    path = stamped / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(LikraError, match=r"safetensors' was changed after training"):
        read_stamp(stamped)


def test_weights_under_other_names_are_caught(stamped):
    path = stamped / "adapter_model.safetensors"
    first, second, other = (b"layers.%d.mlp.up_proj.lora_A" % n for n in (0, 1, 9))
    content = path.read_bytes().replace(first, other).replace(second, first)
    path.write_bytes(content.replace(other, second))
    with pytest.raises(LikraError, match="was changed after training"):
        read_stamp(stamped)


@pytest.mark.parametrize("length", [0, 5, 200])
def test_a_damaged_file_has_no_stamp(stamped, length):
    path = stamped / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LikraError, match="cannot read the head in"):
        read_stamp(stamped)


def test_a_head_without_a_stamp_is_refused(tmp_path):
    with fresh_head(tiny_base("llama"), LoraSettings(), seed=0) as head:
        head.save_pretrained(str(tmp_path))
    with pytest.raises(LikraError, match="was not written by likra, or by an older version"):
        read_stamp(tmp_path)
    with pytest.raises(LikraError, match="there is no adapter_config.json"):
        read_stamp(tmp_path / "nowhere")


def test_a_full_disk_is_one_line(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    base = tiny_base("llama")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(LikraError, match="cannot write the head to '.*n=12'"):
            train(base, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    train(base, tmp_path)


# --------------------------------------------------------------------------------------------
# Where training would go wrong


def test_float16_is_scored_but_not_trained(tmp_path):
    base = tiny_base("llama")
    base.model.to(torch.float16)
    with pytest.raises(LikraError, match="training in float16 is not supported: choose bfloat16"):
        train(base, tmp_path)
    assert len(score(Head(base), PAIRS).logprobs) == len(PAIRS)


def test_several_gpus_do_not_make_several_models(tmp_path, monkeypatch):
    base = tiny_base("llama")
    alone, _ = train(base, tmp_path / "one")
    show_two_gpus(monkeypatch)
    losses, _ = train(base, tmp_path / "two")
    assert losses == alone


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WORLD_SIZE", "2", "2 processes were started together"),
        ("OMPI_COMM_WORLD_SIZE", "4", "4 processes were started together"),
        ("ACCELERATE_USE_FSDP", "true", "FSDP is not supported"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed is not supported"),
    ],
)
def test_processes_that_do_not_train_together_are_refused(
    tmp_path, monkeypatch, name, value, words
):
    monkeypatch.setenv(name, value)
    with pytest.raises(LikraError, match=words):
        train(tiny_base("llama"), tmp_path)
    assert not list(tmp_path.iterdir())
