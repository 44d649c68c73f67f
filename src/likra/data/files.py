"""People's own questions: data files, folders of them, and data sets of the hub."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from likra.data.card import card_names
from likra.data.formats import Format, Text
from likra.data.harness import FEWSHOT_SEED
from likra.data.rendering import PLAIN, Rendering
from likra.data.row_table import Table, read_table, restored
from likra.data.rows import READABLE, BadRowError, Row, read_rows
from likra.data.splits import TRAIN, hold_out
from likra.errors import LikraError, unknown
from likra.questions import Choice, Question
from likra.text import common_length, comparable, one_line, shuffled


class Questions(Sequence[Question]):
    """Some questions of a table, each made when it is asked for."""

    def __init__(self, task: "FileTask", split: str, numbers: Sequence[int], options: Any) -> None:
        self.task, self.split, self.numbers, self.options = task, split, numbers, options

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> "Questions": ...
    def __getitem__(self, index: int | slice) -> "Question | Questions":
        if isinstance(index, slice):
            return Questions(self.task, self.split, self.numbers[index], self.options)
        num_fewshot, rendering = self.options
        return self.task.question(self.split, self.numbers[index], num_fewshot, rendering)


@dataclass
class FileTask:
    """A task read from files or a hub data set.

    Attributes:
        name: as in results.
        tables: by split of the data.
        notes: what the user should know about the data.
        held_out: the divided split's parts, by name, as (split, numbers of questions).
        files: what was read, where it is local.
        left_out: ids of questions that are never shown as examples.

    """

    name: str
    tables: dict[str, Table]
    notes: list[str] = field(default_factory=list)
    held_out: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)

    @property
    def splits(self) -> list[str]:
        """All splits that can be asked for."""
        return sorted({*self.tables, *self.held_out})

    @property
    def train_split(self) -> str | None:
        """The training split; a single file is one."""
        return TRAIN if TRAIN in self.tables else None

    @property
    def eval_split(self) -> str | None:
        """The split to evaluate: test, else validation, else what was held out."""
        there = (name for name in ("test", "validation", "dev") if name in self.tables)
        held = next((name for name in self.held_out if name != TRAIN), None)
        return held or next(there, None)

    @property
    def needs_chat_template(self) -> bool:
        """Whether prompts are chat messages."""
        return any(
            bool(table.rows["is_chat"].slice(0, 1).to_pylist()[0]) for table in self.tables.values()
        )

    def hold_out(self, fraction: float, seed: int, _rendering: Rendering = PLAIN) -> None:
        """Divide the only split: a fraction of its questions, drawn by the seed, is held out.

        What is done with bad rows was decided when they were read.

        Raises:
            LikraError: there is nothing left on one side.

        """
        if len(self.tables) != 1:
            raise LikraError(
                f"'{self.name}' has the splits {', '.join(self.tables)}, of which none is to train "
                "on, or none to evaluate: set train_split and eval_split"
            )
        ((split, table),) = self.tables.items()
        stems = (_as_text(restored(table, number)[0]) for number in range(len(table)))
        parts = hold_out(stems, fraction, seed)
        self.held_out = {name: (split, numbers) for name, numbers in parts.items()}

    def questions(
        self, split: str, num_fewshot: int = 0, rendering: Rendering = PLAIN
    ) -> Sequence[Question]:
        """The questions of a split, each made when it is asked for.

        Args:
            split: one of `splits`.
            num_fewshot: solved examples before each question, from the training split.
            rendering: how examples are chosen, and the chat template.

        Raises:
            LikraError: no such split.

        """
        if split not in self.splits:
            raise unknown(f"split of '{self.name}'", split, self.splits)
        name, numbers = self.held_out.get(split, (split, None))
        chosen = range(len(self.tables[name])) if numbers is None else numbers
        return Questions(self, name, chosen, (num_fewshot, rendering))

    def question(self, split: str, number: int, num_fewshot: int, rendering: Rendering) -> Question:
        """One question of a table.

        Raises:
            LikraError: it holds chat messages, and there is no chat template; or the template
                does not take them.

        """
        prompt, answers, row = restored(self.tables[split], number)
        solved = self._examples(split, number, num_fewshot, rendering) if num_fewshot else []
        origin = row["origin"]
        form = self.tables[split].format
        try:
            choices = [
                _choice(prompt, text, is_right, solved, form, rendering)
                for text, is_right in answers
            ]
        except Exception as error:  # a chat template may raise anything at all
            raise LikraError(f"{origin}: {one_line(error)}") from error
        return Question(_id(row), _as_text(prompt), tuple(choices), origin)

    def _examples(
        self, split: str, number: int, count: int, rendering: Rendering
    ) -> list[tuple[Text, Text]]:
        """Solved examples for a question, from the training split and never the question itself.

        The harness draws them one question after the other; here each question's draw hangs on
        its number alone, since questions are made in any order.
        """
        pool_split = self.train_split
        if pool_split is None:
            raise LikraError(f"'{self.name}' has no training split to take examples from")
        name, numbers = self.held_out.get(pool_split, (pool_split, None))
        pool = range(len(self.tables[name])) if numbers is None else numbers
        fixed = rendering.fewshot == "fixed"
        generator = random.Random(FEWSHOT_SEED if fixed else f"{FEWSHOT_SEED}/{split}/{number}")
        solved: list[tuple[Text, Text]] = []
        for place in shuffled(len(pool), generator):
            if len(solved) == count:
                break
            if (name, pool[place]) != (split, number):
                prompt, answers, row = restored(self.tables[name], pool[place])
                if _id(row) in self.left_out:
                    continue
                solved += [(prompt, text) for text, is_right in answers if is_right][:1]
        if len(solved) < count:
            raise LikraError(f"'{self.name}' has {len(solved)} solved examples, not {count}")
        return solved


def _id(row: Mapping[str, Any]) -> str:
    return str(row["id"] or row["origin"])


def _choice(
    prompt: Text,
    answer: Text,
    is_right: bool,
    solved: Sequence[tuple[Text, Text]],
    form: Format,
    rendering: Rendering,
) -> Choice:
    """One candidate. Chat answers end as the template ends a turn, as in TRL."""
    if rendering.chat_template is not None:
        messages = [
            message
            for question, right in solved
            for message in _messages(question, "user", form) + _messages(right, "assistant", form)
        ]
        messages += _messages(prompt, "user", form)
        context = rendering.chat_template(messages, add_generation_prompt=True)
        messages += _messages(answer, "assistant", form)
        whole = rendering.chat_template(messages, add_generation_prompt=False, complete=True)
        context = context[: common_length([context, whole])]
        return Choice(context, whole[len(context) :], _as_text(answer).strip(), is_right)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise LikraError("chat messages need a chat template, and there is none")
    preamble = "".join(
        f"{_context(question, form)}{_continuation(question, right, form)}\n\n"
        for question, right in solved
    )
    context = preamble + _context(prompt, form)
    return Choice(context, _continuation(prompt, answer, form), answer.strip(), is_right)


def _context(prompt: Text, form: Format) -> str:
    return f"Question: {prompt}\nAnswer:" if form.asks else str(prompt)


def _continuation(prompt: Text, answer: Text, form: Format) -> str:
    """In TRL's formats the texts touch as they are; choices are set off by a space."""
    prompt, answer = str(prompt), str(answer)
    apart = form.asks or not (prompt[-1:].isspace() or answer[:1].isspace())
    return f" {answer}" if form.name == "multiple choice" and apart else answer


def _messages(text: Text, role: str, form: Format) -> list[dict[str, str]]:
    if not isinstance(text, str):
        return text
    content = _context(text, form) if role == "user" else text
    return [{"role": role, "content": content}]


def _as_text(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(message["content"] for message in text)


# --------------------------------------------------------------------------------------------
# Opening


def is_data_file(name: str) -> bool:
    """Whether a name is that of a data file or folder; a card's is not: ./NAME is the folder."""
    if name in card_names():
        return False
    return Path(name).is_dir() or Path(name).suffix.lower() in (*READABLE, ".gz", ".zip", ".zst")


def open_files(
    name: str, mapping: Mapping[str, str] | None = None, on_bad_row: str = "error"
) -> FileTask:
    """Open a data file, or a folder with ``train.jsonl``, ``test.jsonl`` and the like.

    Raises:
        LikraError: what cannot be read, by file and line.

    """
    path = Path(name)
    if path.suffix.lower() in {".gz", ".zip", ".zst"}:
        raise LikraError(f"'{name}' is packed: unpack it")
    files = _folder_files(path) if path.is_dir() else {TRAIN: [path]}

    def rows(found: list[Path]) -> Iterator[Row]:
        for file in found:
            for place, row in read_rows(file):
                yield f"{file.name}, {place}", row

    task = _open(
        name,
        {split: rows(found) for split, found in files.items()},
        {split: ", ".join(map(str, found)) for split, found in files.items()},
        mapping or {},
        on_bad_row,
        decodes=all(f.suffix.lower() in {".csv", ".tsv"} for own in files.values() for f in own),
    )
    task.files = [file for found in files.values() for file in found]
    return task


_SPLITS = {"dev": "validation", "val": "validation", "valid": "validation", "eval": "validation"}


def _folder_files(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by split; none is passed over.

    Raises:
        LikraError: there is none, or one of no split.

    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in READABLE or path.name.startswith("."):
            continue
        stem = re.sub(r"-\d+-of-\d+$", "", path.stem).lower()
        split = _SPLITS.get(_usual(stem), _usual(stem))
        if split not in {TRAIN, "validation", "test"}:
            raise LikraError(
                f"'{path}' is of no split: in a folder, files are called train, validation or test"
            )
        if files.get(split) and "-of-" not in path.stem:
            raise LikraError(f"'{folder}' has two files for '{split}': {path.name} is the second")
        files.setdefault(split, []).append(path)
    if not files:
        raise LikraError(f"'{folder}' holds no data: wanted train.jsonl, test.jsonl and the like")
    return files


def open_hub(
    name: str, mapping: Mapping[str, str] | None = None, on_bad_row: str = "error"
) -> FileTask:
    """Open a data set of the hub, ``OWNER/NAME`` or ``OWNER/NAME:CONFIGURATION``.

    Raises:
        LikraError: there is none, or it fits no format.

    """
    import datasets

    path, _, configuration = name.partition(":")
    try:
        data = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the hub, the network, the files: many types
        raise LikraError(
            f"unknown task '{name}': it is neither a file here nor a data set to be had from the "
            f"Hugging Face hub ({one_line(error)[:160]})"
        ) from error

    def rows(split: str) -> Iterator[Row]:
        for number, row in enumerate(data[split], start=1):
            yield f"{name} {split}, row {number}", row

    called = _without_collisions(list(data))
    splits = {called[split]: rows(split) for split in data}
    sources = {called[split]: f"{name} {split}" for split in data}
    return _open(name, splits, sources, mapping or {}, on_bad_row)


def _without_collisions(splits: list[str]) -> dict[str, str]:
    """What each split is called here: train_prefs is train, unless another is."""
    called: dict[str, str] = {}
    for split in sorted(splits, key=lambda name: (not name.endswith("_prefs"), name)):
        short = _usual(split)
        called[split] = split if short in {*called.values(), *splits} else short
    return called


def _usual(split: str) -> str:
    """TRL's data sets call their splits train_prefs, train_sft and the like."""
    return split.rpartition("_")[0] if split.endswith(("_prefs", "_sft")) else split


def _open(
    name: str,
    splits: Mapping[str, Iterator[Row]],
    sources: Mapping[str, str],
    mapping: Mapping[str, str],
    on_bad_row: str,
    *,
    decodes: bool = False,
) -> FileTask:
    tables = {
        split: read_table(sources[split], rows, mapping, on_bad_row, decodes=decodes)
        for split, rows in splits.items()
    }
    task = FileTask(name, tables)
    for split, table in tables.items():
        task.notes += _notes(sources[split], table)
    return task


def _notes(source: str, table: Table) -> list[str]:
    columns = ", ".join(
        column if role == column else f"{role}={column}"
        for role, column in table.format.columns.items()
    )
    notes = [f"'{source}': {table.format.name} ({columns}), {len(table):,} questions"]
    if table.dropped:
        kinds = ", ".join(f"{kind}: {count:,}" for kind, count in table.dropped.most_common())
        total = sum(table.dropped.values())
        notes.append(f"left out {total:,} rows ({kinds}); {'; '.join(table.examples_of_dropped)}")
    prompt, answers, _ = restored(table, 0)
    if table.format.name != "multiple choice" and isinstance(prompt, str):
        answer = str(answers[0][0])
        if prompt[-1:].isalnum() and answer[:1].isalnum():
            notes.append(
                f"prompt and answer touch ('{prompt[-20:]}' + '{answer[:20]}'): in TRL's formats "
                "the space between them is the file's own"
            )
    return notes


def read_wrong_answers(name: str) -> Iterator[tuple[str, list[str]]]:
    """Wrong answers in a file: (question's id or its `comparable` text, texts) of each row.

    Columns: ``id``, or ``prompt`` or ``question``; and ``rejected``, a text or a list.

    Raises:
        LikraError: what cannot be read, by file and line.

    """
    for place, row in read_rows(Path(name)):
        where = f"{Path(name).name}, {place}"
        if isinstance(row, BadRowError):
            raise LikraError(f"{where}: {row}")
        key = row.get("id")
        if key is None:
            asked = row.get("prompt") or row.get("question")
            key = comparable(str(asked)) if asked else None
        texts = row.get("rejected")
        if key is None or not texts:
            raise LikraError(f"{where}: wanted id (or prompt, or question) and rejected")
        yield str(key), [texts] if isinstance(texts, str) else [str(text) for text in texts]
