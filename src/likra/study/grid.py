"""Grids of studies: models x tasks, as the paper's table 1."""

import re
from collections.abc import Sequence
from pathlib import Path

from likra.study.config import Study
from likra.study.folder import Run
from likra.study.material import assumed_material
from likra.study.prepare import prepare
from likra.study.run import cells_of


def grid_studies(study: Study) -> list[Study]:
    """The study of each of its models on each of its tasks."""
    return [
        study.model_copy(
            update={
                "name": f"{study.name}-{_short(model)}-{_short(task)}",
                "model": model,
                "task": task,
                "models": [],
                "tasks": [],
            }
        )
        for model in study.models or [study.model]
        for task in study.tasks or [study.task]
    ]


def _short(name: str) -> str:
    """A model or task as part of a folder's name."""
    return re.sub(r"[^\w.-]+", "-", name.strip("./"))


def check_grid(studies: Sequence[Study]) -> None:
    """Refuse a model or task of the last study before the first one has been computed.

    Raises:
        LikraError: naming it.

    """
    from likra.heads.base import open_without_weights

    for study in {study.model: study for study in studies}.values():
        open_without_weights(study.model, dtype=study.dtype)
    for study in {study.task: study for study in studies}.values():
        run, data = Run(study, Path()), prepare(study)
        cells_of(run, data, {}, assumed_material(run, data))
