"""What the columns of people's files are for, told by their names.

A column may be nested (``question.stem``), and a role may have several columns
(``A+B+C`` for choices, ``context+question`` for a prompt).
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from likra.errors import LikraError, unknown

# What a column may be for, and the names by which it is recognised; the first one wins.
ROLES: dict[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qID", "prompt_id"),
    "prompt": (
        *("prompt", "question", "question_stem", "query", "goal", "ctx", "input", "instruction"),
        *("sentence", "startphrase", "Question"),
    ),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "completion": ("completion",),
    "choices": ("choices", "answers", "options", "endings", "candidates"),
    "answer": (
        *("answer", "gold", "label", "answerKey", "correct", "target", "cop", "correct_option"),
        *("answer_idx", "answer_index", "correct_index", "correct_answer_index", "correct_answer"),
    ),
    "label": ("label",),
    "messages": ("messages", "conversations"),
}
SEVERAL = ("prompt", "chosen", "rejected", "completion", "choices")  # roles of several columns
USUAL = {name for names in ROLES.values() for name in names} - set(ROLES["id"])
# Prompts that the answer continues; others are questions.
CONTINUED = {"prompt", "ctx", "input", "instruction", "startphrase"}
# Prompts from which an answer that is no choice is set off, too; elsewhere spaces are the file's.
SET_OFF = {"instruction", "anchor", "query"}

# Columns with one choice each: a beginning, and letters or numbers.
_FAMILIES = [
    tuple(stem + letter for letter in series)
    for stem, series in (
        ("", "ABCDEFGHIJ"),
        ("op", "abcdefgh"),
        *product(
            ("option", "option_", "choice", "choice_", "answer", "answer_"),
            ("ABCDEFGHIJ", "abcdefghij", "0123456789", "123456789"),
        ),
        *product(("ending", "sol"), ("0123456789", "123456789")),
    )
]

# Whole sets of columns: if a file has those on the left, its roles are those on the right.
# "*" stands for numbers from 1; of several columns, those that are there.
Sets = tuple[tuple[set[str], dict[str, str]], ...]
_CHOICE_SETS: Sets = (
    (
        {"question.stem", "question.choices"},
        {"prompt": "question.stem", "choices": "question.choices"},
    ),
    ({"premise", "question", "choice1"}, {"prompt": "premise+question"}),
    ({"context", "question", "answerA"}, {"prompt": "context+question"}),
    ({"context", "query"}, {"prompt": "context+query"}),
    (
        {"correct_answer", "distractor1"},
        {"choices": "correct_answer+distractor*", "answer": "correct_answer"},
    ),
    (
        {"Correct Answer", "Incorrect Answer 1"},
        {"choices": "Correct Answer+Incorrect Answer *", "answer": "Correct Answer"},
    ),
)
# Only for files that name no answers in one of the usual ways.
_TEXT_SETS: Sets = (
    (
        {"anchor", "positive"},
        {"prompt": "anchor", "chosen": "positive", "rejected": "negative+negative_*"},
    ),
    (
        {"query", "positive"},
        {"prompt": "query", "chosen": "positive", "rejected": "negative+negative_*"},
    ),
    ({"instruction", "output"}, {"prompt": "instruction+input", "completion": "output"}),
)


def check_columns(mapping: Mapping[str, str]) -> None:
    """Refuse what can be a mapping of no file.

    Raises:
        LikraError: an unknown role, or several columns for a role that takes one.

    """
    for role, named in mapping.items():
        if role not in ROLES:
            raise unknown("role of a column", role, ROLES)
        if len(parts(named)) > 1 and role not in SEVERAL:
            raise LikraError(
                f"the role {role} takes one column, not '{named}': several are for "
                f"{', '.join(SEVERAL)}"
            )


def columns_by_role(names: list[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """The user's column of each role, and the usual names for the other roles.

    Raises:
        LikraError: a column that is not there.

    """
    for role, named in mapping.items():
        for column in parts(named):
            if column not in names:
                raise LikraError(
                    f"{where} has no column '{column}' (for {role}): it has {shown(names)}"
                )
    # a column that the user gave a role has no other
    given = {name for named in mapping.values() for name in parts(named)}
    free = [name for name in names if name not in given]
    usual = {
        role: found[0]
        for role, known in ROLES.items()
        if (found := [name for name in known if name in free])
    }
    named_answers = {"chosen", "rejected", "completion", "choices"} & {*usual, *mapping}
    sets = _CHOICE_SETS if named_answers else _CHOICE_SETS + _TEXT_SETS
    return {**_of_family(free), **usual, **_of_sets(free, sets), **mapping}


def _of_family(names: list[str]) -> dict[str, str]:
    for family in _FAMILIES:
        own = [name for name in family if name in names]
        if own[:2] == [*family[:2]]:
            return {"choices": "+".join(own)}
    return {}


def _of_sets(names: list[str], sets: Sets) -> dict[str, str]:
    by_role: dict[str, str] = {}
    for columns, roles in sets:
        if columns.issubset(names):
            for role, column in roles.items():
                own = [name for name in _numbered(column) if name in names]
                if own:
                    by_role.setdefault(role, "+".join(own))
    return by_role


def _numbered(column: str) -> Iterator[str]:
    for part in parts(column):
        yield from (part.replace("*", str(n)) for n in range(1, 10)) if "*" in part else (part,)


def are_numbers(mapping: Mapping[str, str]) -> bool:
    """Whether the user names columns by their numbers, as in a file without a header."""
    named = [name for column in mapping.values() for name in parts(column)]
    return bool(named) and all(name.isdecimal() for name in named)


def parts(column: str) -> list[str]:
    """The columns of a role, one or several."""
    return column.split("+")


def names_of(row: Iterable[str] | Mapping[str, Any], depth: int = 4) -> list[str]:
    """The columns of a row, nested ones after those that contain them, down to a depth."""
    names = []
    for name in row:
        names.append(name)
        value = row[name] if isinstance(row, Mapping) else None
        if isinstance(value, Mapping) and depth > 1:
            names += [f"{name}.{inner}" for inner in names_of(value, depth - 1)]
    return names


def has(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column, perhaps a nested one."""
    if name in row:
        return True
    outer, _, inner = name.partition(".")
    nested = row.get(outer)
    return bool(inner) and isinstance(nested, Mapping) and has(nested, inner)


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value in a column, perhaps a nested one; None if there is none."""
    if name in row:
        return row[name]
    outer, _, inner = name.partition(".")
    nested = row.get(outer)
    return value_of(nested, inner) if inner and isinstance(nested, Mapping) else None


def shown(columns: Iterable[str]) -> str:
    """Columns, for messages."""
    names = [str(column) for column in columns]
    return f"columns {', '.join(names)}" if names else "no columns"
