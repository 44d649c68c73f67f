"""Workers that are jobs of a SLURM cluster, submitted by submitit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from likra.errors import LikraError
from likra.launch.retry import Outcome, Submit
from likra.launch.worker import Work, compute


@contextmanager
def workers(count: int, folder: Path, options: Mapping[str, object]) -> Iterator[Submit[Work]]:
    """Jobs, in one array; those that still run at the end are cancelled.

    submitit's files and the jobs' logs are in ``logs`` in the run's folder.

    Args:
        count: of the jobs.
        folder: of the run.
        options: parameters of ``submitit.AutoExecutor``, such as ``timeout_min``, ``gpus_per_node``
            or ``slurm_partition``; and ``cluster``, "local" or "debug" to try it without SLURM.

    Raises:
        LikraError: submitit is not installed, or does not know an option.

    """
    try:
        import submitit
    except ImportError as error:
        raise LikraError(
            "--launcher submitit needs submitit: pip install 'likra[submitit]'"
        ) from error
    parameters: dict[str, Any] = {"name": "likra", **options}
    cluster = parameters.pop("cluster", None)
    try:
        executor = submitit.AutoExecutor(folder / "logs", cluster=cluster)
        executor.update_parameters(**parameters)
    except (ValueError, NameError, AssertionError, TypeError, RuntimeError) as error:
        text = " ".join(str(error).split())
        for empty in (folder / "logs", folder):  # which it has made
            with suppress(OSError):
                empty.rmdir()
        raise LikraError(f"--launcher-option: submitit refuses it: {text}") from error
    jobs: list[submitit.Job[Outcome]] = []

    def submit(parts: Sequence[Work]) -> "list[submitit.Job[Outcome]]":
        started = executor.map_array(compute, parts)
        jobs.extend(started)
        return started

    try:
        yield submit
    finally:
        for job in jobs:
            if not job.done():
                with suppress(Exception):  # it may have ended just now
                    job.cancel(check=False)
