"""The folder of a run: where its files lie, and its settings."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from likra.atomic import write_text
from likra.errors import LikraError
from likra.scores.table import HeadKey, file_name
from likra.study.config import Study, parse_study

LIBRARIES = ("likra", "torch", "transformers", "peft", "lm_eval", "datasets", "pyarrow")


@dataclass(frozen=True)
class Run:
    """A study and the folder of its results."""

    study: Study
    folder: Path

    def head_folder(self, key: HeadKey) -> Path:
        """The plain PEFT folder of one snapshot."""
        return self.training_folder(key) / f"n={key.n_train}"

    def training_folder(self, key: HeadKey) -> Path:
        """What one training run leaves: its snapshots, losses and examples."""
        folder = self.folder / "heads" / key.head / f"seed={key.seed}"
        return folder / f"source={file_name(key.source)}" if key.source else folder

    def scores_path(self, key: HeadKey) -> Path:
        """The score table of one head."""
        return self.folder / "scores" / f"{key}.parquet"

    @property
    def train_scores_path(self) -> Path:
        """The base model's scores of the training choices, for the samplers that use them."""
        return self.folder / "scores" / "train" / "base.parquet"

    @property
    def samples_path(self) -> Path:
        """The base model's own answers to the training questions."""
        return self.folder / "generated.jsonl"

    @property
    def questions_path(self) -> Path:
        """The texts of the evaluation questions, for the report: score tables hold none."""
        return self.folder / "questions.jsonl"

    @property
    def study_path(self) -> Path:
        """The settings, with versions and what is known about the data."""
        return self.folder / "study.yaml"


def library_versions() -> dict[str, str]:
    """The versions of what computes the numbers."""
    return {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}


def write_about(run: Run, facts: Mapping[str, Any]) -> None:
    """Write ``study.yaml``: the settings, and facts about the run."""
    content = {"study": run.study.model_dump(mode="json")} | dict(facts)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(run.study_path, text)


def read_about(folder: Path) -> dict[str, Any]:
    """The content of ``study.yaml``.

    Raises:
        LikraError: there is no such file, or it cannot be read.

    """
    path = folder / "study.yaml"
    if not path.is_file():
        raise LikraError(f"no run in '{folder}': there is no study.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LikraError(f"cannot read '{path}': {type(error).__name__}") from error
    if not isinstance(content, dict) or not isinstance(content.get("study"), dict):
        raise LikraError(f"cannot read '{path}': it has no settings under 'study'")
    return content


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        LikraError: there is none, or its settings cannot be read.

    """
    content = read_about(folder)
    return Run(parse_study(content["study"], f"'{folder / 'study.yaml'}'"), folder)


def usable_path(name: str, folder: Path) -> str:
    """A path in the settings of the run in ``folder``, from wherever this process was started.

    A relative path counts from where the run was started, which ``study.yaml`` says.
    """
    started_in = read_about(folder).get("started_in")
    moved = Path(str(started_in)) / name if started_in else Path(name)
    return str(moved) if not Path(name).exists() and moved.exists() else name
