"""The baselines: TRL trains on likra's tokens, in order, and leaves nothing behind."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import adapter, right_and_wrong, show_two_gpus, state, tiny_with_words
from safetensors.torch import load_file

from likra.data.load import load_task
from likra.engine.tokens import TokenPair, encode
from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.heads.lora import Head
from likra.heads.score import score
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.stamp import read_stamp
from likra.heads.train import train_head
from likra.heads.trl import METHODS, train_baseline
from likra.questions import Choice
from likra.scores.table import BY_TRL

BETA = 0.3
SETTINGS = TrainingSettings(learning_rate=1e-2, batch_size=4)
FIRST_LOSSES = {
    "trl-dpo": math.log(2),
    "trl-nca": 2 * math.log(2),
    "trl-kto": 0.5,
}  # nothing learnt yet


RIGHT, WRONG = right_and_wrong()


def train(
    base: BaseModel, method: str, folder: Path, snapshots=(12,), n=None, seed=0, **settings
) -> tuple[list[float], dict[int, Path]]:
    folders = {end: folder / f"n={end}" for end in snapshots}
    losses = train_baseline(
        base,
        method,
        RIGHT[:n],
        WRONG[:n],
        folders,
        settings=SETTINGS.model_copy(update=settings),
        lora=LoraSettings(),
        seed=seed,
        beta=BETA,
        name=method,
    )
    return losses, folders


def pairs_of(base: BaseModel, answers: list[Choice]) -> list[TokenPair]:
    return encode(base.tokenizer, answers, base.max_length)


def test_the_baselines_are_those_of_the_score_table():
    assert tuple(METHODS) == BY_TRL


# --------------------------------------------------------------------------------------------
# Nothing is left behind


@pytest.mark.parametrize("method", METHODS)
def test_the_base_comes_back_and_only_the_head_is_written(
    method, tmp_path, capfd, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    base = tiny_with_words()
    pairs = pairs_of(base, RIGHT)
    before, scores = state(base), score(Head(base), pairs).logprobs
    losses, folders = train(base, method, tmp_path)
    assert state(base) == before
    assert (score(Head(base), pairs).logprobs == scores).all()
    assert len(losses) == 3
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert files == ["n=12/adapter_config.json", "n=12/adapter_model.safetensors"]
    head = Head(base, folders[12])
    assert abs(score(head, pairs).logprobs - scores).min() > 0.001  # nats
    assert state(base) == before
    shown = capfd.readouterr()
    assert not shown.out
    lines = [line for line in shown.err.replace("\r", "\n").splitlines() if line.strip()]
    assert all(line.startswith(f"train {method}: ") for line in lines)  # the progress
    assert not caplog.records


def test_nothing_is_sent_to_the_hub(tmp_path, monkeypatch):
    from trl.trainer import base_trainer

    def tell(**_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(base_trainer, "send_telemetry", tell)
    train(tiny_with_words(), "trl-dpo", tmp_path)


def test_a_head_has_the_weights_of_one_adapter_and_the_settings_of_a_head_of_likra(tmp_path):
    base = tiny_with_words()
    train_head(base, pairs_of(base, RIGHT), {12: tmp_path / "own"}, settings=SETTINGS)
    _, folders = train(base, "trl-dpo", tmp_path)
    heads = (tmp_path / "own", folders[12])
    weights = [load_file(head / "adapter_model.safetensors") for head in heads]
    shapes, trls_shapes = ({name: w.shape for name, w in head.items()} for head in weights)
    assert shapes == trls_shapes
    config, trls_config = ((head / "adapter_config.json").read_bytes() for head in heads)
    assert config == trls_config


# --------------------------------------------------------------------------------------------
# The losses are what they should be


@pytest.mark.parametrize("method", METHODS)
def test_the_models_input_is_likras_tokens_in_order(method, tmp_path):
    base = tiny_with_words()
    seen: list[torch.Tensor] = []
    handle = base.model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].clone())
    )
    train(base, method, tmp_path, snapshots=(4,))
    handle.remove()
    right, wrong = (
        [pair.context + pair.continuation for pair in pairs_of(base, answers[:4])]
        for answers in (RIGHT, WRONG)
    )
    expected = right if method == "trl-sft" else right + wrong
    # KTO's first pass is over prompts with answers that are not theirs.
    rows = seen[1 if method == "trl-kto" else 0].tolist()
    assert [row[: len(tokens)] for row, tokens in zip(rows, expected, strict=True)] == expected
    padding = [row[len(tokens) :] for row, tokens in zip(rows, expected, strict=True)]
    assert {token for row in padding for token in row} <= {base.tokenizer.eos_token_id}
    reference = seen[-1].tolist()
    assert reference == rows


@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # GPT-2 has dropout
@pytest.mark.parametrize("method", FIRST_LOSSES)
def test_the_first_loss_is_that_of_a_head_equal_to_the_base(method, kind, tmp_path):
    losses, _ = train(tiny_with_words(kind), method, tmp_path)
    assert losses[0] == pytest.approx(FIRST_LOSSES[method], abs=1e-6)


def test_the_first_sft_loss_is_the_bases_mean_loss_per_answer_token(tmp_path):
    """Full-vocabulary cross-entropy over all answer tokens of the batch, computed apart."""
    base = tiny_with_words()
    total, count = 0.0, 0
    for pair in pairs_of(base, RIGHT[:4]):
        ids = torch.tensor([pair.context + pair.continuation])
        labels = ids.clone()
        labels[:, : len(pair.context)] = -100
        n = len(pair.continuation)
        total += base.model(input_ids=ids, labels=labels).loss.item() * n
        count += n
    losses, _ = train(base, "trl-sft", tmp_path)
    assert losses[0] == pytest.approx(total / count, abs=1e-4)


def test_trls_sft_is_a_positive_head(tmp_path):
    """All that both trainers have in common: rate, schedule, decay, batches, initialisation."""
    base = tiny_with_words()
    pairs = pairs_of(base, RIGHT)
    own = train_head(base, pairs, {12: tmp_path / "own"}, settings=SETTINGS, seed=3)
    losses, folders = train(base, "trl-sft", tmp_path, seed=3)
    assert losses == pytest.approx(own, abs=1e-4)
    heads = (Head(base, folder) for folder in (tmp_path / "own", folders[12]))
    scores = [score(head, pairs).logprobs for head in heads]
    assert scores[0] == pytest.approx(scores[1], abs=1e-2)


def log_ratios(base: BaseModel, folder: Path, pairs: list[TokenPair]) -> torch.Tensor:
    """log p(answer | head) - log p(answer | base), by likra's own engine."""
    reference = score(Head(base), pairs).logprobs
    return torch.tensor(score(Head(base, folder), pairs).logprobs - reference)


def expected_loss(method: str, base: BaseModel, folder: Path) -> float:
    """The mean loss of questions 4 to 7 under a head.

    Formulas: DPO arXiv:2305.18290, eq. 7; NCA arXiv:2402.05369, for a pair; KTO arXiv:2402.01306,
    eq. 7 and 8.
    """
    right, wrong = (pairs_of(base, answers[4:8]) for answers in (RIGHT, WRONG))
    good, bad = (BETA * log_ratios(base, folder, pairs) for pairs in (right, wrong))
    log_sigmoid = torch.nn.functional.logsigmoid
    if method == "trl-dpo":
        losses = -log_sigmoid(good - bad)
    elif method == "trl-nca":
        losses = -log_sigmoid(good) - 0.5 * log_sigmoid(-good) - 0.5 * log_sigmoid(-bad)
    else:
        rows = right + wrong
        mismatched = [
            TokenPair(row.context, other.continuation)
            for row, other in zip(rows, [rows[-1], *rows[:-1]], strict=True)
        ]
        assert not set(map(str, mismatched)) & set(map(str, rows))
        divergence = BETA * log_ratios(base, folder, mismatched).mean().clamp(min=0)
        losses = 1 - torch.cat([good - divergence, divergence - bad]).sigmoid()
    return float(losses.mean())


@pytest.mark.parametrize("method", FIRST_LOSSES)
def test_the_second_loss_is_its_formula_on_scores_under_the_first_snapshot(method, tmp_path):
    base = tiny_with_words()
    losses, folders = train(base, method, tmp_path, snapshots=(4, 8))
    assert abs(losses[1] - losses[0]) > 1e-3
    assert losses[1] == pytest.approx(expected_loss(method, base, folders[4]), abs=1e-4)


@pytest.mark.parametrize("method", ["trl-dpo", "trl-sft"])
def test_accumulated_parts_of_a_batch_are_the_batch(method, tmp_path):
    base = tiny_with_words()
    whole, _ = train(base, method, tmp_path / "whole")
    parts, _ = train(base, method, tmp_path / "parts", gradient_accumulation_steps=2)
    assert parts == pytest.approx(whole, abs=1e-4)


# --------------------------------------------------------------------------------------------
# Snapshots, seeds, precision


@pytest.mark.parametrize("method", METHODS)
def test_a_snapshot_equals_a_run_on_the_first_n(method, tmp_path):
    base = tiny_with_words()
    _, long = train(base, method, tmp_path / "long", snapshots=(4, 8, 10))
    _, short = train(base, method, tmp_path / "short", snapshots=(8,), n=8)
    assert adapter(long[8]) == adapter(short[8])
    assert len({adapter(folder) for folder in long.values()}) == 3


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(method, tmp_path):
    first, second, other = (
        train(tiny_with_words("gpt2"), method, tmp_path / name, seed=seed)[1][12]
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert adapter(first) == adapter(second)
    assert adapter(first) != adapter(other)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_are_float32_also_on_a_bf16_base_of_any_layout(method, tmp_path):
    base = replace(tiny_with_words(), layout="padded")
    base.model.to(torch.bfloat16)
    losses, folders = train(base, method, tmp_path)
    weights = load_file(folders[12] / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert losses[0] == pytest.approx(FIRST_LOSSES.get(method, losses[0]), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_several_gpus_do_not_make_several_models(method, tmp_path, monkeypatch):
    alone, _ = train(tiny_with_words(), method, tmp_path / "one", snapshots=(4,))
    show_two_gpus(monkeypatch)
    losses, _ = train(tiny_with_words(), method, tmp_path / "two", snapshots=(4,))
    assert losses == alone


def test_a_baseline_has_a_stamp_and_its_losses(tmp_path):
    folder, path = tmp_path / "n=12", tmp_path / "losses.csv"
    losses = train_baseline(
        tiny_with_words(),
        "trl-dpo",
        RIGHT,
        WRONG,
        {12: folder},
        settings=SETTINGS,
        lora=LoraSettings(),
        seed=0,
        name=None,
        stamps={12: {"inputs": {"beta": 0.1}}},
        losses=path,
    )
    assert read_stamp(folder)["inputs"] == {"beta": 0.1}
    lines = path.read_text().splitlines()
    assert [float(line.split(",")[1]) for line in lines[1:]] == losses


# --------------------------------------------------------------------------------------------
# What is refused


def test_float16_is_not_trained(tmp_path):
    base = tiny_with_words()
    base.model.to(torch.float16)
    with pytest.raises(LikraError, match="training in float16 is not supported"):
        train(base, "trl-dpo", tmp_path)


def test_an_unknown_method_is_named_with_the_nearest(tmp_path):
    with pytest.raises(LikraError, match="unknown baseline 'trl-dpoo': did you mean 'trl-dpo'"):
        train(tiny_with_words(), "trl-dpoo", tmp_path)


def test_without_trl_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(LikraError, match=r"needs trl: pip install 'likra\[trl\]'"):
        train(tiny_with_words(), "trl-dpo", tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_no_number_is_said(method, tmp_path):
    base = tiny_with_words()
    base.model.lm_head.weight.data.fill_(float("nan"))
    before = state(base)
    with pytest.raises(LikraError, match="the loss became nan at step 1"):
        train(base, method, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert state(base) == before


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("trl-dpo", {"snapshots": (16,)}, "a snapshot at 16 examples needs as many"),
        ("trl-dpo", {"snapshots": (6, 12)}, "a snapshot at 6 examples falls within a batch of 4"),
        ("trl-dpo", {"gradient_accumulation_steps": 3}, "cannot be divided into 3 equal parts"),
        ("trl-kto", {"batch_size": 1}, "trl-kto compares the questions of a batch"),
        (
            "trl-kto",
            {"gradient_accumulation_steps": 4},
            "trl-kto compares the questions of a batch",
        ),
    ],
)
def test_batches_and_snapshots_that_cannot_be(method, settings, words, tmp_path):
    with pytest.raises(LikraError, match=words):
        train(tiny_with_words(), method, tmp_path, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (RIGHT[:4], WRONG[:3], "there are 4 right answers and 3 wrong ones"),
        (RIGHT[:4], WRONG[1:5], "right and wrong answer 0 do not follow one prompt"),
        ([replace(RIGHT[0], context="w3 " * 200)] * 4, WRONG[:4], "the model's context is"),
    ],
)
def test_answers_that_cannot_be_used(right, wrong, words, tmp_path):
    base = tiny_with_words()
    with pytest.raises(LikraError, match=words):
        train_baseline(
            base,
            "trl-dpo",
            right,
            wrong,
            {4: tmp_path / "head"},
            settings=SETTINGS,
            lora=LoraSettings(),
            seed=0,
            name="trl-dpo",
        )


def test_a_head_that_trl_cannot_train_is_refused_and_the_base_stays_usable(tmp_path):
    base = tiny_with_words()
    before = state(base)
    with pytest.raises(LikraError, match=r"TRL cannot train 'llama': .*lm_head"):
        train_baseline(
            base,
            "trl-dpo",
            RIGHT,
            WRONG,
            {12: tmp_path / "head"},
            settings=SETTINGS,
            lora=LoraSettings(target_modules="lm_head"),
            seed=0,
            name="trl-dpo",
        )
    assert state(base) == before
    train(base, "trl-dpo", tmp_path)


# --------------------------------------------------------------------------------------------
# And it learns


def test_dpo_tells_right_from_wrong_answers_to_held_out_questions(pocket, tmp_path):
    task = load_task("pocket")
    learnt, held_out = (task.questions(split, 0) for split in ("train", "test"))
    train_baseline(
        pocket,
        "trl-dpo",
        [question.right[0] for question in learnt],
        [question.wrong[0] for question in learnt],
        {64: tmp_path / "head"},
        settings=TrainingSettings(),
        lora=LoraSettings(),
        seed=0,
        name="trl-dpo",
    )
    good = pairs_of(pocket, [question.right[0] for question in held_out])
    bad = pairs_of(pocket, [question.wrong[0] for question in held_out])
    ratios = log_ratios(pocket, tmp_path / "head", good + bad)
    rise = ratios[: len(good)] - ratios[len(good) :]  # of the margin, nats
    assert rise.mean() > 3 * rise.std() / len(good) ** 0.5
