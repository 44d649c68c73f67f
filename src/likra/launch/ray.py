"""Workers that are tasks of Ray, on this machine or on a cluster."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from likra.errors import LikraError
from likra.launch.retry import Outcome, Submit
from likra.launch.worker import Work, compute
from likra.study.failures import reason_of


@contextmanager
def workers(count: int, folder: Path, options: Mapping[str, object]) -> Iterator[Submit[Work]]:
    """Tasks, in the cluster that Ray finds (``RAY_ADDRESS``), or else in one on this machine.

    Those that still run at the end are cancelled. Ray keeps what they print.

    Args:
        count: of the tasks; Ray decides by their resources how many run at once.
        folder: of the run.
        options: of ``ray.remote``, such as ``num_gpus``, ``num_cpus`` or ``memory``.

    Raises:
        LikraError: Ray is not installed, cannot be reached or started, or does not know an option.

    """
    try:
        import ray
    except ImportError as error:
        raise LikraError("--launcher ray needs Ray: pip install 'likra[ray]'") from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray)
    try:
        # a part whose worker died is started again by `likra.launch.retry`, which counts and tells
        task: Any = ray.remote(compute).options(**{"max_retries": 0, **options})
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise LikraError(f"--launcher-option: Ray refuses it: {text}") from error
    running: dict[Future[Outcome], Any] = {}

    def submit(parts: Sequence[Work]) -> list[Future[Outcome]]:
        references = [task.remote(work) for work in parts]
        futures = [reference.future() for reference in references]
        running.update(zip(futures, references, strict=True))
        return futures

    try:
        yield submit
    finally:
        for future, reference in running.items():
            if not future.done():
                ray.cancel(reference, force=True)
        if is_ours:
            ray.shutdown()


def _connect(ray: Any) -> None:
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init()
    except Exception as error:  # Ray raises that, too
        raise LikraError(
            f"--launcher ray: Ray can be neither reached nor started: {reason_of(error)}"
        ) from error
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray has put its own there
