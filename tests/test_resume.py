"""A training that was killed goes on, and ends with the bytes of one that was not."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import right_and_wrong, tiny_base, tiny_with_words
from test_model import ROWS
from test_training import some_pairs

from likra import Likra
from likra.checksum import checked, with_checksum
from likra.engine.tokens import encode
from likra.errors import LikraError
from likra.heads import resume
from likra.heads.preference import train_objective
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.train import train_head
from likra.heads.trl import train_baseline
from likra.study.config import parse_study
from likra.study.run import train_heads

PAIRS = some_pairs(12)
SNAPSHOTS = (2, 8, 12)
PLAIN = TrainingSettings(learning_rate=1e-2, batch_size=2)  # 6 steps on all pairs


class KilledError(BaseException):
    """Stands for a kill; not an Exception, so that nothing goes on."""


class Steps:
    """Counts the optimizer steps; they take 100 seconds each, and one of them kills the training.

    So a state is saved after the third step that a process takes, the sixth, and so on.
    """

    def __init__(self, monkeypatch) -> None:
        self.done, self.last = 0, None
        step = torch.optim.AdamW.step

        def counting(optimizer, *arguments, **named):
            if self.done == self.last:
                raise KilledError
            self.done += 1
            return step(optimizer, *arguments, **named)

        monkeypatch.setattr(torch.optim.AdamW, "step", counting)
        clock = SimpleNamespace(monotonic=lambda: 100.0 * self.done)
        monkeypatch.setattr(resume, "time", clock)

    def of(self, training: Callable[[], object]) -> int:
        before = self.done
        training()
        return self.done - before

    def kill(self, training: Callable[[], object], after: int) -> None:
        self.last = self.done + after
        with pytest.raises(KilledError):
            training()
        self.last = None


@pytest.fixture
def steps(monkeypatch) -> Steps:
    return Steps(monkeypatch)


def train(folder: Path, method: str = "head", settings=PLAIN, pairs=PAIRS, **lora) -> None:
    """Train as far as snapshots are missing, as a study does."""
    wanted = {n: folder / f"n={n}" for n in SNAPSHOTS}
    missing = {n: path for n, path in wanted.items() if not path.exists()}
    shape = LoraSettings(**lora)
    kept = {"losses": folder / "losses.csv", "state": folder / ".training", "name": "small"}
    if method == "head":
        train_head(tiny_base("llama"), pairs, missing, settings=settings, lora=shape, **kept)
        return
    base = tiny_with_words()
    right, wrong = right_and_wrong()
    if method.startswith("trl-"):
        same = {"settings": settings, "lora": shape, "seed": 0}
        train_baseline(base, method, right, wrong, missing, **same, **kept)
        return
    sides = [encode(base.tokenizer, side, base.max_length) for side in (right, wrong)]
    examples = list(zip(*sides, strict=True))
    train_objective(base, method, examples, missing, settings=settings, lora=shape, **kept)


def written(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("method", "changes", "lora"),
    [
        ("head", {}, {"dropout": 0.3}),
        ("head", {"gradient_accumulation_steps": 2}, {}),
        ("kto", {}, {}),
        ("trl-dpo", {}, {}),
    ],
)
def test_a_killed_training_ends_with_the_same_bytes(tmp_path, steps, method, changes, lora):
    """Killed at once after a state was saved, that of step 3, or two steps later."""
    settings = PLAIN.model_copy(update=changes)
    arguments = {"method": method, "settings": settings, **lora}
    assert steps.of(lambda: train(tmp_path / "whole", **arguments)) == 6
    whole = written(tmp_path / "whole")
    assert len(whole) == 2 * len(SNAPSHOTS) + 1
    for killed_after in (3, 5):
        folder = tmp_path / f"killed after {killed_after}"
        steps.kill(lambda place=folder: train(place, **arguments), after=killed_after)
        assert (folder / ".training" / "state.json").exists()
        assert not (folder / "losses.csv").exists()
        assert steps.of(lambda place=folder: train(place, **arguments)) == 3
        assert written(folder) == whole  # so the state is gone


def test_epochs_with_a_schedule_go_on(tmp_path, steps, monkeypatch):
    """Runs of 2 and 12 examples in 2 epochs: 2 and 12 steps; 3 of the latter are in the state."""
    monkeypatch.setattr("test_resume.SNAPSHOTS", (2, 12))
    changes = {"epochs": 2, "lr_scheduler_type": "cosine", "warmup_ratio": 0.2}
    settings = PLAIN.model_copy(update=changes)
    assert steps.of(lambda: train(tmp_path / "whole", settings=settings)) == 14
    steps.kill(lambda: train(tmp_path / "killed", settings=settings), after=7)
    assert steps.of(lambda: train(tmp_path / "killed", settings=settings)) == 12 - 3
    assert written(tmp_path / "killed") == written(tmp_path / "whole")


@pytest.mark.parametrize("killed_after", [7, 14])
def test_early_stopping_goes_on(tmp_path, steps, monkeypatch, killed_after):
    """Within an epoch of 4 steps and at the end of one; the best head so far is remembered."""
    monkeypatch.setattr("test_resume.SNAPSHOTS", (12,))
    changes = {"learning_rate": 0.03, "epochs": 8, "early_stopping_patience": 2, "set_aside": 0.3}
    settings = TrainingSettings(batch_size=2, **changes)
    n_steps = steps.of(lambda: train(tmp_path / "whole", settings=settings))
    assert 14 < n_steps < 4 * 8  # it does stop early
    steps.kill(lambda: train(tmp_path / "killed", settings=settings), after=killed_after)
    left = steps.of(lambda: train(tmp_path / "killed", settings=settings))
    assert left == n_steps - 3 * (killed_after // 3)
    assert written(tmp_path / "killed") == written(tmp_path / "whole")


def test_a_short_training_saves_nothing(tmp_path, monkeypatch):
    def written_all_the_same(*_):
        raise AssertionError

    monkeypatch.setattr(resume.StateFolder, "write", written_all_the_same)
    train(tmp_path)


# --------------------------------------------------------------------------------------------
# States that are of no use


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folders of a training that was killed after its fourth step of six, and of a whole one."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        Steps(patch).kill(lambda: train(folder / "killed"), after=4)
    train(folder / "whole")
    return folder


@pytest.fixture
def killed(trained, tmp_path) -> Path:
    return shutil.copytree(trained / "killed", tmp_path / "killed")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
@pytest.mark.parametrize(
    "file",
    ["state.json", *(f"checkpoint-3/{name}" for name in resume.CHECKPOINT[1:])],
)
def test_a_damaged_state_is_not_read(killed, file, damage, tmp_path):
    place = killed / ".training"
    inputs = json.loads((place / "state.json").read_text())["inputs"]
    folder = resume.StateFolder(place, inputs, [[pair] for pair in PAIRS])
    assert folder.read(tmp_path / "before").step == 3
    damage(place / file)
    with pytest.raises(LikraError, match="is damaged"):
        folder.read(tmp_path / "after")


def begins_anew(folder: Path, steps: Steps, capsys, words: str, **arguments) -> None:
    """It begins with the first example, and says why in one line."""
    capsys.readouterr()
    assert steps.of(lambda: train(folder, **arguments)) == 6
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "begins anew" in line]
    assert line.startswith("train small: begins anew: ")
    assert words in line
    assert not (folder / ".training").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"settings": PLAIN.model_copy(update={"learning_rate": 1e-3})}, "training settings"),
        ({"pairs": [*PAIRS[:-1], PAIRS[0]]}, "is of other examples"),
        ({"alpha": 16}, "is of other LoRA settings"),
        ({"method": "simpo"}, "method"),
    ],
)
def test_the_state_of_another_training_is_not_used(killed, steps, capsys, arguments, words):
    begins_anew(killed, steps, capsys, words, **arguments)


def test_the_state_of_other_versions_is_not_used(killed, steps, capsys, monkeypatch):
    monkeypatch.setattr(resume, "version", lambda name: "0")
    begins_anew(killed, steps, capsys, "is of other versions")


def test_a_state_past_a_missing_snapshot_is_not_used(killed, steps, capsys):
    shutil.rmtree(killed / "n=2")
    begins_anew(killed, steps, capsys, "is past the snapshot at 2 examples")


def test_after_a_damaged_state_the_bytes_are_the_same(killed, trained, steps, capsys):
    cut(killed / ".training" / "checkpoint-3" / "optimizer.pt")
    begins_anew(killed, steps, capsys, "is damaged (checkpoint-3/optimizer.pt was changed)")
    assert written(killed) == written(trained / "whole")


def test_no_code_in_a_state_is_run(killed, steps, capsys, tmp_path):
    """A state whose digests are right, for whoever wrote it knew how to count them."""

    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "was run",)

    place = killed / ".training"
    (place / "checkpoint-3" / "optimizer.pt").write_bytes(pickle.dumps(Code(), protocol=2))
    content = checked(json.loads((place / "state.json").read_text()))
    content["files"]["checkpoint-3/optimizer.pt"] = resume._file_digest(
        place / "checkpoint-3" / "optimizer.pt"
    )
    (place / "state.json").write_text(json.dumps(with_checksum(content)))
    begins_anew(killed, steps, capsys, "is damaged")
    assert not (tmp_path / "was run").exists()


def test_a_state_that_cannot_be_written_is_said_and_the_training_goes_on(
    tmp_path, steps, monkeypatch, capsys
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume.shutil, "copyfile", full)
    assert steps.of(lambda: train(tmp_path)) == 6
    shown = capsys.readouterr().err
    assert f"the state of the training cannot be saved in '{tmp_path}" in shown
    assert "(No space left on device)" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["losses.csv", "n=12", "n=2", "n=8"]


# --------------------------------------------------------------------------------------------
# Studies and fits


def test_a_killed_study_goes_on_within_its_training(tmp_path, steps):
    study = parse_study({"name": "small", "modes": ["sft"], "snapshots": [8, 40]})
    log: list[str] = []
    whole, killed = (tmp_path / name / "run" for name in "ab")  # else one would take from the other
    assert steps.of(lambda: train_heads(study, whole, log.append)) == 5
    steps.kill(lambda: train_heads(study, killed, log.append), after=4)
    assert steps.of(lambda: train_heads(study, killed, log.append)) == 2
    assert written(killed / "heads") == written(whole / "heads")


def test_a_killed_fit_goes_on_within_a_fold(tmp_path, steps, pocket):
    """A fold of 10 questions takes 5 steps; the state of step 3 is past snapshots at 2 and 4."""
    settings = {"folds": 2, "modes": ["base", "likra"], "training": TrainingSettings(batch_size=2)}

    def fit(name: str) -> None:
        Likra.fit(pocket, ROWS[:20], tmp_path / name / "ranker", **settings)

    n_steps = steps.of(lambda: fit("whole"))
    steps.kill(lambda: fit("killed"), after=4)
    assert steps.of(lambda: fit("killed")) == n_steps - 3
    assert written(tmp_path / "killed") == written(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["ranker"]
