"""Parts of a study for several processes or machines that write into one folder."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Self

from likra.errors import LikraError
from likra.scores.table import HeadKey
from likra.study.cells import Cells
from likra.study.work import answers_of, passes_of


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of a study; ``number`` counts from 0."""

    number: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """A shard written as "0/4".

        Raises:
            LikraError: it is not one of 0/n to (n-1)/n.

        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise LikraError(f"--shard takes 0/n to (n-1)/n, such as 0/4, not '{text}'")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"shard {self.number} of {self.count}"

    def keys(self, cells: Cells) -> set[HeadKey]:
        """The score tables of this shard, done or not: all shards agree on this, at any time."""
        if self.count == 1:  # without drawing all examples once more
            return set(cells.scores)
        return set(divide(cells, self.count)[self.number])


@dataclass(frozen=True)
class Listed:
    """The part of a study with these score tables, by name (`HeadKey` as text)."""

    names: frozenset[str]

    def __str__(self) -> str:
        return "this part"

    def keys(self, cells: Cells) -> set[HeadKey]:
        """The score tables of this part."""
        return {key for key in cells.scores if str(key) in self.names}


Part = Shard | Listed
WHOLE = Shard()


def divide(
    cells: Cells, count: int, wanted: Collection[HeadKey] | None = None
) -> list[list[HeadKey]]:
    """Divide score tables, by default all, into parts of about the same work.

    A training is never divided, so parts may be empty. Work is counted in answers times forward
    passes, whether it is done already or not.
    """
    study, n_scored = cells.run.study, sum(len(q.choices) for q in cells.data.evaluation)
    wanted = cells.scores if wanted is None else wanted
    untrained = [key for key in cells.scores if not key.n_train and key in wanted]
    units = [(len(untrained) * n_scored, untrained)]
    for one, passes in zip(cells.trainings, passes_of(cells.trainings), strict=True):
        if own := [key for key in one.keys if key in wanted]:
            n = tuple(key.n_train for key in own)
            training = replace(one, snapshots=n, examples=one.examples[: n[-1]])
            work = passes * answers_of(study.training, training) + len(own) * n_scored
            units.append((work, own))
    return balanced(units, count)


def balanced(units: Iterable[tuple[int, list[HeadKey]]], count: int) -> list[list[HeadKey]]:
    """Give each unit of (work, keys) to a part: the longest first, to the least loaded one."""
    loads, parts = [0] * count, [list[HeadKey]() for _ in range(count)]
    for work, keys in sorted(units, key=lambda unit: -unit[0]):
        least = loads.index(min(loads))
        loads[least] += work
        parts[least] += keys
    return parts
