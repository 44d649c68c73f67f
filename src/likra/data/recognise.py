"""Which format a file has, told by its first row and by what the user says of it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from likra.data.columns import ROLES, columns_by_role, names_of, parts, shown, value_of
from likra.data.formats import ASKED, FORMATS, Format
from likra.data.reading import Reading
from likra.data.template import PromptTemplate
from likra.errors import LikraError


def recognise(
    first: Iterable[str] | Mapping[str, Any],
    reading: Reading,
    where: str,
    *,
    decodes: bool = False,
    asks: bool = False,
) -> Format:
    """The format of a file with this first row.

    ``first`` may be no more than the names of the columns; ``where`` names the file in messages.
    With ``asks``, of questions with options to rank, whose answers need not be known.

    Raises:
        LikraError: a missing column, or columns that match no format.

    """
    names = names_of(first)
    by_role = columns_by_role(names, reading.columns, where)
    if reading.template is not None:
        _check_fields(reading.template, names, where, asks=asks)
        by_role = {**_asked_by(reading.template, first, by_role), **reading.columns}
    for form in (ASKED,) if asks else FORMATS:
        needed = all(role in by_role for role in form.needed)
        if needed and (not form.one_of or any(role in by_role for role in form.one_of)):
            roles = dict.fromkeys((*form.optional, *form.needed, *form.one_of))
            # of a preference either may be missing in the first row
            named = {**{role: role for role in form.one_of}, **by_role}
            columns = {role: named[role] for role in roles if role in named}
            found = replace(
                form,
                columns=columns,
                seen=frozenset(names),
                decodes=decodes,
                answer_base=reading.answer_base,
                template=reading.template,
            )
            finds_answer = "answer" in columns and "answer" not in reading.columns
            if finds_answer and isinstance(first, Mapping):
                return _with_answer(found, first)
            return found
    without_header = (
        "; or, of a file without a header, by their numbers: --columns prompt=0,choices=1+2+3"
        f"{'' if asks else ',answer=4'}"
    )
    raise LikraError(
        f"{_no_format(names, by_role, where, asks=asks)}{without_header if decodes else ''}"
    )


def _check_fields(template: PromptTemplate, names: list[str], where: str, *, asks: bool) -> None:
    """Refuse a field that is no column; Jinja may ask whether there is one."""
    if template.is_jinja or (asks and len(template.fields) == 1):
        return
    for field_name in template.fields:
        if field_name not in names and field_name != "prompt":
            raise LikraError(
                f"{where} has no field '{field_name}' (of the prompt template): it has "
                f"{shown(names)}"
            )


def _asked_by(
    template: PromptTemplate,
    first: Iterable[str] | Mapping[str, Any],
    by_role: Mapping[str, str],
) -> dict[str, str]:
    """The roles, with the texts that the template shows and nothing else uses as what is asked."""
    taken = {n for role, column in by_role.items() if role != "prompt" for n in parts(column)}
    row = first if isinstance(first, Mapping) else {}
    own = [n for n in template.fields if n not in taken and isinstance(value_of(row, n), str)]
    return {**by_role, "prompt": "+".join(own)} if own else dict(by_role)


def _with_answer(form: Format, row: Mapping[str, Any]) -> Format:
    """Of several columns that may be the answer, the first that fits the choices."""
    taken = {name for role, column in form.columns.items() for name in parts(column)}
    others = [name for name in ROLES["answer"] if name in row and name not in taken]
    for name in (form.columns["answer"], *others):
        tried = replace(form, columns={**form.columns, "answer": name})
        try:
            tried.parse(row)
        except LikraError:
            continue
        return tried
    return form


def _no_format(
    names: list[str], by_role: Mapping[str, str], where: str, *, asks: bool = False
) -> str:
    """What the columns are, what the nearest format lacks, and what to type."""
    forms = [ASKED] if asks else [FORMATS[3], FORMATS[0], FORMATS[2]]
    lacking = {
        form.name: [
            role
            for role in dict.fromkeys(("prompt", *form.needed, *form.one_of[:1]))
            if role not in by_role
        ]
        for form in forms
    }
    nearest = min(lacking, key=lambda name: len(lacking[name]))
    missing = " and ".join(map(_usual_names, lacking[nearest]))
    others = ", ".join(form.name for form in FORMATS if form.name != nearest)
    return (
        f"{where} matches no format: it has {shown(names)}. For {nearest} it lacks {missing}. Name "
        f"your columns, such as --columns {','.join(f'{role}=MINE' for role in lacking[nearest])}"
        f"{'' if asks else f' (or bring it into another format: {others})'}"
    )


def _usual_names(role: str) -> str:
    """A role with the first of its other names: "answer (or gold, label ...)"."""
    others = [name for name in ROLES[role] if name != role]
    return f"{role} (or {', '.join(others[:2])} ...)" if others else role
