"""The shapes in which public data sets come: each is read as it is, told by its columns."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from likra.data.asked import read_asked
from likra.data.load import load_task
from likra.data.reading import Reading
from likra.errors import LikraError
from likra.model.fit import open_data
from likra.study.config import parse_study
from likra.study.prepare import open_task

ASKED = "Question: Which?\nAnswer:"
LABELLED = [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]
SPEAKERS = [("human", "Hi"), ("gpt", "Yes?"), ("human", "Which?"), ("gpt", "y"), ("human", "Ah")]
TURNS = [
    {"role": "assistant" if who == "gpt" else "user", "content": text} for who, text in SPEAKERS
]

# Name in the documentation: rows, settings, and prompt, right and wrong answers of the first row.
SHAPES = {
    "AQuA-RAT": (
        {"question": "Which?", "options": ["A)x", "B)y"], "rationale": "r", "correct": "B"},
        (ASKED, [" B)y"], [" A)x"]),
    ),
    "ARC, CommonsenseQA (raw)": (
        {"id": "1", "question": {"stem": "Which?", "choices": LABELLED}, "answerKey": "B"},
        (ASKED, [" y"], [" x"]),
    ),
    "ARC, CommonsenseQA, QASC (hub)": (
        {
            "question": "Which?",
            "choices": {"text": ["x", "y"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        (ASKED, [" y"], [" x"]),
    ),
    "OpenBookQA": (
        {"question_stem": "Which?", "choices": LABELLED, "answerKey": "B"},
        (ASKED, [" y"], [" x"]),
    ),
    "MMLU": (
        {"question": "Which?", "subject": "s", "choices": ["x", "y"], "answer": 1},
        (ASKED, [" y"], [" x"]),
    ),
    "MMLU (columns A to D)": (
        {"question": "Which?", "A": "x", "B": "y", "answer": 1},
        (ASKED, [" y"], [" x"]),
    ),
    "MMLU-Pro": (
        {"question": "Which?", "options": ["x", "y"], "answer": "B", "answer_index": 1},
        (ASKED, [" y"], [" x"]),
    ),
    "MedMCQA": (
        {"id": "1", "question": "Which?", "opa": "x", "opb": "y", "opc": "z", "cop": 1},
        (ASKED, [" y"], [" x", " z"]),
    ),
    "MedQA": (
        {"question": "Which?", "answer": "y", "options": {"A": "x", "B": "y"}, "answer_idx": "B"},
        (ASKED, [" y"], [" x"]),
    ),
    "SciQ": (
        {"question": "Which?", "distractor1": "x", "distractor2": "z", "correct_answer": "2"},
        (ASKED, [" 2"], [" x", " z"]),
    ),
    "GPQA": (
        {
            "Question": "Which?",
            "Correct Answer": "y",
            "Incorrect Answer 1": "x",
            "Incorrect Answer 2": "z",
        },
        (ASKED, [" y"], [" x", " z"]),
    ),
    "PIQA": (
        {"goal": "Which?", "sol1": "x", "sol2": "y", "label": 1},
        (ASKED, [" y"], [" x"]),
    ),
    "COPA": (
        {"premise": "p", "choice1": "x", "choice2": "y", "question": "effect", "label": 1},
        ("Question: p\n\neffect\nAnswer:", [" y"], [" x"]),
    ),
    "HellaSwag": (
        {"ind": 4, "ctx_a": "a", "ctx_b": "b", "ctx": "a b", "endings": ["x", "y"], "label": "1"},
        ("a b", [" y"], [" x"]),
    ),
    "SWAG": (
        {"sent1": "a", "sent2": "b", "startphrase": "a b", "ending0": "x", "ending1": "y"}
        | {"label": 1},
        ("a b", [" y"], [" x"]),
    ),
    "LogiQA": (
        {"context": "c", "query": "Which?", "options": ["x", "y"], "correct_option": 1},
        ("Question: c\n\nWhich?\nAnswer:", [" y"], [" x"]),
    ),
    "RACE": (
        {"article": "a", "question": "Which?", "options": ["x", "y"], "answer": "B"},
        ("Question: a\n\nWhich?\nAnswer:", [" y"], [" x"]),
        {"columns": {"prompt": "article+question"}},
    ),
    "Social IQa": (
        {"context": "c", "question": "Which?", "answerA": "x", "answerB": "y", "answerC": "z"}
        | {"label": "2"},
        ("Question: c\n\nWhich?\nAnswer:", [" y"], [" x", " z"]),
        {"answer_base": 1},
    ),
    "WinoGrande": (
        {"sentence": "The _ is.", "option1": "x", "option2": "y", "answer": "2"},
        ("Question: The _ is.\nAnswer:", [" y"], [" x"]),
        {"answer_base": 1},
    ),
    "inspect": (
        {"input": "Which?", "choices": ["x", "y"], "target": ["B"]},
        ("Which?", [" y"], [" x"]),
    ),
    "lm_eval's query": (
        {"query": "Question: Which?\nAnswer:", "choices": ["x", "y"], "gold": 1},
        (ASKED, [" y"], [" x"]),
    ),
    "sentence-transformers": (
        {"anchor": "Which?", "positive": "y", "negative": "x"},
        ("Which?", [" y"], [" x"]),
    ),
    "sentence-transformers, several": (
        {"anchor": "Which?", "positive": "y", "negative_1": "x", "negative_2": "z"},
        ("Which?", [" y"], [" x", " z"]),
    ),
    "Alpaca": (
        {"instruction": "Choose.", "input": "x or y", "output": "y"},
        ("Choose.\n\nx or y", [" y"], []),
    ),
    "Alpaca without input": ({"instruction": "Choose.", "output": "y"}, ("Choose.", [" y"], [])),
    "messages": ({"messages": TURNS}, (TURNS[:3], [TURNS[3:4]], [])),
    "ShareGPT": (
        {"conversations": [{"from": who, "value": text} for who, text in SPEAKERS]},
        (TURNS[:3], [TURNS[3:4]], []),
    ),
}


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("row", "expected", "options"),
    [(*shape, {})[:3] for shape in SHAPES.values()],
    ids=SHAPES,
)
def test_a_public_data_set_is_read_as_it_comes(tmp_path, row, expected, options):
    task = load_task(written(tmp_path / "a.jsonl", row), **options)
    if task.needs_chat_template:
        entry = task.tables["train"][0]
        answers = [[text for text, own in entry.answers if own is right] for right in (True, False)]
        assert (entry.prompt, *answers) == expected
        return
    (question,) = task.questions("train")
    (context,) = {choice.context for choice in question.choices}
    assert ("put as 'Question: ... Answer:'" in task.notes[0]) == context.startswith("Question: ")
    answers = [[c.continuation for c in own] for own in (question.right, question.wrong)]
    assert (context, *answers) == expected


def test_of_an_answer_in_two_columns_the_one_that_fits_is_taken(tmp_path):
    row = {"question": "Which?", "options": ["x", "y"], "answer": "y it is", "answer_idx": 1}
    task = load_task(written(tmp_path / "a.jsonl", row))
    assert "answer=answer_idx" in task.notes[0]
    assert [choice.text for choice in task.questions("train")[0].right] == ["y"]


def test_a_text_that_is_another_choices_number_is_ambiguous(tmp_path):
    row = {"question": "Which?", "A": "1", "B": "0", "answer": 1}
    with pytest.raises(LikraError, match="line 1: 'answer' is ambiguous: '1'"):
        load_task(written(tmp_path / "a.jsonl", row))


def test_a_nested_column_by_name(tmp_path):
    row = {"q": {"stem": "Which?", "of": {"it": ["x", "y"]}}, "answer": 0}
    columns = {"prompt": "q.stem", "choices": "q.of.it"}
    (question,) = load_task(written(tmp_path / "a.jsonl", row), columns=columns).questions("train")
    assert question.choices[0].context == ASKED
    assert question.right[0].text == "x"


def test_usual_answers_come_before_sets_of_columns(tmp_path):
    row = {"prompt": "p", "completion": " c", "instruction": "i", "output": "o"}
    (question,) = load_task(written(tmp_path / "a.jsonl", row)).questions("train")
    assert (question.choices[0].context, question.choices[0].continuation) == ("p", " c")


def test_a_file_that_counts_otherwise_names_the_option(tmp_path):
    row = {"sentence": "The _ is.", "option1": "x", "option2": "y", "answer": "2"}
    name = written(tmp_path / "a.jsonl", row)
    with pytest.raises(LikraError, match="seems to count from 1: set --answer-base 1"):
        load_task(name)
    name = written(tmp_path / "b.jsonl", row | {"answer": 0})
    with pytest.raises(LikraError, match="count from 0: leave out --answer-base 1"):
        load_task(name, answer_base=1)
    with pytest.raises(LikraError, match="not a file: --answer-base is for files"):
        load_task("pocket", answer_base=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"columns": {"promt": "frage"}}, "unknown role of a column 'promt'"),
        ({"columns": {"answer": "a+b"}}, "the role answer takes one column, not 'a\\+b'"),
        ({"on_bad_row": "skpi"}, "on_bad_row takes error or skip, not 'skpi'"),
        ({"answer_base": 2}, "answer_base takes 0 or 1, not 2"),
    ],
)
def test_how_files_are_read_is_checked_before_any_is_read(values, message):
    with pytest.raises(LikraError, match=message):
        Reading(**values)


def test_a_study_counts_from_one(tmp_path):
    row = {"sentence": "The _ is.", "option1": "x", "option2": "y", "answer": "2"}
    name = written(tmp_path / "a.jsonl", row)
    study = parse_study({"name": "x", "task": name, "answer_base": 1})
    (question,) = open_task(study, name, None).questions("train")
    assert question.right[0].text == "y"


def test_what_is_fitted_counts_from_one(tmp_path):
    row = {"sentence": "The _ is.", "option1": "x", "option2": "y", "answer": "2"}
    for data in (written(tmp_path / "a.jsonl", row), [row]):
        (question,) = open_data(data, Reading(answer_base=1)).questions("train")
        assert question.right[0].text == "y"


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESSORS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard,
}


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_compressed_files(tmp_path, kind, ending):
    rows = [{"question": f"Which of {n}?", "A": "x", "B": "y", "answer": "B"} for n in range(9)]
    between = "," if kind == "csv" else "\t"
    table = [between.join(rows[0]), *(between.join(row.values()) for row in rows)]
    lines = [json.dumps(row) for row in rows] if kind == "jsonl" else table
    text = json.dumps(rows) if kind == "json" else "\n".join(lines)
    path = tmp_path / f"train.{kind}.{ending}"
    path.write_bytes(COMPRESSORS[ending](text.encode()))
    for name in (str(path), str(tmp_path)):
        questions = load_task(name).questions("train")
        assert [question.stem for question in questions] == [row["question"] for row in rows]
        assert {question.right[0].text for question in questions} == {"y"}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_broken_compressed_file(tmp_path, ending):
    content = COMPRESSORS[ending](b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    for broken in (content[: len(content) // 2], b"nonsense"):
        path = tmp_path / f"a.jsonl.{ending}"
        path.write_bytes(broken)
        with pytest.raises(LikraError, match="cannot be decompressed|no usable row"):
            load_task(str(path))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"question": "q", "choices": ["x"]},
            r"For multiple choice it lacks answer \(or gold, label \.\.\.\)\. Name your columns, "
            r"such as --columns answer=MINE",
        ),
        (
            {"prompt": "p", "text": "t"},
            "it lacks chosen. Name your columns, such as --columns chosen=MINE",
        ),
        ({"n": 1}, "such as --columns prompt=MINE,chosen=MINE"),
    ],
)
def test_columns_of_no_format(tmp_path, row, words):
    with pytest.raises(LikraError, match=words) as raised:
        load_task(written(tmp_path / "a.jsonl", row))
    assert f"it has columns {', '.join(row)}. For " in str(raised.value)


def test_every_shape_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    for name in SHAPES:
        assert f"| {name} |" in text, name


NUMBERS = {"prompt": "0", "choices": "1+2+3", "answer": "4"}


@pytest.mark.parametrize("header", ["", "0,1,2,3,4\n"])
@pytest.mark.parametrize("answer", ["B", "1", "y"])
def test_a_file_without_a_header_has_its_columns_by_number(tmp_path, header, answer):
    path = tmp_path / "a.csv"
    path.write_text(f'{header}Which?,x,y,z,{answer}\n"Who, then?",u,v,w,A\n')
    first, second = load_task(str(path), columns=NUMBERS).questions("train")
    assert (first.choices[0].context, first.right[0].text) == (ASKED, "y")
    assert (second.stem, second.right[0].text) == ("Who, then?", "u")
    (row, _) = read_asked(path, Reading({"prompt": "0", "choices": "1+2+3"}))
    assert (row.name, row.options) == ("line 2" if header else "line 1", ("x", "y", "z"))


def test_without_a_header_and_without_numbers_the_option_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Which?,x,y,B\nWho?,u,v,A\n")
    with pytest.raises(LikraError, match=r"without a header.*--columns prompt=0,choices=1\+2\+3"):
        load_task(str(path))
    with pytest.raises(LikraError, match="has no column '9'"):
        load_task(str(path), columns={"prompt": "0", "choices": "1+2", "answer": "9"})


def saved(folder: Path) -> datasets.DatasetDict:
    rows = [
        {"question": f"Which of {n}?", "choices": ["x", "y"], "answer": n % 2} for n in range(3)
    ]
    data = datasets.DatasetDict(
        train=datasets.Dataset.from_list(rows[:2]), test=datasets.Dataset.from_list(rows[2:])
    )
    data.save_to_disk(folder)
    return data


def test_a_folder_that_datasets_has_saved(tmp_path):
    saved(tmp_path / "all" / "main")
    task = load_task(str(tmp_path / "all" / "main"))
    assert (task.splits, task.eval_split) == (["test", "train"], "test")
    assert [question.right[0].text for question in task.questions("train")] == ["x", "y"]
    alone = load_task(str(tmp_path / "all" / "main" / "test"))
    assert [question.stem for question in alone.questions("train")] == ["Which of 2?"]
    with pytest.raises(LikraError, match="has the configurations main: name one, such as .*main"):
        load_task(str(tmp_path / "all"))


def test_a_damaged_folder_that_datasets_has_saved(tmp_path):
    saved(tmp_path / "main")
    for arrow in (tmp_path / "main" / "train").glob("*.arrow"):
        arrow.write_bytes(b"nonsense")
    with pytest.raises(LikraError, match=r"cannot read '.*train'"):
        load_task(str(tmp_path / "main"))
    (tmp_path / "main" / "train" / "state.json").write_text("{")
    with pytest.raises(LikraError, match=r"cannot read '.*train'"):
        load_task(str(tmp_path / "main"))


def test_data_files_come_before_what_datasets_has_saved(tmp_path):
    saved(tmp_path / "main")
    (tmp_path / "main" / "dataset_dict.json").unlink()
    written(tmp_path / "main" / "train.jsonl", {"question": "Mine?", "choices": "ab", "answer": 0})
    with pytest.raises(LikraError, match="'choices' is not a list of texts"):
        load_task(str(tmp_path / "main"))


def test_columns_nested_without_end_are_named_to_a_depth(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a":' * 90 + "1" + "}" * 90)
    with pytest.raises(LikraError, match=r"columns a, a\.a, a\.a\.a, a\.a\.a\.a\. For"):
        load_task(str(tmp_path / "a.jsonl"))
