"""From a request to the worker and back: sizes, the deadline, and clients that go away."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from logging import ERROR
from typing import Any

from fastapi import Request

from likra.errors import LikraError
from likra.serve.batching import Batcher, BusyError, ClosedError
from likra.serve.errors import ApiError
from likra.serve.gate import GONE
from likra.serve.logs import log
from likra.serve.metrics import Metrics
from likra.serve.models import Served
from likra.serve.settings import Limits, Settings
from likra.serve.work import Ask, texts_of

AGAIN = {"Retry-After": "1"}


@dataclass(frozen=True)
class Server:
    """What the routes use: it is ``app.state.server``."""

    settings: Settings
    batcher: Batcher[Served, Ask]
    metrics: Metrics


def server_of(request: Request) -> Server:
    """The server that a request came to."""
    server: Server = request.app.state.server
    return server


async def ask(request: Request, wanted: Ask) -> Any:
    """The model's answer to a request.

    Raises:
        ApiError: it asks for too much or for what cannot be, too many others wait, or it takes too
            long.

    """
    server = server_of(request)
    questions, answers = texts_of(wanted)
    check_size(server.settings.limits, questions, answers)
    request.state.counts["candidates"] = len(answers)
    if server.settings.log_text:
        request.state.counts.update(questions=questions, answers=answers)
    try:
        waiting = server.batcher.submit(wanted)
    except BusyError as error:
        raise ApiError(429, "too many requests wait: try again in a second", AGAIN) from error
    except ClosedError as error:
        raise ApiError(503, "the server is shutting down", AGAIN) from error
    answer = await _awaited(request, waiting, server.settings.limits.seconds)
    server.metrics.candidates.inc(len(answers))
    return answer


def check_size(limits: Limits, questions: Sequence[str], answers: Sequence[str]) -> None:
    """Refuse a request that is too large.

    Raises:
        ApiError: too many answers, or characters.

    """
    if len(answers) > limits.candidates:
        raise ApiError(
            422, f"{len(answers):,} candidates, and one request takes {limits.candidates:,}"
        )
    n_characters = sum(map(len, (*questions, *answers)))
    if n_characters > limits.characters:
        raise ApiError(
            422, f"{n_characters:,} characters, and one request takes {limits.characters:,}"
        )


async def _awaited(request: Request, waiting: "Future[Any]", seconds: float) -> Any:
    answer = asyncio.wrap_future(waiting)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({answer, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return _result(request, waiting)
        began = not waiting.cancel()  # what still waits is taken back
        if gone.done():
            raise ApiError(GONE, "the client went away")
        if began:
            raise ApiError(504, f"no answer within {seconds:g} seconds: ask for less")
        raise ApiError(503, f"not begun within {seconds:g} seconds: try again later", AGAIN)
    finally:
        gone.cancel()
        answer.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _result(request: Request, done: "Future[Any]") -> Any:
    error = done.exception()
    if error is None:
        return done.result()
    if isinstance(error, LikraError):
        raise ApiError(422, str(error))
    log("failure", ERROR, error, id=request.state.id)
    raise ApiError(500, "the model failed on this request, and the server's log has the details")
