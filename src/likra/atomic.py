"""Files and folders that are written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """Write a file or a folder under another name, and move it to ``path`` at the end.

    Yields the path to write to. It lies in a scratch folder of its own beside ``path``, so that
    two processes never share it and the move stays on one file system. After an error ``path`` is
    as it was. With ``keep`` a folder that another process has put there meanwhile stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield scratch / path.name
        if path.is_dir() and not keep:
            shutil.rmtree(path)
        try:
            os.replace(scratch / path.name, path)
        except OSError:  # a folder with files in it is not replaced
            if not (keep and path.is_dir()):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
