"""Questions that teach nothing, or two things at once, are refused."""

import pytest
from conftest import question

from likra.errors import LikraError
from likra.questions import check_question, check_questions


def test_a_good_question_passes():
    check_questions(
        [question("a", "one", ["two"]), question("b", ["one", "uno"], ["two", "three"])]
    )


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (question("q7", [], []), "'q7' has no answers"),
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


def test_a_question_with_answers_of_one_kind_is_good_but_cannot_be_ranked():
    for asked in (question("a", "one", []), question("a", [], ["two"])):
        check_question(asked)
        assert not asked.can_be_ranked
    assert question("a", "one", ["two"]).can_be_ranked
