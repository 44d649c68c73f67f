"""Run every command of docs/benchmarks.md, and put what it prints below it.

The page has a block for each, which begins with the command after a dollar sign. The page is
written after each command, so what is done stays when the rest is stopped.

    python -m benchmarks.all
    python -m benchmarks.all --only study memory
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from likra.atomic import write_text

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BLOCK = re.compile(r"^```console\n\$ (?P<command>[^\n]+)\n.*?^```$", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands of a page, in order."""
    return [match["command"] for match in BLOCK.finditer(page)]


def with_output(page: str, command: str, output: str) -> str:
    """The page with the output of one of its commands in the place of the old one."""

    def block(match: re.Match[str]) -> str:
        if match["command"] != command:
            return match[0]
        return f"```console\n$ {command}\n{output.strip()}\n```"

    return BLOCK.sub(block, page)


def run(command: str) -> str:
    """What a command of the page prints.

    Raises:
        SystemExit: it failed; what it wrote on stderr is shown.

    """
    words = shlex.split(command)
    if words[0] == "likra":
        words = ["python", "-m", *words]
    result = subprocess.run(  # noqa: S603 - commands of our own page
        [sys.executable, *words[1:]], stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"failed with exit code {result.returncode}: {command}")
    return result.stdout


def main() -> None:
    """Run those asked for, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.all", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="words of the commands to run")
    only = parser.parse_args().only
    for command in commands(PAGE.read_text(encoding="utf-8")):
        if only and not any(name in command for name in only):
            continue
        print(f"$ {command}", flush=True)
        output = run(command)
        print(output, flush=True)
        write_text(PAGE, with_output(PAGE.read_text(encoding="utf-8"), command, output))


if __name__ == "__main__":
    main()
