"""What heads are trained on: pure functions of questions, samplers, seed and n."""

import random

import pytest
from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.errors import LikraError
from likra.negatives.samplers import Material
from likra.study.config import parse_study
from likra.study.examples import available, needed, paired_order, trainings, with_snapshots
from likra.text import shuffled

QUESTIONS = [
    question(f"q{n}", f"yes {n}", [f"no {n}", f"never {n}"], f"Which one, {n}?") for n in range(40)
]


def study(**changes):
    return parse_study({"name": "small", "seeds": [0, 1], "snapshots": [8, 16]} | changes)


def trained(chosen, questions=QUESTIONS, **material):
    """The training runs that the modes need, by head, seed and sampler."""
    runs = needed(chosen, trainings(chosen, questions, Material(questions, **material)))
    return {(run.head, run.seed, run.source): run for run in runs}


def ids(training) -> list[str]:
    return [example.question.id for example in training.examples]


def test_the_order_is_one_seeded_shuffle_and_both_heads_see_it():
    runs = trained(study(negatives=["random_choice", "other_question"]))
    assert set(runs) == {
        (head, seed, source)
        for seed in (0, 1)
        for head, source in (
            ("positive", None),
            ("negative", "random_choice"),
            ("negative", "other_question"),
        )
    }
    for (_, seed, _), run in runs.items():
        places = list(shuffled(40, random.Random(seed)))[:16]
        assert ids(run) == [f"q{place}" for place in places]


def test_heads_learn_right_and_wrong_answers():
    runs = trained(study())
    for example in runs["positive", 0, None].examples:
        assert example.answers("positive") == example.question.right
    for example in runs["negative", 0, "random_choice"].examples:
        (answer,) = example.answers("negative")
        assert answer in example.question.wrong
    for example in runs["negative", 0, "random_choice"].examples:
        assert example.answers("dpo") == (example.right, example.wrong[0])


def test_a_head_does_not_depend_on_what_else_is_in_the_study(tmp_path):
    """One sampler that lacks answers once changed the order of all heads of the study."""
    listed = {f"q{n}": [f"not {n}"] for n in range(0, 40, 2)}
    candidates = {"file": listed}
    alone = trained(study(seeds=[1], snapshots=[8]), candidates=candidates)
    beside = trained(
        study(
            negatives=["other_question", "file:wrong.jsonl", "random_choice"],
            modes=["base", "sft", "likra", "pmi", "dpo"],
        ),
        candidates=candidates,
    )
    for key, run in alone.items():
        assert list(run.answers()) == list(beside[key].answers())[:8]


def test_a_sampler_that_lacks_answers_has_a_positive_head_of_its_own():
    """Likra compares heads that saw the same questions."""
    listed = {f"q{n}": [f"not {n}"] for n in range(0, 40, 2)}
    chosen = study(negatives=["random_choice", "file:wrong.jsonl"])
    runs = trained(chosen, candidates={"file": listed})
    for seed in (0, 1):
        own = runs["positive", seed, "file:wrong.jsonl"]
        assert ids(own) == ids(runs["negative", seed, "file:wrong.jsonl"])
        assert set(ids(own)) <= set(listed)
        usual = runs["positive", seed, None]
        assert ids(usual) == ids(runs["negative", seed, "random_choice"])
        assert ids(usual) != ids(own)
    assert ("positive", 0, "random_choice") not in runs
    alone = trained(
        study(negatives=["file:wrong.jsonl"], modes=["base", "base-likra"]),
        candidates={"file": listed},
    )
    assert {head for head, _, _ in alone} == {"negative"}


def test_a_positive_head_of_its_own_is_trained_where_the_questions_differ_and_there_alone():
    """A sampler that lacks its first answer at place 11 needs none after 8 examples."""
    places = list(shuffled(40, random.Random(0)))
    lacks = f"q{places[10]}"
    listed = {f"q{n}": [f"not {n}"] for n in range(40) if f"q{n}" != lacks}
    chosen = study(seeds=[0], negatives=["file:wrong.jsonl"])
    runs = trained(chosen, candidates={"file": listed})
    assert runs["positive", 0, None].snapshots == (8, 16)
    assert runs["positive", 0, "file:wrong.jsonl"].snapshots == (16,)


def test_it_is_known_that_likra_needs_one_whatever_the_modes():
    """Else another mode would later pair heads that saw different questions."""
    listed = {f"q{n}": [f"not {n}"] for n in range(0, 40, 2)}
    chosen = study(negatives=["file:wrong.jsonl"], modes=["base", "sft", "base-likra"])
    material = Material(QUESTIONS, candidates={"file": listed})
    runs = list(trainings(chosen, QUESTIONS, material))
    own = [run for run in runs if run.is_own_positive]
    assert [(run.seed, run.source) for run in own] == [
        (0, "file:wrong.jsonl"),
        (1, "file:wrong.jsonl"),
    ]
    assert not any(run.is_own_positive for run in needed(chosen, runs))


@given(st.lists(st.sampled_from(["both", "right", "wrong"]), min_size=1, max_size=30), st.data())
def test_complete_questions_come_first_and_n_is_a_beginning(kinds, data):
    questions = [
        question(f"q{n}", [] if kind == "wrong" else "yes", [] if kind == "right" else ["no"])
        for n, kind in enumerate(kinds)
    ]
    material = Material(questions)
    whole = paired_order(questions, material, seed=3, source="random_choice", n=len(questions))
    complete = [bool(example.right and example.wrong) for example in whole.examples]
    assert complete == sorted(complete, reverse=True)
    assert sorted(e.question.id for e in whole.examples) == sorted(q.id for q in questions)
    n = data.draw(st.integers(1, len(questions)))
    part = paired_order(questions, material, seed=3, source="random_choice", n=n)
    for head in ("positive", "negative"):
        assert list(part.of(head, n)) == list(whole.of(head, n))
    both = sum(complete)
    m = min(n, both)
    assert list(part.of("positive", m)) == list(part.of("negative", m))


def test_each_seed_chooses_one_of_several_right_answers():
    several = [question(f"q{n}", [f"yes {n}", f"sure {n}"], ["no"]) for n in range(24)]
    runs = trained(study(seeds=list(range(8))), several)
    answers = [list(run.answers()) for (head, _, _), run in runs.items() if head == "positive"]
    texts = {choice.text.split()[0] for own in answers for (choice,) in own}
    assert texts == {"yes", "sure"}
    assert list(trained(study(seeds=[0]), several)["positive", 0, None].answers()) == answers[0]


def test_snapshots_are_powers_of_two_batches_and_all():
    chosen = study(snapshots=[])
    counts = available(QUESTIONS, Material(QUESTIONS), chosen)
    assert with_snapshots(chosen, counts).snapshots == [8, 16, 32, 40]
    assert with_snapshots(study(), counts).snapshots == [8, 16]


def test_the_fewest_answers_decide_the_snapshots_whatever_the_seed():
    listed = {f"q{n}": ["no"] for n in range(0, 40, 4)}
    chosen = study(snapshots=[], negatives=["random_choice", "file:wrong.jsonl"])
    counts = available(QUESTIONS, Material(QUESTIONS, candidates={"file": listed}), chosen)
    assert counts == {
        ("positive", None): 40,
        ("negative", "random_choice"): 40,
        ("negative", "file:wrong.jsonl"): 10,
    }
    assert with_snapshots(chosen, counts).snapshots == [8, 10]


def test_too_few_answers_are_refused():
    with pytest.raises(LikraError, match=r"other_question has answers to 40 questions \(seed 0\)"):
        trained(study(snapshots=[64], negatives=["other_question"], modes=["base-likra"]))
    right_only = [question(f"q{n}", f"yes {n}", []) for n in range(40)]
    counts = available(right_only, Material(right_only), study())
    with pytest.raises(LikraError, match="no training question has a wrong answer of"):
        with_snapshots(study(), counts)
    wrong_only = [question(f"q{n}", [], [f"no {n}"]) for n in range(40)]
    counts = available(wrong_only, Material(wrong_only), study())
    with pytest.raises(LikraError, match="no training question has a right answer"):
        with_snapshots(study(), counts)
