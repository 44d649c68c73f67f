"""Task cards: multiple-choice tasks as data, in lm-evaluation-harness's own YAML format.

The harness itself renders every document, so contexts, continuations and gold are its own, to the
character. A card beside this file is known by its name; any other is named by its path.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likra.errors import LikraError, unknown
from likra.questions import Choice, Question, check_questions

CARDS = Path(__file__).parent
FEWSHOT_SEED = 1234  # the harness's own default
_READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def card_names() -> list[str]:
    """The cards that come with likra."""
    return sorted(path.stem for path in CARDS.glob("*.yaml"))


def card_path(name: str) -> Path:
    """The card of that name, or at that path.

    Raises:
        LikraError: there is none.

    """
    if name in card_names():
        return CARDS / f"{name}.yaml"
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise LikraError(f"no task card at '{name}'")
        return path
    raise unknown("task", name, card_names())


def local_files(folder: Path, dataset_name: str | None) -> dict[str, list[str]]:
    """The data files of a folder by split.

    Understands ``NAME.SPLIT.jsonl`` and ``SPLIT.jsonl``, ``SPLIT-00000-of-00001.parquet``, and the
    hub's layout with a folder per configuration (``NAME/SPLIT-*.parquet``); jsonl, json, csv and
    parquet.
    """
    if dataset_name and (folder / dataset_name).is_dir():
        return local_files(folder / dataset_name, None)
    prefix = f"(?:{re.escape(dataset_name)}[._-])?" if dataset_name else ""
    pattern = re.compile(rf"^{prefix}(train|validation|dev|test)(?:-\d+-of-\d+)?$")
    splits: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.match(path.stem)
        if match and path.suffix in _READERS:
            split = "validation" if match[1] == "dev" else match[1]
            splits.setdefault(split, []).append(str(path))
    return splits


def _read_card(path: Path) -> dict[str, Any]:
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config = load_yaml(path)
    except (yaml.YAMLError, OSError, ImportError, AttributeError, ValueError) as error:
        raise LikraError(f"cannot read the task card '{path}': {_one_line(error)}") from error
    if not isinstance(config, dict) or "task" not in config:
        raise LikraError(f"'{path}' is no task card: it has no 'task' key")
    from lm_eval.config.task import TaskConfig

    known = set(TaskConfig.__dataclass_fields__)
    for key in config:
        if key not in known:
            raise LikraError(f"task card '{path}': {unknown('key', str(key), known)}")
    if config.get("output_type") != "multiple_choice":
        raise LikraError(
            f"task card '{path}': output_type is '{config.get('output_type')}', "
            "and likra ranks choices: it needs 'multiple_choice'"
        )
    return config


def _use_local_data(config: dict[str, Any], data: str) -> None:
    folder = Path(data)
    if not folder.is_dir():
        raise LikraError(f"no data folder at '{data}'")
    name = config.pop("dataset_name", None)
    splits = local_files(folder, name)
    if not splits:
        wanted = f"{name}.train.jsonl" if name else "train.jsonl"
        raise LikraError(f"'{data}' holds no data for this task: expected files like '{wanted}'")
    endings = {Path(path).suffix for paths in splits.values() for path in paths}
    readers = {_READERS[ending] for ending in endings}
    if len(readers) > 1:
        raise LikraError(f"'{data}' mixes {', '.join(sorted(endings))}: keep one format")
    config["dataset_path"] = readers.pop()
    config["dataset_kwargs"] = {"data_files": splits}
    for key in ("training_split", "validation_split", "test_split"):
        if config.get(key) not in splits:
            config.pop(key, None)


def _anchor_data_files(config: dict[str, Any], folder: Path) -> None:
    """Make the card's data files relative to the card, not to where the command was started."""
    data_files = (config.get("dataset_kwargs") or {}).get("data_files")
    if isinstance(data_files, dict):
        config["dataset_kwargs"]["data_files"] = {
            split: [
                path if "://" in path else str(folder / path)
                for path in ([paths] if isinstance(paths, str) else paths)
            ]
            for split, paths in data_files.items()
        }


def _one_line(error: BaseException) -> str:
    while error.__cause__ is not None:  # datasets wraps what really happened
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


@dataclass(frozen=True)
class Task:
    """An opened task: ``questions(split)`` renders its documents.

    ``harness_task`` is lm-evaluation-harness's own ``ConfigurableTask`` for the card.
    """

    name: str
    harness_task: Any

    @property
    def train_split(self) -> str | None:
        """The card's training split."""
        split: str | None = self.harness_task.config.training_split
        return split

    @property
    def eval_split(self) -> str:
        """The split that the harness evaluates: test, else validation."""
        config = self.harness_task.config
        split: str = config.test_split or config.validation_split
        return split

    def questions(self, split: str, num_fewshot: int = 0) -> list[Question]:
        """All questions of a split, rendered as the harness renders them.

        Args:
            split: a split of the data set.
            num_fewshot: solved examples before each question, drawn per question as the harness
                draws them with its default seed.

        Raises:
            LikraError: no such split, or a question that cannot be ranked.

        """
        task = self.harness_task
        if split not in task.dataset:
            raise unknown(f"split of task '{self.name}'", split, task.dataset)
        task.set_fewshot_seed(FEWSHOT_SEED)
        documents = task.dataset[split]
        if task.config.process_docs is not None:
            documents = task.config.process_docs(documents)
        rendered = [
            self._question(document, f"{split}-{row}", num_fewshot)
            for row, document in enumerate(documents)
        ]
        check_questions(rendered)
        return rendered

    def _question(self, document: dict[str, Any], row: str, num_fewshot: int) -> Question:
        task = self.harness_task
        identity = str(document.get("id") or row)
        try:
            context = task.fewshot_context(document, num_fewshot)
            requests = task.construct_requests(document, context)
            texts = task.doc_to_choice(document)
            gold = task.doc_to_text(document) if task.multiple_input else None
            gold = task.doc_to_target(document) if gold is None else gold
        except Exception as error:  # a card's template may raise anything at all
            raise LikraError(
                f"task '{self.name}', {row}: the card does not fit the data ({_one_line(error)})"
            ) from error
        if isinstance(gold, str):
            gold = texts.index(gold) if gold in texts else -1
        golds = gold if isinstance(gold, list) else [gold]
        choices = tuple(
            Choice(request.args[0], request.args[1], text, is_right=number in golds)
            for number, (request, text) in enumerate(zip(requests, texts, strict=False))
        )
        stem = document.get("question") or document.get("sentence") or choices[0].context
        return Question(identity, str(stem), choices)


def load_task(name: str, data: str | None = None) -> Task:
    """Open a task.

    Args:
        name: a card of likra's own (`card_names`) or the path of a card.
        data: a local folder to read instead of the card's data set (see `local_files`).

    Raises:
        LikraError: no such card, a card that the harness does not understand, or no such data.

    """
    path = card_path(name)
    config = _read_card(path)
    _anchor_data_files(config, path.parent)
    if data is not None:
        _use_local_data(config, data)
    return Task(config["task"], _open(config))


def _open(config: dict[str, Any]) -> Any:
    import datasets
    from lm_eval.api.task import ConfigurableTask

    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        return ConfigurableTask(config=config)
    except Exception as error:  # whatever the data set's reader or the card's templates raise
        source = config.get("dataset_kwargs", {}).get("data_files") or config.get("dataset_path")
        where = (
            ", ".join(os.fspath(p) for paths in source.values() for p in paths)
            if isinstance(source, dict)
            else str(source)
        )
        raise LikraError(
            f"cannot open the data of task '{config['task']}' ({where}): {_one_line(error)}"
        ) from error
    finally:
        if bars:
            datasets.utils.logging.enable_progress_bar()
