"""What comes out of a case."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from fastapi.testclient import TestClient

from likra.serve.app import create_app
from likra.serve.models import Source, open_served
from likra.serve.settings import Settings
from tests.commands import likra
from tests.fuzz.cases import Case
from tests.fuzz.folders import model_folder

LONGEST = 60  # seconds of the processor
LONGEST_WAIT = 900  # seconds by the clock, on however busy a machine


class HangError(BaseException):
    """It took longer than that; not an Exception, so that nothing catches it."""


@contextmanager
def alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, LONGEST),
        signal.SIGALRM: (signal.ITIMER_REAL, LONGEST_WAIT),
    }
    before = {number: signal.signal(number, ring) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@cache
def client() -> TestClient:
    served = open_served(Source(str(Path(model_folder().name) / "model")))
    return TestClient(create_app(served, Settings()), raise_server_exceptions=False)


def outcome(case: Case) -> str:
    """ "exit 2" and the like where all is well; else what went wrong, in lines."""
    try:
        with alarm():
            return _requested(case) if case.request else _commanded(case)
    except HangError:
        return f"FAILED: no end within {LONGEST} seconds of work or {LONGEST_WAIT} of waiting"


def _requested(case: Case) -> str:
    assert case.request is not None
    method, path, headers, body = case.request
    status = client().request(method, path, headers=headers, content=body).status_code
    return f"status {status}" if status < 500 else f"FAILED: status {status}"


def _commanded(case: Case) -> str:
    with TemporaryDirectory(prefix="likra-fuzz-") as scratch:
        folder = Path(scratch)
        for name, content in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before = set(folder.rglob("*"))
        try:
            result = likra(*case.command, cwd=folder)
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error}"[:300] + _where(error)
        new = {path.relative_to(folder) for path in set(folder.rglob("*")) - before}
    code, said = result.returncode, result.stderr
    if code not in {0, 2}:
        return f"FAILED: exit {code}: {said[-300:]}"
    if "Traceback" in said:
        return f"FAILED: a traceback is printed: {said[-300:]}"
    if left := [str(path) for path in new if path.name.startswith(".")]:
        return f"FAILED: left {', '.join(left)}"
    if code == 2 and not said.strip():
        return "FAILED: exit 2 without a word"
    return f"exit {code}"


def _where(error: BaseException) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "likra" in frame.filename
    ]
    return "".join(f"\n    {frame.filename}:{frame.lineno}" for frame in frames[-4:])
