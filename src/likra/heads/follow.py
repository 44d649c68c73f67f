"""What the processes beside the main one do: train along with it."""

from functools import lru_cache

from likra.heads.base import BaseModel, limit_threads, open_model
from likra.heads.parallel import received
from likra.heads.preference import train_objective
from likra.heads.train import train_head


def follow() -> None:
    """Train what the main process announces, until that ends. Nothing is written or shown.

    Raises:
        LikraError: the main process has ended with an error, or the training fails.

    """
    while (job := received()) is not None:
        base = _opened(job.model, job.dtype)
        settings = job.arguments["settings"].model_copy(update={"report_to": "none"})
        arguments = {**job.arguments, "settings": settings, "name": None}
        if job.objective is None:
            train_head(base, **arguments)
        else:
            train_objective(base, job.objective, **arguments)


@lru_cache(maxsize=1)
def _opened(model: str, dtype: str) -> BaseModel:
    base = open_model(model, dtype=dtype)
    limit_threads(base)
    return base
