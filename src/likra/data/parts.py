"""The harness's tasks of the parts of a data set, as MMLU's subjects are."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.data.documents import sandboxed_templates
from likra.errors import LikraError
from likra.text import one_line

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

Config = dict[str, Any]  # what the harness's ``ConfigurableTask`` takes


class Parts:
    """The harness's tasks of the parts of a data set, each opened when first asked for."""

    def __init__(self, config_of: Callable[[str], Config]) -> None:
        """Take what gives the configuration of a part; ("" is the only part of most tasks)."""
        self.config_of = functools.cache(config_of)
        self.open = functools.cache(self._open)

    def _open(self, name: str) -> "ConfigurableTask":
        return configurable_task(training_only(self.config_of(name)))


def local_files_of(config: Config) -> list[Path]:
    """The local files that a configuration reads."""
    data_files = (config.get("dataset_kwargs") or {}).get("data_files")
    if not isinstance(data_files, dict):
        return []
    listed = [[own] if isinstance(own, str) else own for own in data_files.values()]
    return [Path(file) for own in listed for file in own if "://" not in file]


def training_only(config: Config) -> Config:
    """The configuration, where it has only training data so that the harness opens it.

    The harness wants something to evaluate. `HarnessTask.eval_split` does not count this one.
    """
    if config.get("training_split") and not (
        config.get("test_split") or config.get("validation_split")
    ):
        split = config["training_split"]
        return {**config, "test_split": split, "fewshot_split": split}
    return config


def configurable_task(config: Config) -> "ConfigurableTask":
    """The harness's task of a configuration, its data loaded.

    Raises:
        LikraError: the data cannot be read, or the card does not fit them.

    """
    import datasets
    from lm_eval.api.task import ConfigurableTask

    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        with sandboxed_templates():
            return ConfigurableTask(config=dict(config))
    except Exception as error:  # whatever the data set's reader or the card's templates raise
        files = ", ".join(map(str, local_files_of(config)))
        source = (
            files or f"{config.get('dataset_path')}: with --data FOLDER it is read from local files"
        )
        raise LikraError(
            f"cannot open the data of task '{config['task']}' ({source}): {one_line(error)}"
        ) from error
    finally:
        if bars:
            datasets.utils.logging.enable_progress_bar()
