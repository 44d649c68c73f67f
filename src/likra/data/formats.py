"""The forms in which people have right and wrong answers, recognised by their columns.

TRL's preference, unpaired preference and prompt-completion, each plain or as chat messages
(huggingface.co/docs/trl/dataset_formats), and multiple choice.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from likra.data.rows import MAX_FIELD, BadRowError
from likra.errors import LikraError, unknown
from likra.text import common_length

Messages = list[dict[str, str]]
Text = str | Messages
Labelled = list[tuple[Text, bool]]  # answers, with whether each is right

# What a column may be for, and the names by which it is recognised.
ROLES: dict[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qID", "prompt_id"),
    "prompt": ("prompt", "question"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "completion": ("completion",),
    "choices": ("choices", "answers", "options"),
    "answer": ("answer", "gold", "label", "answerKey", "correct"),
    "label": ("label",),
}
_USUAL = {name for names in ROLES.values() for name in names} - set(ROLES["id"])
WANTED = (
    "preference (prompt, chosen, rejected; one of the two may be missing), "
    "unpaired preference (prompt, completion, label), prompt-completion (prompt, completion), "
    "multiple choice (prompt or question, choices, answer)"
)


@dataclass(frozen=True)
class Example:
    """What is asked, and its answers; ``id`` and ``origin`` (the place in a file) may be empty."""

    id: str
    prompt: Text
    answers: Labelled
    origin: str = ""


@dataclass(frozen=True)
class Format:
    """A format; `recognise` adds what it knows of a file.

    Attributes:
        name: for the user.
        read: the prompt and the answers of a row.
        needed: the roles that columns must have.
        one_of: the roles of which one is needed.
        groups: whether rows with the same prompt are answers to one question.
        columns: the file's column for each role.
        seen: the columns of the first row.
        decodes: whether lists and messages are JSON in a field, as in CSV.

    """

    name: str
    read: Callable[["Format", Mapping[str, Any]], tuple[Text, Labelled]]
    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    groups: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    decodes: bool = False

    @property
    def asks(self) -> bool:
        """Whether the prompt is a bare question, to be put as ``Question: ...``, ``Answer:``."""
        return self.name == "multiple choice" and self.columns["prompt"] != "prompt"

    def parse(self, row: Mapping[str, Any]) -> Example:
        """A row as an example.

        Raises:
            BadRowError: what is wrong with it.

        """
        self._check_columns(row)
        prompt, answers = self.read(self, row)
        if self.name not in {"multiple choice", _ASKED.name}:
            answers = _unmixed(prompt, answers)
        if _is_blank(prompt):
            raise BadRowError("empty prompt")
        if not answers:
            raise BadRowError("no answers")
        if any(_is_blank(text) for text, _ in answers):
            raise BadRowError("empty answer")
        identity = row.get(self.columns["id"]) if "id" in self.columns else None
        return Example("" if identity is None else str(identity), prompt, answers)

    def _check_columns(self, row: Mapping[str, Any]) -> None:
        for role, column in self.columns.items():
            for name in column.split("+"):
                if name not in row and role not in {"id", "chosen", "rejected"}:
                    raise BadRowError(f"no column '{name}'", f"it has {_shown(row)}")
                if _length(row.get(name)) > MAX_FIELD:
                    raise BadRowError(
                        f"more than {MAX_FIELD:,} characters in '{name}'", "is a quote missing?"
                    )
        # a label, say, that only later rows have would be passed over
        used = {name for column in self.columns.values() for name in column.split("+")}
        for name in row:
            if name not in self.seen and name not in used and name in _USUAL:
                raise BadRowError(f"a column '{name}', which the first row lacks")


def _length(value: object) -> int:
    """Of the longest text in a field."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = list(value.values())
    return max(map(_length, value), default=0) if isinstance(value, list) else 0


def recognise(
    columns: Iterable[str],
    mapping: Mapping[str, str],
    where: str,
    *,
    decodes: bool = False,
    asks: bool = False,
) -> Format:
    """The format of a file with these columns.

    ``mapping`` has the user's own names by role, with ``A+B+C`` for choices in several columns;
    ``where`` names the file in messages. With ``asks``, of questions with options to rank, whose
    answers need not be known.

    Raises:
        LikraError: an unknown role, a missing column, or columns that match no format.

    """
    names = list(columns)
    by_role = _columns_by_role(names, mapping, where)
    for form in (_ASKED,) if asks else _FORMATS:
        needed = all(role in by_role for role in form.needed)
        if needed and (not form.one_of or any(role in by_role for role in form.one_of)):
            roles = dict.fromkeys(("id", "prompt", *form.needed, *form.one_of))
            # of a preference either may be missing in the first row
            named = {**{role: role for role in form.one_of}, **by_role}
            columns_of = {role: named[role] for role in roles if role in named}
            return replace(form, columns=columns_of, seen=frozenset(names), decodes=decodes)
    raise LikraError(
        f"{where} matches no format: it has {_shown(names)}. "
        f"Expected: {'prompt or question, and choices' if asks else WANTED}. "
        f"Name your columns with --columns prompt=MINE,{'choices' if asks else 'chosen'}=MINE"
    )


def _columns_by_role(names: list[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """The user's column of each role, and the usual names for the other roles."""
    for role, named in mapping.items():
        if role not in ROLES:
            raise unknown("role of a column", role, ROLES)
        for column in named.split("+"):
            if column not in names:
                raise LikraError(
                    f"{where} has no column '{column}' (for {role}): it has {_shown(names)}"
                )
    # a column that the user gave a role has no other
    given = {name for named in mapping.values() for name in named.split("+")}
    free = [name for name in names if name not in given]
    by_role = dict(mapping)
    for role, usual in ROLES.items():
        own = next((name for name in usual if name in free), None)
        if role not in by_role and own is not None:
            by_role[role] = own
    letters = [name for name in "ABCDEFGHIJ" if name in free]
    if "choices" not in by_role and letters[:2] == ["A", "B"]:
        by_role["choices"] = "+".join(letters)
    return by_role


def _shown(columns: Iterable[str]) -> str:
    names = [str(column) for column in columns]
    return f"columns {', '.join(names)}" if names else "no columns"


# --------------------------------------------------------------------------------------------
# Rows to examples


def _preference(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    right = _texts(form, row, "chosen")
    wrong = _texts(form, row, "rejected")
    if "prompt" in form.columns:
        prompt = _text_of(form, row, "prompt")
    elif right and wrong:
        prompt, right, wrong = _implicit_prompt(right, wrong)
    else:
        raise BadRowError("no prompt", "without that column it needs both chosen and rejected")
    return prompt, [(text, True) for text in right] + [(text, False) for text in wrong]


def _implicit_prompt(right: list[Text], wrong: list[Text]) -> tuple[Text, list[Text], list[Text]]:
    """The beginning that all answers share is the prompt, as in TRL's ``extract_prompt``."""
    everything = [*right, *wrong]
    length = common_length(everything)
    if isinstance(everything[0], str):
        length = len(everything[0][:length].rstrip(" "))  # the space belongs to the answers
    else:
        length = min(length, *(len(text) - 1 for text in everything))
    prompt = everything[0][:length]
    return prompt, [text[length:] for text in right], [text[length:] for text in wrong]


def _completion(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    """One answer, right where there is no label."""
    prompt = _text_of(form, row, "prompt")
    answer = _text_of(form, row, "completion")
    label = form.columns.get("label")
    return prompt, [(answer, label is None or _truth(row[label], label))]


def _choice(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    prompt = _text_of(form, row, "prompt")
    if not isinstance(prompt, str):
        raise BadRowError("chat messages with choices", "write them as chosen and rejected")
    texts, labels = _choices(form, row)
    column = form.columns["answer"]
    value = row[column]
    if value not in texts:
        value = _decoded(form, value)
    listed = value if isinstance(value, list) else [value]
    right = {_place(item, texts, labels, column) for item in listed}
    return prompt, [(text, place in right) for place, text in enumerate(texts)]


def _asked(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    return _text_of(form, row, "prompt"), [(text, False) for text in _choices(form, row)[0]]


def _choices(form: Format, row: Mapping[str, Any]) -> tuple[list[str], list[str] | None]:
    """The texts of the choices, and their labels where they have some of their own."""
    column = form.columns["choices"]
    if "+" in column:
        names = column.split("+")
        values = [row[name] for name in names]
        while values and _is_missing(values[-1]):  # a question may have fewer choices
            values.pop()
        texts = _plain_texts(values, column)
        return texts, names[: len(texts)] if all(len(name) == 1 for name in names) else None
    value = _decoded(form, row[column])
    if not isinstance(value, dict):
        return _plain_texts(value, column), None
    texts = _plain_texts(value.get("text"), column)
    labels = _plain_texts(value.get("label"), column)
    if len(texts) != len(labels) or len(set(labels)) != len(labels):
        raise BadRowError(f"'{column}' needs one label for each text", f"{value!r:.60}")
    return texts, labels


def _plain_texts(value: object, column: str) -> list[str]:
    if not isinstance(value, list):
        raise BadRowError(f"'{column}' is not a list of texts", f"{value!r:.60}")
    for text in value:
        if _is_missing(text) or isinstance(text, bool) or not isinstance(text, str | int | float):
            raise BadRowError(f"'{column}' is not a list of texts", f"{text!r:.60} in it")
    return [str(text) for text in value]


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _place(value: object, texts: list[str], labels: list[str] | None, column: str) -> int:
    """An answer given by its label; where choices have none, by text, letter or index from 0."""
    if isinstance(value, bool) or _is_missing(value):
        raise BadRowError(f"'{column}' matches no choice", f"{value!r}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if labels is not None:
        if text in labels:
            return labels.index(text)
        if texts.count(text) == 1:
            return texts.index(text)
        raise BadRowError(f"'{column}' matches no choice", f"'{text:.60}' ({', '.join(labels)})")
    places = {place for place, choice in enumerate(texts) if choice.strip() == text}
    letters = [chr(ord("A") + place) for place in range(len(texts))]
    places |= {letters.index(text)} if text in letters else set()
    number = int(text) if re.fullmatch(r"-?\d{1,9}", text) else None
    places |= {number} if number is not None and 0 <= number < len(texts) else set()
    if len(places) == 1:
        return places.pop()
    if places:
        raise BadRowError(f"'{column}' is ambiguous", f"'{text:.60}'")
    if number == len(texts):
        raise LikraError(
            f"'{column}' is {number}, and there are {number} choices: answers are counted from 0 "
            "here, and this file seems to count from 1"
        )
    if number is not None:
        raise BadRowError(
            f"'{column}' is out of range",
            f"{number}, and the {len(texts)} choices are counted from 0",
        )
    known = f"{letters[0]} to {letters[-1]}" if letters else "none"
    raise BadRowError(f"'{column}' matches no choice", f"'{text:.60}' ({known}, or a text)")


def _text_of(form: Format, row: Mapping[str, Any], role: str) -> Text:
    return _text(form, row[form.columns[role]], form.columns[role])


def _text(form: Format, value: Any, column: str) -> Text:
    """A plain text, or chat messages."""
    value = _decoded(form, value, "[{")
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and "content" in value:
        value = [value]
    if isinstance(value, list) and value and all(_is_message(item) for item in value):
        return [{"role": str(m["role"]), "content": m["content"]} for m in value]
    raise BadRowError(f"'{column}' is neither a text nor chat messages", f"{value!r:.60}")


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value and isinstance(value.get("content"), str)


def _texts(form: Format, row: Mapping[str, Any], role: str) -> list[Text]:
    """No answer, one, or a list of several."""
    column = form.columns[role]
    value = _decoded(form, row.get(column), "[{", '["')
    if _is_missing(value) or value == []:
        return []
    if isinstance(value, list) and not any(_is_message(item) for item in value):
        return [_text(form, item, column) for item in value]
    return [_text(form, value, column)]


def _decoded(form: Format, value: Any, *beginnings: str) -> Any:
    """In CSV, lists and messages are JSON in a field."""
    if form.decodes and isinstance(value, str) and value.startswith(beginnings or ("[", "{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value  # a text that begins with a bracket
    return value


def _truth(value: object, column: str) -> bool:
    named = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    text = str(value).strip().lower()
    if text not in named:
        raise BadRowError(f"'{column}' is neither true nor false", f"{value!r:.60}")
    return named[text]


def _unmixed(prompt: Text, answers: Labelled) -> Labelled:
    """Plain answers belong to a plain prompt; messages to messages, which they may repeat."""
    unmixed: Labelled = []
    for text, is_right in answers:
        if isinstance(text, str) != isinstance(prompt, str):
            raise BadRowError("mixed plain text and chat messages", "in prompt and answers")
        if not isinstance(text, str):
            own = text[len(prompt) :] if text[: len(prompt)] == prompt else text
            if not own or own[0]["role"] != "assistant":
                raise BadRowError("the answer does not begin with the assistant's turn")
            text = own  # noqa: PLW2901
        unmixed.append((text, is_right))
    return unmixed


def _is_blank(text: Text) -> bool:
    if isinstance(text, str):
        return not text.strip()
    return not any(message["content"].strip() for message in text)


_FORMATS = (
    Format("preference", _preference, one_of=("chosen", "rejected")),
    Format("unpaired preference", _completion, ("prompt", "completion", "label"), groups=True),
    Format("prompt-completion", _completion, ("prompt", "completion"), groups=True),
    Format("multiple choice", _choice, ("prompt", "choices", "answer")),
)
_ASKED = Format("questions with options", _asked, ("prompt", "choices"))


def bare_format(style: str) -> Format:
    """A format by the form of its prompts, for questions that are in no file.

    "question" is multiple choice with a bare question, "continuation" multiple choice with a
    prompt of its own, "verbatim" a format of TRL's.
    """
    if style == "verbatim":
        return _FORMATS[0]
    column = "question" if style == "question" else "prompt"
    return replace(_FORMATS[3], columns={"prompt": column})
