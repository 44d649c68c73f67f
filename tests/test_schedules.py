"""Epochs and schedules of the learning rate: against plain loops, and the law of snapshots."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import adapter, right_and_wrong, tiny_base, tiny_model, tiny_with_words
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from test_training import PAIRS
from transformers import set_seed

from likra.engine.logprobs import answer_logprobs
from likra.engine.tokens import encode
from likra.errors import LikraError
from likra.heads.lora import Head
from likra.heads.preference import train_objective
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.train import train_head
from likra.heads.trl import train_baseline
from likra.study.config import parse_study

LINEAR = TrainingSettings(
    learning_rate=1e-2, batch_size=4, epochs=2, lr_scheduler_type="linear", warmup_ratio=0.3
)


def by_hand(
    pairs, rates: list[float], start: Path | None = None, **lora
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """AdamW on a PEFT model in a plain loop over batches of 4, pair by pair, at these rates.

    Returns the loss of each step, and the weights of the adapter.
    """
    config = LoraConfig(
        r=8, lora_alpha=8, target_modules=["gate_proj", "up_proj", "down_proj"], **lora
    )
    model = tiny_model("llama")
    set_seed(0)
    if start is None:
        head = get_peft_model(model, config)
    else:
        head = PeftModel.from_pretrained(model, str(start), is_trainable=True)
    own = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(own, weight_decay=0.0)
    batches = [pairs[start : start + 4] for start in range(0, len(pairs), 4)]
    losses = []
    for step, rate in enumerate(rates):
        batch = batches[step % len(batches)]
        total = torch.zeros(())
        for pair in batch:
            logits = head(input_ids=torch.tensor([pair.tokens])).logits[0].log_softmax(-1)
            first = len(pair.context)
            for place, token in enumerate(pair.continuation, start=first - 1):
                total = total - logits[place, token]
        loss = total / sum(len(pair.continuation) for pair in batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)  # as the Trainer does
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: w.detach() for name, w in get_peft_model_state_dict(head).items()}


def test_two_epochs_of_a_linear_schedule_with_warm_up_are_a_plain_loop(tmp_path):
    """11 pairs in batches of 4 are 3 steps an epoch, 6 in all; the first 0.3 of them, 2, warm up:
    0, 1/2, then from 1 down by quarters."""
    folder, losses = tmp_path / "head", tmp_path / "losses.csv"
    found = train_head(tiny_base("llama"), PAIRS[:11], {11: folder}, settings=LINEAR, losses=losses)
    rates = [1e-2 * part for part in (0, 1 / 2, 1, 3 / 4, 1 / 2, 1 / 4)]
    expected, weights = by_hand(PAIRS[:11], rates)
    assert found == pytest.approx(expected, abs=1e-4)
    saved = load_file(folder / "adapter_model.safetensors")
    assert set(saved) == set(weights)
    for name, weight in saved.items():
        torch.testing.assert_close(weight, weights[name], atol=2e-4, rtol=1e-3)
    assert len(losses.read_text().splitlines()) == 1 + 6


def shown_steps(monkeypatch) -> list[float]:
    """The learning rate of each step that any trainer takes."""
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def recording(optimizer, *arguments, **named):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    return rates


def test_each_snapshot_of_a_schedule_has_the_whole_schedule(tmp_path, monkeypatch):
    """Half a cosine over the 1, 2 and 3 steps of each run; 6 is no whole number of batches."""
    rates = shown_steps(monkeypatch)
    settings = TrainingSettings(learning_rate=1.0, batch_size=4, lr_scheduler_type="cosine")
    folders = {n: tmp_path / f"n={n}" for n in (4, 6, 12)}
    losses = train_head(tiny_base("llama"), PAIRS, folders, settings=settings)
    steps = [(step, total) for total in (1, 2, 3) for step in range(total)]
    expected = [(1 + math.cos(math.pi * step / total)) / 2 for step, total in steps]
    assert rates == pytest.approx(expected)
    assert len(losses) == 3


@pytest.mark.parametrize("changes", [{"epochs": 2}, {"lr_scheduler_type": "linear"}])
def test_a_snapshot_equals_a_run_on_the_first_n(tmp_path, changes):
    base, settings = tiny_base("llama"), TrainingSettings(batch_size=4, **changes)
    folders = {n: tmp_path / f"n={n}" for n in (8, 10)}
    train_head(base, PAIRS, folders, settings=settings)
    train_head(base, PAIRS[:8], {8: tmp_path / "short"}, settings=settings)
    assert adapter(folders[8]) == adapter(tmp_path / "short")
    train_head(base, PAIRS[:8], {8: tmp_path / "plain"}, settings=TrainingSettings(batch_size=4))
    assert adapter(folders[8]) != adapter(tmp_path / "plain")


def dpo_by_both(
    folder: Path, settings: TrainingSettings, snapshots: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """The losses of DPO on the forest, and of TRL's; the heads are in ``own n`` and ``trl n``."""
    base = tiny_with_words()
    right, wrong = right_and_wrong()
    sides = [encode(base.tokenizer, side, base.max_length) for side in (right, wrong)]
    own = train_objective(
        base,
        "dpo",
        list(zip(*sides, strict=True)),
        {n: folder / f"own {n}" for n in snapshots},
        settings=settings,
        beta=0.1,
        name=None,
    )
    trls = train_baseline(
        base,
        "trl-dpo",
        right,
        wrong,
        {n: folder / f"trl {n}" for n in snapshots},
        settings=settings,
        lora=LoraSettings(),
        seed=0,
        name=None,
    )
    return own, trls


def assert_close_heads(folder: Path, n: int, atol: float, rtol: float) -> None:
    ours, theirs = (
        load_file(folder / f"{who} {n}" / "adapter_model.safetensors") for who in ("own", "trl")
    )
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=atol, rtol=rtol)


def test_other_methods_take_the_same_epochs_and_schedules(tmp_path):
    """DPO of likra and of TRL, on 6 and on 12 questions: the same losses in both epochs."""
    own, trls = dpo_by_both(tmp_path, LINEAR, (6, 12))
    assert len(own) == 6
    assert own == pytest.approx(trls, abs=1e-4)
    assert own[0] == pytest.approx(math.log(2), abs=1e-5)
    for n in (6, 12):
        assert_close_heads(tmp_path, n, atol=2e-3, rtol=1e-2)


# --------------------------------------------------------------------------------------------
# Early stopping


def losses_aside(base, trained, aside, epochs: int, rate: float, folder: Path) -> list[float]:
    """The loss on the pairs set aside after 1, 2 ... epochs, each of a training of its own."""
    found = []
    for n in range(1, epochs + 1):
        settings = TrainingSettings(learning_rate=rate, batch_size=4, epochs=n)
        train_head(base, trained, {len(trained): folder / f"{n} epochs"}, settings=settings)
        with Head(base, folder / f"{n} epochs").on() as model, torch.no_grad():
            scores = answer_logprobs(model, base.batch(aside, "padded"))
        found.append(-float(scores.sum()) / sum(len(pair.continuation) for pair in aside))
    return found


@pytest.mark.parametrize(("rate", "patience"), [(1e-3, 1), (0.1, 1), (0.03, 2)])
def test_early_stopping_keeps_the_head_of_the_best_epoch(tmp_path, rate, patience):
    """Of 12 pairs 3 are set aside; 9 in batches of 4 are 3 steps an epoch."""
    base, epochs = tiny_base("llama"), 5
    aside = losses_aside(base, PAIRS[:9], PAIRS[9:12], epochs, rate, tmp_path)
    best, stop = 0, epochs
    for epoch, loss in enumerate(aside):
        if loss < aside[best]:
            best = epoch
        if epoch - best == patience:
            stop = epoch + 1
            break
    assert (stop == epochs) == (rate == 1e-3)  # both kinds of end are tried
    settings = TrainingSettings(
        learning_rate=rate,
        batch_size=4,
        epochs=epochs,
        early_stopping_patience=patience,
        set_aside=0.25,
    )
    file = tmp_path / "losses.csv"
    losses = train_head(base, PAIRS, {12: tmp_path / "head"}, settings=settings, losses=file)
    assert len(losses) == 3 * stop == len(file.read_text().splitlines()) - 1
    assert adapter(tmp_path / "head") == adapter(tmp_path / f"{best + 1} epochs")


def test_other_methods_stop_early_as_trl_does(tmp_path):
    settings = TrainingSettings(
        learning_rate=0.1, batch_size=4, epochs=6, early_stopping_patience=1, set_aside=0.3
    )
    own, trls = dpo_by_both(tmp_path, settings, (12,))
    assert len(own) == len(trls) < 6 * 2  # 8 of 12 questions are trained on
    assert own == pytest.approx(trls, abs=1e-3)
    assert_close_heads(tmp_path, 12, atol=2e-2, rtol=1e-1)


def test_nothing_left_to_train_on_is_an_error(tmp_path):
    settings = TrainingSettings(batch_size=4, epochs=2, early_stopping_patience=1, set_aside=0.9)
    with pytest.raises(LikraError, match=r"of 1 examples, 0\.9 set aside leaves none to train on"):
        train_head(tiny_base("llama"), PAIRS, {1: tmp_path / "head"}, settings=settings)


# --------------------------------------------------------------------------------------------
# Stamps and bad values


def test_settings_that_came_later_are_in_a_stamp_only_where_they_are_set():
    """The stamps of runs from before they were there must stay valid."""
    assert set(TrainingSettings(learning_rate=1.0).stamped()) == {
        "learning_rate",
        "batch_size",
        "gradient_accumulation_steps",
    }
    assert set(LoraSettings(r=8).stamped()) == {"r", "alpha", "dropout", "target_modules"}
    changed = LINEAR.stamped()
    assert (changed["epochs"], changed["lr_scheduler_type"]) == (2, "linear")
    assert changed["warmup_ratio"] == 0.3
    json.dumps(changed)


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"epochs": 0}, "'training.epochs': input should be greater than or equal to 1"),
        (
            {"lr_scheduler_type": "linaer"},
            "unknown training.lr_scheduler_type 'linaer': did you mean 'linear'?",
        ),
        ({"warmup_ratio": 0.1}, "training.warmup_ratio needs a schedule that warms up"),
        (
            {"warmup_ratio": 1, "lr_scheduler_type": "linear"},
            "'training.warmup_ratio': input should be less than 1",
        ),
        ({"early_stopping_patience": 2}, "training.early_stopping_patience is for several epochs"),
        ({"set_aside": 0.2, "epochs": 2}, "set training.early_stopping_patience"),
        ({"set_aside": 1.0}, "'training.set_aside': input should be less than 1"),
    ],
)
def test_bad_values_are_named(training, words):
    with pytest.raises(LikraError, match=words):
        parse_study({"name": "small", "training": training})
