r"""Templates of prompts: the strings that they give, and a model that keeps its own."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likra import Likra, LikraError, Prompt, load_task
from likra.data.files import open_rows
from likra.data.reading import Reading
from likra.data.rendering import Rendering
from likra.data.template import PromptTemplate
from likra.model.data import open_data, read_for, read_questions
from likra.model.folder import FILE
from likra.model.rank_file import rank_file
from likra.model.terms import Terms
from likra.study.config import parse_study
from likra.study.prepare import open_task

ROW = {"question": "Which?", "story": {"text": "A day."}, "choices": ["x", "y"], "answer": 1}


def strings(row, template, **values):
    """The context of a row, and the continuations of its answers."""
    task = open_rows([row], Reading(prompt_template=template, **values))
    (question,) = task.questions("train")
    (context,) = {choice.context for choice in question.choices}
    return context, [choice.continuation for choice in question.choices]


@pytest.mark.parametrize(
    ("template", "context", "continuations"),
    [
        ("Q: {question}\nA:", "Q: Which?\nA:", [" x", " y"]),
        ("Q: {question}\\nA:", "Q: Which?\nA:", [" x", " y"]),
        ("{prompt} It is ", "Which? It is ", ["x", "y"]),
        ("{question}\n", "Which?\n", ["x", "y"]),
        ("{story.text} {question}", "A day. Which?", [" x", " y"]),
        ("{{{question}}} {{}}", "{Which?} {}", [" x", " y"]),
        ("{{question}} {question}", "{question} Which?", [" x", " y"]),
        ("{answer}: {question}", "1: Which?", [" x", " y"]),
        ("Question: {question}", "Question: Which?", [" x", " y"]),
        ("{{ question }}\n", "Which?\n", ["x", "y"]),
        ("{{ story.text }}\\n{{ prompt }}", "A day.\nWhich?", [" x", " y"]),
        ("{% for c in choices %}({{ c }}){% endfor %} {{question}}", "(x)(y) Which?", [" x", " y"]),
        ("{% if hint is defined %}{{ hint }}{% endif %}{{ question }}", "Which?", [" x", " y"]),
        ("{question} {% raw %}{{{% endraw %}{{ question }}", "{question} {{Which?", [" x", " y"]),
    ],
)
def test_what_a_template_gives(template, context, continuations):
    assert strings(ROW, template) == (context, continuations)


def test_the_own_column_comes_before_the_role():
    row = {"prompt": "Own.", "q": "Which?", "choices": ["x", "y"], "answer": 0}
    assert strings(row, "{prompt}", columns={"prompt": "q"})[0] == "Own."
    del row["prompt"]
    assert strings(row, "{prompt}", columns={"prompt": "q"})[0] == "Which?"


def test_answers_of_every_format_are_set_off_once():
    row = {"prompt": "Which?", "chosen": "y", "rejected": " x"}
    assert strings(row, "Q: {prompt}") == ("Q: Which?", [" y", " x"])
    assert strings(row, "Q: {prompt} ") == ("Q: Which? ", ["y", " x"])


def test_a_value_is_text_and_no_template():
    row = ROW | {"question": "{{ 7 * 7 }} {choices} \\n {%"}
    for template in ("{question}", "{{ question }}"):
        assert strings(row, template)[0] == row["question"]


@settings(max_examples=25)
@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_the_default_form_as_a_template(question):
    row = {"question": question, "choices": ["x", "y"], "answer": 0}
    default = strings(row, None)
    if not question.lower().startswith("question:"):  # the default says the words once
        for template in ("Question: {question}\nAnswer:", "Question: {{ question }}\nAnswer:"):
            assert strings(row, template) == default


def test_what_is_asked_is_what_the_template_shows():
    """Two questions with the same words about other passages are two."""
    rows = [
        {"passage": passage, "question": "Who?", "completion": "x", "label": True}
        for passage in ("First.", "Second.")
    ]
    template = "Read.\n{passage}\n{question}"
    (first, second) = open_rows(rows, Reading(prompt_template=template)).questions("train")
    assert first.stem == "First.\n\nWho?"  # without the template's words, which all have
    assert second.choices[0].context == "Read.\nSecond.\nWho?"
    chosen = Reading({"prompt": "question"}, prompt_template=template)
    assert [q.stem for q in open_rows(rows, chosen).questions("train")] == ["Who?", "Who?"]


def test_the_template_is_what_is_reported(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    (note,) = load_task(str(path), prompt_template="Q: {question}\nA:").notes
    assert note == (
        f"'{path}': multiple choice (prompt=question, choices, answer), 1 questions, each put as "
        "'Q: {question}\\nA:'"
    )


def test_a_template_that_shows_the_answer_is_noted():
    (_, note) = open_rows([ROW], Reading(prompt_template="{question} {answer}")).notes
    assert note.startswith("the prompt template shows answer, which says what is right")


def test_solved_examples_are_put_so_too(tmp_path):
    rows = [{"question": q, "choices": ["x", "y"], "answer": 1} for q in ("One?", "Two?")]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = parse_study({"name": "s", "task": str(path), "prompt_template": "Q: {question} A:"})
    first = open_task(study, study.task, None).questions("train", 1)[0]
    assert first.choices[0].context == "Q: Two? A: y\n\nQ: One? A:"


def test_turns_of_a_chat():
    task = open_rows([ROW], Reading(prompt_template="Q: {question}"))

    def template(messages, add_generation_prompt, complete=False):
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + (
            "<assistant>" if add_generation_prompt else ""
        )

    (question,) = task.questions("train", rendering=Rendering(chat_template=template))
    assert question.choices[0].context == "<user>Q: Which?<assistant>"
    messages = [{"role": "user", "content": "Which?"}]
    row = {"prompt": messages, "chosen": [{"role": "assistant", "content": "y"}]}
    with pytest.raises(LikraError, match="row 1: chat messages: a prompt template is for plain"):
        open_rows([row], Reading(prompt_template="Q: {prompt}"))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "'' has no field"),
        ("Q: A:", "'Q: A:' has no field: a field is written {question}, in Jinja {{ question }}"),
        ("{{question}}", "has no field"),
        ("{{ 3 }}", "has no field"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "has no field"),
        ("{question", "'{question' cannot be read: expected '}' before end of string"),
        ("question}", "cannot be read: Single '}' encountered"),
        ("{}", "a field in braces is the name of a column alone"),
        ("{question!r}", "a field in braces is the name of a column alone"),
        ("{question:>9}", "a field in braces is the name of a column alone"),
        ("{{ question ", "cannot be read as Jinja: unexpected end of template"),
        ("{% question %}", "cannot be read as Jinja: Encountered unknown tag 'question'"),
        ("{{ question | nothing }}", "cannot be read as Jinja: No filter named 'nothing'"),
    ],
)
def test_a_template_that_cannot_be_read(template, message):
    with pytest.raises(LikraError) as raised:
        parse_study({"name": "s", "prompt_template": template})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{goal}", "'data' has no field 'goal' (of the prompt template): it has columns question"),
        ("{question.stem}", "'data' has no field 'question.stem'"),
        ("{question.__class__}", "'data' has no field 'question.__class__'"),
        ("{choices} {question}", "the field 'choices' of the prompt template is no text or number"),
        (
            "{{ goal }}",
            "row 1: no field for the prompt template: 'goal' is undefined; it has colum",
        ),
        ("{{ story.title }}", "'dict object' has no attribute 'title'"),
        ("{{ question.__class__ }}", "SecurityError: access to attribute '__class__'"),
        ("{{ question + 1 }}", "cannot be filled: TypeError"),
        ("{{ choices.append('z') }}", "cannot be filled: SecurityError"),
        ("{{ question[:0] }}", "row 1: empty prompt"),
    ],
)
def test_a_template_that_fits_no_row(template, message):
    with pytest.raises(LikraError) as raised:
        strings(ROW, template)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("template", ["{hint} {question}", "{{ hint }} {{ question }}"])
def test_a_row_without_a_value_is_a_bad_row(template):
    rows = [ROW | {"hint": "h"}, ROW | {"hint": None}]
    with pytest.raises(LikraError, match="row 2: .* of the prompt template"):
        open_rows(rows, Reading(prompt_template=template))
    task = open_rows(rows, Reading(prompt_template=template, on_bad_row="skip"))
    assert len(task.questions("train")) == 1


def test_a_template_is_for_files():
    with pytest.raises(LikraError, match="'pocket' is not a file: --prompt-template is for files"):
        load_task("pocket", prompt_template="{question}")


def test_a_template_with_lists_in_a_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('question,choices,answer\nWhich?,"[""x"", ""y""]",1\n')
    task = load_task(str(path), prompt_template="{{ choices | join('/') }} {{ question }}")
    assert task.questions("train")[0].choices[0].context == "x/y Which?"


# --------------------------------------------------------------------------------------------
# A model's own


def form(prompt, asked, tokenizer=None):
    """Context and continuation of an answer."""
    (choice,) = prompt.question(tokenizer, asked, ["y"]).choices
    return choice.context, choice.continuation


def test_a_model_asks_as_it_was_taught():
    one = Prompt(template="Q: {goal}\\nA:")
    assert form(one, "Which?") == form(one, {"goal": "Which?"}) == ("Q: Which?\nA:", " y")
    two = Prompt(template="{passage}\n{question} ")
    assert form(two, {"passage": "P.", "question": "Which?"}) == ("P.\nWhich? ", "y")
    with pytest.raises(LikraError, match="has the fields passage, question, and one text cannot"):
        form(two, "Which?")
    with pytest.raises(LikraError, match="no field 'passage' for the prompt template: it has col"):
        form(two, {"question": "Which?"})
    with pytest.raises(LikraError, match="chat messages, and a prompt template is for text"):
        form(one, [{"role": "user", "content": "Which?"}])
    with pytest.raises(LikraError, match="a mapping of fields, and the model has no prompt templ"):
        form(Prompt(), {"goal": "Which?"})
    with pytest.raises(LikraError, match="the question is empty"):
        form(one, " ")


def test_the_form_of_the_data_is_the_models(pocket):
    rows = [{"goal": "Which?", "choices": ["x", "y"], "answer": 1}]
    task = open_data(rows, Reading(prompt_template="Q: {goal}\nA:"))
    (question,), prompt = read_questions(pocket, task, None)
    assert prompt == Prompt(template="Q: {goal}\nA:")
    again = prompt.question(pocket.tokenizer, question.stem, ["x", "y"])
    assert [(c.context, c.continuation) for c in again.choices] == [
        (c.context, c.continuation) for c in question.choices
    ]
    assert read_for(prompt, rows) == Reading(prompt_template=prompt.template)
    assert read_for(prompt, rows, Reading(prompt_template="{goal}")).prompt_template == "{goal}"
    assert read_for(prompt, "pocket") == Reading()


@pytest.fixture
def asking(pocket):
    """Without training: the base by itself, asked by a template of two fields."""
    return Likra(base=pocket, prompt=Prompt(template="{passage}\nQ: {question}\nA:"))


def test_a_model_keeps_its_template(asking, pocket, tmp_path):
    asking.save_pretrained(tmp_path / "kept")
    content = json.loads((tmp_path / "kept" / FILE).read_text())
    assert (content["format"], content["prompt"]["template"]) == (2, asking.parts.prompt.template)
    kept = Likra.from_pretrained(tmp_path / "kept", base=pocket)
    asked = {"passage": "Lisbon is the capital of Portugal.", "question": "Which city?"}
    options = ["Lisbon", "Paris"]
    whole = Likra(base=pocket, prompt=Prompt("continuation"))
    text = "Lisbon is the capital of Portugal.\nQ: Which city?\nA:"
    expected = whole.rank(text, options)
    assert kept.rank(asked, options) == expected
    assert kept.score([(asked, "Paris")]) == whole.score([(text, "Paris")])
    assert kept.explain(asked, "Paris").score == whole.explain(text, "Paris").score
    assert kept.generate(asked, max_new_tokens=2) == whole.generate(text, max_new_tokens=2)
    assert kept.generate([asked], max_new_tokens=2) == [whole.generate(text, max_new_tokens=2)]
    card = (tmp_path / "kept" / "README.md").read_text()
    assert 'model.rank({"passage": "...", "question": "..."}, [' in card
    assert "{passage}\\nQ: {question}\\nA:" in card

    source = tmp_path / "asked.jsonl"
    source.write_text(json.dumps(asked | {"choices": options}) + "\n")
    rank_file(kept.parts, source, tmp_path / "ranked.jsonl")
    (line,) = (tmp_path / "ranked.jsonl").read_text().splitlines()
    assert [o["score"] for o in json.loads(line)["options"]] == [o.score for o in expected]
    source.write_text(json.dumps({"question": "Which city?", "choices": options}) + "\n")
    with pytest.raises(LikraError, match=r"asked.jsonl' has no field 'passage' \(of the prompt"):
        rank_file(kept.parts, source, tmp_path / "other.jsonl")


def test_a_text_of_another_column_fills_the_only_field(pocket, tmp_path):
    model = Likra(base=pocket, prompt=Prompt(template="Q: {goal}\nA:"))
    expected = [option.score for option in model.rank("Which city?", ["Lisbon", "Paris"])]
    for row, columns in (
        ({"frage": "Which city?"}, {"prompt": "frage"}),
        ({"goal": "Which city?", "prompt": "another"}, {}),
    ):
        source = tmp_path / "asked.jsonl"
        source.write_text(json.dumps(row | {"choices": ["Lisbon", "Paris"]}) + "\n")
        rank_file(model.parts, source, tmp_path / "out.jsonl", reading=Reading(columns))
        options = json.loads((tmp_path / "out.jsonl").read_text())["options"]
        assert [option["score"] for option in options] == expected


def test_a_model_without_a_template_is_written_as_before(pocket, tmp_path):
    Likra(base=pocket).save_pretrained(tmp_path / "kept")
    content = json.loads((tmp_path / "kept" / FILE).read_text())
    assert content["format"] == 1
    assert content["prompt"] == {"style": "question", "chat": False}
    assert Likra.from_pretrained(tmp_path / "kept", base=pocket).parts.prompt == Prompt()


def test_a_model_is_measured_on_files_in_its_form(asking, tmp_path, monkeypatch):
    path = tmp_path / "test.jsonl"
    row = {"passage": "P.", "question": "Which?", "choices": ["x", "y"], "answer": 1}
    path.write_text(json.dumps(row) + "\n")
    seen = []

    def logprobs(self, questions, **_):
        seen.extend(questions)
        return np.zeros((len(self.terms), 2))

    monkeypatch.setattr(Terms, "logprobs", logprobs)
    asking.evaluate(str(path))
    assert seen[0].choices[0].context == "P.\nQ: Which?\nA:"


def test_what_is_distilled_is_put_so(asking, tmp_path):
    for rows, template, field in (([ROW], None, "passage"), ([ROW], "{goal}", "goal")):
        with pytest.raises(LikraError, match=f"'data' has no field '{field}'"):
            asking.distill(rows, tmp_path / "head", prompt_template=template)


def test_fields_of_a_template():
    assert PromptTemplate("{b} {a.c} {b}").fields == ("b", "a.c")
    assert PromptTemplate("{{ b.c }} {% for x in a %}{{ x }}{% endfor %}").fields == ("b", "a")
