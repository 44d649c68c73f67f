"""The server's log: one JSON object a line, on stderr."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger("likra.serve")


class JsonLines(logging.Formatter):
    """A record as one line of JSON. Errors are told by type and place.

    Their messages may quote a question, so they are written only with ``log_text``.
    """

    def __init__(self, *, log_text: bool = False) -> None:
        super().__init__()
        self.log_text = log_text

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            if self.log_text:
                line["message"] = str(error)
            line["at"] = [
                f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)
            ]
        return json.dumps(line, ensure_ascii=True)  # so that one line stays one


def start_logs(*, log_text: bool) -> None:
    """Write the log of the server, and what uvicorn has to say, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(log_text=log_text))
    for name, level in (("likra.serve", logging.INFO), ("uvicorn", logging.WARNING)):
        own = logging.getLogger(name)
        own.handlers, own.propagate = [handler], False
        own.setLevel(level)


def log(
    event: str, level: int = logging.INFO, error: BaseException | None = None, **fields: Any
) -> None:
    """Write a line."""
    logger.log(level, event, exc_info=error, extra={"fields": fields})
