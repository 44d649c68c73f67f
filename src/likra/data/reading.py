"""How people's files are read: what a user says of them, checked once and passed on whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from likra.data.columns import check_columns
from likra.data.template import PromptTemplate
from likra.errors import LikraError


@dataclass(frozen=True)
class Reading:
    """How a data file, a data set of the hub or rows in memory are read.

    Attributes:
        columns: the user's own column names by role (`likra.data.columns.ROLES`); ``A+B+C`` where a
            role has several columns, ``question.stem`` for a nested one.
        on_bad_row: "error", or "skip" to leave out rows that cannot be used, and count them.
        answer_base: the number of the first choice, where answers are numbers: 0 or 1.
        prompt_template: what stands before an answer (`likra.data.template.PromptTemplate`); by
            default the format decides.

    Raises:
        LikraError: a value that is none of these.

    """

    columns: Mapping[str, str] = field(default_factory=dict)
    on_bad_row: str = "error"
    answer_base: int = 0
    prompt_template: str | None = None

    def __post_init__(self) -> None:
        check_columns(self.columns)
        if self.on_bad_row not in {"error", "skip"}:
            raise LikraError(f"on_bad_row takes error or skip, not '{self.on_bad_row}'")
        if self.answer_base not in {0, 1}:
            raise LikraError(f"answer_base takes 0 or 1, not {self.answer_base}")
        _ = self.template  # which says what is wrong with it

    @cached_property
    def template(self) -> PromptTemplate | None:
        """The template of prompts, if there is one."""
        return None if self.prompt_template is None else PromptTemplate(self.prompt_template)

    @property
    def for_files(self) -> list[str]:
        """The options that were given and mean something for files alone, as in the shell."""
        given = {
            "--columns": self.columns,
            "--answer-base": self.answer_base,
            "--prompt-template": self.template,
        }
        return [option for option, value in given.items() if value]


USUAL = Reading()
