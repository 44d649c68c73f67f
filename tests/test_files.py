"""People's own files: every format is recognised, every fault named by file and line."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from likra.data.files import read_wrong_answers
from likra.data.load import load_task
from likra.data.rendering import Rendering, chat_template_of
from likra.data.rows import MAX_FIELD
from likra.data.splits import hold_out
from likra.errors import LikraError
from likra.heads.base import POCKET
from likra.study.config import parse_study
from likra.study.prepare import prepare

PREFERENCE = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}


def jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(name: str, **options):
    """Questions of a single file as (prompt, right answers, wrong answers), as scored."""
    return [
        (
            {choice.context for choice in question.choices}.pop(),
            [choice.continuation for choice in question.right],
            [choice.continuation for choice in question.wrong],
        )
        for question in load_task(name, **options).questions("train")
    ]


# --------------------------------------------------------------------------------------------
# Formats


def test_preference(tmp_path):
    name = jsonl(tmp_path / "a.jsonl", PREFERENCE)
    assert read(name) == [("The sky is", [" blue."], [" green."])]
    assert load_task(name).notes == [
        f"'{name}': preference (prompt, chosen, rejected), 1 questions"
    ]


def test_preference_with_several_answers_or_answers_of_one_kind(tmp_path):
    several = {"prompt": "p", "chosen": [" a", " b"], "rejected": [" c"]}
    only_wrong = {"prompt": "q", "chosen": [], "rejected": " d"}
    only_right = {"prompt": "r", "chosen": " e", "rejected": None}
    name = jsonl(tmp_path / "a.jsonl", several, only_wrong, only_right)
    assert read(name) == [
        ("p", [" a", " b"], [" c"]),
        ("q", [], [" d"]),
        ("r", [" e"], []),
    ]
    name = jsonl(tmp_path / "wrong.jsonl", {"prompt": "q", "rejected": " d"})
    assert read(name) == [("q", [], [" d"])]


def test_preference_with_the_prompt_in_the_answers(tmp_path):
    row = {"chosen": "Human: Hi\nBot: Hello.", "rejected": "Human: Hi\nBot: Go away."}
    name = jsonl(tmp_path / "a.jsonl", row)
    # the space belongs to the answer, as in TRL
    assert read(name) == [("Human: Hi\nBot:", [" Hello."], [" Go away."])]


def test_prompt_completion(tmp_path):
    rows = [{"prompt": "p", "completion": " a"}, {"prompt": "p", "completion": " b"}]
    name = jsonl(tmp_path / "a.jsonl", *rows, {"prompt": "q", "completion": " c"})
    assert read(name) == [("p", [" a", " b"], []), ("q", [" c"], [])]


@pytest.mark.parametrize(("true", "false"), [(True, False), (1, 0), ("true", "False"), (1.0, 0.0)])
def test_unpaired_rows_with_one_prompt_are_one_question(tmp_path, true, false):
    rows = [
        {"prompt": "p", "completion": " a", "label": true},
        {"prompt": "q", "completion": " b", "label": false},
        {"prompt": "p", "completion": " c", "label": false},
        {"prompt": "p", "completion": " a", "label": true},  # once more
    ]
    name = jsonl(tmp_path / "a.jsonl", *rows)
    assert read(name) == [("p", [" a"], [" c"]), ("q", [], [" b"])]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (1, ["two"]),
        ("1", ["two"]),
        ("B", ["two"]),
        (" b".upper(), ["two"]),
        ("two", ["two"]),
        ([0, "C"], ["one", "three"]),
        (2.0, ["three"]),
    ],
)
def test_multiple_choice_by_index_letter_or_text(tmp_path, answer, right):
    row = {"prompt": "Count:", "choices": ["one", "two", "three"], "answer": answer}
    ((context, rights, wrongs),) = read(jsonl(tmp_path / "a.jsonl", row))
    assert context == "Count:"
    assert rights == [f" {text}" for text in right]
    assert sorted(rights + wrongs) == [" one", " three", " two"]


def test_a_bare_question_is_put_as_one(tmp_path):
    row = {"question": "How many?", "answers": ["one", "two"], "gold": 0}
    assert read(jsonl(tmp_path / "a.jsonl", row)) == [
        ("Question: How many?\nAnswer:", [" one"], [" two"])
    ]


def test_choices_with_labels_as_in_arc(tmp_path):
    choices = {"text": ["a", "b"], "label": ["1", "2"]}
    row = {"id": "q1", "question": "Which?", "choices": choices, "answerKey": "2"}
    name = jsonl(tmp_path / "a.jsonl", row)
    assert read(name) == [("Question: Which?\nAnswer:", [" b"], [" a"])]
    assert load_task(name).questions("train")[0].id == "q1"


def test_choices_that_stand_in_columns(tmp_path):
    (tmp_path / "a.csv").write_text("question,A,B,C,answer\nWhich?,x,y,,B\n")
    assert read(str(tmp_path / "a.csv")) == [("Question: Which?\nAnswer:", [" y"], [" x"])]


def test_columns_by_other_names(tmp_path):
    row = {"frage": "Was?", "opt1": "a", "opt2": "b", "loesung": 1, "label": "unused"}
    name = jsonl(tmp_path / "a.jsonl", row)
    columns = {"prompt": "frage", "choices": "opt1+opt2", "answer": "loesung"}
    assert read(name, columns=columns) == [("Question: Was?\nAnswer:", [" b"], [" a"])]


def test_all_file_kinds_say_the_same(tmp_path):
    rows = [{"prompt": 'p, "quoted"\nü', "choices": ["a", "b"], "answer": 0}] * 2
    rows[1] = {**rows[1], "prompt": "q"}
    jsonl(tmp_path / "a.jsonl", *rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "nested.json").write_text(json.dumps({"version": 1, "data": rows}))
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    flat = pd.DataFrame(rows).assign(choices=json.dumps(["a", "b"]))
    flat.to_csv(tmp_path / "a.csv", index=False)
    flat.to_csv(tmp_path / "semicolon.csv", index=False, sep=";")
    flat.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    expected = read(str(tmp_path / "a.jsonl"))
    assert [context for context, _, _ in expected] == ['p, "quoted"\nü', "q"]
    for name in ("a.json", "nested.json", "a.parquet", "a.csv", "semicolon.csv", "a.tsv"):
        assert read(str(tmp_path / name)) == expected, name


def test_a_folder_and_a_hub_data_set(tmp_path, monkeypatch):
    jsonl(tmp_path / "train.jsonl", PREFERENCE)
    jsonl(tmp_path / "test.jsonl", {**PREFERENCE, "prompt": "The sea is"})
    task = load_task(str(tmp_path))
    assert (task.train_split, task.eval_split) == ("train", "test")
    assert task.questions("test")[0].stem == "The sea is"
    # the hub's own loader, given a folder in the place of a name
    monkeypatch.chdir(tmp_path.parent)
    from likra.data.files import open_hub

    task = open_hub(tmp_path.name)
    assert (task.train_split, task.eval_split) == ("train", "test")
    assert task.questions("test")[0].stem == "The sea is"
    with pytest.raises(LikraError, match="not a file here, and cannot be loaded"):
        load_task("nobody/nothing")


# --------------------------------------------------------------------------------------------
# Chat

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
USER = {"role": "user", "content": "What colour?"}
REPLY = {"role": "assistant", "content": "Blue."}
BLUE, GREEN = ({"role": "assistant", "content": text} for text in ("Blue.", "Green."))


@pytest.fixture(scope="module")
def chat() -> Rendering:
    tokenizer = AutoTokenizer.from_pretrained(str(POCKET))
    tokenizer.chat_template = CHATML
    return Rendering(chat_template=chat_template_of(tokenizer))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [USER, BLUE], "rejected": [USER, GREEN]},  # UltraFeedback's form
    ],
)
def test_chat_messages_go_through_the_chat_template(tmp_path, chat, row):
    task = load_task(jsonl(tmp_path / "a.jsonl", row))
    assert task.needs_chat_template
    (question,) = task.questions("train", 0, chat)
    assert [(c.context, c.continuation, c.text, c.is_right) for c in question.choices] == [
        ("<|user|>What colour?<end><|assistant|>", "Blue.<end>", "Blue.", True),
        ("<|user|>What colour?<end><|assistant|>", "Green.<end>", "Green.", False),
    ]
    with pytest.raises(LikraError, match="line 1: .*chat messages need a chat template"):
        _ = task.questions("train")[0]


def test_plain_prompts_become_a_users_turn_where_asked(tmp_path, chat):
    (question,) = load_task(jsonl(tmp_path / "a.jsonl", PREFERENCE)).questions("train", 0, chat)
    assert question.choices[0].context == "<|user|>The sky is<end><|assistant|>"


def test_few_shot_examples_are_turns_in_a_chat(tmp_path, chat):
    rows = [
        {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
        {"prompt": [{**USER, "content": "Why?"}], "chosen": [GREEN], "rejected": [BLUE]},
    ]
    question = load_task(jsonl(tmp_path / "a.jsonl", *rows)).questions("train", 1, chat)[0]
    before = "<|user|>Why?<end><|assistant|>Green.<end>"
    assert question.choices[0].context == f"{before}<|user|>What colour?<end><|assistant|>"


# --------------------------------------------------------------------------------------------
# Few-shot, splits


def several(tmp_path, count=6):
    rows = [{"prompt": f"p{n}", "chosen": f" a{n}", "rejected": " x"} for n in range(count)]
    return load_task(jsonl(tmp_path / "a.jsonl", *rows))


def test_examples_are_others_solved(tmp_path):
    for number, question in enumerate(several(tmp_path).questions("train", 3)):
        *examples, last = question.choices[0].context.split("\n\n")
        assert last == f"p{number}"
        assert len(set(examples)) == 3
        assert set(examples) <= {f"p{n} a{n}" for n in range(6) if n != number}


def test_fixed_examples_are_the_same_for_all_but_themselves(tmp_path):
    task = several(tmp_path)
    seen = {}
    for question in task.questions("train", 2, Rendering(fewshot="fixed")):
        *examples, last = question.choices[0].context.split("\n\n")
        assert f"{last} a{last[1:]}" not in examples
        seen[last] = tuple(examples)
    common = max(set(seen.values()), key=list(seen.values()).count)
    others = [name for name, examples in seen.items() if examples != common]
    assert others == [example.split()[0] for example in sorted(common)]


def test_more_examples_than_there_are(tmp_path):
    with pytest.raises(LikraError, match="has 5 solved examples, not 6"):
        _ = several(tmp_path).questions("train", 6)[0]


def test_examples_of_a_held_out_question_are_trained_on(tmp_path):
    task = several(tmp_path, 20)
    task = task.held_out(0.5, seed=3)
    train = {question.stem for question in task.questions("train")}
    held = task.questions("held-out", 4)
    assert len(held) == 10
    for question in held:
        assert question.stem not in train
        *examples, _ = question.choices[0].context.split("\n\n")
        assert {example.split()[0] for example in examples} <= train


def test_a_task_is_a_value(tmp_path):
    task = several(tmp_path, 20)
    divided = task.held_out(0.5, seed=3)
    assert (divided.splits, divided.train_split, divided.eval_split) == (
        ["held-out", "train"],
        "train",
        "held-out",
    )
    assert (task.splits, task.eval_split) == (["train"], None)
    assert len(task.questions("train")) == 20
    assert [q.id for q in task.questions("train")[3:6]] == [
        task.questions("train")[n].id for n in (3, 4, 5)
    ]


def test_evaluation_data_alone_can_be_divided(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": " a", "rejected": " x"} for n in range(10)]
    jsonl(tmp_path / "test.jsonl", *rows)
    divided = load_task(str(tmp_path)).held_out(0.2, seed=0)
    assert (divided.train_split, divided.eval_split) == ("train", "held-out")
    assert len(divided.questions("train")) == 8
    assert len(divided.questions("held-out", 2)) == 2


@pytest.mark.parametrize("fewshot", ["per-question", "fixed"])
def test_what_is_left_out_is_no_example(tmp_path, fewshot):
    rows = [{"id": f"{n}", "prompt": f"p{n}", "chosen": " a", "rejected": " x"} for n in range(8)]
    del rows[7]["id"]
    task = load_task(jsonl(tmp_path / "a.jsonl", *rows))
    task = task.without_examples({task.questions("train")[7].id, "1", "2", "3"})
    for question in task.questions("train", 3, Rendering(fewshot=fewshot)):
        *examples, _ = question.choices[0].context.split("\n\n")
        assert set(examples) <= {f"p{n} a" for n in (0, 4, 5, 6)}
        assert len(set(examples)) == 3


def test_questions_of_punctuation_alone_can_be_divided():
    stems = ["!", "?", "...", "?!", "!"]
    train, held = hold_out(stems, 0.4, 0).values()
    assert len(held) == 2
    assert ({0, 4} <= {*train}) != ({0, 4} <= {*held})  # the same stem stays together


def test_wrong_answers_to_questions_of_punctuation_alone(tmp_path):
    rows = [{"prompt": stem, "rejected": [f"wrong {stem}"]} for stem in ("?", "!")]
    keys = [key for key, _ in read_wrong_answers(jsonl(tmp_path / "a.jsonl", *rows))]
    assert keys == ["?", "!"]


def test_wrong_answers_by_the_usual_names(tmp_path):
    rows = [
        {"question_id": 7, "rejected": "x"},
        {"id": None, "prompt": "", "goal": "Which?", "rejected": ["x", "y"]},
        {"question": "Who?", "rejected": "x"},
    ]
    wrong = list(read_wrong_answers(jsonl(tmp_path / "a.jsonl", *rows)))
    assert wrong == [("7", ["x"]), ("which", ["x", "y"]), ("who", ["x"])]
    with pytest.raises(LikraError, match="line 1: expected id .* it has columns frage, rejected"):
        list(read_wrong_answers(jsonl(tmp_path / "b.jsonl", {"frage": "?", "rejected": "x"})))


@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=4), st.integers(0, 9))
def test_held_out_questions_share_no_stem_with_the_others(stems, seed):
    try:
        parts = hold_out(stems, 0.25, seed)
    except LikraError:
        assert stems.count(max(stems, key=stems.count)) > len(stems) / 4
        return
    train, held = parts["train"], parts["held-out"]
    assert sorted(train + held) == list(range(len(stems)))
    assert 0 < len(held) <= max(1, round(len(stems) / 4))
    assert not {stems[n] for n in train} & {stems[n] for n in held}
    assert hold_out(stems, 0.25, seed) == parts


# --------------------------------------------------------------------------------------------
# Bad input

GOOD = json.dumps(PREFERENCE).encode()
CHOICE = {"prompt": "p", "choices": ["a", "b"], "answer": 0}
UNPAIRED = {"prompt": "p", "completion": " a", "label": True}


def lines(*rows: object) -> bytes:
    return b"".join(
        r + b"\n" if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows
    )


BAD_ROWS = {
    "broken JSON": (lines(GOOD, b'{"prompt": "x", '), "line 2: broken JSON"),
    "no object": (lines(GOOD, b"[1]"), "line 2: not a JSON object"),
    "mixed schemas": (
        lines(GOOD, UNPAIRED),
        "line 2: a column 'completion', which the first row lacks",
    ),
    "missing column": (lines(CHOICE, {"prompt": "p", "answer": 0}), "line 2: no column 'choices'"),
    "missing prompt": (lines(GOOD, {"chosen": "a", "rejected": "b"}), "line 2: no column 'prompt'"),
    "label out of range": (
        lines(CHOICE, {**CHOICE, "answer": 3}),
        "line 2: 'answer' is out of range: 3, and the 2 choices are counted from 0",
    ),
    "two readings": (
        lines(CHOICE, {**CHOICE, "choices": ["2", "3", "1", "0"], "answer": "0"}),
        "line 2: 'answer' is ambiguous: '0'",
    ),
    "two readings of a number": (
        lines(CHOICE, {**CHOICE, "choices": [1, 2, 3, 4], "answer": 2}),
        "line 2: 'answer' is ambiguous: '2'",
    ),
    "a letter that is also a text": (
        lines(CHOICE, {**CHOICE, "choices": ["B", "b"], "answer": "B"}),
        "line 2: 'answer' is ambiguous: 'B'",
    ),
    "labels that do not fit": (
        lines(CHOICE, {**CHOICE, "choices": {"text": ["x", "y"], "label": ["A", "B", "C"]}}),
        "line 2: 'choices' needs one label for each text",
    ),
    "a label of no choice": (
        lines(
            CHOICE, {**CHOICE, "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": 0}
        ),
        "line 2: 'answer' matches no choice: '0' (A, B)",
    ),
    "NaN for a choice": (
        lines(CHOICE, {**CHOICE, "choices": ["x", float("nan")]}),
        "line 2: 'choices' is not a list of texts: nan in it",
    ),
    "null for a choice": (
        lines(CHOICE, {**CHOICE, "choices": ["x", None]}),
        "line 2: 'choices' is not a list of texts: None in it",
    ),
    "duplicate key": (
        lines(UNPAIRED, b'{"prompt": "p", "completion": " c", "label": true, "label": false}'),
        "line 2: duplicate key: 'label'",
    ),
    "broken Unicode": (
        lines(GOOD, b'{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}'),
        "line 2: broken Unicode",
    ),
    "a label that only later rows have": (
        lines({"prompt": "p", "completion": " a"}, {**UNPAIRED, "prompt": "q", "label": False}),
        "line 2: a column 'label', which the first row lacks",
    ),
    "an answer that is the user's": (
        lines(
            {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]},
            {"prompt": [USER], "chosen": [USER], "rejected": [GREEN]},
        ),
        "line 2: the answer does not begin with the assistant's turn",
    ),
    "one id of two prompts": (
        lines({**UNPAIRED, "id": "u"}, {**UNPAIRED, "prompt": "q", "id": "u"}),
        "line 2: duplicate id: 'u'",
    ),
    "a huge field in a list": (
        lines(CHOICE, {**CHOICE, "choices": ["x", "y" * (MAX_FIELD + 1)]}),
        "line 2: more than 1,000,000 characters in 'choices'",
    ),
    "negative label": (lines(CHOICE, {**CHOICE, "answer": -1}), "line 2: 'answer' is out of range"),
    "a letter that is no choice": (
        lines(CHOICE, {**CHOICE, "answer": "E"}),
        "line 2: 'answer' matches no choice: 'E' (A to B, or a text)",
    ),
    "no label": (lines(CHOICE, {**CHOICE, "answer": None}), "line 2: 'answer' matches no choice"),
    "neither true nor false": (
        lines(UNPAIRED, {**UNPAIRED, "label": "maybe"}),
        "line 2: 'label' is neither true nor false: 'maybe'",
    ),
    "choices that are no list": (
        lines(CHOICE, {**CHOICE, "choices": "ab"}),
        "line 2: 'choices' is not a list of texts: 'ab'",
    ),
    "duplicate id": (
        lines({**PREFERENCE, "id": "q"}, {**PREFERENCE, "id": "q"}),
        "line 2: duplicate id: 'q'",
    ),
    "not UTF-8": (
        lines(GOOD, b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}'),
        "line 2: not UTF-8: byte 0xe9 at column 16",
    ),
    "a huge field": (
        lines(GOOD, {**PREFERENCE, "chosen": "x" * (MAX_FIELD + 1)}),
        "line 2: more than 1,000,000 characters in 'chosen'",
    ),
    "too many digits": (
        lines(GOOD, b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}"),
        "line 2: broken JSON: a number with too many digits",
    ),
    "too deep": (lines(GOOD, b"[" * 100_000), "line 2: broken JSON: nested too deeply"),
    "white space": (lines(GOOD, {**PREFERENCE, "prompt": " \n\t"}), "line 2: empty prompt"),
    "an empty answer": (lines(GOOD, {**PREFERENCE, "chosen": "  "}), "line 2: empty answer"),
    "right and wrong": (
        lines(GOOD, {**PREFERENCE, "rejected": "blue. "}),
        "line 2: the same text as right and as wrong answer",
    ),
    "a choice twice, right and wrong": (
        lines(CHOICE, {**CHOICE, "choices": ["a", "a"]}),
        "line 2: the same text as right and as wrong answer",
    ),
    "messages and text mixed": (
        lines(GOOD, {**PREFERENCE, "prompt": [USER]}),
        "line 2: mixed plain text and chat messages",
    ),
    "messages of another kind": (
        lines(GOOD, {**PREFERENCE, "prompt": [{"from": "human"}]}),
        "line 2: 'prompt' is neither a text nor chat messages",
    ),
    "a speaker that is not known": (
        lines(GOOD, {**PREFERENCE, "prompt": [{"from": "bing", "value": "Which?"}]}),
        "line 2: 'prompt' has an unknown speaker: 'bing'; known: system, human, user, gpt, ",
    ),
    "a number for a text": (
        lines(GOOD, {**PREFERENCE, "prompt": 7}),
        "line 2: 'prompt' is neither a text nor chat messages: 7",
    ),
}


@pytest.mark.parametrize(("content", "words"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, content, words):
    path = tmp_path / "my.jsonl"
    path.write_bytes(content)
    with pytest.raises(LikraError) as raised:
        load_task(str(path))
    message = str(raised.value)
    assert message.startswith("my.jsonl, ")
    assert words in message
    assert "\n" not in message
    assert len(message) < 300
    task = load_task(str(path), on_bad_row="skip")
    assert len(task.questions("train")) == 1
    kind = words.removeprefix("line 2: ").partition(":")[0]
    assert f"left out 1 rows ({kind}: 1); my.jsonl, {words}" in task.notes[1]


def test_what_two_rows_call_right_and_wrong_is_neither(tmp_path):
    other = {**UNPAIRED, "completion": " b"}
    rows = [UNPAIRED, other, {**UNPAIRED, "label": False}, {**UNPAIRED, "prompt": "q"}]
    rows.append({**rows[3], "label": False})
    name = jsonl(tmp_path / "a.jsonl", *rows)
    with pytest.raises(LikraError, match="line 3: the same text as right and as wrong answer"):
        load_task(name)
    assert read(name, on_bad_row="skip") == [("p", [" b"], [])]


@pytest.mark.parametrize("label", [True, False])
def test_a_row_left_out_for_its_id_takes_no_other_with_it(tmp_path, label):
    rows = [{**UNPAIRED, "id": "a"}, {**UNPAIRED, "id": "a", "prompt": "q"}]
    rows += [{**UNPAIRED, "id": "b", "prompt": "q", "label": label}]
    rows += [{**UNPAIRED, "id": "c", "prompt": [USER], "completion": [REPLY]}]
    rows += [{**UNPAIRED, "id": "d", "prompt": "r"}]
    name = jsonl(tmp_path / "a.jsonl", *rows)
    answer = ([" a"], []) if label else ([], [" a"])
    expected = [("p", [" a"], []), ("q", *answer), ("r", [" a"], [])]
    assert read(name, on_bad_row="skip") == expected
    notes = load_task(name, on_bad_row="skip").notes
    assert "duplicate id: 1, mixed plain text and chat messages: 1" in notes[1]


def test_answers_counted_from_one_are_never_skipped_but_refused(tmp_path):
    rows = [{**CHOICE, "prompt": f"p{n}", "answer": n} for n in (1, 2)]
    name = jsonl(tmp_path / "a.jsonl", *rows)
    for on_bad_row in ("error", "skip"):
        with pytest.raises(LikraError, match=r"line 2: .* seems to count from 1"):
            load_task(name, on_bad_row=on_bad_row)


def test_a_label_wins_over_a_text_that_looks_like_one(tmp_path):
    """A real question of ARC: its first choice is the text "C", and the answer is choice C."""
    texts, labels = ["C", "NO_{2}", "O_{2}", "CO"], list("ABCD")
    row = {"question": "Which?", "choices": {"text": texts, "label": labels}, "answerKey": "C"}
    assert read(jsonl(tmp_path / "a.jsonl", row))[0][1] == [" O_{2}"]
    numbered = {"text": ["w", "x", "y"], "label": ["1", "2", "3"]}
    row = {"question": "Which?", "choices": numbered, "answerKey": 1}
    assert read(jsonl(tmp_path / "b.jsonl", row))[0][1] == [" w"]


def test_a_blank_among_choices_shifts_no_letter(tmp_path):
    (tmp_path / "a.csv").write_text("question,A,B,C,D,answer\nq,,x,y,z,B\n")
    with pytest.raises(
        LikraError, match="line 2: 'A\\+B\\+C\\+D' is not a list of texts: '' in it"
    ):
        load_task(str(tmp_path / "a.csv"))


def test_texts_that_look_like_json_stay_texts(tmp_path):
    row = {"prompt": "p", "chosen": '["a", "b"]', "rejected": '{"a": 1}'}
    assert read(jsonl(tmp_path / "a.jsonl", row)) == [("p", ['["a", "b"]'], ['{"a": 1}'])]
    choices = ["[0, 1]", "(0, 1)", "[0, 1)"]
    row = {"prompt": "p", "choices": choices, "answer": "[0, 1]"}
    assert read(jsonl(tmp_path / "b.jsonl", row))[0][1] == [" [0, 1]"]


def test_either_side_of_a_preference_may_be_missing_in_the_first_row(tmp_path):
    rows = [{"prompt": "p", "chosen": " a"}, {"prompt": "q", "chosen": " b", "rejected": " c"}]
    name = jsonl(tmp_path / "a.jsonl", *rows)
    assert read(name) == [("p", [" a"], []), ("q", [" b"], [" c"])]


def test_chat_answers_may_repeat_the_prompt(tmp_path, chat):
    row = {"prompt": [USER], "chosen": [USER, BLUE], "rejected": [USER, GREEN]}
    task = load_task(jsonl(tmp_path / "a.jsonl", row))
    (question,) = task.questions("train", 0, chat)
    assert [c.continuation for c in question.choices] == ["Blue.<end>", "Green.<end>"]


def test_a_single_chat_file_can_be_divided(tmp_path, chat):
    rows = [
        {"prompt": [{**USER, "content": f"q{n}"}], "chosen": [BLUE], "rejected": [GREEN]}
        for n in range(10)
    ]
    task = load_task(jsonl(tmp_path / "a.jsonl", *rows))
    task = task.held_out(0.2, 0)
    assert len(task.questions("held-out", 1, chat)) == 2


def test_shards_keep_their_own_names(tmp_path):
    for shard in (0, 1):
        frame = pd.DataFrame([{**PREFERENCE, "prompt": f"p{shard}"}])
        frame.to_parquet(tmp_path / f"train-0000{shard}-of-00002.parquet")
    questions = load_task(str(tmp_path)).questions("train")
    assert [q.id for q in questions] == [
        f"train-0000{shard}-of-00002.parquet, row 1" for shard in (0, 1)
    ]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train.jsonl", "more.jsonl"], "'.*more.jsonl' belongs to no split"),
        (["test.jsonl", "val.jsonl", "valid.jsonl"], "two files for 'validation'"),
        ([], "contains no data: expected train.jsonl"),
    ],
)
def test_no_file_of_a_folder_is_passed_over(tmp_path, names, words):
    for name in names:
        jsonl(tmp_path / name, PREFERENCE)
    with pytest.raises(LikraError, match=words):
        load_task(str(tmp_path))


def test_splits_of_the_hub_that_would_be_one(tmp_path, monkeypatch):
    import datasets

    from likra.data.files import open_hub

    names = ("train_sft", "train_prefs", "test_prefs")
    data = {name: [{**PREFERENCE, "prompt": name}] for name in names}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: data)
    task = open_hub("some/one")
    assert {split: task.questions(split)[0].stem for split in task.splits} == {
        "train": "train_prefs",
        "train_sft": "train_sft",
        "test": "test_prefs",
    }


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "contains no usable row"),
        ("a.jsonl", "ü".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a.csv", b"prompt,chosen,rejected\n", "contains no usable row"),
        ("a.csv", b"\xef\xbb\xbf", "is empty"),
        ("a.jsonl.gz", b"x", "cannot be decompressed: "),
        ("a.csv", b"prompt,prompt\nx,y\n", "duplicate column name"),
        ("a.csv", b"prompt,chosen,rejected\nx,y\n", "line 2: wrong number of fields"),
        ("a.csv", b'prompt,chosen,rejected\nx,"y,z\n', "line 2: broken CSV"),
        ("a.csv", b'prompt,chosen,rejected\nx,y,z\n"x"x,y,z\n', "line 3: broken CSV"),
        ("a.csv", b'prompt,"chosen"x\n', "line 1: broken CSV"),
        ("a.csv", b"prompt,chosen,rejected\nx,y,z\nx,y,\xe9\n", "line 3: not UTF-8"),
        ("a.json", b'[{"prompt": "x"', "line 1: broken JSON"),
        ("a.json", b"[" * 100_000, "broken JSON: nested too deeply"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "broken JSON: a number too long"),
        ("a.json", b'{"a": 1}\n{"a": 2}', "one object per line is JSONL: name it .jsonl"),
        ("a.json", b'{"a": 1}', "contains no list of rows"),
        ("a.json", b"\xe9", "is not UTF-8"),
        ("a.parquet", b"PAR1 nonsense", "cannot read"),
        (
            "a.jsonl",
            b'{"text": "x", "n": 1}',
            "it has columns text, n. For ",
        ),
        ("a.jsonl", b'{"prompt": "x"}', "matches no format: it has columns prompt. For "),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LikraError) as raised:
        load_task(str(tmp_path / name))
    assert words in str(raised.value)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_parquet_file_whose_data_are_damaged(tmp_path):
    """Arrow says so by an OSError that names no file."""
    path = tmp_path / "a.parquet"
    rows = [{"prompt": f"P{n}", "chosen": " a", "rejected": " b"} for n in range(40)]
    pd.DataFrame(rows).to_parquet(path, compression="snappy")
    content = path.read_bytes()
    place = content.index(b"P0")  # snappy keeps it as it is, behind the page's header
    path.write_bytes(content[: place - 8] + b"\xff" * 16 + content[place + 8 :])
    with pytest.raises(LikraError, match=r"cannot read '.*a\.parquet' after row 0: "):
        load_task(str(path))


def test_wrong_names(tmp_path):
    name = jsonl(tmp_path / "a.jsonl", PREFERENCE)
    with pytest.raises(LikraError, match="unknown role of a column 'promt': did you mean 'prompt'"):
        load_task(name, columns={"promt": "prompt"})
    with pytest.raises(LikraError, match=r"has no column 'frage' \(for prompt\): it has columns"):
        load_task(name, columns={"prompt": "frage"})
    with pytest.raises(LikraError, match="file not found: 'lost.jsonl'"):
        load_task("lost.jsonl")
    with pytest.raises(LikraError, match="unknown split 'tset' of"):
        load_task(name).questions("tset")


def test_a_byte_order_mark_and_windows_line_ends_are_nothing_to_speak_of(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n")
    header = b"\xef\xbb\xbfprompt,chosen,rejected\r\n"
    (tmp_path / "a.csv").write_bytes(header + b"The sky is, blue., green.\r\n")
    for name in ("a.jsonl", "a.csv"):
        assert read(str(tmp_path / name)) == [("The sky is", [" blue."], [" green."])]


def test_prompt_and_answer_that_touch_are_pointed_out(tmp_path):
    row = {"prompt": "What is 2+2", "chosen": "4", "rejected": "5"}
    task = load_task(jsonl(tmp_path / "a.jsonl", row))
    assert "prompt and answer touch ('What is 2+2' + '4')" in task.notes[1]
    assert read(str(tmp_path / "a.jsonl")) == [("What is 2+2", ["4"], ["5"])]  # TRL's reading


# --------------------------------------------------------------------------------------------
# Size

MEASURE = """
import re, sys
from pathlib import Path
from likra.data.load import load_task
def memory():  # MiB of its own, not of files mapped into it
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
load_task(sys.argv[1])
before = memory()
questions = load_task(sys.argv[2]).questions("train")
loaded = memory() - before
for question in questions:
    pass
print(len(questions), len(question.choices), loaded, memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured as Linux tells it")
def test_a_hundred_thousand_rows_take_the_memory_of_an_index(tmp_path):
    def rows(count: int):
        for n in range(count):
            yield {**PREFERENCE, "prompt": f"{n} {'x' * 1000}", "id": str(n)}

    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    for path, count in ((small, 1000), (large, 100_000)):
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    count, choices, loaded, read = map(float, result.stdout.split())
    assert (count, choices) == (100_000, 2)
    assert large.stat().st_size > 100 * 2**20
    assert max(loaded, read) < 40  # MiB; 26 when this was written


def test_a_leaking_question_is_not_an_example_either(tmp_path):
    """Else the question would stand, solved, before itself."""
    for name, numbers in (("train", range(20)), ("test", range(15, 40))):
        lines = [json.dumps(preference(n)) for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    settings = {"name": "x", "task": str(tmp_path), "num_fewshot": 12, "snapshots": [8]}

    def repeated(on_leakage):
        study = parse_study(settings | {"on_leakage": on_leakage})
        asked = prepare(study).evaluation
        return [q.id for q in asked if q.choices[0].context.count(q.stem) > 1]

    assert repeated("report")
    assert not repeated("drop")


def preference(number):
    stem = f"Which thing has the number {number} among all the numbered things?"
    return {"prompt": stem, "chosen": f" yes {number}", "rejected": f" no {number}"}
