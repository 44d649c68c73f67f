"""What is written about a run beside its cells: settings, questions, examples."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.atomic import write_texts
from likra.checksum import checked, with_checksum
from likra.errors import LikraError
from likra.questions import Question
from likra.scores.table import HeadKey
from likra.study.cells import Cells
from likra.study.config import Study
from likra.study.examples import Example, Training
from likra.study.folder import (
    Run,
    library_versions,
    read_about,
    read_record,
    write_about,
    write_record,
)

if TYPE_CHECKING:
    from likra.heads.base import BaseModel


def write_study(cells: Cells, base: "BaseModel | None", givers: Iterable[Run] = ()) -> None:
    """Write ``study.yaml``, ``cells.json`` and the texts of the evaluation questions.

    Args:
        cells: of the run.
        base: the base model; None where it was not opened.
        givers: the other runs that cells were taken from, whose layout is the cells' then.

    """
    run, data = cells.run, cells.data
    if base is not None:
        layout = {"layout": base.layout, "layout_reason": base.layout_reason}
    else:
        before = read_about(run.folder) if run.study_path.is_file() else _content_of(givers)
        layout = {name: before.get(name, "unknown") for name in ("layout", "layout_reason")}
    facts = {
        "versions": library_versions(),
        **layout,
        **_starting_point(cells.run.study),
        "n_train_questions": len(data.train),
        "n_eval_questions": len(data.evaluation),
        "notes": list(data.notes),
        "leaks": [[leak.train_id, leak.eval_id, round(leak.similarity, 4)] for leak in data.leaks],
    }
    if data.evaluation:
        write_texts(run.questions_path, _lines(map(_question_row, data.evaluation)))
    write_record(run, read_record(run.folder).merged(cells.record))
    write_about(run, facts)


def write_incomplete(part: Run, lines: Sequence[str]) -> None:
    """Write what is missing into ``study.yaml``, for the results: first in short, then each cell.

    The next `write_study` leaves it out again.
    """
    facts = {key: value for key, value in read_about(part.folder).items() if key != "study"}
    write_about(part, {**facts, "incomplete": list(lines)})


def _content_of(givers: Iterable[Run]) -> dict[str, Any]:
    """The content of the first ``study.yaml`` that can be read; {} where there is none."""
    for giver in givers:
        with suppress(LikraError, OSError):
            return read_about(giver.folder)
    return {}


def _starting_point(study: Study) -> dict[str, str]:
    """Where a relative path to the model counts from (`likra.study.folder.usable_path`)."""
    model = Path(study.model)
    is_path = study.model not in {"pocket", "smollm2"} and model.exists()
    is_relative = is_path and not model.is_absolute()
    return {"started_in": str(Path.cwd())} if is_relative else {}


def _question_row(question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "stem": question.stem,
        "choices": [choice.text for choice in question.choices],
        "is_right": [choice.is_right for choice in question.choices],
    }


def write_examples(run: Run, training: Training) -> None:
    """Write what a head is trained on, a line for each example in order, with its prompt.

    Those of a longer run stay: these are their beginning. `likra eval` looks for evaluated
    questions among them.
    """
    path = run.examples_path(training.keys[-1])

    def lines() -> Iterator[str]:
        return _lines(_example_row(example, training.head) for example in training.examples)

    if not path.is_file() or path.stat().st_size < sum(len(line.encode()) for line in lines()):
        write_texts(path, lines())


def read_examples(run: Run, key: HeadKey) -> list[dict[str, Any]] | None:
    """What a head was trained on: the rows of `write_examples`, with question_id and context.

    None where its run did not keep them.

    Raises:
        LikraError: the file is damaged.

    """
    path = run.examples_path(key)
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        own = lines[: key.n_train]  # later snapshots saw more
        rows = [checked(json.loads(line)) for line in own]
        for row in rows:
            row["question_id"], row["context"]
    except (ValueError, TypeError, KeyError) as error:
        raise LikraError(f"cannot read '{path}' ({type(error).__name__})") from error
    return rows


def _example_row(example: Example, head: str) -> dict[str, Any]:
    answers = example.answers(head)
    row: dict[str, Any] = {"question_id": example.question.id, "context": answers[0].context}
    if head != "negative":
        row["answer"] = answers[0].continuation
    if wrong := answers if head == "negative" else answers[1:]:
        row["wrong"] = [choice.continuation for choice in wrong]
    return row


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(with_checksum(row), ensure_ascii=False) + "\n" for row in rows)
