"""The cards that come with likra: the harness's own strings, or the paper's, to the character."""

import functools
import re
from pathlib import Path

import lm_eval
import pytest
from data_schemas import ODD, ultrafeedback_row, write_data, write_jsonl
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import AutoTokenizer

from likra import pocket
from likra.data.card import CARDS, card_names, read_card
from likra.data.documents import sandboxed_templates
from likra.data.harness import HarnessTask, open_card
from likra.data.harness_index import open_harness_task
from likra.data.rendering import Rendering, chat_template_of
from likra.errors import LikraError
from likra.questions import Question

THEIRS = Path(lm_eval.__file__).parent / "tasks"
OUR_KEYS = {
    "configurations",
    "splits",
    "distractors",
    "apply_chat_template",
    "overlaps",
    "choices",
    "prompt",
}
EMBEDDED = {"pocket", "pocket_sums"}  # made by likra, with their data
Rendered = list[tuple[list[tuple[str, str]], list[str], set[int]]]


@pytest.fixture(scope="module", autouse=True)
def _sandboxed_templates():
    with sandboxed_templates():
        yield


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """The folder with a card's small data, written once."""
    return functools.cache(lambda card: write_data(card, tmp_path_factory.mktemp(card)))


@pytest.fixture(scope="module")
def mmlu(small_data) -> HarnessTask:
    """All 57 subjects, opened once."""
    return open_card("mmlu", str(small_data("mmlu")))


def ours(questions: list[Question]) -> Rendered:
    return [
        (
            [(choice.context, choice.continuation) for choice in question.choices],
            [choice.text for choice in question.choices],
            {number for number, choice in enumerate(question.choices) if choice.is_right},
        )
        for question in questions
    ]


def theirs(card: str, files: dict[str, Path], split: str, num_fewshot: int) -> Rendered:
    """What the harness's own YAML and code make of the same files, without a line of likra's.

    Right is the choice that makes accuracy 1 where all probability is on it.
    """
    data_files = {name: str(path) for name, path in files.items()}
    local = {"dataset_path": "json", "dataset_name": None}
    config = load_yaml(THEIRS / card) | local | {"dataset_kwargs": {"data_files": data_files}}
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(1234)
    rendered = []
    for document in task.training_docs() if split == "train" else task.eval_docs:
        context = task.fewshot_context(document, num_fewshot)
        requests = [request.args for request in task.construct_requests(document, context)]
        sure = [
            [(-100.0 * (n != i), False) for n in range(len(requests))] for i in range(len(requests))
        ]
        right = {
            i for i, scores in enumerate(sure) if task.process_results(document, scores)["acc"] == 1
        }
        rendered.append((requests, task.doc_to_choice(document), right))
    return rendered


# --------------------------------------------------------------------------------------------
# Every card


@pytest.mark.parametrize("card", card_names())
def test_what_every_card_has(card):
    text = (CARDS / f"{card}.yaml").read_text(encoding="utf-8")
    config = read_card(CARDS / f"{card}.yaml")  # refuses unknown keys
    metadata = config.get("metadata", {})
    first_line = text.splitlines()[0]
    source = r"# .+ \([A-Z]\w+ (et al\.|and [A-Z]\w+) \d{4}, arXiv:\d{4}\.\d{5}\)\."
    assert card in EMBEDDED or re.fullmatch(source, first_line)
    assert config["task"] == card
    assert "!function" not in text
    assert set(metadata) <= OUR_KEYS
    has_training = "training_split" in config or "train" in metadata.get("splits", {})
    assert has_training or "no training split" in text


@pytest.mark.parametrize("card", card_names())
def test_every_card_opens(card, small_data):
    name = f"{card}:anatomy" if card.startswith("mmlu") else card  # all its subjects: see below
    task = open_card(name, None if card in EMBEDDED else str(small_data(card)))
    splits = {task.eval_split, task.train_split} - {None}
    assert splits
    for split in splits:
        questions = task.questions(split)
        assert all(question.can_be_ranked for question in questions)
        assert len({question.id for question in questions}) == len(questions)
    assert task.notes == ([task.metadata["overlaps"]] if card == "arc" else [])


# --------------------------------------------------------------------------------------------
# Cards that the harness also has

SAME = [
    ("arc_challenge", "arc/arc_challenge.yaml", "ARC-Challenge"),
    ("arc_easy", "arc/arc_easy.yaml", "ARC-Easy"),
    ("boolq", "super_glue/boolq/default.yaml", "boolq"),
    ("commonsense_qa", "commonsense_qa/default.yaml", ""),
    ("hellaswag", "hellaswag/hellaswag.yaml", ""),
    ("mmlu:anatomy", "mmlu/default/mmlu_anatomy.yaml", "anatomy"),
    (
        "mmlu:high_school_us_history",
        "mmlu/default/mmlu_high_school_us_history.yaml",
        "high_school_us_history",
    ),
    ("mmlu_text:anatomy", "mmlu/continuation/mmlu_anatomy.yaml", "anatomy"),
    ("openbookqa", "openbookqa/openbookqa.yaml", "main"),
    ("piqa", "piqa/piqa.yaml", ""),
    ("sciq", "sciq/sciq.yaml", ""),
    ("social_iqa", "siqa/siqa.yaml", ""),
    ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml", "multiple_choice"),
    ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", "multiple_choice"),
    ("winogrande", "winogrande/default.yaml", "winogrande_xl"),
]


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize(("card", "their_card", "configuration"), SAME)
def test_the_harness_renders_the_same(card, their_card, configuration, num_fewshot, small_data):
    folder = small_data(card.partition(":")[0])
    files = {path.stem: path for path in (folder / configuration).glob("*.jsonl")}
    task = open_card(card, str(folder))
    for split in {"train", task.eval_split} & set(files):
        expected = theirs(their_card, files, split, num_fewshot)
        assert ours(task.questions(split, num_fewshot)) == expected
        assert all(right for _, _, right in expected)


@pytest.mark.parametrize("num_fewshot", [0, 5])
@pytest.mark.parametrize(
    ("card", "folder", "their_card", "files", "count"),
    [
        (
            "arc_challenge",
            "ai2_arc",
            "arc/arc_challenge.yaml",
            {"train": "ARC-Challenge.train.jsonl", "test": "ARC-Challenge.test.jsonl"},
            1172,
        ),
        (
            "arc_easy",
            "ai2_arc",
            "arc/arc_easy.yaml",
            {"train": "ARC-Easy.train.jsonl", "test": "ARC-Easy.test.jsonl"},
            2376,
        ),
        (
            "winogrande:winogrande_m",
            "winogrande",
            "winogrande/default.yaml",
            {"train": "train_m.jsonl", "validation": "dev.jsonl"},
            1267,
        ),
    ],
)
def test_the_same_on_real_data(card, folder, their_card, files, count, num_fewshot, real_data):
    data = real_data / "data" / folder
    task = open_card(card, str(data))
    questions = task.questions(task.eval_split, num_fewshot)
    paths = {split: data / name for split, name in files.items()}
    assert len(questions) == count
    assert ours(questions) == theirs(their_card, paths, task.eval_split, num_fewshot)


def test_mmlu_has_the_harness_descriptions_of_all_subjects(mmlu):
    """The cards make of each document's subject what the harness has in 57 files."""
    questions = mmlu.questions("test")
    assert len(questions) == 2 * 57
    text_card = read_card(CARDS / "mmlu_text.yaml")
    for question in questions[::2]:
        subject = question.id.partition("/")[0]
        stated = load_yaml(THEIRS / "mmlu" / "default" / f"mmlu_{subject}.yaml")
        assert stated["dataset_name"] == subject
        assert question.choices[0].context.startswith(stated["description"] + subject)
        stated = load_yaml(THEIRS / "mmlu" / "continuation" / f"mmlu_{subject}.yaml")
        described = lm_eval.utils.apply_template(text_card["description"], {"subject": subject})
        assert described == stated["description"]


STEMS = {  # where it is not the question alone, as it stands in the data
    "boolq": f"{ODD[0]}\nQuestion: is validation 0 so?\nAnswer:",
    "commonsense_qa": f" validation: {ODD[0]} ",
    "commonsense_qa_text": f" validation: {ODD[0]} ",
    "hellaswag": "Baking How to: A man stands  a kitchen. He",
    "mmlu:anatomy": f" anatomy test 0: {ODD[0]}\n",
    "mmlu_text:anatomy": f" anatomy test 0: {ODD[0]}\n",
    "openbookqa": ODD[0],
    "piqa": f"validation {ODD[0]}",
    "sciq": "test 0?",
    "sciq_closed": "test 0?",
    "social_iqa": f"Q: {ODD[0]} What will validation 0 do?\nA:",
    "truthfulqa_mc1": f"validation 0: {ODD[0]}?",
    "winogrande": "validation: Ann thanked Eve because _ had helped.",
    "winogrande_fill": "validation: Ann thanked Eve because _ had helped.",
}


@pytest.mark.parametrize("card", STEMS)
def test_stems_are_the_question_without_form_and_choices(card, small_data):
    task = open_card(card, str(small_data(card.partition(":")[0])))
    assert task.questions(task.eval_split)[0].stem == STEMS[card]


def test_stems_of_questions_with_a_passage_have_it(small_data):
    questions = open_card("sciq", str(small_data("sciq"))).questions("test")
    assert questions[2].stem == f"{ODD[1]}\nQuestion: test 2?\nAnswer:"


def test_sciq_closed_shows_no_passage(small_data):
    closed = open_card("sciq_closed", str(small_data("sciq_closed"))).questions("test")
    with_passage = open_card("sciq", str(small_data("sciq"))).questions("test")
    assert closed[1].choices[0].context == "Question: test 1?\nAnswer:"
    assert with_passage[1].choices[0].context == "A passage. \nQuestion: test 1?\nAnswer:"
    for one, other in zip(closed, with_passage, strict=True):
        assert [c.continuation for c in one.choices] == [c.continuation for c in other.choices]
        assert [c.is_right for c in one.choices] == [c.is_right for c in other.choices]


def test_commonsense_qa_text_answers_with_the_text(small_data):
    questions = open_card("commonsense_qa_text", str(small_data("commonsense_qa"))).questions(
        "validation"
    )
    assert [choice.continuation for choice in questions[2].choices] == [
        f" {ODD[2]} 2.0",
        " 2.1",
        " 2.2",
        " 2.3",
        " 2.4",
    ]
    assert [choice.is_right for choice in questions[2].choices].index(True) == 2
    assert questions[0].choices[0].context == f"Question: validation: {ODD[0]}\nAnswer:"


# --------------------------------------------------------------------------------------------
# The harness's own tasks and groups


@pytest.mark.slow
def test_a_group_of_the_harness(mmlu, small_data):
    group = open_harness_task("mmlu", str(small_data("mmlu"))).questions("test", 1)
    card = mmlu.questions("test", 1)
    by_name = {question.id: question for question in group}
    assert set(by_name) == {f"mmlu_{question.id}" for question in card}
    assert ours([by_name[f"mmlu_{question.id}"] for question in card]) == ours(card)


def test_a_task_of_the_harness(small_data):
    data = str(small_data("winogrande"))
    task = open_harness_task("winogrande", data)
    assert task.name == "lm_eval:winogrande"
    card = open_card("winogrande", data)
    assert ours(task.questions("validation", 2)) == ours(card.questions("validation", 2))


def test_a_generative_task_of_the_harness():
    with pytest.raises(
        LikraError, match=r"task 'lm_eval:gsm8k': output_type is 'generate_until', and likra ranks"
    ):
        open_harness_task("gsm8k")


@pytest.mark.slow
def test_an_unknown_task_of_the_harness():
    """The message names the nearest, and not all 14,000."""
    with pytest.raises(LikraError) as caught:
        open_harness_task("winogrand")
    assert str(caught.value) == (
        "unknown task of lm-evaluation-harness 'winogrand': did you mean 'winogrande'?"
    )


# --------------------------------------------------------------------------------------------
# Cards after the paper


def test_arc_trains_on_all_but_the_challenge_test(small_data):
    task = open_card("arc", str(small_data("arc")))
    train, test = task.questions("train"), task.questions(task.eval_split)
    members = [
        "Challenge-train",
        "Challenge-validation",
        "Easy-train",
        "Easy-validation",
        "Easy-test",
    ]
    assert [question.id for question in train] == [
        f"ARC-{member.replace('-', '/')}/ARC-{member}-{row}"
        for member in members
        for row in range(4)
    ]
    assert [question.id for question in test] == [f"ARC-Challenge-test-{row}" for row in range(4)]
    last = train[-1]  # its labels are 1 to 4, and the key is 4
    assert {choice.context for choice in last.choices} == {
        f"Question: ARC-Easy-test: {ODD[3]}\nAnswer:"
    }
    assert [choice.continuation for choice in last.choices] == [
        f" {ODD[3]} 3.0",
        " 3.1",
        " 3.2",
        " 3.3",
    ]
    assert [choice.is_right for choice in last.choices] == [False, False, False, True]
    assert "leakage" in task.metadata["overlaps"]


def test_arc_on_real_data(real_data):
    task = open_card("arc", str(real_data / "data" / "ai2_arc"))
    train, test = task.questions("train"), task.questions(task.eval_split)
    assert len(train) == 1119 + 299 + 2251 + 2376
    assert len(test) == 1172
    assert len({question.id for question in train}) == len(train)
    assert "train: not in the data, so left out: ARC-Easy/validation" in task.notes
    in_both = {question.stem for question in train} & {question.stem for question in test}
    assert 1 <= len(in_both) <= 12  # the handful of metadata.overlaps


def fill_rows() -> list[dict[str, str]]:
    sentences = [
        "Ann thanked Eve because _ had helped.",
        "_ was late, so Eve waited.",
        "So she glued the _ .",
        '"_\'s {{ cup }} and \\n," said Ann_e.',
    ]
    return [
        {"sentence": sentence, "option1": "Zoë", "option2": "Eve", "answer": answer}
        for sentence, answer in zip(sentences, "2112", strict=True)
    ]


def test_winogrande_fill(tmp_path):
    """The sentence up to the blank, then the option with the rest of the sentence."""
    write_jsonl(tmp_path / "train_xl.jsonl", fill_rows())
    write_jsonl(tmp_path / "dev.jsonl", fill_rows()[:1])
    task = open_card("winogrande_fill", str(tmp_path))
    assert ours(task.questions("train")) == [
        (
            [
                ("Ann thanked Eve because ", "Zoë had helped."),
                ("Ann thanked Eve because ", "Eve had helped."),
            ],
            ["Zoë had helped.", "Eve had helped."],
            {1},
        ),
        (
            [("", "Zoë was late, so Eve waited."), ("", "Eve was late, so Eve waited.")],
            ["Zoë was late, so Eve waited.", "Eve was late, so Eve waited."],
            {0},
        ),
        (
            [("So she glued the ", "Zoë ."), ("So she glued the ", "Eve .")],
            ["Zoë .", "Eve ."],
            {0},
        ),
        (
            [
                ('"', "Zoë's {{ cup }} and \\n,\" said Ann_e."),
                ('"', "Eve's {{ cup }} and \\n,\" said Ann_e."),
            ],
            [
                "Zoë's {{ cup }} and \\n,\" said Ann_e.",
                "Eve's {{ cup }} and \\n,\" said Ann_e.",
            ],
            {1},
        ),
    ]
    write_jsonl(tmp_path / "train_xl.jsonl", fill_rows()[1:2] * 2)
    (question,) = open_card("winogrande_fill", str(tmp_path)).questions("validation", 1)
    assert question.choices[1].context == (
        "Zoë was late, so Eve waited.\n\nAnn thanked Eve because "
    )
    assert question.stem == "Ann thanked Eve because _ had helped."


def test_winogrande_fill_takes_no_row_without_an_answer(tmp_path):
    """The test split of the hub has none."""
    write_jsonl(tmp_path / "dev.jsonl", fill_rows())
    write_jsonl(tmp_path / "test_xl.jsonl", [fill_rows()[0] | {"answer": ""}])
    for card in ("winogrande", "winogrande_fill"):
        with pytest.raises(LikraError, match="test row 0: the card does not fit the data"):
            open_card(card, str(tmp_path)).questions("test")


def mmlu_training_row() -> dict[str, object]:
    choices = ["6\\pi", "it's {{ 7 }}", "½", '"no"']
    return {"question": " What is\nit? ", "subject": "", "choices": choices, "answer": 2}


def mmlu_with(rows: list[dict[str, object]], folder: Path) -> str:
    """MMLU with these training questions, and one test and one dev question."""
    asked = {"question": "Who?", "subject": "high_school_us_history", "choices": list("wxyz")}
    for split in ("test", "dev"):
        write_jsonl(folder / "all" / f"{split}.jsonl", [asked | {"answer": 0}])
        write_jsonl(folder / "high_school_us_history" / f"{split}.jsonl", [asked | {"answer": 0}])
    write_jsonl(folder / "all" / "auxiliary_train.jsonl", rows)
    return str(folder)


def test_mmlu_text_training_form(tmp_path):
    """The training questions have no subject, so nothing is said about it."""
    data = mmlu_with([mmlu_training_row()], tmp_path)
    (question,) = open_card("mmlu_text:high_school_us_history", data).questions("train")
    assert question.id == "all/auxiliary_train/auxiliary_train-0"
    assert ours([question]) == [
        (
            [
                ("Question: What is\nit?\nAnswer:", " 6\\pi"),
                ("Question: What is\nit?\nAnswer:", " it's {{ 7 }}"),
                ("Question: What is\nit?\nAnswer:", " ½"),
                ("Question: What is\nit?\nAnswer:", ' "no"'),
            ],
            ["6\\pi", "it's {{ 7 }}", "½", '"no"'],
            {2},
        )
    ]


def test_mmlu_training_form(tmp_path):
    data = mmlu_with([mmlu_training_row()], tmp_path)
    (question,) = open_card("mmlu:high_school_us_history", data).questions("train")
    context = 'What is\nit?\nA. 6\\pi\nB. it\'s {{ 7 }}\nC. ½\nD. "no"\nAnswer:'
    assert ours([question]) == [
        ([(context, " A"), (context, " B"), (context, " C"), (context, " D")], list("ABCD"), {2})
    ]


def test_mmlu_evaluation_form(tmp_path):
    data = mmlu_with([mmlu_training_row()], tmp_path)
    (question,) = open_card("mmlu_text:high_school_us_history", data).questions("test", 1)
    assert question.choices[3].context == (
        "The following are questions (with answers) about high school us history.\n\n"
        "Question: Who?\nAnswer: w\n\nQuestion: Who?\nAnswer:"
    )


def test_an_unknown_subject_of_mmlu(small_data):
    with pytest.raises(LikraError, match="'anatomie' of task 'mmlu': did you mean 'anatomy'"):
        open_card("mmlu:anatomie", str(small_data("mmlu")))


# --------------------------------------------------------------------------------------------
# Replies to prompts


REPLIES = ultrafeedback_row('Say "hi" {{ x }}\\n,\n42', "Hi — 'x'!\n", "\\n{% no %}")


@pytest.fixture
def replies(tmp_path) -> str:
    write_jsonl(tmp_path / "train_prefs.jsonl", [ultrafeedback_row("7", "Seven.", "Eight.")])
    write_jsonl(tmp_path / "test_prefs.jsonl", [REPLIES])
    return str(tmp_path)


def test_ultrafeedback_without_a_chat_template(replies):
    task = open_card("ultrafeedback", replies)
    assert task.needs_chat_template
    (question,) = task.questions("test_prefs")
    context = 'Say "hi" {{ x }}\\n,\n42'
    assert ours([question]) == [
        (
            [(context, "Hi — 'x'!\n"), (context, "\\n{% no %}")],
            ["Hi — 'x'!\n", "\\n{% no %}"],
            {0},
        )
    ]
    assert question.stem == context


def test_ultrafeedback_with_a_chat_template(replies):
    tokenizer = AutoTokenizer.from_pretrained(Path(pocket.__file__).parent / "model")
    tokenizer.chat_template = (
        "{% for message in messages %}[{{ message.role }}]{{ message.content }}[end]{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    chat = Rendering(chat_template=chat_template_of(tokenizer))
    task = open_card("ultrafeedback", replies)
    (question,) = task.questions("test_prefs", rendering=chat)
    context = '[user]Say "hi" {{ x }}\\n,\n42[end][assistant]'
    assert [(c.context, c.continuation) for c in question.choices] == [
        (context, "Hi — 'x'!\n"),
        (context, "\\n{% no %}"),
    ]
    (question,) = task.questions("test_prefs", 1, chat)
    example = "[user]7[end][assistant]Seven.[end]"
    assert question.choices[0].context == example + context


# --------------------------------------------------------------------------------------------
# Solutions to problems

LATEX = [
    ("Find $\\frac{1}{2}+\\{x\\}$.", 'It\'s $\\boxed{\\frac{3}{4}}$, "so" {{x}} is\\\\\n$\\nu$.'),
    ("How many \\% of 42?", "42"),
    ("Is {{ 1 + 1 }} even?", "{% if 2 %}Ja, natürlich.{% endif %} [asy]draw((0,0)--(1,1));[/asy]"),
    ("Solve $x^2=4$.", " $x=\\pm2$ "),
    ("Solve $x^2=9$.", "$x=\\pm3$"),
]


def write_problems(folder: Path, problems: list[tuple[str, str]]) -> str:
    rows = [
        {"problem": problem, "level": "Level 1", "type": "Algebra", "solution": solution}
        for problem, solution in problems
    ]
    for split in ("train", "test"):
        write_jsonl(folder / "algebra" / f"{split}.jsonl", rows)
    return str(folder)


def test_math_keeps_every_character(tmp_path):
    task = open_card("math:algebra", write_problems(tmp_path, LATEX))
    questions = task.questions("test")
    assert [question.id for question in questions] == [f"algebra/test/test-{n}" for n in range(5)]
    for question, (problem, solution) in zip(questions, LATEX, strict=True):
        (right,) = question.right
        assert right.context == f"Problem: {problem}\nAnswer:"
        assert right.continuation == f" {solution}"
        assert right.text == solution
        assert question.stem == problem


def test_math_takes_wrong_answers_from_other_problems(tmp_path):
    task = open_card("math:algebra", write_problems(tmp_path, LATEX))
    questions = task.questions("test")
    for question, (problem, solution) in zip(questions, LATEX, strict=True):
        others = {other for _, other in LATEX} - {solution}
        texts = {choice.text for choice in question.wrong}
        assert len(question.wrong) == len(texts) == 3
        assert texts < others
        assert {choice.context for choice in question.wrong} == {f"Problem: {problem}\nAnswer:"}
    assert task.questions("test") == questions


def test_math_draws_the_same_whatever_the_order_of_rows(tmp_path):
    def drawn(name: str, problems: list[tuple[str, str]]) -> dict[str, list[str]]:
        task = open_card("math:algebra", write_problems(tmp_path / name, problems))
        return {q.stem: [choice.text for choice in q.choices] for q in task.questions("train")}

    assert drawn("as-is", LATEX) == drawn("reversed", LATEX[::-1])
    assert drawn("turned", LATEX[2:] + LATEX[:2]) == drawn("as-is", LATEX)


def test_math_is_seven_subjects(small_data):
    task = open_card("math", str(small_data("math")))
    train, test = task.questions("train"), task.questions(task.eval_split)
    assert len(train) == len(test) == 7 * 2
    assert len({question.id.partition("/")[0] for question in train}) == 7
    assert all(len(question.wrong) == 3 for question in (*train, *test))
    solutions = {choice.text for question in test for choice in question.choices}
    assert not any("train" in solution for solution in solutions)  # distractors are of the split
