"""Many cells on workers that die at random: all of them are computed, and none twice.

    python -m tests.simulation [--cells 10000] [--workers 64] [--deaths 0.02] [--seed 0]

No model: a worker computes a cell at each look, fails at some of them for good, and dies at others.
The division into parts (`likra.study.shards`) and the retries (`likra.launch.retry`) are the real
ones. What is given up is left to the next launch, as it is to the next `likra run`.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from likra.launch.retry import Outcome, run_parts
from likra.scores.table import HeadKey
from likra.study.shards import balanced

SNAPSHOTS = (8, 16, 32, 64)  # of a training, which is never divided


@dataclass
class Folder:
    """What all workers write into.

    Attributes:
        done: how often each cell was computed.
        failed: cells that fail whenever they are tried.

    """

    done: dict[HeadKey, int] = field(default_factory=dict)
    failed: set[HeadKey] = field(default_factory=set)


@dataclass
class Worker:
    """One that computes a cell of its part at each look."""

    part: tuple[HeadKey, ...]
    folder: Folder
    draw: random.Random
    deaths: float
    failures: float
    is_dead: bool = False

    def done(self) -> bool:
        for key in self.part:
            if key in self.folder.done or key in self.folder.failed:
                continue
            if self.draw.random() < self.deaths:
                self.is_dead = True
                return True
            if random.Random(f"{key}").random() < self.failures:
                self.folder.failed.add(key)
            else:
                self.folder.done[key] = self.folder.done.get(key, 0) + 1
            return False
        return True

    def result(self) -> Outcome:
        if self.is_dead:
            raise ChildProcessError("the machine went away")
        return Outcome()


@dataclass(frozen=True)
class Simulated:
    """What a simulation came to."""

    folder: Folder
    launches: int
    deaths: int


def simulate(
    n_cells: int, workers: int, deaths: float, failures: float = 0.001, seed: int = 0
) -> Simulated:
    """Launch until every cell is done or has failed for good."""
    draw, folder = random.Random(seed), Folder()
    n_trainings = n_cells // len(SNAPSHOTS)
    trainings = [
        [HeadKey("negative", n, own, "x") for n in SNAPSHOTS] for own in range(n_trainings)
    ]
    launches, lines = 0, list[str]()

    def left(part: Sequence[HeadKey]) -> int:
        return sum(key not in folder.done and key not in folder.failed for key in part)

    def submit(parts: Sequence[tuple[HeadKey, ...]]) -> list[Worker]:
        return [Worker(part, folder, draw, deaths, failures) for part in parts]

    while missing := [own for own in trainings if left(own)]:
        launches += 1
        units = [(draw.randrange(1, 100), own) for own in missing]
        parts = [tuple(part) for part in balanced(units, workers) if part]
        run_parts(parts, submit, left, lines.append, pause=0)
    return Simulated(folder, launches, sum(line.startswith("died") for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--deaths", type=float, default=0.02, help="chance at each cell")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = simulate(given.cells, given.workers, given.deaths, seed=given.seed)
    done, failed = found.folder.done, found.folder.failed
    print(
        f"{len(done):,} cells done, each once: {set(done.values()) == {1}}; {len(failed):,} failed "
        f"for good; {found.deaths:,} deaths of {given.workers:,} workers; "
        f"launches: {found.launches}"
    )


if __name__ == "__main__":
    main()
