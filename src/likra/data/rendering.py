"""How questions are rendered as prompts, whatever they were read from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from likra.errors import LikraError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ChatTemplate = Callable[..., str]  # messages -> text, as `tokenizer.apply_chat_template`


@dataclass(frozen=True)
class Rendering:
    """How a task renders its questions.

    Attributes:
        fewshot: "per-question", each question its own examples, as the harness draws them; or
            "fixed", the same examples for all: then they go through the model once per batch.
        chat_template: renders messages to a prompt; without it the prompt is plain text.
        on_bad_row: "error", or "skip" to leave out what cannot be read, with a note.

    """

    fewshot: str = "per-question"
    chat_template: ChatTemplate | None = None
    on_bad_row: str = "error"


PLAIN = Rendering()


def chat_template_of(tokenizer: "PreTrainedTokenizerBase") -> ChatTemplate:
    """The tokenizer's chat template as a function of messages.

    ``add_generation_prompt`` opens the assistant's turn after the messages; without it the last
    message is left open, as lm-evaluation-harness wants it, or with ``complete`` it is ended.
    It raises a LikraError for messages that the template refuses.
    """
    from jinja2 import TemplateError

    def render(
        messages: list[dict[str, str]], add_generation_prompt: bool = True, complete: bool = False
    ) -> str:
        try:
            text = tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not (add_generation_prompt or complete),
            )
        except TemplateError as error:  # a role that it does not know, or a turn out of order
            raise LikraError(f"the chat template refuses the messages: {error}") from error
        return str(text)

    return render
