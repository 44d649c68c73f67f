"""Questions that cannot be ranked are refused; leaks are found; gold never becomes a negative."""

import pytest
from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.errors import LikraError
from likra.negatives import SOURCES, draw_negatives, other_question, random_choice
from likra.questions import Question, check_question, check_questions, leaks


def test_a_good_question_passes():
    check_questions(
        [question("a", "one", ["two"]), question("b", ["one", "uno"], ["two", "three"])]
    )


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (question("q7", [], ["wrong"]), "'q7' has no right answer"),
        (question("q7", "right", []), "'q7' has no wrong answer"),
        (question("q7", "same", ["same"]), "'q7': 'same' is both a right and a wrong answer"),
        (question("q7", "right", ["wrong", " "]), "'q7': choice 2 is empty"),
    ],
)
def test_a_bad_question_is_named(bad, words):
    with pytest.raises(LikraError, match=words):
        check_question(bad)


def test_an_id_that_stands_twice_is_named():
    with pytest.raises(LikraError, match="two questions have the id 'a'"):
        check_questions([question("a", "1", ["2"]), question("a", "1", ["2"])])


def test_leaks_are_found_whatever_case_and_punctuation():
    train = [question("t1", "1", ["2"], "What is  it?"), question("t2", "1", ["2"], "Where?")]
    evaluation = [question("e1", "1", ["3"], "what is it"), question("e2", "1", ["2"], "When?")]
    assert leaks(train, evaluation) == [("t1", "e1")]


words = st.text("abcd ", min_size=1, max_size=4).filter(str.strip)


@st.composite
def question_lists(draw) -> list[Question]:
    questions = []
    for number in range(draw(st.integers(2, 6))):
        texts = draw(st.lists(words, min_size=2, max_size=5, unique_by=str.strip))
        n_right = draw(st.integers(1, len(texts) - 1))
        questions.append(question(str(number), texts[:n_right], texts[n_right:]))
    return questions


@given(question_lists(), st.sampled_from(sorted(SOURCES)), st.integers(0, 99))
def test_gold_never_becomes_a_negative(questions, source, seed):
    try:
        negatives = draw_negatives(source, questions, seed)
    except LikraError:
        assert source == "other_question"  # all others may have the same answer
        return
    assert len(negatives) == len(questions)
    for asked, negative in zip(questions, negatives, strict=True):
        assert not negative.is_right
        assert negative.context == asked.choices[0].context
        right = {choice.continuation.strip().casefold() for choice in asked.right}
        assert negative.continuation.strip().casefold() not in right


@given(question_lists(), st.integers(0, 99))
def test_random_choice_is_a_wrong_choice_of_the_same_question(questions, seed):
    for asked, negative in zip(questions, random_choice(questions, seed), strict=True):
        assert negative in asked.wrong


def test_random_choice_takes_every_wrong_choice_sometimes():
    """The fault of the authors' code: always the first wrong choice, whatever the seed."""
    asked = question("a", "right", ["w1", "w2", "w3"])
    drawn = [random_choice([asked], seed)[0].text for seed in range(200)]
    for text in ("w1", "w2", "w3"):
        assert 40 <= drawn.count(text) <= 95  # 67 expected, 6.7 the standard deviation


@given(question_lists(), st.integers(0, 99))
def test_a_draw_depends_on_seed_and_question_alone(questions, seed):
    backwards = random_choice(questions[::-1], seed)[::-1]
    assert random_choice(questions, seed) == backwards


def test_other_question_gives_the_right_answer_of_another():
    questions = [question(str(n), f"right {n}", [f"wrong {n}"]) for n in range(5)]
    answers = {q.right[0].continuation for q in questions}
    for asked, negative in zip(questions, other_question(questions, 0), strict=True):
        assert negative.continuation in answers - {asked.right[0].continuation}


def test_other_question_says_when_there_is_none():
    with pytest.raises(LikraError, match="no other question has an answer that is wrong for '0'"):
        other_question([question(str(n), "same", [f"wrong {n}"]) for n in range(3)], 0)


def test_an_unknown_source_is_named_with_the_nearest():
    with pytest.raises(LikraError, match="'random_choise': did you mean 'random_choice'?"):
        draw_negatives("random_choise", [question("a", "1", ["2"])], 0)
