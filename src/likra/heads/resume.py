"""The state of a long training on the disk, from which one that was killed goes on.

The Trainer writes and reads its own checkpoint: the adapter as safetensors; the optimizer, the
schedule and the random numbers as torch's files, which it reads with ``weights_only=True``, so that
no code in them is run. A copy of it lies in the folder, whole or not at all, with a digest of each
file. Only a copy whose files have these digests is read.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import safe_globals

from likra.atomic import remove, replacing
from likra.checksum import checked, with_checksum
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import BaseModel, sampled_weights
from likra.heads.settings import LoraSettings, TrainingSettings
from likra.heads.stamp import CONFIG, WEIGHTS
from likra.progress import note

SAVE_EVERY = 300.0  # seconds between two saved states; a shorter training saves none
MANIFEST, TRAINER_STATE = "state.json", "trainer_state.json"
ADAPTER = (CONFIG, WEIGHTS)
OPTIMIZER, SCHEDULER, RANDOM = "optimizer.pt", "scheduler.pt", "rng_state.pth"
CHECKPOINT = (*ADAPTER, OPTIMIZER, SCHEDULER, RANDOM, TRAINER_STATE)
LIBRARIES = ("likra", "torch", "transformers", "peft", "accelerate")
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
    UnpicklingError, RuntimeError,  # of torch.load
)  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """A state that was read.

    Attributes:
        n: examples of the training run that it is of.
        step: optimizer steps done.
        losses: of these steps.
        checkpoint: the folder that the Trainer goes on from.

    """

    n: int
    step: int
    losses: list[float]
    checkpoint: Path


@dataclass(frozen=True)
class StateFolder:
    """Where the state of a training is kept, and what decides that training.

    Attributes:
        path: the folder.
        inputs: what decides the training beside its examples: see `inputs_of`.
        examples: of each its pairs, in the order of the training.

    """

    path: Path
    inputs: Mapping[str, object]
    examples: Sequence[Sequence[TokenPair]]

    def write(
        self, n: int, step: int, losses: Sequence[float], checkpoint: Path, best: Path | None
    ) -> None:
        """Keep a checkpoint of the run on the first n examples, in the place of an older one.

        ``best`` is the checkpoint of the best epoch so far, where the training stops early.
        """
        files = [checkpoint / name for name in CHECKPOINT]
        if best is not None and best != checkpoint:
            files += [best / name for name in ADAPTER]
        digests = {f"{file.parent.name}/{file.name}": _file_digest(file) for file in files}
        content = {
            "inputs": self._inputs(n),
            "n": n,
            "step": step,
            "losses": list(losses),
            "files": digests,
        }
        with replacing(self.path) as temporary:
            for file in files:
                target = temporary / file.parent.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / file.name)
            text = json.dumps(with_checksum(content), indent=1)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")

    def read(self, scratch: Path) -> Saved | None:
        """The state, if there is one; its files are copied to ``scratch / str(n)``.

        Raises:
            LikraError: why it is of no use: it is of another training, or damaged.

        """
        if not self.path.is_dir():
            return None
        try:
            content = checked(json.loads((self.path / MANIFEST).read_text(encoding="utf-8")))
            now, then = self._inputs(content["n"]), content["inputs"]
            if others := sorted(name for name in now if now[name] != then.get(name)):
                raise LikraError(f"the state in '{self.path}' is of other {', '.join(others)}")
            output, step = scratch / str(content["n"]), int(content["step"])
            for name, digest in content["files"].items():
                self._copy(name, digest, output)
            checkpoint = output / f"checkpoint-{step}"
            _check_plain(checkpoint)
            _move_best(checkpoint / TRAINER_STATE, output)
            return Saved(
                content["n"], step, [float(loss) for loss in content["losses"]], checkpoint
            )
        except UNREADABLE as error:
            text = " ".join(str(error).split())[:200]
            raise LikraError(f"the state in '{self.path}' is damaged ({text})") from error

    def remove(self) -> None:
        """Remove the state, and what killed processes left of one."""
        remove(self.path)

    def _inputs(self, n: int) -> dict[str, object]:
        """What decides the run on the first n examples."""
        digest = hashlib.sha256()
        for own in self.examples[:n]:
            tokens = [[pair.context, pair.continuation] for pair in own]
            digest.update(json.dumps(tokens).encode())
        return {**self.inputs, "examples": digest.hexdigest()}

    def _copy(self, name: str, digest: str, output: Path) -> None:
        folder, _, file = name.partition("/")
        if not re.fullmatch(r"checkpoint-\d+", folder) or file not in CHECKPOINT:
            raise ValueError(f"{MANIFEST} names {name}")
        (output / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path / name, output / name)
        if _file_digest(output / name) != digest:
            raise ValueError(f"{name} was changed")


def inputs_of(
    base: BaseModel,
    settings: TrainingSettings,
    lora: LoraSettings | None,
    seed: int,
    others: Mapping[str, object],
) -> dict[str, object]:
    """What decides a training beside its examples, as JSON values, by what a user calls it."""
    weights = b"".join(sampled_weights(base.model))
    return {
        "base model": [hashlib.sha256(weights).hexdigest(), str(base.model.dtype)],
        "device": base.device.type,
        "training settings": settings.stamped(),
        "LoRA settings": (lora or LoraSettings()).stamped(),
        "seed": seed,
        "versions": {name: version(name) for name in LIBRARIES},
        **others,
    }


def saved_state(
    folder: StateFolder,
    settings: TrainingSettings,
    runs: Sequence[Sequence[int]],
    scratch: Path,
    name: str | None,
) -> Saved | None:
    """The state that a training goes on from; None where it begins with its first example.

    Which of the two, and why a state is of no use, is said under the name, if there is one.

    Args:
        folder: where the state is.
        settings: of the training.
        runs: the snapshots that are wanted, by training run (`TrainingSettings.runs`).
        scratch: as in `StateFolder.read`.
        name: of the training.

    """
    try:
        saved = folder.read(scratch)
        if saved is None:
            return None
        n_seen = settings.n_seen(saved.n, saved.step)
        _check_wanted(saved.n, n_seen, runs)
        total = settings.epochs * settings.n_trained(saved.n)
        line = f"goes on after {n_seen:,} of {total:,} examples"
    except LikraError as error:
        saved, line = None, f"begins anew: {error}"
    if name:
        note(f"{name}: {line}")
    return saved


def _check_wanted(n: int, n_seen: int, runs: Sequence[Sequence[int]]) -> None:
    """Refuse a state that does not lead to all snapshots that are wanted."""
    run = next((own for own in runs if own[-1] == n), None)
    if run is None:
        raise LikraError(f"the state that was saved is of a training on {n:,} examples")
    if len(run) > 1 and run[0] <= n_seen:
        raise LikraError(f"the state that was saved is past the snapshot at {run[0]:,} examples")


@dataclass(eq=False)
class StateSaver(TrainerCallback):
    """Saves the state of a training every `SAVE_EVERY` seconds.

    Attributes:
        folder: where to.
        n: examples of the training run.
        losses: of the steps so far, which another callback adds to.

    """

    folder: StateFolder
    n: int
    losses: Sequence[float]

    def __post_init__(self) -> None:
        self.saved_at = time.monotonic()

    def _is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= SAVE_EVERY

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have the Trainer write a checkpoint, within an epoch."""
        # After the last step of an epoch comes its evaluation, which a resumed run would leave out.
        if state.global_step % (state.max_steps // state.num_train_epochs) and self._is_due():
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Likewise after an epoch, once it is evaluated."""
        if not control.should_training_stop and self._is_due():
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the checkpoint that the Trainer has just written."""
        # Early stopping has one written after each epoch; a run that it has stopped only ends.
        if control.should_training_stop or not self._is_due():
            return
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        best = state.best_model_checkpoint
        try:
            self.folder.write(
                self.n, state.global_step, self.losses, checkpoint, Path(best) if best else None
            )
        except OSError as error:
            note(
                f"the state of the training cannot be saved in '{self.folder.path}' "
                f"({error.strerror}): a training that is killed begins anew"
            )
        self.saved_at = time.monotonic()


def _check_plain(checkpoint: Path) -> None:
    """Refuse files of torch that hold more than tensors and numbers, as the Trainer does later.

    Raises:
        UnpicklingError: one does.

    """
    with safe_globals():  # of numpy, for its random numbers
        for name in (OPTIMIZER, SCHEDULER, RANDOM):
            torch.load(checkpoint / name, map_location="cpu", weights_only=True)


def _move_best(path: Path, output: Path) -> None:
    """Have the Trainer look for the best checkpoint beside the one that it goes on from."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if best := content["best_model_checkpoint"]:
        content["best_model_checkpoint"] = str(output / Path(best).name)
        path.write_text(json.dumps(content), encoding="utf-8")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
