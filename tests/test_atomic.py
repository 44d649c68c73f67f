"""Scratch folders: what killed processes leave is removed, what live ones write is not."""

import errno
import os
import subprocess
import sys

import pytest

from likra.atomic import ABANDONED, HOST, remove_abandoned, replacing, write_text


def write_folder(path, text, names=("a.txt",)):
    with replacing(path) as temporary:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(text, encoding="utf-8")


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


def test_what_killed_processes_left_is_removed_anywhere_in_a_folder(tmp_path):
    inner = tmp_path / "heads" / "seed=0"
    inner.mkdir(parents=True)
    stale, live = scratch(inner, ended_process()), scratch(inner, os.getpid())
    remove_abandoned(tmp_path)
    assert not stale.exists()
    assert live.exists()


def test_a_write_that_fails_names_the_file(tmp_path):
    """The system names none where a disk is full."""
    with pytest.raises(OSError, match="No space") as failed, replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert failed.value.filename == str(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_an_error_names_the_file_and_not_its_scratch(tmp_path):
    with pytest.raises(FileNotFoundError) as failed, replacing(tmp_path / "a.txt") as temporary:
        (temporary.parent / "deeper" / "a.txt").open("w")
    assert failed.value.filename == str(tmp_path / "a.txt")


def test_what_is_moved_is_on_the_disk(tmp_path, monkeypatch):
    """Each file of a folder is flushed before the folder has its name."""
    write_folder(tmp_path / "head", "old")
    flushed = []

    def fsync(descriptor):
        assert (tmp_path / "head" / "a.txt").read_text(encoding="utf-8") == "old"
        flushed.append(os.fstat(descriptor).st_ino)
        if len(flushed) == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_folder(tmp_path / "head", "new", ["a.txt", "b.txt", "inner/c.txt"])
    assert len(set(flushed)) == 3
    assert [path.name for path in (tmp_path / "head").iterdir()] == ["a.txt"]
    write_folder(tmp_path / "head", "new")
    assert (tmp_path / "head" / "a.txt").read_text(encoding="utf-8") == "new"


def test_a_folder_is_replaced_whole(tmp_path):
    for text in ("old", "new"):
        write_folder(tmp_path / "head", text)
    assert [path.name for path in tmp_path.iterdir()] == ["head"]
    assert (tmp_path / "head" / "a.txt").read_text(encoding="utf-8") == "new"


def test_of_two_processes_that_write_a_folder_at_once_one_wins(tmp_path, monkeypatch):
    """The other puts its folder in place after the old one is moved away."""
    write_folder(tmp_path / "head", "old")
    replace = os.replace

    def interrupted(source, target):
        replace(source, target)
        if str(target).endswith(".old"):
            monkeypatch.undo()
            write_folder(tmp_path / "head", "theirs")

    monkeypatch.setattr(os, "replace", interrupted)
    write_folder(tmp_path / "head", "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["head"]
    assert (tmp_path / "head" / "a.txt").read_text(encoding="utf-8") == "theirs"


@pytest.mark.parametrize("moves", [0, 1], ids=["away", "in place"])
def test_a_folder_that_cannot_be_moved_is_an_error(tmp_path, monkeypatch, moves):
    write_folder(tmp_path / "head", "old")
    replace, targets = os.replace, []

    def refused(source, target):
        targets.append(target)
        if len(targets) == moves + 1:
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError):
        write_folder(tmp_path / "head", "new")
    assert (tmp_path / "head" / "a.txt").read_text(encoding="utf-8") == "old"
