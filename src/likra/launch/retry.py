"""Waiting for workers, and starting those parts again whose worker died."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from likra.errors import LikraError
from likra.progress import Log
from likra.study.failures import reason_of

TRIES = 3  # workers of a part that die in a row without anything new; then it is given up
PAUSE = 1.0  # seconds between two looks at the workers

Part = TypeVar("Part")


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: well, where both texts are empty.

    Attributes:
        bad_input: what is wrong with the input, which would be wrong for every worker.
        death: what else ended it early, which another worker may be spared.

    """

    bad_input: str = ""
    death: str = ""


class Job(Protocol):
    """A part under way, as `concurrent.futures.Future` and submitit's ``Job`` have it."""

    def done(self) -> bool:
        """Whether the worker has ended."""

    def result(self) -> Outcome:
        """How it ended; an exception where the launcher lost it."""


Submit = Callable[[Sequence[Part]], Sequence[Job]]


def run_parts(
    parts: Sequence[Part],
    submit: Submit[Part],
    left: Callable[[Part], int],
    log: Log,
    *,
    watch: Callable[[], object] = lambda: None,
    pause: float = PAUSE,
) -> dict[Part, str]:
    """Have workers compute the parts, and start a part again whose worker died.

    What is done of a part stays done, so a new worker goes on where the last one died.

    Args:
        parts: what to compute; as texts, their names.
        submit: starts a worker for each of some parts.
        left: how many cells of a part are neither done nor failed.
        log: is given each line meant for the user.
        watch: is called at each look at the workers.
        pause: seconds between two looks.

    Returns:
        The parts that were given up after `TRIES` deaths in a row without anything new, each with
        the reason of the last one.

    Raises:
        LikraError: a worker found bad input.

    """
    given_up, tries = dict[Part, str](), dict.fromkeys(parts, TRIES)
    least = {part: left(part) for part in parts}
    jobs = dict(zip(parts, submit(parts), strict=True))
    while jobs:
        ended = [part for part, job in jobs.items() if job.done()]
        again = []
        for part in ended:
            death = _death_of(jobs.pop(part))
            if not death:
                continue
            is_further = left(part) < least[part]
            least[part] = min(least[part], left(part))
            tries[part] = TRIES if is_further else tries[part] - 1
            if tries[part]:
                again.append(part)
            else:
                given_up[part] = death
            log(f"died   {part}, {'started again' if tries[part] else 'given up'}: {death}")
        if again:
            jobs |= zip(again, submit(again), strict=True)
        watch()
        if jobs and not ended:
            time.sleep(pause)
    return given_up


def _death_of(job: Job) -> str:
    """What ended a worker early; "" where nothing did.

    Raises:
        LikraError: it found bad input.

    """
    try:
        outcome = job.result()
    except Exception as error:  # whatever a launcher raises for a worker that is gone
        return reason_of(error)
    if outcome.bad_input:
        raise LikraError(outcome.bad_input)
    return outcome.death
