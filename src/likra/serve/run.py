"""Running the application: its port, its signals, its end."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from likra.errors import LikraError
from likra.serve.app import create_app, reload
from likra.serve.errors import ApiError
from likra.serve.logs import start_logs
from likra.serve.models import Source, open_served
from likra.serve.settings import Settings

BACKLOG = 2048  # connections that are not accepted yet
LOCAL = {"127.0.0.1", "::1", "localhost"}


def serve(
    source: Source, settings: Settings, host: str, port: int, log: Callable[[str], None]
) -> None:
    """Serve a model until SIGINT or SIGTERM; those that wait then are still answered.

    SIGHUP loads the model's folder again.

    Raises:
        LikraError: the port cannot be had, or the model cannot be opened.

    """
    with _bound(host, port) as listener:
        served = open_served(source, log)
        start_logs(log_text=settings.log_text)
        listener.listen(BACKLOG)  # before it is said, so that nobody is refused who reads it
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        log(f"serving {served.name} (version {served.version}) at {address}")
        log(f"open it in a browser to try it; its API is described at {address}/openapi.json")
        if host not in LOCAL and settings.api_key is None:
            log("note   without --api-key everyone who reaches this port can use it")
        asyncio.run(_serve(create_app(served, settings), listener, settings))
        log("stopped")


def _bound(host: str, port: int) -> socket.socket:
    """A socket at the address; before the model is opened, so that one in use is found at once."""
    listener = None
    try:
        # asyncio turns Nagle's delays off only where the socket says that it is TCP
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        ((family, kind, protocol, _, address), *_) = found
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise LikraError(
            f"cannot listen on {host}, port {port} ({reason}): give another --host or --port"
        ) from error
    return listener


async def _serve(app: object, listener: socket.socket, settings: Settings) -> None:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.limits.seconds) + 1,
    )
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def on_hup() -> None:
        task = loop.create_task(_reload(app))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, on_hup)
    # uvicorn raises a signal again when it has shut down, and then nothing is left to stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    await uvicorn.Server(config).serve([listener])


async def _reload(app: object) -> None:
    with suppress(LikraError, ApiError):  # it is in the log
        await reload(app.state.server)  # type: ignore[attr-defined]
