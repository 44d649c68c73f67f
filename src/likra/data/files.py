"""The user's own questions: data files, folders of them, and data sets of the hub."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from likra.data.card import card_names
from likra.data.columns import ROLES, are_numbers, shown
from likra.data.formats import Text
from likra.data.harness import FEWSHOT_SEED
from likra.data.prompts import as_text, candidate
from likra.data.reading import USUAL, Reading
from likra.data.rendering import PLAIN, Rendering
from likra.data.row_table import Table, read_table
from likra.data.rows import COMPRESSED, READABLE, BadRowError, Row, kind_of, read_rows
from likra.data.splits import HELD_OUT, TRAIN, hold_out
from likra.errors import LikraError, unknown
from likra.hub import hub_or_cache, reason
from likra.questions import Question
from likra.text import comparable, one_line, shuffled


@dataclass(frozen=True, eq=False)
class FileTask:
    """A task read from files or a hub data set.

    Attributes:
        name: as in results.
        tables: by split of the data.
        notes: what the user should know about the data.
        division: of the only split, where it is divided: the numbers of the questions on each side.
        hidden: ids of questions that are never shown as examples.

    """

    name: str
    tables: Mapping[str, Table]
    notes: list[str] = field(default_factory=list)
    division: Mapping[str, Sequence[int]] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()

    @property
    def splits(self) -> list[str]:
        """All splits that can be asked for."""
        return sorted({*self.tables, *self.division})

    @property
    def train_split(self) -> str | None:
        """The training split; a single file is one."""
        return TRAIN if TRAIN in self.splits else None

    @property
    def eval_split(self) -> str | None:
        """The split to evaluate: what was held out, else test, else validation."""
        known = (HELD_OUT, "test", "validation", "dev")
        return next((name for name in known if name in self.splits), None)

    @property
    def needs_chat_template(self) -> bool:
        """Whether prompts are chat messages."""
        return any(table.is_chat for table in self.tables.values())

    def held_out(self, fraction: float, seed: int, _rendering: Rendering = PLAIN) -> "FileTask":
        """The task with its only split divided: a fraction of it, drawn by the seed, is held out.

        What is done with bad rows was decided when they were read.

        Raises:
            LikraError: there is nothing left on one side.

        """
        if len(self.tables) != 1:
            raise LikraError(
                f"'{self.name}' has the splits {', '.join(self.tables)}, of which none is to train "
                "on, or none to evaluate: set train_split and eval_split"
            )
        (table,) = self.tables.values()
        stems = (as_text(entry.stem) for entry in table)
        return replace(self, division=hold_out(stems, fraction, seed))

    def without_examples(self, ids: set[str]) -> "FileTask":
        """The task in which these questions are never shown as solved examples."""
        return replace(self, hidden=self.hidden | ids)

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
            raise unknown("split", split, self.splits, f"'{self.name}'")
        name, numbers = self.place(split)
        return Questions(self, name, numbers, num_fewshot, rendering)

    def place(self, split: str) -> tuple[str, Sequence[int]]:
        """The table of a split, and the numbers of its questions there."""
        if split in self.division:
            (name,) = self.tables
            return name, self.division[split]
        return split, range(len(self.tables[split]))


@dataclass(frozen=True)
class Questions(Sequence[Question]):
    """Some questions of a table, each made when it is asked for."""

    task: FileTask
    split: str
    numbers: Sequence[int]
    num_fewshot: int
    rendering: Rendering

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> "Questions": ...
    def __getitem__(self, index: int | slice) -> "Question | Questions":
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        return self._question(self.numbers[index])

    def _question(self, number: int) -> Question:
        table = self.task.tables[self.split]
        entry = table[number]
        solved = self._examples(number) if self.num_fewshot else []
        try:
            choices = [
                candidate(entry.prompt, text, is_right, solved, table.format, self.rendering)
                for text, is_right in entry.answers
            ]
        except Exception as error:  # a chat template may raise anything at all
            raise LikraError(f"{entry.origin}: {one_line(error)}") from error
        return Question(entry.id, as_text(entry.stem), tuple(choices), entry.origin)

    def _examples(self, number: int) -> list[tuple[Text, Text]]:
        """Solved examples for a question, from the training split and never the question itself.

        The harness draws them one question after the other; here the draw of each question
        depends on its number alone, since questions are made in any order.
        """
        task = self.task
        if task.train_split is None:
            raise LikraError(f"'{task.name}' has no training split to take examples from")
        name, pool = task.place(task.train_split)
        fixed = self.rendering.fewshot == "fixed"
        seed = FEWSHOT_SEED if fixed else f"{FEWSHOT_SEED}/{self.split}/{number}"
        solved: list[tuple[Text, Text]] = []
        for place in shuffled(len(pool), random.Random(seed)):
            if (name, pool[place]) != (self.split, number):
                entry = task.tables[name][pool[place]]
                right = [text for text, is_right in entry.answers if is_right]
                if right and entry.id not in task.hidden:
                    solved.append((entry.prompt, right[0]))
            if len(solved) == self.num_fewshot:
                return solved
        raise LikraError(f"'{task.name}' has {len(solved)} solved examples, not {self.num_fewshot}")


# --------------------------------------------------------------------------------------------
# Opening


def is_data_file(name: str) -> bool:
    """Whether a name is that of a data file or folder; a card's name is not (./NAME is)."""
    if name in card_names():
        return False
    return Path(name).is_dir() or Path(name).suffix.lower() in (*READABLE, *COMPRESSED, ".zip")


def open_files(name: str, reading: Reading = USUAL) -> FileTask:
    """Open a data file, or a folder with ``train.jsonl``, ``test.jsonl`` and the like.

    Raises:
        LikraError: what cannot be read, by file and line.

    """
    path = Path(name)
    if path.suffix.lower() == ".zip":
        raise LikraError(f"'{name}' is an archive: unpack it")
    if saved := _saved_splits(path):
        data = {split: _load_saved(own) for split, own in saved.items()}
        return _open_splits(name, data, reading)
    by_split = _folder_files(path) if path.is_dir() else {TRAIN: [path]}
    decodes = all(kind_of(file) in {".csv", ".tsv"} for own in by_split.values() for file in own)

    def rows(own: list[Path]) -> Iterator[Row]:
        for file in own:
            for place, row in read_rows(file, by_number=are_numbers(reading.columns)):
                yield f"{file.name}, {place}", row

    splits = {split: (", ".join(map(str, own)), rows(own)) for split, own in by_split.items()}
    return _open(name, splits, reading, decodes=decodes)


def _saved_splits(path: Path) -> dict[str, Path]:
    """The splits of a folder that the library `datasets` has saved, as `save_to_disk` does.

    A folder with data files of its own is none.

    Raises:
        LikraError: it holds several configurations, of which one is to be named.

    """
    if (path / _SAVED).is_file():
        return {TRAIN: path}
    inner = sorted(path.iterdir()) if path.is_dir() else []
    if any(kind_of(own) in READABLE and own.name != _SAVED_SPLITS for own in inner):
        return {}
    splits = {own.name: own for own in inner if (own / _SAVED).is_file()}
    configurations = [own.name for own in inner if list(own.glob(f"*/{_SAVED}"))]
    if configurations and not splits:
        raise LikraError(
            f"'{path}' has the configurations {', '.join(configurations)}: name one, such as "
            f"{path / configurations[0]}"
        )
    return splits


def _load_saved(path: Path) -> Iterable[Mapping[str, Any]]:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # broken JSON, missing or damaged Arrow files: many types
        raise LikraError(f"cannot read '{path}': {one_line(error)}") from error


# Of the library `datasets`: in the folder of each split, and in the one that holds them.
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_SPLITS = {"dev": "validation", "val": "validation", "valid": "validation", "eval": "validation"}


def _folder_files(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder by split; none is skipped."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if kind_of(path) not in READABLE or path.name.startswith("."):
            continue
        whole = path.stem if path.suffix.lower() not in COMPRESSED else Path(path.stem).stem
        stem = re.sub(r"-\d+-of-\d+$", "", whole).lower()
        split = _SPLITS.get(_usual(stem), _usual(stem))
        if split not in {TRAIN, "validation", "test"}:
            raise LikraError(
                f"'{path}' belongs to no split: files in a folder are named train, validation or "
                "test"
            )
        if files.get(split) and "-of-" not in whole:
            raise LikraError(f"'{folder}' has two files for '{split}': the second is {path.name}")
        files.setdefault(split, []).append(path)
    if not files:
        raise LikraError(f"'{folder}' contains no data: expected train.jsonl, test.jsonl, ...")
    return files


def open_hub(name: str, reading: Reading = USUAL) -> FileTask:
    """Open a data set of the hub, ``OWNER/NAME`` or ``OWNER/NAME:CONFIGURATION``.

    Raises:
        LikraError: it cannot be loaded, or it matches no format.

    """
    import datasets

    path, _, configuration = name.partition(":")
    try:
        with hub_or_cache():
            data = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # the hub, the network, the files: many types
        raise LikraError(
            f"unknown task '{name}': it is not a file here, and cannot be loaded from the "
            f"Hugging Face hub ({reason(error)})"
        ) from error
    return _open_splits(name, data, reading)


def _open_splits(
    name: str, data: Mapping[str, Iterable[Mapping[str, Any]]], reading: Reading
) -> FileTask:
    """A task of the splits of a data set of the library `datasets`."""

    def rows(split: str) -> Iterator[Row]:
        for number, row in enumerate(data[split], start=1):
            yield f"{name} {split}, row {number}", dict(row)

    called = _without_collisions(list(data))
    splits = {called[split]: (f"{name} {split}", rows(split)) for split in data}
    return _open(name, splits, reading)


def open_rows(
    rows: Iterable[Mapping[str, Any]], reading: Reading = USUAL, name: str = "data"
) -> FileTask:
    """Open rows in memory, such as a list of dictionaries or a `datasets.Dataset`.

    Raises:
        LikraError: they match no format, or a row is no dictionary or cannot be used.

    """

    def numbered() -> Iterator[Row]:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, Mapping):
                raise LikraError(
                    f"{name}, row {number} is of type {type(row).__name__}; a row is a dictionary, "
                    "such as {'question': ..., 'choices': [...], 'answer': 0}"
                )
            yield f"{name}, row {number}", dict(row)

    return _open(name, {TRAIN: (name, numbered())}, reading)


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
    splits: Mapping[str, tuple[str, Iterator[Row]]],
    reading: Reading,
    *,
    decodes: bool = False,
) -> FileTask:
    """A task of the rows of each split, which have a name for messages."""
    tables = {
        split: read_table(source, rows, reading, decodes=decodes)
        for split, (source, rows) in splits.items()
    }
    notes = [note for split, table in tables.items() for note in _notes(splits[split][0], table)]
    return FileTask(name, tables, notes)


_TELL = ("answer", "label", "completion", "chosen", "rejected")  # roles that say what is right


def _notes(source: str, table: Table) -> list[str]:
    columns = ", ".join(
        column if role == column else f"{role}={column}"
        for role, column in table.format.columns.items()
    )
    form = ", each put as 'Question: ... Answer:'" if table.format.asks else ""
    template = table.format.template
    if template is not None:
        form = f", each put as '{template.shown}'"
    notes = [f"'{source}': {table.format.name} ({columns}), {len(table):,} questions{form}"]
    shows = set(template.fields if template else ())
    told = [name for role in _TELL if (name := table.format.columns.get(role)) in shows]
    if told:
        notes.append(
            f"the prompt template shows {', '.join(told)}, which says what is right: a new "
            "question has no such column"
        )
    if table.dropped:
        kinds = ", ".join(f"{kind}: {count:,}" for kind, count in table.dropped.most_common())
        total = sum(table.dropped.values())
        notes.append(f"left out {total:,} rows ({kinds}); {'; '.join(table.examples_of_dropped)}")
    first = table[0]
    if not table.format.sets_off and isinstance(first.prompt, str):
        answer = str(first.answers[0][0])
        if first.prompt[-1:].isalnum() and answer[:1].isalnum():
            notes.append(
                f"prompt and answer touch ('{first.prompt[-20:]}' + '{answer[:20]}'): in TRL's "
                "formats the space between them is the file's own"
            )
    return notes


def read_wrong_answers(name: str) -> Iterator[tuple[str, list[str]]]:
    """The wrong answers in a file: (question's id or its `comparable` text, texts) of each row.

    Columns: an id or a prompt, by their usual names (`likra.data.columns.ROLES`); and ``rejected``,
    a text or a list.

    Raises:
        LikraError: what cannot be read, by file and line.

    """
    for place, row in read_rows(Path(name)):
        origin = f"{Path(name).name}, {place}"
        if isinstance(row, BadRowError):
            raise LikraError(f"{origin}: {row}")
        key = _first_of(row, "id")
        if key is None:
            asked = _first_of(row, "prompt")
            key = comparable(str(asked)) if asked else None
        texts = row.get("rejected")
        if key is None or not texts:
            raise LikraError(
                f"{origin}: expected id (or prompt, or question) and rejected: it has {shown(row)}"
            )
        yield str(key), [texts] if isinstance(texts, str) else [str(text) for text in texts]


def _first_of(row: Mapping[str, Any], role: str) -> Any:
    """The first value under a usual name of a role; None if there is none."""
    values = (row.get(name) for name in ROLES[role])
    return next((value for value in values if value is not None and value != ""), None)
