"""Grids of studies: models x tasks, as the paper's table 1."""

import re

from likra.study.config import Study


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
