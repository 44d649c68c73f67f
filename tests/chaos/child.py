"""The command likra, killed at one of its changes.

    python -m tests.chaos.child CHANGE BYTES COMMAND ...

CHANGE is its number, from 0, or - for none. It is killed before the change, or with BYTES as soon
as it writes a file beyond that size.
"""

import signal
import sys
from pathlib import Path

from likra.cli.main import main
from tests.chaos.changes import killed, killed_while_writing, watching

if __name__ == "__main__":
    # a shell starts background jobs, such as this one may be, with Ctrl-C ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    change, n_bytes, *command = sys.argv[1:]
    sys.argv = ["likra", *command]
    act = killed() if n_bytes == "-" else killed_while_writing(int(n_bytes))
    with watching(Path.cwd(), None if change == "-" else int(change), act):
        main()
