"""Templates of prompts, in two forms: the fields of a row in braces, and Jinja."""

import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from likra.data.columns import has, shown, value_of
from likra.data.rows import BadRowError
from likra.errors import LikraError
from likra.text import one_line

if TYPE_CHECKING:
    from jinja2 import Environment, Template


@dataclass(frozen=True)
class PromptTemplate:
    r"""What stands before an answer, with the fields of a row in it.

    It is Jinja if it contains ``{{ `` (two braces and a space) or ``{%``. Otherwise a field is in
    single braces, with dots for nested ones (``{question.stem}``), and ``{{`` and ``}}`` are
    literal braces. In both, a field is a column of the row, or ``prompt``: the text that the row
    asks. A backslash and an n are a newline.

    Attributes:
        text: as it was given.

    Raises:
        LikraError: it cannot be read, or has no field.

    """

    text: str

    def __post_init__(self) -> None:
        if not self.fields:
            raise LikraError(
                f"the prompt template '{self.shown}' has no field: a field is written "
                "{question}, in Jinja {{ question }} with spaces"
            )

    @property
    def is_jinja(self) -> bool:
        """Whether it is Jinja."""
        return "{{ " in self.text or "{%" in self.text

    @property
    def shown(self) -> str:
        """The template in one line, for messages."""
        return self.text.replace("\n", "\\n")

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields that it names, in order; in Jinja without what is nested in them."""
        if self.is_jinja:
            return self._variables()
        return tuple(dict.fromkeys(name for _, name in self._pieces if name is not None))

    def fill(self, row: Mapping[str, Any], prompt: str | None = None) -> str:
        """The template with the values of a row.

        Args:
            row: values by column.
            prompt: the text that the row asks, for the field ``prompt`` of a row without it.

        Raises:
            BadRowError: a field that the row lacks, or whose value is no text or number.

        """
        values = row if prompt is None else {"prompt": prompt, **row}
        if self.is_jinja:
            return self._rendered(values, shown(row))
        for name in self.fields:
            if not has(values, name):
                raise BadRowError(
                    f"no field '{name}' for the prompt template", f"it has {shown(row)}"
                )
        return "".join(
            before if name is None else before + _text_in(values, name)
            for before, name in self._pieces
        )

    def ask(self, row: Mapping[str, Any], text: str) -> str:
        """`fill` for a new question: where the row lacks the only field, that is the text.

        Raises:
            BadRowError: as `fill`.

        """
        if len(self.fields) == 1 and not has(row, self.fields[0]):
            return self.fill({self.fields[0]: text})
        return self.fill(row, text)

    # ----------------------------------------------------------------------------------------
    # Fields in braces

    @cached_property
    def _pieces(self) -> list[tuple[str, str | None]]:
        """Texts, each with the name of the field after it."""
        pieces = []
        try:
            # parsed and not formatted: that would read attributes of the values
            for before, name, form, conversion in string.Formatter().parse(self._source):
                if name is not None and (not name.strip() or form or conversion):
                    raise ValueError("a field in braces is the name of a column alone")
                pieces.append((before, name))
        except ValueError as error:
            raise LikraError(
                f"the prompt template '{self.shown}' cannot be read: {error} (literal braces are "
                "{{ and }})"
            ) from error
        return pieces

    @property
    def _source(self) -> str:
        return self.text.replace("\\n", "\n")

    # ----------------------------------------------------------------------------------------
    # Jinja

    def _variables(self) -> tuple[str, ...]:
        from jinja2 import meta

        _ = self._template  # which names what is wrong
        found = meta.find_undeclared_variables(self._environment.parse(self._source))
        return tuple(sorted(found - set(self._environment.globals), key=self.text.index))

    def _rendered(self, values: Mapping[str, Any], columns: str) -> str:
        from jinja2 import UndefinedError

        try:
            return self._template.render(values)
        except BadRowError:
            raise
        except UndefinedError as error:
            raise BadRowError(
                "no field for the prompt template", f"{error.message}; it has {columns}"
            ) from error
        except Exception as error:  # an expression may raise anything at all
            raise BadRowError("the prompt template cannot be filled", one_line(error)) from error

    @cached_property
    def _environment(self) -> "Environment":
        from likra.data.sandbox import Sandbox

        return Sandbox(finalize=_present)

    @cached_property
    def _template(self) -> "Template":
        from jinja2 import TemplateSyntaxError

        try:
            return self._environment.from_string(self._source)
        except TemplateSyntaxError as error:
            raise LikraError(
                f"the prompt template '{self.shown}' cannot be read as Jinja: {error.message}"
            ) from error


def _present(value: object) -> object:
    """A value that Jinja shows; it would show None as a word."""
    if value is None:
        raise BadRowError("a field of the prompt template has no value")
    return value


def _text_in(row: Mapping[str, Any], name: str) -> str:
    value = value_of(row, name)
    if not isinstance(value, str | int | float) or (isinstance(value, float) and math.isnan(value)):
        raise BadRowError(
            f"the field '{name}' of the prompt template is no text or number",
            f"{value!r:.60}{' (Jinja can show it)' if isinstance(value, list | dict) else ''}",
        )
    return str(value)
