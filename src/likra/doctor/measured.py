"""What the doctor found: a number each, and where there is a limit, whether it is kept."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A number that was measured.

    Attributes:
        what: it is, in words.
        value: the number.
        unit: of the number and of its limit; "share" for parts of 1.
        limit: that it must keep; None where nothing is judged.
        at_least: whether the limit is the least allowed, and not the greatest.

    """

    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether the limit is kept; None without one."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit
