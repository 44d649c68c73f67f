"""Trackers: each training is a run of its own, and decides nothing."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import adapter, tiny_base
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import PAIRS
from transformers.integrations import integration_utils
from transformers.trainer_callback import TrainerCallback

from likra.errors import LikraError
from likra.heads import tracking
from likra.heads.settings import TrainingSettings
from likra.heads.train import train_head
from likra.study.config import parse_study
from likra.study.run import run_cells

LINEAR = TrainingSettings(learning_rate=1.0, batch_size=4, lr_scheduler_type="linear")


def by_tag(folder: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(folder)).Reload()
    return [event.value for event in events.Scalars(tag)]


def test_tensorboard_has_the_loss_and_the_learning_rate_of_each_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tiny_base("llama")
    folders = {n: tmp_path / f"n={n}" for n in (8, 12)}
    shown = LINEAR.model_copy(update={"report_to": "tensorboard"})
    name = "negative (file:a/b.jsonl), seed 0"
    losses = train_head(base, PAIRS, folders, settings=shown, name=name)
    runs = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert runs == [f"negative (file-a-b.jsonl), seed 0, n = {n}" for n in (12, 8)]
    (run,) = (tmp_path / "tensorboard" / runs[0]).iterdir()
    assert by_tag(run, "train/loss") == pytest.approx(losses, rel=1e-3, abs=1e-3)
    assert by_tag(run, "train/learning_rate") == pytest.approx([1, 2 / 3, 1 / 3], abs=1e-6)
    train_head(base, PAIRS, {12: tmp_path / "without"}, settings=LINEAR)
    assert adapter(folders[12]) == adapter(tmp_path / "without")
    assert shown.stamped() == LINEAR.stamped()


@pytest.mark.parametrize("is_open", [False, True])
def test_wandb_has_a_run_for_each_training_unless_the_user_has_one_open(
    is_open, tmp_path, monkeypatch
):
    """Its callback opens a run where there is none, and leaves it open."""
    calls: list[str] = []
    library = SimpleNamespace(run="the user's" if is_open else None)
    library.finish = lambda: calls.append("finish")

    class Callback(TrainerCallback):
        def on_train_begin(self, args, *_, **__):
            calls.append(args.run_name)

        def on_log(self, args, state, *_, logs, **__):
            calls.extend(name for name in logs if name in {"loss", "learning_rate"})

    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Callback)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name == "wandb" or None)
    settings = LINEAR.model_copy(update={"report_to": "wandb"})
    train_head(tiny_base("llama"), PAIRS, {4: tmp_path / "head"}, settings=settings, name="one")
    assert calls == ["one, n = 4", "loss", "learning_rate", *([] if is_open else ["finish"])]


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    study = parse_study({"name": "small", "training": {"report_to": "mlflow"}})
    with pytest.raises(LikraError, match="mlflow is not installed: pip install mlflow"):
        run_cells(study, tmp_path / "run", lambda _: None)
    assert not (tmp_path / "run").exists()
