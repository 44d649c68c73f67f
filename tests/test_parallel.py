"""Two processes that train one head together give the head of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import likra
from conftest import right_and_wrong, tiny_with_words
from safetensors.torch import load_file
from test_training import some_pairs

from likra.engine.tokens import encode
from likra.heads import parallel
from likra.heads.base import BaseModel, open_model
from likra.heads.preference import train_objective
from likra.heads.settings import TrainingSettings
from likra.heads.train import train_head

PAIRS = some_pairs(12)
# By name. Of 9 examples the last batch has one, and a process has nothing to do.
TRAININGS = {
    "accumulated": ("head", (4, 8, 9), {"gradient_accumulation_steps": 2}),
    "stopped": ("head", (11,), {"epochs": 3, "early_stopping_patience": 2, "set_aside": 0.25}),
    "dpo": ("dpo", (9,), {}),
    "kto": ("kto", (8,), {}),
}


def train_all(base: BaseModel, folder: Path) -> None:
    right, wrong = (encode(base.tokenizer, side, base.max_length) for side in right_and_wrong())
    for name, (method, snapshots, changes) in TRAININGS.items():
        settings = TrainingSettings(**{"learning_rate": 1e-2, "batch_size": 4, **changes})
        folders = {n: folder / name / f"n={n}" for n in snapshots}
        kept = {"settings": settings, "losses": folder / name / "losses.csv"}
        if method == "head":
            train_head(base, PAIRS, folders, **kept)
        else:
            train_objective(base, method, list(zip(right, wrong, strict=True)), folders, **kept)


@pytest.fixture
def group(monkeypatch) -> dict[str, str]:
    """What a launcher tells two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    for name, value in {**group, "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    return group


def test_two_processes_train_the_heads_of_one(tmp_path, group):
    model = tiny_with_words()
    model.model.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    other = subprocess.Popen(
        [sys.executable, "-m", "likra", "train", "--whatever-the-main-process-was-given"],
        env=os.environ | group | {"RANK": "1", "LOCAL_RANK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with parallel.together() as is_main:
        assert is_main
        base = open_model(str(tmp_path / "model"), device="cpu")
        train_all(base, tmp_path / "two")
        parallel.announce(None)
    assert other.communicate() == ("", None)
    assert other.returncode == 0
    train_all(base, tmp_path / "one")
    one, two = tmp_path / "one", tmp_path / "two"
    names = [sorted(p.relative_to(own) for p in own.rglob("*")) for own in (one, two)]
    assert names[0] == names[1]
    for path in one.rglob("losses.csv"):
        values, others = (
            [float(line.split(",")[1]) for line in own.read_text().splitlines()[1:]]
            for own in (path, two / path.relative_to(one))
        )
        assert others == pytest.approx(values, abs=1e-4), path
    for path in one.rglob("*.safetensors"):
        weights, others = load_file(path), load_file(two / path.relative_to(one))
        for name, weight in weights.items():
            torch.testing.assert_close(others[name], weight, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP is not supported"),
        ({"MASTER_ADDR": None}, "the processes do not find each other"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(tmp_path, group, monkeypatch, changes, words):
    for name, value in changes.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    refused = likra("run", "pocket", "-o", "out", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert words in refused.stderr
    assert not list(tmp_path.iterdir())
