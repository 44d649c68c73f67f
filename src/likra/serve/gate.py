"""What every request passes: its key, its size, its line in the log and its counters."""

import hmac
import time
import uuid

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likra.serve.errors import error_response
from likra.serve.logs import log
from likra.serve.metrics import Metrics
from likra.serve.page.routes import FILES
from likra.serve.settings import Settings

OPEN = {"/health", "/openapi.json", *FILES}  # without a key
GONE = 499  # the client went away; as nginx counts it


class Gate:
    """ASGI middleware around the routes.

    A route finds ``request.state.id``, and may add to ``request.state.counts`` what is logged.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        state = scope.setdefault("state", {})
        state["id"], state["counts"] = uuid.uuid4().hex, {}
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", state["id"].encode())]
            await send(message)

        try:
            with self.metrics.open.track_inprogress():
                await self._pass(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - start
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(seconds)
            log(
                "request",
                id=state["id"],
                method=scope["method"],
                path=path,
                status=status,
                ms=round(1000 * seconds, 1),
                **state["counts"],
            )

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in OPEN and not self._has_key(headers):
            message = "a key is needed: send the header Authorization: Bearer KEY"
            refused = error_response(401, message, {"WWW-Authenticate": "Bearer"})
            await refused(scope, receive, send)
            return
        largest = self.settings.limits.body_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > largest:
            await _too_large(largest)(scope, receive, send)
            return
        n_bytes = 0

        async def receiving() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > largest:  # of a body in chunks, whose length was not told
                raise HTTPException(413)
            return message

        await self.app(scope, receiving, send)

    def _has_key(self, headers: Headers) -> bool:
        key = self.settings.api_key
        if key is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), key.encode())
        return same and kind.lower() == "bearer"


def _too_large(largest: int) -> ASGIApp:
    return error_response(413, f"the body is larger than {largest:,} bytes")
