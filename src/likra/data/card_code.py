"""What in a task card would run Python code, found without running it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from likra.errors import LikraError
from likra.text import one_line


def code_in_card(path: Path) -> list[str]:
    """What would run Python code when a card, or one that it includes, is opened.

    Its templates are left out: they are rendered in Jinja's sandbox.

    Raises:
        LikraError: a file is missing, or it is not plain YAML.

    """
    return list(_code_in_file(path, set()))


def _code_in_file(path: Path, seen: set[Path]) -> Iterator[str]:
    path = path.expanduser().resolve()
    if path in seen:
        return
    seen.add(path)
    functions: list[str] = []
    try:
        config = _parsed(path, functions)
    except (OSError, ValueError) as error:
        raise LikraError(f"cannot read the task card '{path}': {one_line(error)}") from error
    yield from functions
    if isinstance(config, dict):
        yield from _code_in(config, path, seen)


def _parsed(path: Path, functions: list[str]) -> Any:
    """The YAML of a card; the functions that it names are noted, and not imported."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses every other tag, as ``!!python/name``."""

    def note(_loader: yaml.SafeLoader, node: yaml.Node) -> None:
        functions.append(f"!function {node.value}")

    Loader.add_constructor("!function", note)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error


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
        yield from _code_in_file(path.parent / str(file), seen)
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
