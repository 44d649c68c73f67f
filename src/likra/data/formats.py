"""The forms in which people have right and wrong answers, recognised by their columns.

TRL's preference, unpaired preference and prompt-completion, each plain or as chat messages
(huggingface.co/docs/trl/dataset_formats), multiple choice, and chats.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from likra.data.columns import (
    CONTINUED,
    SET_OFF,
    USUAL,
    has,
    parts,
    shown,
    value_of,
)
from likra.data.rows import MAX_FIELD, BadRowError, is_too_deep, too_deep
from likra.data.template import PromptTemplate
from likra.errors import LikraError
from likra.text import common_length

Messages = list[dict[str, str]]
Text = str | Messages
Labelled = list[tuple[Text, bool]]  # answers, with whether each is right


@dataclass(frozen=True)
class Example:
    """What is asked, and its answers.

    Attributes:
        id: may be empty.
        prompt: what is put before the answers, in the form of the format.
        answers: the answers.
        origin: the place in a file; may be empty.
        asked: the text that the row asks, where a template has made another prompt of it.

    """

    id: str
    prompt: Text
    answers: Labelled
    origin: str = ""
    asked: str | None = None

    @property
    def stem(self) -> Text:
        """What is asked, without a template's words."""
        return self.prompt if self.asked is None else self.asked


@dataclass(frozen=True)
class Format:
    """A format; `likra.data.recognise` adds what it knows of a file.

    Attributes:
        name: for the user.
        read: the prompt and the answers of a row.
        needed: the roles that columns must have.
        one_of: the roles of which one is needed.
        optional: the roles that columns may have.
        groups: whether rows with the same prompt are answers to one question.
        columns: the file's column for each role.
        seen: the columns of the first row.
        decodes: whether lists and messages are JSON in a field, as in CSV.
        answer_base: the number of the first choice.
        template: what prompts are made by; None for the format's own form.

    """

    name: str
    read: Callable[["Format", Mapping[str, Any]], tuple[Text, Labelled]]
    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    optional: tuple[str, ...] = ("id", "prompt")
    groups: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    decodes: bool = False
    answer_base: int = 0
    template: PromptTemplate | None = None

    @property
    def asks(self) -> bool:
        """Whether the prompt is a bare question, to be put as ``Question: ...``, ``Answer:``."""
        is_bare = self.name == "multiple choice" and self._first_of_prompt not in CONTINUED
        return is_bare and self.template is None

    @property
    def sets_off(self) -> bool:
        """Whether a space sets answers off from the prompt, if none is there."""
        is_whole = self.name != "multiple choice" and self.template is None
        return not is_whole or self._first_of_prompt in SET_OFF

    @property
    def _first_of_prompt(self) -> str:
        return parts(self.columns.get("prompt", "prompt"))[0]

    def parse(self, row: Mapping[str, Any]) -> Example:
        """A row as an example.

        Raises:
            BadRowError: what is wrong with it.

        """
        self._check_columns(row)
        prompt, answers = self.read(self, row)
        if self.name not in {"multiple choice", ASKED.name}:
            answers = _unmixed(prompt, answers)
        if _is_blank(prompt):
            raise BadRowError("empty prompt")
        if not answers:
            raise BadRowError("no answers")
        if any(_is_blank(text) for text, _ in answers):
            raise BadRowError("empty answer")
        identity = value_of(row, self.columns["id"]) if "id" in self.columns else None
        example = Example("" if identity is None else str(identity), prompt, answers)
        return example if self.template is None else self._by_template(example, row, self.template)

    def _by_template(
        self, example: Example, row: Mapping[str, Any], template: PromptTemplate
    ) -> Example:
        """The example with the template's prompt."""
        asked = example.prompt
        if not isinstance(asked, str):
            raise BadRowError("chat messages", "a prompt template is for plain text")
        if template.is_jinja:
            row = {name: _decoded(self, value) for name, value in row.items()}
        fill = template.ask if self.name == ASKED.name else template.fill
        prompt = fill(row, asked)
        if _is_blank(prompt):
            raise BadRowError("empty prompt", "of the prompt template")
        return replace(example, prompt=prompt, asked=asked)

    def _check_columns(self, row: Mapping[str, Any]) -> None:
        for role, column in self.columns.items():
            for name in parts(column):
                if not has(row, name) and role not in {"id", "chosen", "rejected"}:
                    raise BadRowError(f"no column '{name}'", f"it has {shown(row)}")
                if _length(value_of(row, name)) > MAX_FIELD:
                    raise BadRowError(
                        f"more than {MAX_FIELD:,} characters in '{name}'", "is a quote missing?"
                    )
        # a label, say, that only later rows have would be passed over
        used = {name for column in self.columns.values() for name in parts(column)}
        for name in row:
            if name not in self.seen and name not in used and name in USUAL:
                raise BadRowError(f"a column '{name}', which the first row lacks")


def _length(value: object) -> int:
    """Of the longest text in a field."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = list(value.values())
    return max(map(_length, value), default=0) if isinstance(value, list) else 0


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
    return prompt, [(answer, label is None or _truth(value_of(row, label), label))]


def _conversation(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    """The last turn of the assistant is the answer; what follows it is left out."""
    column = form.columns["messages"]
    turns = _text(form, value_of(row, column), column)
    if isinstance(turns, str):
        raise BadRowError(f"'{column}' is not a list of chat messages", f"{turns!r:.60}")
    last = max((n for n, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
    if not last:
        raise BadRowError("no turn of the assistant after another", f"in '{column}'")
    return turns[:last], [(turns[last : last + 1], True)]


def _choice(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    prompt = _text_of(form, row, "prompt")
    if not isinstance(prompt, str):
        raise BadRowError("chat messages with choices", "write them as chosen and rejected")
    choices = _choices(form, row)
    column = form.columns["answer"]
    value = value_of(row, column)
    own = parts(form.columns["choices"])
    if len(own) > 1 and column in own:
        right = {own.index(column)}
    else:
        if value not in choices.texts:
            value = _decoded(form, value)
        listed = value if isinstance(value, list) else [value]
        right = {_place(item, choices, column, form.answer_base) for item in listed}
    return prompt, [(text, place in right) for place, text in enumerate(choices.texts)]


def _asked(form: Format, row: Mapping[str, Any]) -> tuple[Text, Labelled]:
    return _text_of(form, row, "prompt"), [(text, False) for text in _choices(form, row).texts]


class _Choices(NamedTuple):
    """The texts of the choices, their labels if they have some, and whether they are counted."""

    texts: list[str]
    labels: list[str] | None = None
    is_counted: bool = True


def _choices(form: Format, row: Mapping[str, Any]) -> _Choices:
    column = form.columns["choices"]
    names = parts(column)
    if len(names) > 1:
        are_letters = all(len(name) == 1 and name.isalpha() for name in names)
        return _lettered(names, [value_of(row, n) for n in names], column, are_letters=are_letters)
    value = _decoded(form, value_of(row, column))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {key: [item.get(key) for item in value] for key in ("text", "label")}
    if not isinstance(value, dict):
        return _Choices(_plain_texts(value, column))
    if value and not value.keys() & {"text", "label"}:
        return _lettered([*value], [*value.values()], column)
    texts = _plain_texts(value.get("text"), column)
    labels = _plain_texts(value.get("label"), column)
    if len(texts) != len(labels) or len(set(labels)) != len(labels):
        raise BadRowError(f"'{column}' needs one label for each text", f"{value!r:.60}")
    return _Choices(texts, labels, is_counted=False)


def _lettered(
    names: list[str], values: list[Any], column: str, *, are_letters: bool = True
) -> _Choices:
    """Choices with a name each; a question may have fewer than others."""
    while values and _is_missing(values[-1]):
        values.pop()
    texts = _plain_texts(values, column)
    return _Choices(texts, names[: len(texts)] if are_letters else None)


def _plain_texts(value: object, column: str) -> list[str]:
    if not isinstance(value, list):
        raise BadRowError(f"'{column}' is not a list of texts", f"{value!r:.60}")
    for text in value:
        if _is_missing(text) or isinstance(text, bool) or not isinstance(text, str | int | float):
            raise BadRowError(f"'{column}' is not a list of texts", f"{text!r:.60} in it")
    return [str(text) for text in value]


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _place(value: object, choices: _Choices, column: str, base: int = 0) -> int:
    """An answer given by its label, else by its text, letter or number, counted from the base."""
    texts, labels, is_counted = choices
    if isinstance(value, bool) or _is_missing(value):
        raise BadRowError(f"'{column}' matches no choice", f"{value!r}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if labels is not None and text in labels:
        return labels.index(text)
    places = {place for place, choice in enumerate(texts) if choice.strip() == text}
    letters = [chr(ord("A") + place) for place in range(len(texts))] if labels is None else labels
    places |= {letters.index(text)} if text in letters else set()
    is_number = is_counted and re.fullmatch(r"-?\d{1,9}", text)
    number = int(text) if is_number else None
    if number is not None and 0 <= number - base < len(texts):
        places.add(number - base)
    if len(places) == 1:
        return places.pop()
    if places:
        raise BadRowError(f"'{column}' is ambiguous", f"'{text:.60}'")
    if number is not None:
        raise _out_of_range(number, len(texts), column, base)
    if labels is not None:
        raise BadRowError(f"'{column}' matches no choice", f"'{text:.60}' ({', '.join(labels)})")
    known = f"{letters[0]} to {letters[-1]}" if letters else "none"
    raise BadRowError(f"'{column}' matches no choice", f"'{text:.60}' ({known}, or a text)")


def _out_of_range(number: int, count: int, column: str, base: int) -> LikraError:
    other = 1 - base
    if number == (count if other else 0):
        option = "set --answer-base 1" if other else "leave out --answer-base 1"
        return LikraError(
            f"'{column}' is {number}, and there are {count} choices: answers are counted from "
            f"{base} here, and this file seems to count from {other}: {option}"
        )
    return BadRowError(
        f"'{column}' is out of range", f"{number}, and the {count} choices are counted from {base}"
    )


def _text_of(form: Format, row: Mapping[str, Any], role: str) -> Text:
    """The text in the role's column, or those in its columns, with blank lines between them."""
    column = form.columns[role]
    names = parts(column)
    if len(names) == 1:
        return _text(form, value_of(row, column), column)
    values = [value for name in names if not _is_missing(value := value_of(row, name))]
    texts = [_text(form, value, column) for value in values]
    if not all(isinstance(text, str) for text in texts):
        raise BadRowError(f"'{column}' is not made of texts")
    return "\n\n".join(str(text) for text in texts)


def _text(form: Format, value: Any, column: str) -> Text:
    """A plain text, or chat messages."""
    value = _decoded(form, value, "[{")
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and "content" in value:
        value = [value]
    if isinstance(value, list) and value and all(_is_message(item) for item in value):
        return [_message(item) for item in value]
    turns = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    speakers = [str(turn["from"]) for turn in turns if "from" in turn]
    if unknown := [name for name in speakers if name not in _SHAREGPT]:
        kind = f"'{column}' has an unknown speaker"
        raise BadRowError(kind, f"'{unknown[0]:.60}'; known: {', '.join(_SHAREGPT)}")
    raise BadRowError(f"'{column}' is neither a text nor chat messages", f"{value!r:.60}")


def _is_message(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    if "role" in value:
        return isinstance(value.get("content"), str)
    return str(value.get("from")) in _SHAREGPT and isinstance(value.get("value"), str)


# Who speaks in ShareGPT's form, and the role that this is.
_SHAREGPT = {"system": "system", "human": "user", "user": "user"} | dict.fromkeys(
    ("gpt", "chatgpt", "assistant", "model"), "assistant"
)


def _message(value: Mapping[str, Any]) -> dict[str, str]:
    if "role" in value:
        return {"role": str(value["role"]), "content": value["content"]}
    return {"role": _SHAREGPT[value["from"]], "content": value["value"]}


def _texts(form: Format, row: Mapping[str, Any], role: str) -> list[Text]:
    """No answer, one, or several: a list, or columns."""
    return [text for name in parts(form.columns[role]) for text in _listed(form, row, name)]


def _listed(form: Format, row: Mapping[str, Any], column: str) -> list[Text]:
    value = _decoded(form, value_of(row, column), "[{", '["')
    if _is_missing(value) or value == []:
        return []
    if isinstance(value, list) and not any(_is_message(item) for item in value):
        return [_text(form, item, column) for item in value]
    return [_text(form, value, column)]


def _decoded(form: Format, value: Any, *beginnings: str) -> Any:
    """In CSV, lists and messages are JSON in a field."""
    if form.decodes and isinstance(value, str) and value.startswith(beginnings or ("[", "{")):
        try:
            decoded = json.loads(value)
        except json.JSONDecodeError:
            return value  # a text that begins with a bracket
        except RecursionError:
            raise too_deep() from None
        except ValueError as error:  # of Python's, who reads no more digits than 4,300
            raise BadRowError("broken JSON", "a number with too many digits") from error
        if is_too_deep(decoded):
            raise too_deep()
        return decoded
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


FORMATS = (
    Format("preference", _preference, one_of=("chosen", "rejected")),
    Format("unpaired preference", _completion, ("prompt", "completion", "label"), groups=True),
    Format("prompt-completion", _completion, ("prompt", "completion"), groups=True),
    Format("multiple choice", _choice, ("prompt", "choices", "answer")),
    Format("chat", _conversation, ("messages",), optional=("id",), groups=True),
)
ASKED = Format("questions with options", _asked, ("prompt", "choices"))


def bare_format(style: str) -> Format:
    """A format by the form of its prompts, for questions that are in no file.

    "question" is multiple choice with a bare question, "continuation" multiple choice with a
    prompt of its own, "verbatim" a format of TRL's.
    """
    if style == "verbatim":
        return FORMATS[0]
    column = "question" if style == "question" else "prompt"
    return replace(FORMATS[3], columns={"prompt": column})
