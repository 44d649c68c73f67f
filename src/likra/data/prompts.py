"""Prompt and answer of a data file as the two strings that are scored."""

import re
from collections.abc import Sequence

from likra.data.formats import Format, Text
from likra.data.rendering import ChatTemplate, Rendering
from likra.errors import LikraError
from likra.questions import Choice
from likra.text import common_length

Solved = Sequence[tuple[Text, Text]]  # prompts and right answers, shown before a question


def candidate(
    prompt: Text, answer: Text, is_right: bool, solved: Solved, form: Format, rendering: Rendering
) -> Choice:
    """One candidate answer.

    Raises:
        LikraError: chat messages without a chat template.

    """
    if rendering.chat_template is not None:
        context, continuation = _as_chat(prompt, answer, solved, form, rendering.chat_template)
        return Choice(context, continuation, as_text(answer).strip(), is_right)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise LikraError("chat messages need a chat template, and there is none")
    preamble = "".join(
        f"{_context(question, form)}{_continuation(question, right, form)}\n\n"
        for question, right in solved
    )
    context = preamble + _context(prompt, form)
    return Choice(context, _continuation(prompt, answer, form), answer.strip(), is_right)


def _as_chat(
    prompt: Text, answer: Text, solved: Solved, form: Format, template: ChatTemplate
) -> tuple[str, str]:
    """Context and continuation of a chat. The answer ends as the template ends a turn (as TRL)."""
    messages = [
        message
        for question, right in solved
        for message in _messages(question, "user", form) + _messages(right, "assistant", form)
    ]
    messages += _messages(prompt, "user", form)
    context = template(messages, add_generation_prompt=True)
    messages += _messages(answer, "assistant", form)
    whole = template(messages, add_generation_prompt=False, complete=True)
    context = context[: common_length([context, whole])]
    return context, whole[len(context) :]


def _context(prompt: Text, form: Format) -> str:
    return f"Question: {_bare(str(prompt))}\nAnswer:" if form.asks else str(prompt)


def _bare(question: str) -> str:
    """A question without the words that will be put around it."""
    if re.match(r"question:", question, re.IGNORECASE):
        return re.sub(r"(?i)^question:[ \t]*|\s*\banswer:\s*$", "", question)
    return question


def _continuation(prompt: Text, answer: Text, form: Format) -> str:
    """An answer, set off by a space unless the format has its texts touch as they are (TRL's)."""
    prompt, answer = str(prompt), str(answer)
    apart = form.asks or not (prompt[-1:].isspace() or answer[:1].isspace())
    return f" {answer}" if form.sets_off and apart else answer


def _messages(text: Text, role: str, form: Format) -> list[dict[str, str]]:
    if not isinstance(text, str):
        return text
    content = _context(text, form) if role == "user" else text
    return [{"role": role, "content": content}]


def as_text(text: Text) -> str:
    """A text, or the contents of messages, line by line."""
    return text if isinstance(text, str) else "\n".join(message["content"] for message in text)
