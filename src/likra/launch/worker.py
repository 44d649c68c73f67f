"""What a worker runs: some cells of a study, into its folder.

    python -m likra.launch.worker < work.json

As a command it ends with its parent: when standard input is closed. Exit code 2 is bad input.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from likra.errors import LikraError
from likra.launch.retry import Outcome
from likra.study.failures import reason_of

BAD_INPUT = 2


@dataclass(frozen=True)
class Work:
    """A part of a study.

    Attributes:
        number: of the part, from 0.
        study: its settings, as JSON.
        folder: of the results, absolute.
        directory: from which relative paths in the settings count.
        names: of the score tables to compute.

    """

    number: int
    study: str
    folder: str
    directory: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"part {self.number} ({len(self.names):,} score tables)"


def compute(work: Work) -> Outcome:
    """Compute a part; what fails of it is recorded in its folder (`likra.study.failures`)."""
    from likra.study.config import Study
    from likra.study.run import run_cells
    from likra.study.shards import Listed

    try:
        with chdir(work.directory):
            study = Study.model_validate_json(work.study)
            run_cells(study, Path(work.folder), print, Listed(frozenset(work.names)))
    except LikraError as error:
        return Outcome(bad_input=reason_of(error))
    except Exception as error:  # of the machine, the network or the disk: another one may be fine
        traceback.print_exc()
        return Outcome(death=reason_of(error))
    return Outcome()


def main() -> None:
    """Compute the part that standard input says."""
    signal.signal(signal.SIGTERM, _terminate)
    settings: Mapping[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome = compute(Work(**{**settings, "names": tuple(settings["names"])}))
    if line := outcome.bad_input or outcome.death:
        sys.stderr.write(f"{line}\n")
        raise SystemExit(BAD_INPUT if outcome.bad_input else 1)


def as_line(work: Work) -> str:
    """What `main` reads."""
    return json.dumps(asdict(work)) + "\n"


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind, so that no temporary folders are left."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
