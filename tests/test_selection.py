"""Choosing how to rank, folds, and answering only where it is sure."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likra.data.splits import folds
from likra.errors import LikraError
from likra.model.evidence import Evidence, choose, sentences
from likra.scores.abstention import abstention_threshold
from likra.scores.selection import (
    CANDIDATES,
    Ranking,
    ratio_of,
    scores_of_pair,
    select,
    values_of,
)
from likra.scores.table import BASE, PRIOR, HeadKey, Scores

POSITIVE, NEGATIVE = HeadKey("positive", 32, 0), HeadKey("negative", 32, 0, "random_choice")


def made_up(questions: int = 60, gain: float = 0.0, seed: int = 0) -> Scores:
    """Random scores of four choices, the first one right; heads know it by ``gain`` nats."""
    draw = np.random.default_rng(seed)
    shape = (questions, 4)
    right = np.zeros(shape, dtype=bool)
    right[:, 0] = True
    base = draw.normal(-10, 1, shape)
    logprob = {
        BASE: base,
        PRIOR: draw.normal(-12, 1, shape),
        POSITIVE: base + draw.normal(0, 0.5, shape) + gain * right,
        NEGATIVE: base + draw.normal(0, 0.5, shape) - gain * right,
    }
    names = tuple(f"q{number}" for number in range(questions))
    return Scores(
        names, np.ones(shape, dtype=bool), right, draw.integers(1, 9, shape) * 1.0, logprob
    )


def fifths(count: int) -> np.ndarray:
    return np.arange(count) % 5


# --------------------------------------------------------------------------------------------
# Folds


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 3))
def test_folds_keep_the_same_words_together_and_are_even(numbers, count, seed):
    stems = [f"Question {number}?" for number in numbers]
    if len(set(numbers)) < 2:
        with pytest.raises(LikraError, match="differ in their words"):
            folds(stems, count, seed)
        return
    found = folds(stems, count, seed)
    assert found == folds([stem.upper() for stem in stems], count, seed)
    by_stem = {}
    for stem, fold in zip(stems, found, strict=True):
        assert by_stem.setdefault(stem, fold) == fold
    sizes = np.bincount(found)
    assert len(sizes) == min(count, len(set(numbers)))
    largest = max(numbers.count(number) for number in set(numbers))
    assert sizes.max() - sizes.min() <= largest


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=12))
def test_what_belongs_together_is_in_one_fold(together):
    found = folds([f"Question {number}?" for number in range(20)], 4, 0, together)
    assert all(found[one] == found[two] for one, two in together)
    assert len(found) == 20


# --------------------------------------------------------------------------------------------
# The choice


def test_the_best_is_chosen_and_of_equal_ones_the_simplest():
    scores = made_up(gain=0.0)
    equal = {key: scores.logprob[BASE] for key in scores.logprob if key != PRIOR}
    same = Scores(scores.question_ids, scores.exists, scores.is_right, scores.n_chars, equal)
    # at a weight below 1 the same minus a part of itself ranks as it does itself
    assert select(same, fifths(60), 32, weights=[0.5]).ranking.mode == "base"
    assert select(made_up(gain=3.0), fifths(60), 32).ranking.mode != "base"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 4), st.integers(0, 5))
def test_no_question_helps_to_choose_how_it_is_answered(fold, seed):
    """What is right in a fold changes nothing about how that fold is ranked."""
    scores, number = made_up(gain=0.7, seed=seed), fifths(60)
    inside = number == fold
    changed = scores.is_right.copy()
    changed[inside] = np.roll(changed[inside], 1, axis=1)
    other = Scores(scores.question_ids, scores.exists, changed, scores.n_chars, scores.logprob)
    assert select(scores, number, 32).by_fold[fold] == select(other, number, 32).by_fold[fold]
    one, two = (choose(s, number, "") for s in (scores, other))
    kept = np.flatnonzero(inside)
    assert [one.confidence[row] for row in kept] == [two.confidence[row] for row in kept]


def test_a_way_to_rank_is_the_formula():
    scores = made_up()
    for ranking in (Ranking("likra", 0.3, "acc"), Ranking("pmi", 0.7, "acc_norm")):
        positive, negative = (POSITIVE, NEGATIVE) if ranking.mode == "likra" else (BASE, PRIOR)
        expected = scores.logprob[positive] - ranking.weight * scores.logprob[negative]
        found = ratio_of(scores, ranking, 32)
        assert found == pytest.approx(expected)
        divided = expected / scores.n_chars if ranking.is_normalised else expected
        assert values_of(found, scores, ranking) == pytest.approx(divided)


def test_the_scores_of_one_pair_hold_its_own_positive_head():
    base = made_up()
    values = base.logprob[BASE]
    others = [
        HeadKey("positive", 32, 1),
        HeadKey("positive", 64, 0),
        HeadKey("negative", 32, 0, "hardest"),
        HeadKey("dpo", 32, 0, "random_choice"),
    ]
    study = replace(base, logprob=base.logprob | dict.fromkeys(others, values))
    assert scores_of_pair(study, 0, "random_choice", 32).logprob.keys() == base.logprob.keys()
    own = HeadKey("positive", 32, 0, "random_choice")
    with_own = replace(study, logprob=study.logprob | {own: values})
    expected = base.logprob.keys() - {POSITIVE} | {own}
    assert scores_of_pair(with_own, 0, "random_choice", 32).logprob.keys() == expected


def test_what_cannot_be_chosen():
    scores = made_up()
    with pytest.raises(LikraError, match="at least two folds"):
        select(scores, np.zeros(60), 32)
    with pytest.raises(LikraError, match="no scores of any of sft"):
        select(scores, fifths(60), 31, ["sft"])
    with pytest.raises(LikraError, match="no scores of likra"):
        ratio_of(scores, Ranking("likra", 1.0, "acc"), 31)


# --------------------------------------------------------------------------------------------
# The evidence and its sentences


def test_evidence_survives_json_and_its_sentences_say_what_it_holds():
    chosen = choose(made_up(gain=3.0), fifths(60), "made up")
    evidence = chosen.evidence
    assert Evidence.from_json(asdict(evidence)) == evidence
    assert {row.mode for row in evidence.modes} == set(CANDIDATES)
    assert evidence.difference.low > 0
    first, second, *_ = sentences(chosen.ranking, evidence)
    assert f"{evidence.expected.value:.1%}" in first
    assert "clearly better than the base model" in second
    assert evidence.expected.value == np.mean(chosen.correct)


def test_with_useless_heads_nothing_is_said_to_be_worth_using():
    """Over many worlds in which training has taught nothing, the sentence holds its error."""
    claims = 0
    for seed in range(40):
        chosen = choose(made_up(gain=0.0, seed=seed), fifths(60), "made up")
        lines = sentences(chosen.ranking, chosen.evidence)
        claims += any("is worth using" in line for line in lines)
    assert claims <= 4  # 95% intervals, of an estimate that no question has helped itself to


def test_too_little_to_measure_is_said():
    ranking = Ranking("likra", 1.0, "acc")
    (line,) = sentences(ranking, Evidence(3, "", 0))
    assert "only 3" in line
    assert "assumption" in line


# --------------------------------------------------------------------------------------------
# Abstaining

POINTS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40)


@given(POINTS, st.sampled_from([0.05, 0.2, 0.5, 0.9]))
def test_the_threshold_is_the_smallest_safe_one(points, level):
    confidence = np.array([value / 10 for value, _ in points])
    correct = np.array([right for _, right in points])

    def is_safe(threshold: float) -> bool:
        kept = confidence >= threshold
        return (1 + (kept & ~correct).sum()) / kept.sum() <= level

    safe = [value for value in set(confidence.tolist()) if is_safe(value)]
    assert abstention_threshold(confidence, correct, level) == min(safe, default=float("inf"))


@pytest.mark.parametrize("level", [0.05, 0.1, 0.3])
def test_of_the_answers_given_at_most_so_many_are_wrong(level):
    """The mean over many calibrations, in a world where confidence is not even calibrated."""
    draw = np.random.default_rng(1)

    def world(count: int) -> tuple[np.ndarray, np.ndarray]:
        confidence = draw.uniform(0.3, 1, count)
        return confidence, draw.uniform(size=count) < 0.2 + 0.8 * confidence**3

    errors = []
    for _ in range(300):
        threshold = abstention_threshold(*world(150), level)
        confidence, correct = world(2000)
        kept = confidence >= threshold
        errors.append((kept & ~correct).sum() / max(kept.sum(), 1))
    spread = np.std(errors) / np.sqrt(len(errors))
    assert np.mean(errors) <= level + 3 * spread


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], 0.1), "0 confidences"),
        (([0.5], [True, False], 0.1), "1 confidences for 2"),
        (([0.5], [True], 0.0), "between 0 and 1, not 0.0"),
        (([0.5], [True], 1.0), "between 0 and 1, not 1.0"),
        (([0.5], [True], float("nan")), "between 0 and 1, not nan"),
    ],
)
def test_what_no_threshold_can_be_found_for(arguments, message):
    confidence, correct, level = arguments
    with pytest.raises(LikraError, match=message):
        abstention_threshold(np.array(confidence), np.array(correct, dtype=bool), level)
