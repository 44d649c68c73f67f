"""What a client is told when there is no answer: one sentence in one form."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

INVALID, SERVER, BUSY = "invalid_request_error", "server_error", "rate_limit_error"
TYPES = {  # by status
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: BUSY,
    499: "client_closed_request",
    500: SERVER,
    503: "overloaded_error",
    504: "timeout_error",
}
SHOWN = 3  # mistakes of one request


class ApiError(Exception):
    """There is no answer: the status and the sentence."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error in the form of all errors."""
    line = " ".join(message.split())  # it may quote a prompt, or a name that is no Unicode text
    line = line.encode("utf-8", "replace").decode("utf-8")
    content = {"error": {"message": line, "type": TYPES.get(status, INVALID)}}
    return JSONResponse(content, status, headers)


def add_handlers(app: FastAPI) -> None:
    """Have all errors answered in that form."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    own = cast(ApiError, error)
    return error_response(own.status, own.message, own.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        return error_response(415, "send JSON, with the header Content-Type: application/json")
    mistakes = cast(RequestValidationError, error).errors()
    return error_response(422, "; ".join(_sentence(one) for one in mistakes[:SHOWN]))


def _sentence(mistake: Mapping[str, Any]) -> str:
    """What is wrong with a field, without its value."""
    where = ".".join(str(part) for part in mistake["loc"] if part != "body")
    if mistake["type"] == "json_invalid":
        return f"the body is not JSON: {mistake['ctx']['error']} at character {where}"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    known = {"missing": "this field is missing", "extra_forbidden": "there is no such field"}
    message = known.get(mistake["type"], message[:1].lower() + message[1:])
    if where:
        return f"{where}: {message}"
    return message if mistake["type"] == "value_error" else "the body must be a JSON object"


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    own = cast(HTTPException, error)
    messages = {
        400: "the body cannot be read as JSON",
        413: "the body is too large",
        404: f"there is nothing at {request.url.path}: /openapi.json lists what there is",
        405: f"{request.url.path} takes no {request.method}: /openapi.json lists what it takes",
    }
    message = messages.get(own.status_code, HTTPStatus(own.status_code).phrase.lower())
    return error_response(own.status_code, message, own.headers)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    return error_response(500, "the server failed, and its log has the details")
