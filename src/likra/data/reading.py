"""How people's files are read: what a user says of them, checked once and passed on whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from likra.data.columns import check_columns
from likra.errors import LikraError


@dataclass(frozen=True)
class Reading:
    """How a data file, a data set of the hub or rows in memory are read.

    Attributes:
        columns: the user's own column names by role (`likra.data.columns.ROLES`); ``A+B+C`` where a
            role has several columns, ``question.stem`` for a nested one.
        on_bad_row: "error", or "skip" to leave out rows that cannot be used, and count them.
        answer_base: the number of the first choice, where answers are numbers: 0 or 1.

    Raises:
        LikraError: a value that is none of these.

    """

    columns: Mapping[str, str] = field(default_factory=dict)
    on_bad_row: str = "error"
    answer_base: int = 0

    def __post_init__(self) -> None:
        check_columns(self.columns)
        if self.on_bad_row not in {"error", "skip"}:
            raise LikraError(f"on_bad_row takes error or skip, not '{self.on_bad_row}'")
        if self.answer_base not in {0, 1}:
            raise LikraError(f"answer_base takes 0 or 1, not {self.answer_base}")

    @property
    def for_files(self) -> list[str]:
        """The options that were given and mean something for files alone, as in the shell."""
        given = {"--columns": self.columns, "--answer-base": self.answer_base}
        return [option for option, value in given.items() if value]


USUAL = Reading()
