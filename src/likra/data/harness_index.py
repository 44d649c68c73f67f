"""The harness's own tasks by name, found without its index of 14,000 files."""

import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from likra.data.card import check_output_type, use_local_data
from likra.data.documents import Config, configurable_task
from likra.data.harness import HarnessTask, opened
from likra.errors import LikraError

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

HARNESS = "lm_eval:"


def _harness_folder() -> Path:
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


def _harness_cards(name: str) -> list[Path]:
    """The harness's YAML files that define a task or group of that name.

    Its own index parses 14,000 files, which takes 10 seconds and more; looking for a line in them
    takes less than one.
    """
    line = re.compile(rf"^[\"']?(?:task|group)[\"']?\s*:\s*[\"']?{re.escape(name)}[\"']?\s*$", re.M)
    word = name.encode()
    cards = []
    for path in sorted(_harness_folder().rglob("*.yaml")):
        content = path.read_bytes()
        if word in content and line.search(content.decode("utf-8", "replace")):
            cards.append(path)
    return cards


def harness_has(name: str) -> bool:
    """Whether the harness has a task or group of that name."""
    return bool(_harness_cards(name))


def open_harness_task(name: str, data: str | None = None) -> HarnessTask:
    """Open a task, group or tag of the harness, by its name there.

    ``data`` is a local folder to read instead of the task's data set.

    Raises:
        LikraError: there is none, its data cannot be read, or it does not rank choices.

    """
    configs = _harness_configs(name)
    for config in configs.values():
        check_output_type(config, f"task 'lm_eval:{name}'")

    @functools.cache
    def open_part(part: str) -> "ConfigurableTask":
        config = dict(configs[part])
        if data is not None:
            use_local_data(config, data)
        return configurable_task(config)

    task = HarnessTask(f"{HARNESS}{name}", open_part, tuple(configs), use_ids=False)
    return opened(task, configs[task.part_names[0]], data)


def _harness_configs(name: str) -> dict[str, Config]:
    """The configurations of all tasks under a name, without loading their data."""
    from lm_eval.tasks import TaskManager

    if cards := _harness_cards(name):
        top = _harness_folder() / cards[0].relative_to(_harness_folder()).parts[0]
        nearby = TaskManager(include_defaults=False, include_path=str(top))
        if configs := _leaves(nearby, name):
            return configs
    everything = TaskManager()
    if configs := _leaves(everything, name):
        return configs
    near = difflib.get_close_matches(name, everything.all_tasks, n=1)  # all are 14,000
    hint = f": did you mean '{near[0]}'?" if near else ""
    raise LikraError(f"unknown task of lm-evaluation-harness '{name}'{hint}")


def _leaves(manager: "TaskManager", name: str) -> dict[str, Config] | None:
    """The tasks under a name by their own names; None where the manager misses one."""
    entry = manager.task_index.get(name)
    if entry is None:
        return None
    from lm_eval.tasks._yaml_loader import load_yaml

    members: list[tuple[str, Config]]
    if entry.kind.name == "TAG":
        members = [(member, {}) for member in sorted(entry.tags)]
    elif entry.kind.name == "GROUP":
        members = list(_group_members(load_yaml(entry.yaml_path)))
    elif entry.kind.name == "TASK":
        config = load_yaml(entry.yaml_path)
        return {name: {k: v for k, v in config.items() if k not in {"tag", "group"}}}
    else:
        raise LikraError(f"task 'lm_eval:{name}' is written in Python, not as a card")
    leaves: dict[str, Config] = {}
    for member, overrides in members:
        below = _leaves(manager, member)
        if below is None:
            return None
        leaves |= {leaf: {**config, **overrides} for leaf, config in below.items()}
    return leaves


def _group_members(config: Config) -> Iterator[tuple[str, Config]]:
    """Names of a group's members, with what the group changes in their configurations."""
    from lm_eval.tasks._factory import GROUP_FIELD_NAMES

    ours = {key: value for key, value in config.items() if key not in GROUP_FIELD_NAMES}
    listed = config["task"] if isinstance(config["task"], list) else [config["task"]]
    for member in listed:
        if isinstance(member, str):
            yield member, ours
        elif isinstance(member.get("task"), list):
            yield from ((name, {**ours, **theirs}) for name, theirs in _group_members(member))
        else:
            theirs = {k: v for k, v in member.items() if k not in {"task", "group"}}
            yield member.get("task") or member["group"], {**ours, **theirs}
