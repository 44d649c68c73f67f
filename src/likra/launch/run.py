"""A study on several workers: what they share first, then the parts, then the results."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pandas as pd

from likra.errors import LikraError, unknown
from likra.launch.retry import TRIES, Submit, run_parts
from likra.launch.worker import Work
from likra.progress import Log, progress
from likra.report.results import draw
from likra.scores.table import HeadKey
from likra.study.about import write_study
from likra.study.config import Study
from likra.study.failures import WORKER, clear_failures, read_failures, record_failures
from likra.study.folder import Run
from likra.study.prepare import prepare
from likra.study.run import Pending, find_pending, say_complete, set_aside
from likra.study.shards import divide
from likra.study.tables import StoredTables

LAUNCHERS = ("local", "submitit", "ray")  # modules beside this one


def launch_study(
    study: Study,
    launcher: str,
    workers: int,
    folder: Path | None = None,
    log: Log = print,
    options: Mapping[str, object] | None = None,
) -> tuple[Run, pd.DataFrame]:
    """Compute what is missing of a study on several workers, and write its results.

    This process computes what all share (the base's scores of training choices, its own answers).
    Each worker then opens the model and computes a part of the cells, in the same folder.

    Args:
        study: what to run (`likra.study.config.read_study`).
        launcher: "local", processes on this machine; "submitit", jobs of a SLURM cluster; "ray",
            tasks of Ray.
        workers: how many.
        folder: of the results, which all workers reach by the same path; ``runs/NAME`` by default.
        log: is given each line meant for the user.
        options: of the launcher.

    Returns:
        As `likra.report.results.run_study`, with the same bytes.

    Raises:
        LikraError: as `run_study`; or an unknown launcher or option.
        IncompleteError: as `run_study`; a cell whose workers died has failed, too.

    """
    if launcher not in LAUNCHERS:
        raise unknown("launcher", launcher, LAUNCHERS)
    if workers < 1:
        raise LikraError(f"--workers takes a number of at least 1, not {workers}")
    run = Run(study, folder or Path("runs") / study.name)
    data = prepare(study)
    set_aside(study, data)
    open_workers = import_module(f"likra.launch.{launcher}").workers
    with open_workers(workers, run.folder, options or {}) as submit:  # refuses wrong options first
        pending = find_pending(run, data, log)
        if pending.tables:
            _compute(pending, study, workers, submit, log)
        else:
            say_complete(pending, log)
    return draw(pending.cells.run)


def _compute(pending: Pending, study: Study, workers: int, submit: Submit[Work], log: Log) -> None:
    """Have the workers compute what is missing; what they do not get done is recorded as failed."""
    write_study(pending.cells, pending.base, pending.givers)
    pending = replace(pending, base=None)  # each worker opens its own
    clear_failures(pending.cells.run)
    parts = Parts(pending, study)
    works = parts.works(workers)
    log(f"launch {len(works)} workers for {len(pending.tables):,} score tables")
    with progress(len(pending.tables), f"study {study.name}", "score tables") as advance:

        def watch() -> None:
            advance(parts.newly_done())

        given_up = run_parts(works, submit, parts.n_left, log, watch=watch)
    for work, death in given_up.items():
        reason = f"{TRIES} in a row died, the last one of {death}"
        record_failures(pending.cells, parts.left(work), WORKER, reason)


class Parts:
    """The parts that the missing score tables are divided into, and how far they are."""

    def __init__(self, pending: Pending, study: Study) -> None:
        self.study, self.pending, self.run = study, pending, pending.cells.run
        self.keys = {str(key): key for key in pending.tables}
        self.n_done = 0

    def works(self, count: int) -> list[Work]:
        """As many parts of about the same work, or fewer where there are fewer trainings."""
        divided = divide(self.pending.cells, count, self.pending.tables)
        settings, folder = self.study.model_dump_json(), str(self.run.folder.absolute())
        return [
            Work(number, settings, folder, str(Path.cwd()), tuple(map(str, keys)))
            for number, keys in enumerate(filter(None, divided))
        ]

    def left(self, work: Work) -> list[HeadKey]:
        """The score tables of a part that are neither there nor failed."""
        stored = StoredTables(self.run)
        missing = [self.keys[name] for name in work.names if stored.path(name) is None]
        failed = read_failures(self.run, missing)
        return [key for key in missing if key not in failed]

    def n_left(self, work: Work) -> int:
        """How many these are."""
        return len(self.left(work))

    def newly_done(self) -> int:
        """How many score tables there are more than when this was last asked."""
        before = self.n_done
        self.n_done = sum(name in self.keys for name in StoredTables(self.run).names)
        return self.n_done - before
