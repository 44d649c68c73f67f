"""Endpoints in the forms of others, for their clients: Cohere, Jina, vLLM and TEI.

A document's relevance is the probability that `rank` gives it among the documents of the request.
Fields that do not apply to likra are read over.
"""

import time
from collections.abc import Sequence
from itertools import islice
from typing import Literal, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator

from likra.model.rank import Ranked
from likra.serve.asking import ask, server_of
from likra.serve.errors import ApiError
from likra.serve.forms import CANDIDATES, QUESTION, String, Usage, example
from likra.serve.work import Rank, Ranking, Score, Scores

router = APIRouter(tags=["rerank"])


class Document(BaseModel):
    """A document; other fields than its text are read over."""

    text: String


class RerankRequest(BaseModel):
    """Documents to rank, as Cohere, Jina and vLLM ask for it."""

    model_config = example(query=QUESTION, documents=CANDIDATES, top_n=2)
    query: String
    documents: list[String | Document] = Field(min_length=1)
    top_n: int | None = Field(None, ge=0, description="How many come back; all without it, or 0.")
    return_documents: bool = True
    model: str | None = Field(None, description="Any: the server has one model.")
    rank_fields: None = Field(None, description="Not supported: put the fields into the text.")

    @property
    def texts(self) -> list[str]:
        """What is ranked."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class RerankResult(BaseModel):
    """A document's place in the request, and its relevance."""

    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: Document | None = None


class Meta(BaseModel):
    """Cohere's."""

    api_version: dict[str, str]
    tokens: dict[str, int]


class RerankAnswer(BaseModel):
    """The documents, best first."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: Meta


class TextsRequest(BaseModel):
    """At `/rerank`: the form of `/v1/rerank`, or that of text-embeddings-inference."""

    model_config = example(query=QUESTION, texts=CANDIDATES)
    query: String
    texts: list[String] | None = Field(None, min_length=1)
    return_text: bool = False
    raw_scores: bool = Field(False, description="Scores in nats, in the place of probabilities.")
    documents: list[String | Document] | None = Field(None, min_length=1)
    top_n: int | None = Field(None, ge=0)
    return_documents: bool = True
    model: str | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.texts is None) == (self.documents is None):
            raise ValueError("give either texts or documents")
        return self


class TextResult(BaseModel):
    """A text's place in the request, and its score."""

    index: int
    score: float
    text: str | None = None


class ScoreRequest(BaseModel):
    """Pairs to score: one text with each of several, or as many with as many."""

    model_config = example(text_1=QUESTION, text_2=CANDIDATES)
    text_1: String | list[String] | None = None
    text_2: String | list[String] | None = None
    queries: String | list[String] | None = None
    documents: String | list[String] | None = None
    use_activation: bool | None = Field(
        None, description="false: scores in nats, in the place of numbers from 0 to 1."
    )
    model: str | None = Field(None, description="Any: the server has one model.")

    @model_validator(mode="after")
    def _pairs_that_fit(self) -> Self:
        given = [
            one is not None for one in (self.text_1, self.text_2, self.queries, self.documents)
        ]
        if given not in ([True, True, False, False], [False, False, True, True]):
            raise ValueError("give either text_1 and text_2, or queries and documents")
        left, right = self._sides
        if not right or len(left) not in {1, len(right)}:
            raise ValueError(
                f"{len(left)} and {len(right)} texts make no pairs: give one and several, or as "
                "many of both"
            )
        return self

    @property
    def _sides(self) -> tuple[list[str], list[str]]:
        left = self.queries if self.text_1 is None else self.text_1
        right = self.documents if self.text_2 is None else self.text_2
        left, right = ([one] if isinstance(one, str) else one or [] for one in (left, right))
        return left, right

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Each question with its answer."""
        left, right = self._sides
        return tuple(zip(left * (len(right) if len(left) == 1 else 1), right, strict=True))


class PairScore(BaseModel):
    """The score of a pair."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreAnswer(BaseModel):
    """The scores, in the order of the pairs."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: Usage


@router.post(
    "/v1/rerank", response_model_exclude_none=True, summary="Rerank (Cohere v1, Jina, vLLM)"
)
async def rerank(request: Request, body: RerankRequest) -> RerankAnswer:
    """Rank documents by how probable they are as the answer to a query."""
    return await _rerank(request, body, "1")


@router.post("/v2/rerank", response_model_exclude_none=True, summary="Rerank (Cohere v2)")
async def rerank_v2(request: Request, body: RerankRequest) -> RerankAnswer:
    """As `/v1/rerank`; documents do not come back."""
    return await _rerank(request, body.model_copy(update={"return_documents": False}), "2")


@router.post("/rerank", response_model_exclude_none=True, summary="Rerank (TEI, vLLM)")
async def rerank_texts(request: Request, body: TextsRequest) -> list[TextResult] | RerankAnswer:
    """With `texts` as text-embeddings-inference, with `documents` as `/v1/rerank`."""
    if body.documents is not None:
        fields = body.model_dump(include={"query", "documents", "top_n", "return_documents"})
        return await _rerank(request, RerankRequest(**fields), "1")
    texts = body.texts or []
    found, _ = await _ranked(request, body.query, texts)
    return [
        TextResult(
            index=index,
            score=ranked.score if body.raw_scores else ranked.probability,
            text=texts[index] if body.return_text else None,
        )
        for index, ranked in found
    ]


@router.post("/v1/score", summary="Score pairs (vLLM)")
@router.post("/score", summary="Score pairs (vLLM)")
async def score(request: Request, body: ScoreRequest) -> ScoreAnswer:
    """Score each pair by itself: 1 / (1 + exp(-score / T)), which is not calibrated."""
    scores: Scores = await ask(request, Score(body.pairs))
    values = scores.values if body.use_activation is False else scores.shares
    return ScoreAnswer(
        id=f"score-{request.state.id}",
        created=int(time.time()),
        model=server_of(request).batcher.model.name,
        data=[PairScore(index=index, score=value) for index, value in enumerate(values)],
        usage=Usage(prompt_tokens=scores.n_tokens, total_tokens=scores.n_tokens),
    )


async def _rerank(request: Request, body: RerankRequest, version: str) -> RerankAnswer:
    found, n_tokens = await _ranked(request, body.query, body.texts)
    results = [
        RerankResult(
            index=index,
            relevance_score=ranked.probability,
            document=_document(body.documents[index]) if body.return_documents else None,
        )
        for index, ranked in islice(found, body.top_n or None)
    ]
    return RerankAnswer(
        id=f"rerank-{request.state.id}",
        model=server_of(request).batcher.model.name,
        results=results,
        usage=Usage(prompt_tokens=n_tokens, total_tokens=n_tokens),
        meta=Meta(api_version={"version": version}, tokens={"input_tokens": n_tokens}),
    )


def _document(given: str | Document) -> Document:
    return Document(text=given) if isinstance(given, str) else given


async def _ranked(
    request: Request, query: str, texts: Sequence[str]
) -> tuple[list[tuple[int, Ranked]], int]:
    """Each text's place and ranking, best first. The same text has the same ranking everywhere."""
    if not query.strip():
        raise ApiError(422, "the query is empty")
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        if not text.strip():
            raise ApiError(422, f"document {place} is empty")
        places.setdefault(text, []).append(place)
    ranking: Ranking = await ask(request, Rank(query, tuple(places)))
    found = [(place, ranked) for _, ranked in ranking.best_first for place in places[ranked.text]]
    return found, ranking.n_tokens
