"""How a question and an answer become the two strings that are scored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from likra.data.columns import has
from likra.data.files import FileTask
from likra.data.formats import Format, Text, bare_format
from likra.data.load import Task
from likra.data.prompts import as_text, candidate
from likra.data.rendering import PLAIN, Rendering, chat_template_of
from likra.data.template import PromptTemplate
from likra.errors import LikraError, unknown
from likra.questions import Choice, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Style = Literal["question", "continuation", "verbatim"]
Fields = Mapping[str, Any]  # of a question, by the names in a prompt template
STYLES: tuple[Style, ...] = get_args(Style)


@dataclass(frozen=True)
class Prompt:
    r"""The form of prompts; the one that the heads were trained with is kept with them.

    Attributes:
        style: "question", ``Question: {question}\nAnswer:`` and `` {answer}``; "continuation",
            the question as it is, and the answer after a space; "verbatim", both as they are.
        chat: whether they are turns of a chat, by the base's chat template.
        template: in the place of a style, what stands before an answer, with the fields of a
            question in it (`likra.data.template.PromptTemplate`).

    """

    style: Style = "question"
    chat: bool = False
    template: str | None = None

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise unknown("style of prompts", str(self.style), STYLES)
        _ = self._template  # which says what is wrong with it

    @cached_property
    def _template(self) -> PromptTemplate | None:
        return None if self.template is None else PromptTemplate(self.template)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the template; empty without one."""
        return () if self._template is None else self._template.fields

    @property
    def filled(self) -> "Prompt":
        """The form of questions that were put into the template already."""
        return self if self.template is None else Prompt("continuation", self.chat)

    @property
    def as_json(self) -> dict[str, Any]:
        """All of it that is not the default of old models, which knew no template."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def format(self) -> Format:
        """The format of a data file that is rendered so."""
        return bare_format(self.filled.style)

    def text_of(self, question: Text | Fields) -> Text:
        """What stands before an answer, but for the words of the style: the template, filled.

        Args:
            question: a text, which is the value of the template's only field; or a mapping with
                the values of its fields.

        Raises:
            LikraError: fields that are not the template's, or chat messages for a template.

        """
        if self._template is None:
            if isinstance(question, Mapping):
                raise LikraError(
                    "the question is a mapping of fields, and the model has no prompt template: "
                    "give a text"
                )
            return question
        if isinstance(question, Mapping):
            return self._template.fill(question)
        if not isinstance(question, str):
            raise LikraError("the question is chat messages, and a prompt template is for text")
        if len(self.fields) > 1:
            raise LikraError(
                f"the model's prompt template has the fields {', '.join(self.fields)}, and one "
                "text cannot fill them: give a file with these columns, or a mapping in Python"
            )
        return self._template.ask({}, question)

    def takes(self, row: Fields) -> bool:
        """Whether a row has all fields of the template, so that it can be given as it is."""
        return bool(self.fields) and all(has(row, name) for name in self.fields)

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
        self, tokenizer: "PreTrainedTokenizerBase", asked: Text | Fields, answers: Sequence[Text]
    ) -> Question:
        """A question with its candidate answers, none of them known to be right.

        Raises:
            LikraError: an empty question or answer, or see `text_of`.

        """
        text = self.text_of(asked)
        stem = as_text(text if isinstance(asked, Mapping) else asked)
        if not stem.strip():
            raise LikraError("the question is empty")
        choices: list[Choice] = []
        rendering = self.rendering(tokenizer)
        for number, answer in enumerate(answers, start=1):
            if not as_text(answer).strip():
                raise LikraError(f"answer {number} to '{stem[:60]}' is empty")
            choices.append(candidate(text, answer, False, (), self.format, rendering))
        return Question("", stem, tuple(choices))


def prompt_of(task: Task, questions: Sequence[Question], rendering: Rendering) -> Prompt:
    """The form in which a task puts its questions, as far as it is one of the known forms.

    A card of the harness may put them in any form; a question is then the whole of its prompt.

    Raises:
        LikraError: a card puts its questions as chats in a form of its own.

    """
    chat = rendering.chat_template is not None
    if isinstance(task, FileTask):
        form = next(iter(task.tables.values())).format
        if form.template is not None:
            return Prompt(chat=chat, template=form.template.text)
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


def check_options(question: Text | Fields, options: Sequence[Text]) -> None:
    """Refuse options that cannot be ranked.

    Raises:
        LikraError: a single text in the place of a list, fewer than two options, or one that
            stands there twice.

    """
    if isinstance(options, str):
        raise LikraError("options is one text, and should be a list of them")
    asked = ", ".join(map(str, question.values())) if isinstance(question, Mapping) else question
    name = as_text(asked)[:60]
    if len(options) < 2:
        raise LikraError(
            f"'{name}' has {len(options)} option"
            f"{'s' * (len(options) != 1)}, and ranking takes at least two (`score` scores one)"
        )
    seen: set[str] = set()
    for option in options:
        text = as_text(option).strip()
        if text in seen:
            raise LikraError(f"'{name}' has the option '{text[:60]}' twice")
        seen.add(text)
