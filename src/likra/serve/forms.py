"""Requests and answers of likra's own endpoints."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from likra.data.formats import Text
from likra.model.explain import Explanation
from likra.model.explain import Share as ShareOf
from likra.model.generate import Way, Writing
from likra.serve.work import Ranking

QUESTION = "What is the capital of Portugal?"
CANDIDATES = ["Moscow", "Paris", "Berlin", "Lisbon"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _is_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can hold half of a pair of surrogates
        raise ValueError("this is no Unicode text") from error
    return text


String = Annotated[str, AfterValidator(_is_text)]


def example(**values: Any) -> ConfigDict:
    """A request as the API's description shows it."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class Form(BaseModel):
    """A request; what it does not know is refused, for it may be a typing error."""

    model_config = ConfigDict(extra="forbid")


class ChatMessage(Form):
    """A message of a chat."""

    role: String = Field(description="Such as system, user or assistant.")
    content: String


class Asked(Form):
    """What is asked, as a text or as the messages of a chat."""

    question: String | None = Field(None, description="What is asked.")
    messages: list[ChatMessage] | None = Field(
        None,
        min_length=1,
        description="A chat that ends with the question, for a model that was fitted on chats.",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.question is None) == (self.messages is None):
            raise ValueError("give either question or messages")
        return self

    @property
    def text(self) -> Text:
        """As the library takes it."""
        if self.messages is None:
            return self.question or ""
        return [message.model_dump() for message in self.messages]


class RankRequest(Asked):
    """Candidates to rank."""

    model_config = example(question=QUESTION, candidates=CANDIDATES)
    candidates: list[String] = Field(min_length=2, description="Different answers, two or more.")


class Usage(BaseModel):
    """What was read."""

    prompt_tokens: int = Field(description="Of the question and its answers, each counted once.")
    total_tokens: int


class RankedCandidate(BaseModel):
    """A candidate with what the model makes of it."""

    index: int = Field(description="Its place in the request, from 0.")
    text: str
    probability: float = Field(description="That it is the right one, of those given.")
    score: float = Field(
        description="log p+ - w log p-, in nats; per character where the model divides by length."
    )
    positive_logprob: float = Field(description="log p+, in nats.")
    negative_logprob: float = Field(description="log p-, in nats; 0 without a negative term.")


class RankAnswer(BaseModel):
    """The candidates, best first."""

    id: str
    model: str
    best: str = Field(description="The text of the best candidate.")
    results: list[RankedCandidate]
    usage: Usage

    @classmethod
    def of(cls, ranking: Ranking, request_id: str, model: str) -> Self:
        """From what the library gives."""
        results = [
            RankedCandidate(index=index, **vars(ranked)) for index, ranked in ranking.best_first
        ]
        usage = Usage(prompt_tokens=ranking.n_tokens, total_tokens=ranking.n_tokens)
        return cls(
            id=f"rank-{request_id}",
            model=model,
            best=results[0].text,
            results=results,
            usage=usage,
        )


class ExplainRequest(Asked):
    """An answer to explain."""

    model_config = example(question=QUESTION, answer="Paris")
    answer: String = Field(description="An answer, right or wrong.")


class Share(BaseModel):
    """A token or a word with its share of the score."""

    text: str = Field(description="As it stands in the answer, with the space before it.")
    score: float = Field(description="Above 0 it speaks for the answer, below 0 against it.")
    positive_logprob: float
    negative_logprob: float

    @classmethod
    def of(cls, share: ShareOf) -> Self:
        """From what the library gives."""
        return cls(**vars(share))


class ExplainAnswer(BaseModel):
    """Which tokens and words speak for an answer, and which give it away."""

    id: str
    model: str
    score: float = Field(description="Of the answer: the sum over its tokens, or its words.")
    gives_away: str = Field(description="The word that speaks most against the answer.")
    tokens: list[Share]
    words: list[Share]

    @classmethod
    def of(cls, explanation: Explanation, request_id: str, model: str) -> Self:
        """From what the library gives."""
        return cls(
            id=f"explain-{request_id}",
            model=model,
            score=explanation.score,
            gives_away=explanation.gives_away.text.strip(),
            tokens=[Share.of(share) for share in explanation.tokens],
            words=[Share.of(share) for share in explanation.words],
        )


class GenerateRequest(Asked):
    """A question to answer; see `likra.model.generate.Writing`."""

    model_config = example(question=QUESTION)
    way: Way = Field(
        "positive",
        description="positive: the positive term alone. guided: each token by the ratio. "
        "best-of-n: the best of n samples.",
    )
    n: int = Field(8, ge=1, description="Samples of best-of-n.")
    alpha: Finite = Field(0.1, ge=0, le=1, description="Of guided: how plausible a token must be.")
    weight: Finite | None = Field(None, ge=0, description="w; by default the model's own.")
    max_new_tokens: int = Field(32, ge=1)
    do_sample: bool = Field(False, description="Draw tokens, rather than take the best ones.")
    temperature: Finite = Field(1.0, gt=0, description="Of the drawing.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the drawing.")
    stop: String | None = Field(
        "\n", min_length=1, description="Ends an answer; by default the end of its first line."
    )

    @property
    def writing(self) -> Writing:
        """As the library takes it."""
        return Writing(**self.model_dump(exclude={"question", "messages"}))


class GenerateAnswer(BaseModel):
    """An answer that the model wrote."""

    id: str
    model: str
    text: str


class ModelCard(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When it was opened, in seconds since 1970.")
    owned_by: Literal["likra"] = "likra"
    version: str = Field(description="Another model, or other settings of it, has another one.")
    base: str
    mode: str | None = Field(description="What the fit chose; null for a model without a fit.")
    weight: float = Field(description="w of the negative term; 0 without one.")
    calibrated: bool = Field(description="Whether probabilities were calibrated.")


class ModelList(BaseModel):
    """The one model, as OpenAI's clients list models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Whether requests are answered."""

    status: Literal["ok"] = "ok"
    model: str
    version: str


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str


class ErrorAnswer(BaseModel):
    """The form of all errors."""

    error: ErrorDetail
