"""Task cards: rendered by the harness, read from where the user's data is, refused in words."""

import json
from pathlib import Path

import pytest

from likra.errors import LikraError
from likra.leakage import find_leaks
from likra.settings import parse_study
from likra.tasks import load_task
from likra.tasks.cards import card_names, local_files
from likra.workbench import Workbench

CARD = """
task: mine
dataset_path: json
dataset_kwargs:
  data_files: {train: train.jsonl, test: test.jsonl}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "Q: {{question}} A:"
doc_to_choice: "{{choices.text}}"
doc_to_target: "{{choices.label.index(answerKey)}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def row(name: str, texts=("Berlin", "Paris"), key="B", stem="Capital of France?") -> dict:
    labels = list("ABCD")[: len(texts)]
    return {
        "id": name,
        "question": stem,
        "choices": {"text": list(texts), "label": labels},
        "answerKey": key,
    }


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def card(tmp_path) -> Path:
    write_jsonl(tmp_path / "train.jsonl", [row("t1"), row("t2", stem="Capital of Gaul?")])
    write_jsonl(tmp_path / "test.jsonl", [row("e1", ("Rome", "Oslo", "Bonn"), "A")])
    (tmp_path / "mine.yaml").write_text(CARD)
    return tmp_path / "mine.yaml"


def test_a_card_of_the_users_own_finds_its_data_beside_it(card, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    task = load_task(str(card))
    assert (task.name, task.train_split, task.eval_split) == ("mine", "train", "test")
    (question,) = task.questions("test")
    assert question.id == "e1"
    assert [c.context for c in question.choices] == ["Q: Capital of France? A:"] * 3
    assert [c.continuation for c in question.choices] == [" Rome", " Oslo", " Bonn"]
    assert [c.text for c in question.choices] == ["Rome", "Oslo", "Bonn"]
    assert [c.is_right for c in question.choices] == [True, False, False]


def test_fewshot_examples_come_from_the_training_split(card):
    (question,) = load_task(str(card)).questions("test", num_fewshot=1)
    stems = ("Capital of France?", "Capital of Gaul?")
    expected = [f"Q: {stem} A: Paris\n\nQ: Capital of France? A:" for stem in stems]
    assert question.choices[0].context in expected
    assert question.stem == "Capital of France?"  # without them, or leaks would hide


def test_the_pocket_task(pocket):
    task = load_task("pocket")
    train, test = task.questions("train"), task.questions("test")
    assert (len(train), len(test)) == (192, 128)
    assert find_leaks(train, test) == []
    for question in (*train, *test):
        assert len(question.right) == 1
        assert len(question.wrong) == 3


def test_arc_on_real_data(real_data):
    task = load_task("arc_challenge", str(real_data / "data" / "ai2_arc"))
    train, test = task.questions("train"), task.questions("test")
    assert (len(train), len(test)) == (1119, 1172)
    path = real_data / "data" / "ai2_arc" / "ARC-Challenge.test.jsonl"
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert test[0].id == first["id"]
    assert test[0].choices[0].context == f"Question: {first['question']}\nAnswer:"
    assert [c.text for c in test[0].choices] == first["choices"]["text"]
    gold = first["choices"]["label"].index(first["answerKey"])
    assert [c.is_right for c in test[0].choices].index(True) == gold
    assert 6 <= len(find_leaks(train, test)) <= 12  # six stems are the same to the letter


def test_the_cards_that_come_with_likra():
    assert {"pocket", "arc_challenge", "arc_easy"} <= set(card_names())


@pytest.mark.parametrize(
    "names",
    [
        ["ARC.train.jsonl", "ARC.test.jsonl"],
        ["train.jsonl", "test.jsonl"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"],
        ["ARC/train-00000-of-00001.parquet", "ARC/test-00000-of-00001.parquet"],
    ],
)
def test_local_files_in_the_layouts_that_people_have(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "other.train.jsonl").touch()  # of another configuration
    found = local_files(tmp_path, "ARC")
    assert set(found) == {"train", "test"}
    assert sorted(path for paths in found.values() for path in paths) == sorted(
        str(tmp_path / name) for name in names
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pokcet", "unknown task 'pokcet': did you mean 'pocket'?"),
        ("nowhere.yaml", "no task card at 'nowhere.yaml'"),
    ],
)
def test_an_unknown_task(name, words):
    with pytest.raises(LikraError, match=words):
        load_task(name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("doc_to_text", "doc_to_txt", "unknown key 'doc_to_txt': did you mean 'doc_to_text'?"),
        ("multiple_choice", "generate_until", "output_type is 'generate_until'"),
        ("task: mine", "task: [", "cannot read the task card"),
        ("train.jsonl", "lost.jsonl", "cannot open the data of task 'mine' .*lost.jsonl"),
        ("{{question}}", "{{question", "cannot open the data of task 'mine'"),
        ("choices.text", "options", "cannot open the data of task 'mine'"),
    ],
)
def test_a_bad_card(card, old, new, words):
    card.write_text(CARD.replace(old, new))
    with pytest.raises(LikraError, match=words):
        load_task(str(card))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row("t9", ("Berlin", "Paris"), "C"), "train row 2: the card does not fit the data"),
        (row("t9", ("Paris", "Paris"), "A"), "'t9': 'Paris' is both a right and a wrong answer"),
        (row("t9", ("Paris", ""), "A"), "'t9': choice 1 is empty"),
        (row("t1"), "two questions have the id 't1'"),
    ],
)
def test_a_bad_row_is_named(card, bad, words):
    path = card.parent / "train.jsonl"
    write_jsonl(path, [json.loads(line) for line in path.read_text().splitlines()] + [bad])
    with pytest.raises(LikraError, match=words):
        load_task(str(card)).questions("train")


def test_an_unknown_split_is_named(card):
    with pytest.raises(
        LikraError, match="unknown split of task 'mine' 'tset': did you mean 'test'"
    ):
        load_task(str(card)).questions("tset")


def test_broken_json_is_named_with_its_file(card):
    (card.parent / "test.jsonl").write_text('{"id": "e1", "question"')
    with pytest.raises(LikraError, match=r"cannot open the data of task 'mine' .*test.jsonl"):
        load_task(str(card))


def test_a_folder_without_the_tasks_data(tmp_path):
    with pytest.raises(LikraError, match=r"expected files like 'ARC-Challenge.train.jsonl'"):
        load_task("arc_challenge", str(tmp_path))
    with pytest.raises(LikraError, match="no data folder at"):
        load_task("arc_challenge", str(tmp_path / "nowhere"))


def test_a_folder_without_the_cards_training_data_is_not_divided_unasked(tmp_path):
    rows = [row(f"e{n}", stem=f"Capital of {n}?") for n in range(10)]
    write_jsonl(tmp_path / "ARC-Challenge.test.jsonl", rows)
    write_jsonl(tmp_path / "train_m.jsonl", rows)
    settings = {"name": "x", "task": "arc_challenge", "data": str(tmp_path)}
    bench = Workbench(parse_study(settings))
    with pytest.raises(LikraError, match=r"holds no training data .* \(it holds .*train_m.jsonl\)"):
        _ = bench.train
    divided = Workbench(parse_study(settings | {"eval_fraction": 0.5}))
    assert (len(divided.train), len(divided.evaluation)) == (5, 5)


def test_examples_of_a_divided_split_are_never_held_out(card):
    rows = [row(f"e{n}", stem=f"Capital of {n}?") for n in range(20)]
    write_jsonl(card.parent / "test.jsonl", rows)
    text = CARD.replace("training_split: train\n", "").replace("train: train.jsonl, ", "")
    card.write_text(text)
    task = load_task(str(card))
    assert (task.train_split, task.eval_split) == (None, "test")
    task.hold_out(0.5, seed=1)
    train = {question.stem for question in task.questions("train")}
    held = task.questions("held-out", 4)
    for question in held:
        assert question.stem not in train
        *examples, last = question.choices[0].context.split("\n\n")
        assert last == f"Q: {question.stem} A:"
        assert len(examples) == 4
        assert {example.split(": ")[1].removesuffix(" A") for example in examples} <= train


def test_a_question_that_is_not_in_the_prompt_is_no_stem(card):
    """COPA's column "question" says "cause" or "effect": all its questions would be leaks."""
    rows = [{**row("e1"), "question": "cause", "premise": "It rained."}]
    write_jsonl(card.parent / "test.jsonl", rows)
    card.write_text(CARD.replace("{{question}}", "{{premise}}"))
    write_jsonl(card.parent / "train.jsonl", [{**rows[0], "id": "t1", "premise": "It snowed."}])
    task = load_task(str(card))
    assert task.questions("test")[0].stem == "Q: It rained. A:"
    assert find_leaks(task.questions("train"), task.questions("test")) == []
