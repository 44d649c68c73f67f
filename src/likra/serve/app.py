"""The application: likra's own endpoints, and those of `likra.serve.rerank`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from logging import WARNING
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

from likra import __version__
from likra.errors import LikraError
from likra.model.prompt import check_options
from likra.serve import forms, rerank
from likra.serve.asking import Server, ask, server_of
from likra.serve.batching import Batcher, ClosedError
from likra.serve.errors import ApiError, add_handlers
from likra.serve.gate import Gate
from likra.serve.logs import log
from likra.serve.metrics import Metrics
from likra.serve.models import Served, reopened
from likra.serve.page import routes as page
from likra.serve.settings import Settings
from likra.serve.work import Explain, Generate, Rank, answer, kind

DESCRIPTION = """Ranks answers by the likelihood ratio of two LoRA heads on one language model.

Errors have one form: `{"error": {"message": ..., "type": ...}}`. With an API key, requests bring
the header `Authorization: Bearer KEY`."""
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": forms.ErrorAnswer, "description": description}
    for status, description in {
        400: "The body is not JSON.",
        401: "The key is missing or wrong.",
        413: "The body is too large.",
        415: "The body is not said to be JSON.",
        422: "The request cannot be answered; the message says why.",
        429: "Too many requests wait; try again after Retry-After seconds.",
        500: "The server failed.",
        503: "Not begun in time, or shutting down.",
        504: "Not finished in time.",
    }.items()
}


def create_app(served: Served, settings: Settings) -> FastAPI:
    """The application of a model. Its worker starts here, and ends with the lifespan."""
    metrics = Metrics()
    batcher = Batcher(
        served,
        lambda model, asks: answer(model.parts, asks),
        kind,
        max_waiting=settings.limits.waiting,
        computed=metrics.batches.observe,
    )
    metrics.watch(lambda: batcher.n_waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(
        title="likra",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # both load their scripts from a public server
        redoc_url=None,
        responses=ERRORS,
    )
    # Of the key this is the description alone: the gate checks it.
    needs_key = [] if settings.api_key is None else [Depends(HTTPBearer(auto_error=False))]
    app.state.server = Server(settings, batcher, metrics)
    app.include_router(rerank.router, dependencies=needs_key)
    app.include_router(page.router)
    _add_routes(app, needs_key)
    add_handlers(app)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _add_routes(app: FastAPI, needs_key: list[Any]) -> None:
    keyed = APIRouter(dependencies=needs_key)
    keyed.post("/v1/rank", summary="Rank candidates")(_rank)
    keyed.post("/v1/explain", summary="Explain an answer")(_explain)
    keyed.post("/v1/generate", summary="Write an answer")(_generate)
    keyed.get("/v1/models", summary="The model that is served")(_models)
    keyed.post(
        "/v1/models/reload",
        summary="Load the model's folder again",
        responses={
            403: {"model": forms.ErrorAnswer, "description": "The server has no key."},
            409: {"model": forms.ErrorAnswer, "description": "The old model serves on."},
        },
    )(_reload)
    keyed.get("/metrics", summary="Counters for Prometheus", response_class=Response)(_metrics)
    app.include_router(keyed)
    app.get("/health", summary="Whether requests are answered")(_health)


async def _rank(request: Request, body: forms.RankRequest) -> forms.RankAnswer:
    """Candidates, best first, with their probabilities, scores and log-likelihoods."""
    try:
        check_options(body.text, body.candidates)
    except LikraError as error:
        raise ApiError(422, str(error)) from error
    ranking = await ask(request, Rank(body.text, tuple(body.candidates)))
    return forms.RankAnswer.of(ranking, request.state.id, _name(request))


async def _explain(request: Request, body: forms.ExplainRequest) -> forms.ExplainAnswer:
    """Which tokens and words speak for an answer, and which give it away."""
    explanation = await ask(request, Explain(body.text, body.answer))
    return forms.ExplainAnswer.of(explanation, request.state.id, _name(request))


async def _generate(request: Request, body: forms.GenerateRequest) -> forms.GenerateAnswer:
    """An answer that the model writes."""
    limits = server_of(request).settings.limits
    for name, value, most in (
        ("max_new_tokens", body.max_new_tokens, limits.new_tokens),
        ("n", body.n, limits.samples),
    ):
        if value > most:
            raise ApiError(422, f"{name} is {value}, and this server takes up to {most}")
    text = await ask(request, Generate(body.text, body.writing))
    return forms.GenerateAnswer(id=f"generate-{request.state.id}", model=_name(request), text=text)


async def _models(request: Request) -> forms.ModelList:
    """The one model, with its mode and weight."""
    return forms.ModelList(data=[_card(server_of(request).batcher.model)])


async def _reload(request: Request) -> forms.ModelCard:
    """Read the folder again that the server was started with, and serve what is there now.

    Requests wait meanwhile. Where it cannot be opened, the old model serves on.
    """
    server = server_of(request)
    if server.settings.api_key is None:
        raise ApiError(403, "reloading needs a server with a key (--api-key); SIGHUP does the same")
    try:
        return _card(await reload(server))
    except LikraError as error:
        raise ApiError(409, f"the old model serves on, for the new one failed: {error}") from error


async def reload(server: Server) -> Served:
    """Load the model's folder again, and log how that went.

    Raises:
        LikraError: it cannot be opened; the old one serves on.
        ApiError: the server is shutting down.

    """
    try:
        served = await asyncio.wrap_future(server.batcher.change(reopened))
    except ClosedError as error:
        raise ApiError(503, "the server is shutting down") from error
    except Exception as error:
        server.metrics.reloads.labels("failed").inc()
        log("reload failed, the old model serves on", WARNING, error, reason=str(error))
        if isinstance(error, LikraError):
            raise
        raise LikraError(f"cannot open it ({type(error).__name__})") from error
    server.metrics.reloads.labels("done").inc()
    log("reloaded", model=served.name, version=served.version)
    return served


async def _health(request: Request) -> forms.Health:
    """200 while requests are answered."""
    batcher = server_of(request).batcher
    if not batcher.is_alive:
        raise ApiError(503, "the server is shutting down")
    return forms.Health(model=batcher.model.name, version=batcher.model.version)


async def _metrics(request: Request) -> Response:
    """Counters in Prometheus's text format."""
    return Response(server_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


def _name(request: Request) -> str:
    return server_of(request).batcher.model.name


def _card(served: Served) -> forms.ModelCard:
    parts = served.parts
    return forms.ModelCard(
        id=served.name,
        created=int(served.opened),
        version=served.version,
        base=parts.base.name,
        mode=None if parts.chosen is None else parts.chosen.ranking.mode,
        weight=parts.weight,
        calibrated=parts.chosen is not None,
    )
