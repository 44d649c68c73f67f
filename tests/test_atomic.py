"""Scratch folders: what killed processes leave is removed, what live ones write is not."""

import os
import subprocess
import sys

from likra.atomic import ABANDONED, HOST, write_text


def scratch(folder, process, host=HOST, age=0):
    path = folder / f".a.txt-{host}-{process}-abcdefgh"
    path.mkdir()
    modified = path.stat().st_mtime - age
    os.utime(path, (modified, modified))
    return path


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_write_removes_what_a_killed_process_left(tmp_path):
    stale = [
        scratch(tmp_path, ended_process()),
        scratch(tmp_path, 1, host="0" * 8, age=ABANDONED + 1),
    ]
    live = [scratch(tmp_path, os.getpid()), scratch(tmp_path, 2, host="0" * 8)]
    other = tmp_path / ".a.txt-notes"
    other.mkdir()
    write_text(tmp_path / "a.txt", "text")
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in (*live, other))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "text"
