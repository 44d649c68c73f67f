"""Parts of a study for several processes or machines that write into one folder."""

import re
from dataclasses import dataclass
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

    def keys(self, cells: Cells) -> set[HeadKey]:
        """The score tables of this shard. A training is never divided; all shards agree on this.

        The longest work goes first to the shard with the least. Work is counted in answers times
        forward passes, whether it is done already or not.
        """
        if self.count == 1:
            return set(cells.scores)
        study, n_scored = cells.run.study, sum(len(q.choices) for q in cells.data.evaluation)
        passes = passes_of(cells.trainings)
        units = [([key for key in cells.scores if not key.n_train], 0)]
        units += [
            (one.keys, own * answers_of(study.training, one))
            for one, own in zip(cells.trainings, passes, strict=True)
        ]
        sized = [(work + len(keys) * n_scored, keys) for keys, work in units]
        loads, parts = [0] * self.count, [set[HeadKey]() for _ in range(self.count)]
        for work, keys in sorted(sized, key=lambda unit: -unit[0]):
            least = loads.index(min(loads))
            loads[least] += work
            parts[least].update(keys)
        return parts[self.number]


WHOLE = Shard()
