"""How a question and an answer become the two strings that are scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from likra.data.files import FileTask
from likra.data.formats import Format, Labelled, Text, bare_format
from likra.data.load import Task
from likra.data.prompts import as_text, candidate
from likra.data.rendering import PLAIN, Rendering, chat_template_of
from likra.errors import LikraError, unknown
from likra.questions import Choice, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Style = Literal["question", "continuation", "verbatim"]
STYLES: tuple[Style, ...] = get_args(Style)


@dataclass(frozen=True)
class Prompt:
    r"""The form of prompts; the one that the heads were trained with is kept with them.

    Attributes:
        style: "question", ``Question: {question}\nAnswer:`` and `` {answer}``; "continuation",
            the question as it is, and the answer after a space; "verbatim", both as they are.
        chat: whether they are turns of a chat, by the base's chat template.

    """

    style: Style = "question"
    chat: bool = False

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise unknown("style of prompts", str(self.style), STYLES)

    @property
    def format(self) -> Format:
        """The format of a data file that is rendered so."""
        return bare_format(self.style)

    def rendering(self, tokenizer: "PreTrainedTokenizerBase") -> Rendering:
        """How `likra.data.prompts` renders it.

        Raises:
            LikraError: a chat, and the tokenizer has no chat template.

        """
        if not self.chat:
            return PLAIN
        if not tokenizer.chat_template:
            raise LikraError("prompts are chat messages, and the tokenizer has no chat template")
        return Rendering(chat_template=chat_template_of(tokenizer))

    def question(
        self, tokenizer: "PreTrainedTokenizerBase", text: Text, answers: Sequence[Text]
    ) -> Question:
        """A question with its candidate answers, none of them known to be right.

        Raises:
            LikraError: an empty question or answer.

        """
        return self.labelled(tokenizer, text, [(answer, False) for answer in answers])

    def labelled(
        self, tokenizer: "PreTrainedTokenizerBase", text: Text, answers: Labelled, name: str = ""
    ) -> Question:
        """As `question`, with what is known of each answer."""
        if not as_text(text).strip():
            raise LikraError("the question is empty")
        choices: list[Choice] = []
        rendering = self.rendering(tokenizer)
        for number, (answer, is_right) in enumerate(answers, start=1):
            if not as_text(answer).strip():
                raise LikraError(f"answer {number} to '{as_text(text)[:60]}' is empty")
            choices.append(candidate(text, answer, is_right, (), self.format, rendering))
        return Question(name, as_text(text), tuple(choices))


def prompt_of(task: Task, questions: Sequence[Question], rendering: Rendering) -> Prompt:
    """The form in which a task puts its questions, as far as it is one of the known forms.

    A card of the harness may put them in any form; a question is then the whole of its prompt.

    Raises:
        LikraError: a card puts its questions as chats in a form of its own.

    """
    chat = rendering.chat_template is not None
    if isinstance(task, FileTask):
        form = next(iter(task.tables.values())).format
        if form.name != "multiple choice":
            return Prompt("verbatim", chat)
        return Prompt("question" if form.asks else "continuation", chat)
    asked = [(question, choice) for question in questions for choice in question.choices[:1]]
    for style in STYLES:
        form = bare_format(style)
        if all(_is_rendered(question, choice, form, rendering) for question, choice in asked):
            return Prompt(style, chat)
    if chat:
        raise LikraError(
            f"'{task.name}' puts its questions as chats in a form of its own, in which a model "
            "could not ask a new one: leave out the chat template"
        )
    touch = all(choice.continuation == choice.text for _, choice in asked)
    return Prompt("verbatim" if touch else "continuation")


def _is_rendered(question: Question, choice: Choice, form: Format, rendering: Rendering) -> bool:
    own = candidate(question.stem, choice.text, choice.is_right, (), form, rendering)
    return (own.context, own.continuation) == (choice.context, choice.continuation)


def check_options(question: Text, options: Sequence[Text]) -> None:
    """Refuse options that cannot be ranked.

    Raises:
        LikraError: a single text in the place of a list, fewer than two options, or one that
            stands there twice.

    """
    if isinstance(options, str):
        raise LikraError("options is one text, and should be a list of them")
    if len(options) < 2:
        raise LikraError(
            f"'{as_text(question)[:60]}' has {len(options)} option"
            f"{'s' * (len(options) != 1)}, and ranking takes at least two (`score` scores one)"
        )
    seen: set[str] = set()
    for option in options:
        text = as_text(option).strip()
        if text in seen:
            raise LikraError(f"'{as_text(question)[:60]}' has the option '{text[:60]}' twice")
        seen.add(text)
