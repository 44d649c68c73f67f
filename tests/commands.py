"""The commands of likra as a user types them, with what they print and their exit code."""

import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from likra.cli import main as cli


def process(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which takes seconds to import what it needs."""
    command = [sys.executable, "-m", "likra", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def likra(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in this process."""
    code, output, errors = 0, io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["likra", *arguments])
        patch.setattr(signal, "signal", lambda *_: None)
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())
