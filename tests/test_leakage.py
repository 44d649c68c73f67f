"""Leaks: the same stems, near-duplicates, and no false alarm for a shared form."""

import math
import re

from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.data.leakage import NEAR, Leak, ending_digests, find_leaks, stem_digest
from likra.text import normalised


def asked(stems: list[str], prefix: str):
    return [question(f"{prefix}{n}", "1", ["2"], stem) for n, stem in enumerate(stems)]


def test_exact_leaks_are_found_whatever_case_and_punctuation():
    train = asked(["What is  it?", "Where?"], "t")
    evaluation = asked(["what is it", "When?"], "e")
    assert find_leaks(train, evaluation) == [Leak("t0", "e0", 1.0)]


def test_stems_of_punctuation_alone_are_compared_as_they_stand():
    train, evaluation = asked(["!", "?", "...", "?!", " ! "], "t"), asked(["!", "--"], "e")
    assert find_leaks(train, evaluation) == [Leak("t0", "e0", 1.0), Leak("t4", "e0", 1.0)]


@given(st.text("aB-.1?!( \n"), st.text("aB-.1?!( \n"))
def test_digests_are_equal_where_stems_are_the_same(one, two):
    same = bool(find_leaks(asked([one], "t"), asked([two], "e")))
    assert (stem_digest(one) == stem_digest(two)) == same


@given(st.lists(st.text("aB-.1?!( \n"), min_size=1))
def test_the_endings_of_a_prompt_are_those_of_its_examples(parts):
    prompt = "\n\n".join(parts)
    split = prompt.split("\n\n")
    endings = ["\n\n".join(split[start:]) for start in range(len(split))]
    assert ending_digests(prompt, "\n\n") == set(map(stem_digest, endings))


def test_all_exact_pairs_are_reported():
    leaks = find_leaks(asked(["A b c", "a, b, c!"], "t"), asked(["a b c"], "e"))
    assert [(leak.train_id, leak.eval_id) for leak in leaks] == [("t0", "e0"), ("t1", "e0")]


def test_a_twin_does_not_hide_a_near_duplicate():
    """What is dropped for leaking must be all that leaks."""
    leaks = find_leaks(asked([LONG, f"{LONG} today", "Where?"], "t"), asked([LONG, "When?"], "e"))
    assert [(leak.train_id, leak.exact) for leak in leaks] == [("t0", True), ("t1", False)]


LONG = "the quick brown fox jumps over a lazy dog while seven old wizards watch from their tower"


def test_near_duplicates_are_found():
    (leak,) = find_leaks(asked([LONG, "Where?"], "t"), asked([f"{LONG} today", "When?"], "e"))
    assert (leak.train_id, leak.eval_id, leak.exact) == ("t0", "e0", False)
    assert NEAR <= leak.similarity < 1


def test_the_same_words_in_another_order_are_near():
    (leak,) = find_leaks(
        asked(["who does what to whom"], "t"), asked(["what does who to whom"], "e")
    )
    assert not leak.exact
    assert leak.similarity > 0.999


def test_every_near_duplicate_is_found():
    near = [f"{LONG} today", f"{LONG} again", "Where?"]
    leaks = find_leaks(asked(near, "t"), asked([LONG, "When?"], "e"))
    assert [(leak.train_id, leak.eval_id) for leak in leaks] == [("t0", "e0"), ("t1", "e0")]


def test_what_is_the_same_and_what_is_not():
    assert normalised("Well-known  THING!") == normalised("well known (thing)")
    assert normalised("caf\u00e9") == normalised("cafe\u0301")  # composed or not
    assert normalised("What is 3 + 4?") != normalised("What is 3 - 4?")
    assert normalised("C") != normalised("C++")
    assert "\u0940" in normalised("\u0939\u093f\u0928\u094d\u0926\u0940")  # vowel signs stay


def test_a_form_that_all_questions_share_is_no_leak():
    form = "In which year did the very first edition of the book called {} come out in print"
    train = asked([form.format(f"title{n}") for n in range(50)], "t")
    evaluation = asked([form.format(f"other{n}") for n in range(50)], "e")
    assert find_leaks(train, evaluation) == []


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8).map(" ".join)


def similarity(one: str, other: str, stems: list[str]) -> float:
    """The definition, written out: Jaccard of words that each weigh log(n / documents)."""
    documents = [set(re.findall(r"\w+", stem)) for stem in stems]
    weight = {
        w: math.log((len(documents) + 1) / sum(w in d for d in documents))
        for w in "abcdefgh"
        if any(w in d for d in documents)
    }
    left, right = set(one.split()), set(other.split())
    return sum(weight[w] for w in left & right) / sum(weight[w] for w in left | right)


@given(st.lists(words, min_size=1, max_size=8, unique=True), words)
def test_no_near_duplicate_is_missed(train, stem):
    found = find_leaks(asked(train, "t"), asked([stem], "e"))
    stems = list(dict.fromkeys([*train, stem]))
    assert [leak.train_id for leak in found if leak.exact] == [
        f"t{n}" for n, other in enumerate(train) if other == stem
    ]
    expected = {
        f"t{n}": similarity(stem, other, stems) for n, other in enumerate(train) if other != stem
    }
    given = {leak.train_id: leak.similarity for leak in found if not leak.exact}
    for name, value in expected.items():
        if abs(value - NEAR) > 1e-6:  # at the border, rounding decides
            assert (name in given) == (value > NEAR)
        if name in given:
            assert abs(given[name] - value) < 1e-6
