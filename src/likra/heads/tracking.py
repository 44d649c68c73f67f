"""Trackers: where the losses of a training are shown while it runs, by transformers' callbacks."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import Trainer

from likra.errors import LikraError

FOLDER = "tensorboard"  # here, as other trackers have theirs; TENSORBOARD_LOGGING_DIR names another


def check_tracker(report_to: str) -> None:
    """Refuse a tracker whose library is not installed. Does not import it.

    Raises:
        LikraError: it is not.

    """
    if report_to != "none" and find_spec(report_to) is None:
        raise LikraError(
            f"training.report_to: {report_to} is not installed: pip install {report_to}"
        )


@contextmanager
def tracked(trainer: Trainer, report_to: str, run: str) -> Iterator[None]:
    """Have a training told to a tracker as a run of its own: loss and learning rate of each step.

    Args:
        trainer: what trains; `likra.heads.trainer.trainer_settings` has it log each step.
        report_to: the tracker, or "none".
        run: the run's name.

    Raises:
        LikraError: the tracker's library is not installed.

    """
    check_tracker(report_to)
    if report_to == "none":
        yield
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    tracker: Any = import_module(report_to)
    is_open = report_to == "wandb" and tracker.run is not None  # the user's own run goes on
    trainer.args.run_name = run
    callback: Any = INTEGRATION_TO_CALLBACK[report_to]()
    if report_to == "tensorboard":  # whose runs have the names of their folders
        folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", FOLDER)).expanduser()
        now = datetime.now().strftime("%Y-%m-%d %H.%M.%S")
        callback.logging_dir = str(folder / re.sub(r"[^\w.,()+= -]+", "-", run) / now)
    trainer.add_callback(callback)
    try:
        yield
    finally:
        if report_to == "wandb" and not is_open:
            tracker.finish()  # else the next head would go on in this run
