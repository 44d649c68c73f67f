"""The command that writes answers."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from likra.atomic import replacing
from likra.cli.terminal import log, quiet
from likra.errors import LikraError

if TYPE_CHECKING:
    from likra.model.prompt import Prompt


def generate(  # noqa: PLR0913, PLR0917 - an option each
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder of a model, or its name on the hub."),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A JSONL file with a question in each line, under `question` or `prompt` (or the "
            "fields of the model's prompt template); "
            "- for the standard input.",
        ),
    ] = None,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="One question, in place of a file.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A JSONL file; by default the standard output."),
    ] = None,
    way: Annotated[
        str,
        typer.Option(
            help="guided: each token by log p+ - w log p-, among those that the positive term "
            "finds plausible. best-of-n: n samples of the positive term, of which the model's "
            "ranking takes the best; n times the work. positive: the positive term alone.",
        ),
    ] = "positive",
    n: Annotated[int, typer.Option("--n", help="Samples of best-of-n.")] = 8,
    alpha: Annotated[
        float,
        typer.Option(
            help="Of guided: a token is plausible if the positive term gives it this share of what "
            "it gives its likeliest token. 1 leaves the likeliest alone; near 0 the ratio may pick "
            "a token that both terms find absurd.",
        ),
    ] = 0.1,
    weight: Annotated[
        float | None,
        typer.Option(
            help="w of the negative term; by default the model's own, which was chosen for "
            "ranking. Where answers come out odd, try less.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="Length at which an answer is cut, in tokens.")
    ] = 32,
    seed: Annotated[
        int, typer.Option(help="Of the samples; with the question it decides them.")
    ] = 0,
) -> None:
    """Write answers to questions, each up to the end of its first line.

    With --question it prints the answer. With a file it writes each line as it was, with the field
    `generated` added, in the same order, while it reads the next ones.

    \b
    likra generate my-model -q "What is the capital of Laos?"
    likra generate my-model questions.jsonl -o answers.jsonl
    cat questions.jsonl | likra generate my-model - --way best-of-n --n 16
    """  # noqa: D301  (Click keeps the lines of a paragraph that begins with a backspace)
    if (question is None) == (file is None):
        raise LikraError("give either a FILE of questions or --question")
    quiet()
    from likra.model.generate import Writing, generate_many
    from likra.model.likra import Likra

    settings: dict[str, Any] = {
        "way": way,
        "n": n,
        "alpha": alpha,
        "weight": weight,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    writing = Writing(**settings)
    if file is not None and str(file) != "-" and not file.is_file():
        raise LikraError(f"no file '{file}'")
    if file is not None and output is not None and file.resolve() == output.resolve():
        raise LikraError(f"'{output}' is the file of questions: give another output")
    parts = Likra.from_pretrained(model).parts
    if question is not None:
        (answer,) = generate_many(parts, [question], writing)
        log(answer)
        return
    assert file is not None
    with _reading(file) as lines, _writing(output) as target:
        rows: list[dict[str, Any]] = []  # that were read, and whose answers are not written yet
        asked = _asked(lines, str(file), rows, parts.prompt)
        for answer in generate_many(parts, asked, writing):
            line = json.dumps({**rows.pop(0), "generated": answer}, ensure_ascii=False)
            target.write(f"{line}\n")
            target.flush()


def _asked(lines: TextIO, name: str, rows: list[dict[str, Any]], prompt: "Prompt") -> Iterator[Any]:
    """The question of each line; its row is added to the rows."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LikraError(f"{name}, line {number}: not JSON ({error})") from error
        if isinstance(row, dict) and prompt.takes(row):
            rows.append(row)
            yield row
            continue
        if not isinstance(row, dict) or not ({"question", "prompt"} & set(row)):
            raise LikraError(f"{name}, line {number}: no field `question` or `prompt`")
        text = row["question"] if "question" in row else row["prompt"]
        if not _is_asked(text):
            raise LikraError(f"{name}, line {number}: the question is neither a text nor messages")
        rows.append(row)
        yield text


def _is_asked(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(
            isinstance(m, dict) and {"role", "content"} <= set(m) for m in value
        )
    return isinstance(value, str) and bool(value.strip())


def _reading(file: Path) -> Any:
    return nullcontext(sys.stdin) if str(file) == "-" else file.open(encoding="utf-8")


def _writing(output: Path | None) -> Any:
    return nullcontext(sys.stdout) if output is None else _replaced(output)


@contextmanager
def _replaced(output: Path) -> Iterator[TextIO]:
    """A file that is there when all of it is written."""
    with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file
