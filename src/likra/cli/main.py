"""The command ``likra``. Heavy imports happen inside commands: ``likra --help`` needs no torch."""

import gc
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NoReturn

import typer

from likra.cli.doctor import doctor
from likra.cli.evaluate import evaluate
from likra.cli.generate import generate
from likra.cli.model import card, explain, fit, push, rank
from likra.cli.run import run
from likra.cli.serve import serve
from likra.cli.studies import compare, pack, plan, plot, train, verdict
from likra.cli.tasks import negatives, tasks_app
from likra.cli.terminal import INTERRUPTED, TERMINATED, StoppedError, quiet
from likra.errors import LikraError
from likra.heads.processes import check_supported, separate, started
from likra.progress import Event, emit

CONTINUE = {"fit", "run", "train", "rank", "eval"}  # commands that find what is done
TRAIN = {"fit", "run", "train"}  # commands in which several processes take part
LONGEST = 2000  # characters of an error
# New objects between two searches for garbage. With Python's own number, importing the libraries is
# one tenth of searching what they have made, none of which is garbage.
NEW_OBJECTS = 50_000

app = typer.Typer(
    name="likra",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long names of options at 80 columns
    help="Learn from wrong answers as well as right ones: two LoRA heads on one frozen language "
    "model, and candidates ranked by the likelihood ratio L+ - w L- (arXiv:2503.14391).",
    epilog="Start with: likra run pocket",
)


def _first_line(command: Callable[..., None]) -> str:
    """What the list of commands says of one; by default it would be cut."""
    return (command.__doc__ or "").partition("\n")[0]


MODEL_COMMANDS = (fit, rank, explain, generate, serve, card, push)
STUDY_COMMANDS = (run, plan, train, plot, compare, verdict, pack)
for command in (*MODEL_COMMANDS, *STUDY_COMMANDS):
    app.command(short_help=_first_line(command))(command)
app.command(
    name="eval",
    short_help=_first_line(evaluate),
    add_help_option=False,  # the help of the harness follows that of this command
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(evaluate)
app.add_typer(tasks_app, name="tasks")
app.command(short_help=_first_line(negatives))(negatives)
app.command(short_help=_first_line(doctor))(doctor)


@app.callback(invoke_without_command=True)
def _alone(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from likra import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """The console script: what the user can correct is one line and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(NEW_OBJECTS)
    try:
        _command()
    except LikraError as error:
        _fail(str(error))
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        _fail(f"cannot read or write{where}: {error.strerror or error}")
    except SystemExit as stop:  # typer turns KeyboardInterrupt into exit code 130
        if stop.code in {INTERRUPTED, TERMINATED}:
            _say_stopped(stop)
        raise


def _command() -> None:
    """Run the command. Of several processes one does, and the others train along with it."""
    if not TRAIN & set(sys.argv[1:2]):
        app()
        return
    sharded = any(argument.partition("=")[0] == "--shard" for argument in sys.argv)
    if sharded or started() == 1:
        separate()
        app()
        return
    check_supported()
    quiet()
    from likra.heads.parallel import announce, together

    with together() as is_main:
        if is_main:
            try:
                app()
            except SystemExit as stop:
                if not stop.code:
                    announce(None)
                raise
        else:
            from likra.heads.follow import follow

            follow()


def _say_stopped(stop: SystemExit) -> None:
    """Say how to go on."""
    line = "stopped"
    if CONTINUE & set(sys.argv[1:2]):
        line += ": the same command continues where this one stopped"
    if isinstance(stop, StoppedError):
        line += f", in '{stop.folder}'"
    if sys.stderr.isatty():  # after a bar, or the terminal's own ^C
        sys.stderr.write("\n")
    emit(Event("stopped", {"message": line}))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Unwind the main thread, so that ``finally`` blocks remove temporary folders."""
    raise SystemExit(128 + number)


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    emit(Event("error", {"message": line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."}))
    raise SystemExit(2)


if __name__ == "__main__":
    main()
