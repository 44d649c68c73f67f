"""The page's files, and what a browser may do with them."""

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Response

FILES = {  # path: where in the package it is, and what it is
    "/": ("serve/page/index.html", "text/html"),
    "/page/look.css": ("report/templates/page.css", "text/css"),  # the reports' look
    "/page/page.css": ("serve/page/page.css", "text/css"),
    "/page/page.js": ("serve/page/page.js", "text/javascript"),
    "/page/results.js": ("serve/page/results.js", "text/javascript"),
    "/page/file.js": ("serve/page/file.js", "text/javascript"),
    "/page/questions.js": ("serve/page/questions.js", "text/javascript"),
    "/page/api.js": ("serve/page/api.js", "text/javascript"),
    "/page/icon.svg": ("serve/page/icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self'; "
    "script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _reader(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = files("likra").joinpath(*name.split("/")).read_bytes()

    async def read() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return read


router = APIRouter()
for _path, _file in FILES.items():
    router.get(_path, include_in_schema=False)(_reader(*_file))
