"""Files and folders that are written whole or not at all."""

import errno
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # in names of scratch folders
SCRATCH = re.compile(r"\..+-([0-9a-f]{8})-(\d+)-\w{8}")  # host and process
ABANDONED = 7 * 24 * 3600  # seconds after which another host's scratch folder is taken for stale


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Write a file or a folder under another name, and move it to ``path`` at the end.

    Yields the path to write to. It lies in a scratch folder of its own beside ``path``, so that
    two processes never share it and the move stays on one file system. What is moved is on the disk
    already, so it is whole after a power cut, too. After an error ``path`` is as it was. A folder
    that another process puts there meanwhile stays, with ``keep`` also one that is there already.
    What a killed process left beside the path is removed.

    Raises:
        OSError: it names ``path``, also where the system names none or the scratch.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.iterdir():
        _remove_abandoned(other)
    prefix = f".{path.name}-{HOST}-{os.getpid()}-"
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    try:
        yield scratch / path.name
        _flush(scratch / path.name)
        _move(scratch / path.name, path, scratch / f"{path.name}.old", keep=keep)
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).is_relative_to(scratch):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a folder that is written by `replacing`, and what killed processes left beside it."""
    if path.parent.is_dir():
        for other in path.parent.iterdir():
            _remove_abandoned(other)
    shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    """Have the system write a file, or all of a folder, to the disk."""
    mode = os.O_RDONLY if os.name == "posix" else os.O_RDWR  # others flush what is open to write
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, mode)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _move(new: Path, path: Path, old: Path, *, keep: bool) -> None:
    """Put what is new in place; a folder that is there already goes to ``old``."""
    if path.is_dir() and not keep:
        with suppress(FileNotFoundError):  # another process has just moved it
            os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:  # a folder with files in it
            return
        if old.exists():
            os.replace(old, path)
        raise


def remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left, anywhere in a folder."""
    for place, names, _ in os.walk(folder):
        for name in names:
            _remove_abandoned(Path(place, name))


def _remove_abandoned(path: Path) -> None:
    """Remove a path if it is the scratch folder of a process that has ended.

    Of another host's process nothing is known, so its folder stays until it is old.
    """
    if (match := SCRATCH.fullmatch(path.name)) is None:
        return
    host, process = match.groups()
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:  # its process has just removed it
        return
    if age > ABANDONED or (host == HOST and not _is_alive(int(process))):
        shutil.rmtree(path, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # there a signal of 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name; on another file system, or where links are refused, copy it.

    For files that are only ever replaced: a change made in place is in both.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the line ends that the text has."""
    write_texts(path, [text])


def write_texts(path: Path, texts: Iterable[str]) -> None:
    """`write_text` of texts one after the other, each made when it is written."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(texts)
