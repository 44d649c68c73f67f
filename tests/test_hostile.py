"""Input that was made to harm: it is refused in a line, in bounds, and shown without effect."""

import csv
import io
import json
import pickle
import time
from pathlib import Path

import pytest
import yaml
from conftest import tiny_with_words
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from markdown_it import MarkdownIt

from likra.data.load import load_task
from likra.data.sandbox import Sandbox
from likra.data.template import PromptTemplate
from likra.engine.tokens import prefix_token, tokens_of
from likra.errors import LikraError
from likra.heads.lora import Head, fresh_head, save_head
from likra.model.folder import check_heads
from likra.negatives.samplers import Material
from likra.plain_yaml import parse_yaml
from likra.report.tables import code, markdown
from likra.study.config import parse_study
from likra.study.examples import Examples, paired_order
from likra.text import printable, spreadsheet_cell
from tests.fuzz.cases import Case
from tests.fuzz.entries import ENTRIES, check
from tests.fuzz.rows import CHOICE_ROWS
from tests.fuzz.settings import CARD

BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "entry", [name for name in ENTRIES if name in {"files", "cards", "studies"}]
)
def test_whatever_is_drawn_is_refused_or_works(entry):
    """A small share of `python -m tests.fuzz`, of what takes no model."""

    def found(case: Case, outcome: str) -> None:
        assert not outcome.startswith("FAILED"), (outcome, case)

    check(entry, 12, 0, found)


# --------------------------------------------------------------------------------------------
# YAML


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "[" * 200 + "]" * 200, "nested too deeply"),
        (BOMB, "its aliases stand for more than 1,000,000 characters"),
        ("a: &a [*a]", "an alias stands for what it is part of"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("secret: 'hunter2\nb: c", "while scanning a quoted scalar .* in line 2, column 5"),
    ],
)
def test_yaml_that_is_refused(text, fault):
    start = time.process_time()
    with pytest.raises(LikraError, match=f"^'x' is not YAML.*: .*{fault}") as refused:
        parse_yaml(text, "'x'")
    assert len(str(refused.value)) < 300
    assert "hunter2" not in str(refused.value)
    assert time.process_time() - start < 10


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@given(VALUES)
def test_other_yaml_is_read_as_it_was_written(value):
    assert parse_yaml(yaml.safe_dump([value, value]), "'x'") == [value, value]


def test_functions_in_yaml_are_names():
    found = []
    assert parse_yaml("a: !function os.getcwd", "'x'", found.append) == {"a": "os.getcwd"}
    assert found == ["os.getcwd"]


# --------------------------------------------------------------------------------------------
# Templates

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
STEPS, NUMBER, TEXT = "more than 100,000 steps", "number or a length above", "text or list of more"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (LOOPS, STEPS),
        (LOOPS.replace("j in range(99999)", "j in range(99999) if false"), STEPS),
        (
            "{% for i in range(99999) recursive %}{% if loop.depth < 3 %}{{ loop(range(99999)) }}"
            "{% endif %}{% endfor %}",
            STEPS,
        ),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(40) }}",
            STEPS,
        ),
        ("{{ q * 10**6 * 10**3 }}", NUMBER),
        ("{{ 10 ** 10**8 }}", NUMBER),
        ("{{ [q] | slice(10**9) | list }}", NUMBER),
        (
            "{% set n = namespace(x=q) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
            "{% endfor %}",
            TEXT,
        ),
        (
            "{% set n = namespace(x=q) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}"
            "{% endfor %}",
            TEXT,
        ),
        ("{{ lipsum(10**5) }}", "'lipsum' is undefined"),
    ],
)
def test_templates_that_would_never_end(template, fault):
    with pytest.raises(LikraError, match=fault):
        PromptTemplate(template + "{{ q }}").fill({"q": "What?"})


def test_templates_that_end_are_what_jinja_makes_of_them():
    template = (
        "{% for c in choices %}{{ loop.index }}/{{ loop.length }} {{ c ~ ':' ~ q }}"
        "{% if not loop.last %}, {% endif %}{% endfor %}{% for c in choices if c != 'a' %}{{ c }}"
        "{% else %}none{% endfor %} {{ 2 ** 10 }} {{ '-' * 5 }} {{ [q] + choices }} "
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(q) | upper }} {{ q.title() }}"
    )
    values = {"choices": ["a", "b"], "q": "what"}
    expected = Environment(autoescape=False).from_string(template).render(values)  # noqa: S701
    sandbox = Sandbox().from_string(template)
    assert sandbox.render(values) == sandbox.render(values) == expected


def test_the_steps_are_those_of_one_text():
    template = Sandbox().from_string("{% for i in range(60000) %}{% endfor %}{{ q }}")
    assert [template.render(q=text) for text in "abc"] == ["a", "b", "c"]


# --------------------------------------------------------------------------------------------
# Cards, names, models


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("dataset_kwargs", 5, "should be a mapping"),
        ("dataset_kwargs", {"data_files": {"test": [5]}}, "should be a path"),
        ("dataset_kwargs", {"data_files": {"test": ["rows.jsonl", None]}}, "should be a path"),
        ("metadata", ["x"], "should be a mapping"),
        ("metadata", {"splits": {"train": "x"}}, "'metadata.splits.train'"),
        ("metadata", {"distractors": -1}, "'metadata.distractors'"),
        ("training_split", 5, "'training_split'"),
        ("include", "../other.yaml", "lies outside its folder: pass --allow-code"),
        ("include", "/etc/hostname", "lies outside its folder: pass --allow-code"),
        ("doc_to_choice", [["a"], "b", "c"], "no list of texts"),
    ],
)
def test_cards_with_values_of_the_wrong_type(tmp_path, key, value, fault):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, CHOICE_ROWS)))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**CARD, key: value}))
    with pytest.raises(LikraError, match=fault):
        load_task(str(path)).questions("test")


@pytest.mark.parametrize("name", ["..", ".", ".hidden", "a/b", "a" * 101, ""])
def test_names_of_studies_that_are_no_folder_of_their_own(name):
    with pytest.raises(LikraError, match="'name'"):
        parse_study({"name": name})


@pytest.mark.parametrize("name", ["../x", "/x", "..", "a/b", ""])
def test_heads_of_a_model_lie_in_its_folder(tmp_path, name):
    with pytest.raises(LikraError, match="is no name of a head"):
        check_heads(tmp_path, {"heads": {name: "0" * 64}})


class Harm:
    """Says so where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_of_weights_is_not_opened(tmp_path):
    base, folder = tiny_with_words("llama"), tmp_path / "head"
    with fresh_head(base, None, seed=0) as head:
        save_head(head, folder)
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Harm(tmp_path / "harm")))
    with (
        pytest.raises(LikraError, match="there is no adapter_model.safetensors"),
        Head(base, folder).on(),
    ):
        pass
    assert not (tmp_path / "harm").exists()


def test_a_tokenizer_without_bos_and_eos():
    tokenizer = tiny_with_words("llama").tokenizer
    with_bos = tokens_of(tokenizer, ["w3 w4"])
    tokenizer.bos_token = tokenizer.eos_token = None
    assert tokens_of(tokenizer, ["w3 w4"]) == with_bos
    with pytest.raises(LikraError, match="has neither"):
        prefix_token(tokenizer)


# --------------------------------------------------------------------------------------------
# What users' data hold, where it is shown


def test_control_characters_reach_no_terminal():
    assert printable("a\x1b[31m\x9b2J\tb\nc\x00é") == "a\\u001b[31m\\u009b2J\tb\nc\\u0000é"


@given(st.text())
def test_printable_json_stays_what_it_is(text):
    shown = printable(json.dumps({"x": text}, ensure_ascii=False))
    assert json.loads(shown) == {"x": text}


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@a", "\t=1", "--5"])
def test_formulas_are_texts_in_a_spreadsheet(text):
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-5", "+3.5", "-1e3", "a=b", "", " =1", "5"])
def test_numbers_and_other_texts_stay(text):
    assert spreadsheet_cell(text) == text


def test_a_table_in_markdown_has_the_columns_it_had():
    table = markdown(["a"], [["x|y"], ["<script>"], ["two\nlines"]])
    assert [line.count("|") - line.count("\\|") for line in table.splitlines()] == [2] * 5
    assert "<" not in table


@given(st.text("`ab|<*", min_size=1))
def test_code_in_markdown_is_what_a_parser_reads(text):
    (inline,) = MarkdownIt().parseInline(code(text))
    assert [(own.type, own.content) for own in inline.children] == [("code_inline", text)]


# --------------------------------------------------------------------------------------------
# Memory


def test_examples_are_drawn_anew_and_the_same():
    questions = load_task("pocket").questions("train")[:20]
    order = paired_order(questions, Material(questions), seed=1, source="random_choice", n=12)
    assert isinstance(order.examples, Examples)
    assert list(order.examples) == list(order.examples)
    assert list(order.of("negative", 5)) == list(order.examples[:5])


def test_csv_of_hostile_labels_is_read_back():
    buffer = io.StringIO()
    csv.writer(buffer).writerow(map(spreadsheet_cell, ['=HYPERLINK("x")', "-5"]))
    assert next(csv.reader(io.StringIO(buffer.getvalue()))) == ['\'=HYPERLINK("x")', "-5"]
