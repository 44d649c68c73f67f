"""The changes that a process makes to files, counted; one of them can fail, or be the last.

An audit hook sees each file that Python code opens for writing, each folder that it makes and each
name that it changes. Native code (pyarrow, safetensors) opens files unseen, in folders that were
seen; what it writes fails by `disk_full`, as any other write.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PATHS = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.link": 1}  # of events: which argument
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Act = Callable[[str], None]  # is given the path


@dataclass
class Watch:
    """The changes below a folder, in order, each as its event and path."""

    root: Path
    at: int | None = None  # the change, from 0, that the act comes before
    act: Act | None = None
    seen: list[str] = field(default_factory=list)

    def note(self, event: str, path: str) -> None:
        place = os.path.relpath(path, self.root)
        if place.startswith("..") or "torchinductor" in place:  # a folder made once in a process
            return
        self.seen.append(f"{event} {place}")
        if self.act is not None and len(self.seen) - 1 == self.at:
            self.act(path)


_watches: list[Watch] = []  # the one that is on


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or event not in PATHS:
        return
    path = arguments[PATHS[event]]
    if isinstance(path, int) or (event == "open" and not arguments[2] & WRITES):
        return
    if event == "os.mkdir" and os.path.isdir(path):
        return
    _watches[0].note(event, os.fsdecode(path))


@cache
def _install() -> None:
    """A hook stays for the life of its process."""
    sys.addaudithook(_hook)


@contextmanager
def watching(root: Path, at: int | None = None, act: Act | None = None) -> Iterator[Watch]:
    """Count the changes below a folder; before one of them, act."""
    _install()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    _watches.append(Watch(root.resolve(), at, act))
    try:
        yield _watches[0]
    finally:
        _watches.clear()
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


# --------------------------------------------------------------------------------------------
# Acts


def fails(number: int) -> Act:
    """The call fails, once, with this error number."""

    def act(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return act


def disk_full(n_bytes: int) -> Act:
    """From here on no file grows beyond that size; what is written up to it is on the disk."""

    def act(path: str) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))

    return act


def killed() -> Act:
    """The process is killed before the change."""

    def act(path: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return act


def killed_while_writing(n_bytes: int) -> Act:
    """The system kills the process as soon as it writes a file beyond that size."""
    full = disk_full(n_bytes)

    def act(path: str) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        full(path)

    return act
