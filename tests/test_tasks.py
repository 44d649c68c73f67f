"""Task cards: rendered by the harness, read from where the user's data is, refused in words."""

import dataclasses
import json
from pathlib import Path

import pytest

from likra.data.card import CARDS, card_names, check_card_is_safe, local_files
from likra.data.leakage import find_leaks
from likra.data.load import load_task
from likra.data.rendering import Rendering
from likra.errors import LikraError
from likra.study.config import parse_study
from likra.study.prepare import prepare

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
    path.parent.mkdir(exist_ok=True)
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
        ("nowhere.yaml", "task card not found: 'nowhere.yaml'"),
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
        (
            "[{metric: acc, aggregation: mean, higher_is_better: true}]",
            "[acc]",
            "cannot open the data",
        ),
        ("[{metric: acc, aggregation: mean, higher_is_better: true}]", "7", "cannot open the data"),
        ("data_files: {train: train.jsonl, test: test.jsonl}", "[]", "should be a mapping"),
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
        LikraError, match="unknown split 'tset' of task 'mine': did you mean 'test'"
    ):
        load_task(str(card)).questions("tset")


def test_broken_json_is_named_with_its_file(card):
    (card.parent / "test.jsonl").write_text('{"id": "e1", "question"')
    with pytest.raises(LikraError, match=r"cannot open the data of task 'mine' .*test.jsonl"):
        load_task(str(card))


def test_a_folder_without_the_tasks_data(tmp_path):
    with pytest.raises(LikraError, match=r"expected files like 'ARC-Challenge.train.jsonl'"):
        load_task("arc_challenge", str(tmp_path))
    with pytest.raises(LikraError, match="data folder not found"):
        load_task("arc_challenge", str(tmp_path / "nowhere"))


def test_a_folder_without_the_cards_training_data_is_not_divided_unasked(tmp_path):
    rows = [row(f"e{n}", stem=f"Capital of {n}?") for n in range(10)]
    write_jsonl(tmp_path / "ARC-Challenge.test.jsonl", rows)
    write_jsonl(tmp_path / "train_m.jsonl", rows)
    settings = {"name": "x", "task": "arc_challenge", "data": str(tmp_path)}
    with pytest.raises(
        LikraError, match=r"contains no training data .* \(it contains .*train_m.jsonl\)"
    ):
        prepare(parse_study(settings))
    divided = prepare(parse_study(settings | {"eval_fraction": 0.5}))
    assert (len(divided.train), len(divided.evaluation)) == (5, 5)


def test_evaluation_questions_are_drawn_by_the_seed():
    """In the order of the split; the same seed the same ones, and more contain the fewer."""
    settings = {"name": "x", "task": "pocket"}
    everything = list(prepare(parse_study(settings)).evaluation)

    def drawn(count: int, seed: int = 0) -> list[str]:
        chosen = settings | {"eval_questions": count, "split_seed": seed}
        data = prepare(parse_study(chosen))
        assert f"test: {count} of 128 questions, drawn by split_seed {seed}" in data.notes
        assert len(data.train) == 192
        assert list(data.evaluation) == [q for q in everything if q in set(data.evaluation)]
        return [question.id for question in data.evaluation]

    assert [len(drawn(count)) for count in (1, 30, 100)] == [1, 30, 100]
    assert drawn(30) == drawn(30)
    assert set(drawn(1)) < set(drawn(30)) < set(drawn(100))
    assert drawn(30) != [question.id for question in everything[:30]]
    assert drawn(30) != drawn(30, seed=1)


def test_more_evaluation_questions_than_there_are():
    settings = {"name": "x", "task": "pocket"}
    data = prepare(parse_study(settings | {"eval_questions": 500}))
    assert data.evaluation == prepare(parse_study(settings)).evaluation
    assert "test: all 128 questions, where eval_questions is 500" in data.notes
    with pytest.raises(LikraError, match="'eval_questions'"):
        parse_study(settings | {"eval_questions": 0})


def test_unusable_questions_are_dropped_before_any_is_drawn(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    test = [{"prompt": f"p{n}", "chosen": "b", "rejected": "c" if n % 2 else ""} for n in range(20)]
    rows = [{key: text for key, text in own.items() if text} for own in test]
    write_jsonl(tmp_path / "test.jsonl", rows[1:] + rows[:1])  # the first row decides the format
    settings = {"name": "x", "task": str(tmp_path), "eval_questions": 6}
    data = prepare(parse_study(settings))
    assert len(data.evaluation) == 6
    assert all(question.can_be_ranked for question in data.evaluation)
    assert "test: 6 of 10 questions, drawn by split_seed 0" in data.notes


def test_leaks_are_searched_among_the_drawn_questions(card):
    stems = [f"{word} is the capital of what?" for word in ("Rome", "Oslo", "Bonn", "Lima", "Doha")]
    rows = [row(f"e{n}", stem=stem) for n, stem in enumerate(stems)]
    write_jsonl(card.parent / "test.jsonl", rows)
    write_jsonl(card.parent / "train.jsonl", [own | {"id": f"t{own['id']}"} for own in rows])
    settings = {"name": "x", "task": str(card), "eval_questions": 2}
    data = prepare(parse_study(settings))
    drawn = [question.id for question in data.evaluation]
    assert len(drawn) == 2
    assert [leak.eval_id for leak in data.leaks if leak.exact] == drawn
    kept = prepare(parse_study(settings | {"on_leakage": "drop"}))
    assert [question.id for question in kept.train] == [
        f"te{n}" for n in range(5) if f"e{n}" not in drawn
    ]


def test_drawn_questions_have_the_examples_of_the_whole_split():
    settings = {"name": "x", "task": "pocket", "num_fewshot": 3}
    whole = {question.id: question for question in prepare(parse_study(settings)).evaluation}
    drawn = prepare(parse_study(settings | {"eval_questions": 10})).evaluation
    assert [whole[question.id] for question in drawn] == list(drawn)


def test_examples_of_a_divided_split_are_never_held_out(card):
    rows = [row(f"e{n}", stem=f"Capital of {n}?") for n in range(20)]
    write_jsonl(card.parent / "test.jsonl", rows)
    text = CARD.replace("training_split: train\n", "").replace("train: train.jsonl, ", "")
    card.write_text(text)
    task = load_task(str(card))
    assert (task.train_split, task.eval_split) == (None, "test")
    task = task.held_out(0.5, seed=1)
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
    assert task.questions("test")[0].stem == "It rained."
    assert find_leaks(task.questions("train"), task.questions("test")) == []


PASSAGE = 'doc_to_text: "{{passage}} Q: {{question}} A:"'


@pytest.mark.parametrize(
    ("form", "stem"),
    [
        ('doc_to_text: "Q: {{question}} A:"', "Which?"),
        ("doc_to_text: question", "Which?"),
        ('doc_to_text: "{{question}} {{choices.text | join}}"', "Which?"),
        (PASSAGE, "It rained. Q: Which? A:"),
        ('doc_to_text: "{{passage}}{{choices.text[0]}}"', "It rained."),
        ("doc_to_text: \"{{facts | join(' ')}} {{question}}\"", "a b c Which?"),
        ('doc_to_text: "{{number}}: {{question}}"', "0: Which?"),
        ('doc_to_text: "{{blank}}Q: {{question}}"', "Which?"),
    ],
)
def test_the_stem_is_what_the_prompt_shows_of_the_document(card, form, stem):
    more = {"passage": "It rained.", "facts": list("abc"), "number": 0, "blank": ""}
    for split in ("train", "test"):
        write_jsonl(card.parent / f"{split}.jsonl", [{**row("e1", stem="Which?"), **more}])
    card.write_text(CARD.replace('doc_to_text: "Q: {{question}} A:"', form))
    (question,) = load_task(str(card)).questions("test")
    assert question.stem == stem


@pytest.mark.parametrize(
    ("target", "stem"),
    [
        ("{{sentence[sentence.index('_') + 1:].strip()}}", "Ann thanked Eve as _ had helped."),
        ("had {{verb}} {{object}}.", "Ann thanked E_ had helped her."),
    ],
)
def test_the_stem_where_the_choices_are_in_the_context(card, target, stem):
    rows = [{"sentence": "Ann thanked Eve as _ had helped.", "verb": "helped", "object": "her"}]
    rows[0] |= {"answer": "2", "ends": ["Ann thanked Eve", "Ann thanked Eli"]}
    for split in ("train", "test"):
        write_jsonl(card.parent / f"{split}.jsonl", rows)
    text = CARD.replace('"Q: {{question}} A:"', "\"{{ {'1': 0, '2': 1}[answer] }}\"")
    text = text.replace("{{choices.text}}", "{{ends}}")
    card.write_text(text.replace("{{choices.label.index(answerKey)}}", target))
    (question,) = load_task(str(card)).questions("test")
    assert question.choices[1].context == "Ann thanked Eli"
    assert question.stem == stem


def test_the_same_question_about_another_passage_is_no_leak(card):
    for split in ("train", "test"):
        rows = [
            {**row(f"{split}{n}", stem="What is the best title?"), "passage": f"{split}{n} ran off"}
            for n in range(10)
        ]
        write_jsonl(card.parent / f"{split}.jsonl", rows)
    card.write_text(CARD.replace('doc_to_text: "Q: {{question}} A:"', PASSAGE))
    task = load_task(str(card))
    assert find_leaks(task.questions("train"), task.questions("test")) == []
    task = task.held_out(0.3, seed=0)  # or all had to stay together
    assert len(task.questions("held-out")) == 3


# --------------------------------------------------------------------------------------------
# Cards that would run code

SHELL = "{{ cycler.__init__.__globals__.os.popen('touch %s').read() }}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Q: {{question}} A:", "{{question}}SHELL"),
        ("{{choices.text}}", "SHELL{{choices.text}}"),
        ("{{choices.label.index(answerKey)}}", "SHELL{{choices.label.index(answerKey)}}"),
        ("Q: {{question}} A:", "{% if question == 'Capital of Gaul?' %}SHELL{% endif %}"),
        ("test_split: test", 'test_split: test\ngen_prefix: "SHELL"'),
        (
            "test_split: test",
            "test_split: test\nfewshot_config: {sampler: first_n, doc_to_text: 'X'}",
        ),
    ],
)
def test_a_cards_text_runs_no_shell(card, tmp_path, old, new):
    touched = tmp_path / "touched"
    text = CARD.replace(old, new.replace("'X'", '"{{question}}SHELL"'))
    assert text != CARD
    card.write_text(text.replace("SHELL", SHELL % touched))
    with pytest.raises(LikraError, match="SecurityError: access to attribute '__init__'"):
        load_task(str(card)).questions("train", 1)
    assert not touched.exists()


def test_filters_of_the_harness_work_in_a_card(card):
    card.write_text(CARD.replace("{{question}}", "{{question | regex_replace('a.', 'b')}}"))
    (question,) = load_task(str(card)).questions("test")
    assert question.choices[0].context == "Q: Cbitb of Frbce? A:"


CODE = """
from pathlib import Path
Path(__file__).with_name("touched").touch()
def text(document):
    return "Q: " + document["question"]
"""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"Q: {{question}} A:"', "!function code.text", r"!function code\.text"),
        ("test_split: test", "test_split: test\nprocess_docs: !function code.text", "!function"),
        (
            "test_split: test",
            "test_split: test\nfewshot_config: {samples: !function code.text}",
            "!f",
        ),
        ("metric: acc,", "metric: !function code.text,", "!function"),
        ("metric: acc,", "metric: ./code.py,", r"metric: ./code\.py"),
        ("metric: acc,", "metric: acc, hf_evaluate: true,", "metric: acc"),
        ("dataset_path: json", "dataset_path: code.py", r"dataset_path: code\.py"),
        ("dataset_path: json", "dataset_path: pandas", "dataset_path: pandas"),
        ("  data_files", "  trust_remote_code: true\n  data_files", "trust_remote_code"),
        ("dataset_path: json", "dataset_path: json\ncustom_dataset: code.text", "custom_dataset"),
        ("dataset_path: json", "dataset_path: json\nunsafe_code: true", "unsafe_code"),
        ("dataset_path: json", "dataset_path: json\nuse_prompt: promptsource:a", "use_prompt"),
        ("task: mine", "task: mine\ninclude: code.yaml", "!function code"),
    ],
)
def test_a_card_that_comes_from_a_path_runs_no_code(card, old, new, reason):
    (card.parent / "code.py").write_text(CODE)
    (card.parent / "code.yaml").write_text("doc_to_text: !function code.text\n")
    text = CARD.replace(old, new)
    assert text != CARD
    card.write_text(text)
    with pytest.raises(LikraError, match=rf"runs Python code \({reason}.*--allow-code"):
        load_task(str(card))
    assert not (card.parent / "touched").exists()


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!python/object/apply:os.system"])
def test_a_card_makes_no_python_objects(card, tag):
    card.write_text(CARD.replace('"Q: {{question}} A:"', f"{tag} [ls]"))
    with pytest.raises(LikraError, match="cannot read the task card .*python"):
        load_task(str(card))


def test_code_that_the_user_allows_is_run(card):
    (card.parent / "code.py").write_text(CODE)
    card.write_text(CARD.replace('"Q: {{question}} A:"', "!function code.text"))
    (question,) = load_task(str(card), allow_code=True).questions("test")
    assert question.choices[0].context == "Q: Capital of France?"
    assert (card.parent / "touched").exists()


def test_a_group_by_its_path_is_checked_as_a_card(tmp_path):
    """As `likra eval` takes it."""
    inner = "{task: a, doc_to_text: !function code.text}"
    (tmp_path / "group.yaml").write_text(f"group: g\ntask: [arc_easy, {inner}]\n")
    with pytest.raises(LikraError, match=r"group.yaml' runs Python code \(!function code.text"):
        check_card_is_safe(tmp_path / "group.yaml")
    check_card_is_safe(tmp_path / "group.yaml", allow_code=True)
    (tmp_path / "group.yaml").write_text("group: g\ntask: [arc_easy, {include: a.yaml}]\n")
    (tmp_path / "a.yaml").write_text("custom_dataset: code.text\n")
    with pytest.raises(LikraError, match=r"runs Python code \(custom_dataset\)"):
        check_card_is_safe(tmp_path / "group.yaml")
    for own in CARDS.glob("*.yaml"):
        check_card_is_safe(own)


# --------------------------------------------------------------------------------------------
# Divided splits


def test_a_card_with_training_data_alone_is_divided(card):
    rows = [row(f"t{n}", stem=f"Capital of {n}?") for n in range(10)]
    write_jsonl(card.parent / "train.jsonl", rows)
    text = CARD.replace("test_split: test\n", "").replace(", test: test.jsonl", "")
    card.write_text(text)
    task = load_task(str(card))
    assert (task.train_split, task.eval_split) == ("train", None)
    task = task.held_out(0.3, seed=1)
    assert (task.train_split, task.eval_split) == ("train", "held-out")
    train, held = task.questions("train"), task.questions("held-out", 2)
    assert (len(train), len(held)) == (7, 3)
    assert {q.id for q in (*train, *held)} == {r["id"] for r in rows}
    shown = {example.split("\n\n")[0] for example in (q.choices[0].context for q in held)}
    assert shown <= {f"Q: {q.stem} A: Paris" for q in train}


def test_a_task_is_a_value(card):
    rows = [row(f"t{n}", stem=f"Capital of {n}?") for n in range(10)]
    write_jsonl(card.parent / "train.jsonl", rows)
    write_jsonl(card.parent / "test.jsonl", [row(f"e{n}", stem=f"Town {n}?") for n in range(4)])
    task = load_task(str(card))
    before = task.questions("test", 1)
    divided, without = task.held_out(0.5, seed=1), task.without_examples({"t0", "t1", "t2"})
    assert divided.splits == ["held-out", "test", "train"]
    assert task.splits == ["test", "train"]
    assert (task.train_split, task.eval_split) == ("train", "test")
    assert task.questions("test", 1) == before
    assert len(task.questions("train")) == 10
    with pytest.raises(LikraError, match="has 7 examples, not 8"):
        without.questions("test", 8)
    assert task.questions("test", 8)
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"


PARTS = """
task: parts
dataset_path: json
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: "{{choices.text}}"
doc_to_target: "{{choices.label.index(answerKey)}}"
metric_list: [{metric: acc}]
metadata: {configurations: [a, b]}
"""


@pytest.mark.parametrize("composed", ["", ', splits: {test: ["*/test"]}'])
@pytest.mark.parametrize("fewshot", ["per-question", "fixed"])
def test_examples_of_divided_parts_are_never_held_out(tmp_path, composed, fewshot):
    for part in "ab":
        rows = [row(f"{n}", stem=f"{part}-question-{n}") for n in range(20)]  # ids in both
        write_jsonl(tmp_path / f"{part}.test.jsonl", rows)
    (tmp_path / "parts.yaml").write_text(PARTS.replace("[a, b]", f"[a, b]{composed}"))
    task = load_task(str(tmp_path / "parts.yaml"), str(tmp_path))
    task = task.held_out(0.5, seed=0)
    train = {question.stem for question in task.questions("train")}
    held = task.questions("held-out", 3, Rendering(fewshot=fewshot))
    assert len(train) == len(held) == 20
    shown = set()
    for question in held:
        assert question.stem not in train
        *examples, last = question.choices[0].context.split("\n\n")
        assert last == question.stem
        shown |= {example.removesuffix(" Paris") for example in examples}
    assert shown <= train
    assert {stem[0] for stem in shown} == {"a", "b"}


def test_bad_rows_of_a_divided_split_are_left_out(card):
    rows = [row(f"t{n}", stem=f"Capital of {n}?") for n in range(10)]
    rows[3]["answerKey"] = "Z"
    write_jsonl(card.parent / "test.jsonl", rows)
    card.write_text(CARD.replace("training_split: train\n", "").replace("train: train.jsonl, ", ""))
    task = load_task(str(card))
    with pytest.raises(LikraError, match="test row 3: the card does not fit the data"):
        task = task.held_out(0.3, seed=0)
    skip = Rendering(on_bad_row="skip")
    task = task.held_out(0.3, 0, skip)
    found = [*task.questions("train", 0, skip), *task.questions("held-out", 0, skip)]
    assert {q.id for q in found} == {f"t{n}" for n in range(10) if n != 3}
    assert len(found) == 9
    assert len(task.notes) == 1


def test_distractors_of_a_divided_split_are_of_the_same_side(tmp_path):
    rows = [{"question": f"Problem {n}?", "solution": f"solution {n}"} for n in range(12)]
    write_jsonl(tmp_path / "test.jsonl", rows)
    text = PARTS.replace("{{choices.text}}", "{{[solution]}}").replace("configurations: [a, b]", "")
    text = text.replace('"{{choices.label.index(answerKey)}}"', "0").replace(
        "{}", "{distractors: 3}"
    )
    (tmp_path / "parts.yaml").write_text(text)
    task = load_task(str(tmp_path / "parts.yaml"), str(tmp_path))
    task = task.held_out(0.5, seed=0)
    sides = []
    for split in ("train", "held-out"):
        questions = task.questions(split)
        assert [len(question.wrong) for question in questions] == [3] * 6
        sides.append({choice.text for question in questions for choice in question.choices})
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("fewshot", ["per-question", "fixed"])
def test_what_is_left_out_is_no_example(card, fewshot):
    rows = [row(f"t{n}", stem=f"Capital of {n}?") for n in range(8)]
    write_jsonl(card.parent / "train.jsonl", rows)
    write_jsonl(card.parent / "test.jsonl", [row(f"e{n}", stem=f"Town {n}?") for n in range(8)])
    task = load_task(str(card))
    task = task.without_examples({f"t{n}" for n in range(5)})
    for question in task.questions("test", 3, Rendering(fewshot=fewshot)):
        *examples, _ = question.choices[0].context.split("\n\n")
        assert set(examples) == {f"Q: Capital of {n}? A: Paris" for n in (5, 6, 7)}
    assert len(task.questions("train")) == 8
    with pytest.raises(LikraError, match="task 'mine' has 3 examples, not 4"):
        task.questions("test", 4, Rendering(fewshot=fewshot))


# --------------------------------------------------------------------------------------------
# Names


def test_a_folder_with_the_name_of_a_card_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket").mkdir()
    write_jsonl(tmp_path / "arc_easy" / "ARC-Easy.test.jsonl", [row("e1")])
    assert len(load_task("pocket").questions("test")) == 128
    assert load_task("arc_easy", "./arc_easy").questions("test")[0].id == "e1"
    write_jsonl(tmp_path / "pocket" / "train.jsonl", [row("t1")])
    for name in ("./pocket", "pocket/"):
        assert load_task(name).questions("train")[0].id == "t1"
