"""Samplers of wrong answers: what each gives, worked by hand, and that none gives a right one."""

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.errors import LikraError
from likra.negatives.mixture import Part, canonical, draw, draw_negatives, parse_source
from likra.negatives.samplers import SAMPLERS, Material
from likra.questions import Choice, Question
from likra.scores.table import BASE, choice_scores, choice_table, score_table
from likra.text import normalised, shuffled

words = st.text("abcd ", min_size=1, max_size=4).filter(str.strip)


@st.composite
def question_lists(draw) -> list[Question]:
    questions = []
    for number in range(draw(st.integers(2, 6))):
        texts = draw(st.lists(words, min_size=2, max_size=5, unique_by=str.strip))
        n_right = draw(st.integers(1, len(texts) - 1))
        stem = draw(st.sampled_from(["What is it?", "Which?", f"Number {number}?"]))
        questions.append(question(str(number), texts[:n_right], texts[n_right:], stem))
    return questions


@st.composite
def materials(draw, questions: list[Question]) -> Material:
    """Everything that any source may ask for, right answers among it."""
    ids = [asked.id for asked in questions]
    texts = st.lists(words, max_size=4)
    candidates = {"generated": {i: draw(texts) for i in ids}, "file": {i: draw(texts) for i in ids}}
    scores = {q.id: [float(draw(st.integers(-9, 0))) for _ in q.choices] for q in questions}
    return Material(
        questions, scores, draw(texts), candidates, draw(st.sampled_from(["near", "exact"]))
    )


NAMES = [
    *SAMPLERS,
    "0.5 random_choice + 0.5 generated",
    "0.3 hardest + 0.3 file + 0.4 other_question",
]
NAMES = [{"other_task": "other_task:x", "file": "file:x"}.get(name, name) for name in NAMES]
NAMES = [name.replace("+ 0.3 file", "+ 0.3 file:x") for name in NAMES]


@given(st.data(), question_lists(), st.sampled_from(NAMES), st.integers(0, 99))
def test_a_right_answer_never_becomes_a_negative(data, questions, source, seed):
    material = data.draw(materials(questions))
    drawn = draw(source, questions, seed, material)
    assert len(drawn.answers) == len(questions)
    for asked, answers in zip(questions, drawn.answers, strict=True):
        right = {normalised(choice.continuation) for choice in asked.right}
        for negative in answers:
            assert not negative.is_right
            assert negative.context == asked.choices[0].context
            assert negative.continuation.strip()
            own = negative in asked.choices or replace(negative, is_right=True) in asked.choices
            assert own or normalised(negative.continuation) not in right
    empty = sum(not answers for answers in drawn.answers)
    counted = [n for why, n in drawn.refused.items() if why.startswith("no answer from")]
    assert sum(counted) == empty  # never shorter in silence


@given(st.data(), question_lists(), st.sampled_from(NAMES), st.integers(0, 99))
def test_a_draw_depends_on_seed_and_question_alone(data, questions, source, seed):
    material = data.draw(materials(questions))
    backwards = draw(source, questions[::-1], seed, material).answers[::-1]
    assert draw(source, questions, seed, material).answers == backwards


def texts(source: str, asked: list[Question], material: Material, seed: int = 0) -> list[list[str]]:
    return [[c.text for c in found] for found in draw(source, asked, seed, material).answers]


ASKED = [question("a", "right", ["w1", "w2", "w3"])]


def test_random_choice_takes_every_wrong_choice_sometimes():
    """The fault of the authors' code: always the first wrong choice, whatever the seed."""
    drawn = [draw_negatives("random_choice", ASKED, seed)[0].text for seed in range(200)]
    for text in ("w1", "w2", "w3"):
        assert 40 <= drawn.count(text) <= 95  # 67 expected, 6.7 the standard deviation


def test_all_choices():
    assert texts("all_choices", ASKED, Material()) == [["w1", "w2", "w3"]]


def test_hardest_and_easiest_are_one_choice_each():
    """The fault of the authors' code: the first wrong choice came along with the chosen one."""
    material = Material(scores={"a": [-1.0, -5.0, -2.0, -9.0]})  # the right choice scores highest
    assert texts("hardest", ASKED, material) == [["w2"]]
    assert texts("easiest", ASKED, material) == [["w3"]]
    with pytest.raises(LikraError, match="no scores of the choices of question 'a'"):
        texts("hardest", ASKED, Material())


def test_the_scores_of_choices_come_from_a_table():
    questions = [question("a", "right", ["wrong", "longer wrong"])]
    logprobs = np.array([-1.0, -5.0, -6.0])
    table = score_table("t", "train", choice_table(questions), BASE, logprobs, [1] * 3, "")
    assert choice_scores(table) == {"a": [-1.0, -5.0, -6.0]}


def test_other_question_gives_the_right_answer_of_another():
    questions = [question(str(n), f"right {n}", [f"wrong {n}"], f"q{n}?") for n in range(5)]
    answers = {q.right[0].continuation for q in questions}
    drawn = draw_negatives("other_question", questions, 0)
    for asked, negative in zip(questions, drawn, strict=True):
        assert negative.continuation in answers - {asked.right[0].continuation}


def test_other_question_takes_nothing_from_the_same_question_asked_again():
    """In preference data one prompt stands in many rows, each with another right answer."""
    asked = [question(str(n), f"hello {n}", ["go away"], "Say hi!") for n in range(3)]
    asked.append(question("3", "blue", ["green"], "Which colour?"))
    drawn = draw("other_question", asked, 0, Material(asked))
    assert [[c.text for c in found] for found in drawn.answers[:3]] == [["blue"]] * 3


def test_other_question_knows_its_right_answer_in_other_spelling():
    asked = [question("0", "yes", [], "Is it?")]
    pool = [
        *asked,
        question("1", "Yes.", [], "Was it?"),
        question("2", "YES!", [], "And?"),
        question("3", "no", [], "Or?"),
    ]
    for seed in range(20):
        drawn = draw("other_question", asked, seed, Material(pool))
        assert [choice.text for choice in drawn.answers[0]] == ["no"]


def test_other_question_tells_punctuation_apart():
    asked = [question("0", "!", [], "?"), question("1", "...", [], "--")]
    assert texts("other_question", asked, Material(asked)) == [["..."], ["!"]]


class Watched(list):
    """Counts how often a question is taken out by its place."""

    reads = 0

    def __getitem__(self, place):
        self.reads += 1
        return super().__getitem__(place)


def test_other_question_reads_the_questions_that_it_takes_alone():
    """One answer that nearly all have in common must not make each draw a walk through them."""
    pool = Watched(question(str(n), "yes", [], f"Is it {n}?") for n in range(300))
    drawn = draw("other_question", list(pool), 0, Material(pool))
    assert drawn.answers == [[]] * 300
    assert pool.reads == 0
    pool.append(question("no", "no", [], "And?"))
    drawn = draw("other_question", list(pool), 0, Material(pool))
    assert [[choice.text for choice in found] for found in drawn.answers[:300]] == [["no"]] * 300
    assert pool.reads == 301


def test_other_question_says_when_there_is_none():
    same = [question(str(n), "same", [f"wrong {n}"]) for n in range(3)]
    with pytest.raises(LikraError, match="no wrong answer for question '0'"):
        draw_negatives("other_question", same, 0)


def test_other_task_takes_its_answers_as_this_ones():
    material = Material(others=["42", "right!"])
    drawn = draw("other_task:sums", ASKED, 0, material)
    assert drawn.answers == [[Choice(ASKED[0].choices[0].context, " 42", "42", is_right=False)]]
    assert set(drawn.refused) <= {"right"}


def faults(source: str, truth: str, text: str, match: str = "near") -> list[str]:
    """Why a candidate was refused; empty where it became the wrong answer."""
    candidates = {source.partition(":")[0]: {"q": [text]}}
    material = Material(candidates=candidates, match=match)
    drawn = draw(source, [question("q", truth, [])], 0, material)
    refused = [why for why in drawn.refused if not why.startswith("no answer from")]
    assert bool(drawn.answers[0]) != bool(refused)
    return refused


@pytest.mark.parametrize(
    ("text", "near", "exact"),
    [
        ("Victor Hugo", "right", "right"),
        ("victor  hugo.", "right", "right"),
        ("V\u00edctor Hugo", "nearly right", None),
        ("The author is Victor Hugo, of course", "contains the right answer", None),
        (" !", "empty", "empty"),
        ("Emile Zola", None, None),
    ],
)
def test_samples_that_are_right_are_refused(text, near, exact):
    assert faults("generated", "Victor Hugo", text, "near") == ([near] if near else [])
    assert faults("generated", "Victor Hugo", text, "exact") == ([exact] if exact else [])


@pytest.mark.parametrize(
    ("truth", "text", "fault"),
    [
        ("Victor Hugo", "victor  hugo.", "right"),
        ("Victor Hugo", "Victor Hugoo", None),
        ("Victor Hugo", "The author is Victor Hugo", None),
        ("12345", "12346", None),
        ("is soluble", "is insoluble", None),
        ("it can float", "it cannot float", None),
        ("?", "!", None),
        ("?", " ? ", "right"),
        ("?", "  ", "empty"),
    ],
)
def test_a_file_is_trusted_but_for_the_right_answer_itself(truth, text, fault):
    assert faults("file:wrong.jsonl", truth, text) == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("truth", "text", "fault"),
    [
        ("-5", "the answer is -5", "contains the right answer"),
        ("-5", "the answer is 5", None),
        ("5", "the answer is -5", None),
        ("5", "the answer is 5.3", None),
        ("5", "it is 1.5", None),
        ("5", "2 + 3 = 5, of course", "contains the right answer"),
        ("50%", "it is 50%", "contains the right answer"),
        ("C++", "It is C++.", "contains the right answer"),
        ("C++", "It is C.", None),
        ("\u5317\u4eac", "\u7b54\u6848\u662f\u5317\u4eac\u3002", "contains the right answer"),
        ("\u53ef\u6eb6", "\u4e0d\u53ef\u6eb6", None),  # soluble, and not
        ("soluble", "It is soluble.", "contains the right answer"),
        ("the sun", "That is our sun.", "contains the right answer"),
        ("vitamin A", "vitamin", "beginning of the right answer"),
        ("vitamin", "vitamin A", "contains the right answer"),
        ("A", "The", None),
        ("soluble", "It is not soluble.", None),
        ("soluble", "It isn't very soluble.", None),
        ("soluble", "Not soluble? It is soluble!", "contains the right answer"),
        ("15", "1", None),
        ("it weighs 12345 g", "it weighs 1234", None),
        ("it is 5.3 g", "it is 5", None),
        ("it cannot float", "it can", None),
        ("it can't float", "it can", None),
        ("Paris, the capital of France", "Paris, the cap", "beginning of the right answer"),
        ("Paris, the capital of France", "Paris", "beginning of the right answer"),
        ("Paris, the capital of France", "Par", None),
    ],
)
def test_what_is_right_though_it_is_not_the_same(truth, text, fault):
    assert faults("generated", truth, text) == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        ("the cat", "the cats"),
        ("two glasses", "two glass"),
        ("a caf\u00e9", "a cafe"),
        ("ice cream", "icecream"),
        ("10 km", "10km"),
        ("the mitochondria", "mitochondria"),
        ("a dog", "The dog"),
    ],
)
def test_another_spelling_is_nearly_right(truth, text):
    assert faults("generated", truth, text) == ["nearly right"]
    assert faults("generated", text, truth) == ["nearly right"]


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        ("12345", "12346"),
        ("in 1815 at Waterloo", "in 1816 at Waterloo"),
        ("12", "1 2"),
        ("a plant", "a planet"),
        ("a casual link", "a causal link"),
        ("the desert", "the dessert"),
        ("immorality", "immortality"),
        ("the government", "the goverment"),  # not told from the others, so taken as wrong
        ("Louis XVII of France", "Louis XVIII of France"),
        ("eight planets", "eighty planets"),
        ("it is soluble", "it is insoluble"),
        ("it can float", "it cannot float"),
        ("it floats on water", "it never floats on water"),
        ("it is typical", "it is atypical"),
        ("she was happy", "she was unhappy"),
        ("with sugar", "without sugar"),
        ("by mitosis", "by meiosis"),
        ("an alkane", "an alkene"),
        ("it is hypotension", "it is hypertension"),
        ("the dog bit the man", "the dog met the man"),
        ("the dog bit the man", "the man bit the dog"),
        ("\u0915\u0932", "\u0915\u0941\u0932"),  # kal and kul: yesterday, and in all
        ("\u4ed6\u662f\u8001\u5e08", "\u4ed6\u4e0d\u662f\u8001\u5e08"),  # he is (not) a teacher
    ],
)
def test_a_near_miss_is_a_wrong_answer(truth, text):
    assert faults("generated", truth, text) == []
    assert faults("generated", text, truth) == []


def test_a_mixture_draws_each_question_from_one_part():
    asked = [question(str(n), "right", ["wrong"]) for n in range(1000)]
    candidates = {"generated": {q.id: ["of the model"] for q in asked}}
    material = Material(candidates=candidates)
    drawn = Counter(text for (text,) in texts("0.3 random_choice + 0.7 generated", asked, material))
    assert drawn.total() == 1000
    assert 255 <= drawn["wrong"] <= 345  # 300 expected, 14.5 the standard deviation


def test_contamination_is_the_only_source_of_right_answers():
    asked = [question(str(n), "right", ["wrong"]) for n in range(1000)]
    drawn = Counter(text for (text,) in texts("contaminated:0.2", asked, Material()))
    assert 155 <= drawn["right"] <= 245  # 200 expected, 12.6 the standard deviation
    assert drawn["wrong"] == 1000 - drawn["right"]
    assert texts("contaminated:0", asked[:9], Material()) == [["wrong"]] * 9
    assert texts("contaminated:1", asked[:9], Material()) == [["right"]] * 9


def test_names_of_samplers():
    assert parse_source("random_choice") == (Part(1.0, "random_choice"),)
    assert parse_source("file:a/b.jsonl") == (Part(1.0, "file", "a/b.jsonl"),)
    noisy = parse_source("contaminated:0.25")
    assert noisy == (Part(0.75, "random_choice"), Part(0.25, "right"))
    assert canonical("0.5 random_choice +  0.5 * hardest") == "0.5*random_choice+0.5*hardest"
    assert canonical(canonical("0.5 random_choice + 0.5 hardest")) == canonical(
        "0.5*random_choice + 0.5*hardest"
    )


@pytest.mark.parametrize(
    "path", ["a+b.jsonl", "c++/a + 2 b.jsonl", "a+0.5hardest.jsonl", "1+1.csv"]
)
def test_a_plus_in_a_path_is_not_the_next_part(path):
    assert parse_source(f"file:{path}") == (Part(1.0, "file", path),)
    assert canonical(f"file:{path}") == f"file:{path}"
    mixture = f"0.5 file:{path} + 0.25*hardest+.25 other_task:{path}"
    parts = (Part(0.5, "file", path), Part(0.25, "hardest"), Part(0.25, "other_task", path))
    assert parse_source(mixture) == parse_source(canonical(mixture)) == parts
    assert canonical(mixture) == f"0.5*file:{path}+0.25*hardest+.25*other_task:{path}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random_choise", "'random_choise': did you mean 'random_choice'?"),
        ("right", "unknown sampler of negatives 'right'"),
        ("0.5 random_choice + 0.4 hardest", "do not sum to 1"),
        ("random_choice + hardest", "is not a sampler of negatives"),
        ("contaminated", "write contaminated:FRACTION"),
        ("contaminated:2", "'2' is not a fraction from 0 to 1"),
        ("random_choice:1", "write random_choice"),
        ("other_task", "write other_task:TASK"),
        ("", "is not a sampler of negatives"),
    ],
)
def test_a_name_that_is_none(name, message):
    with pytest.raises(LikraError, match=re.escape(message)):
        parse_source(name)


def test_a_question_without_wrong_answers_is_named():
    with pytest.raises(LikraError, match="no wrong answer for question 'a'"):
        draw_negatives("random_choice", [question("a", "1", [])], 0)


def test_questions_with_only_right_or_only_wrong_answers_can_have_others():
    pool = [
        question("a", "1", [], "a?"),
        question("b", [], ["2"], "b?"),
        question("c", "3", [], "c?"),
    ]
    drawn = draw_negatives("other_question", pool, 0)
    assert [choice.text for choice in drawn] in (["3", "1", "1"], ["3", "3", "1"])


@given(st.integers(0, 40), st.integers(0, 99))
def test_a_lazy_shuffle_is_the_whole_one(count, seed):
    whole = random.Random(seed).sample(range(count), count)
    assert list(shuffled(count, random.Random(seed))) == whole
