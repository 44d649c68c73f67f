"""Intervals over questions and seeds: by hand, by SciPy's tests, and their laws."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2, norm, t, ttest_1samp

from likra.scores.intervals import accuracy_intervals, differences

SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 12))
ANSWERS = SHAPES.flatmap(lambda shape: arrays(bool, shape))
some = settings(max_examples=60, deadline=None)


@some
@given(st.integers(2, 40), st.data())
def test_one_seed_has_wilsons_interval(n, data):
    """Its ends are the accuracies from which what was seen is t standard errors away."""
    n_right = data.draw(st.integers(0, n))
    value, low, high = accuracy_intervals((np.arange(n) < n_right)[None])
    quantile = t.ppf(0.975, n - 1) if 0 < n_right < n else norm.ppf(0.975)
    for end in (low, high):
        if 0 < end < 1:
            error = np.sqrt(end * (1 - end) / n)
            assert abs(value - end) == pytest.approx(quantile * error, rel=1e-9)
    assert value == n_right / n
    assert (low > 0, high < 1) == (n_right > 0, n_right < n)


def test_one_question_leaves_everything_open():
    """Wilson's with n = 1 and none right: from 0 to z^2 / (1 + z^2)."""
    z = norm.ppf(0.975)
    _, low, high = accuracy_intervals(np.zeros((2, 1)))
    assert (low, high) == pytest.approx((0, z**2 / (1 + z**2)))


@some
@given(ANSWERS)
def test_laws_of_an_accuracy(correct):
    value, low, high = accuracy_intervals(correct)
    assert 0 <= low <= value <= high <= 1
    assert low < high
    wrong = accuracy_intervals(~correct)
    assert [1 - value, 1 - high, 1 - low] == pytest.approx(wrong.tolist(), abs=1e-12)
    moved = accuracy_intervals(correct[::-1, ::-1])
    assert moved.tolist() == pytest.approx([value, low, high], abs=1e-12)


@some
@given(arrays(bool, 9), st.integers(2, 4))
def test_copies_of_a_seed_say_what_one_says(correct, copies):
    one = accuracy_intervals(correct[None])
    several = accuracy_intervals(np.repeat(correct[None], copies, axis=0))
    assert several.tolist() == pytest.approx(one.tolist(), abs=1e-12)


def variance_of_the_mean(rows: list[list[int]]) -> tuple[float, float]:
    """The variance of the mean of [seeds][questions] and its freedom, in exact sums."""
    n_seeds, n_questions = len(rows), len(rows[0])
    size = n_seeds * n_questions
    mean = Fraction(sum(map(sum, rows)), size)
    by_seed = [Fraction(sum(row), n_questions) for row in rows]
    by_question = [Fraction(sum(column), n_seeds) for column in zip(*rows, strict=True)]
    of_questions = n_seeds * sum((q - mean) ** 2 for q in by_question) / (n_questions - 1)
    of_seeds = n_questions * sum((s - mean) ** 2 for s in by_seed) / (n_seeds - 1)
    rest = sum(
        (value - by_seed[s] - by_question[q] + mean) ** 2
        for s, row in enumerate(rows)
        for q, value in enumerate(row)
    ) / ((n_seeds - 1) * (n_questions - 1))
    raised = float(of_seeds) * (n_seeds - 1) / chi2.median(n_seeds - 1)
    more, squares = raised - float(rest), float(of_questions) ** 2 / (n_questions - 1)
    if more > 0:
        squares += raised**2 / (n_seeds - 1)
        squares += float(rest) ** 2 / ((n_seeds - 1) * (n_questions - 1))
    variance = float(of_questions) + max(more, 0)
    return variance / size, variance**2 / squares


@pytest.mark.parametrize(
    ("right", "is_wider"),
    [
        ([[1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 1, 0]], True),  # the seeds differ most
        ([[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 0, 0]], False),  # all have three
    ],
)
def test_questions_and_seeds_by_hand(right, is_wider):
    value, low, high = accuracy_intervals(np.array(right))
    variance, freedom = variance_of_the_mean(right)
    size = value * (1 - value) / (variance * 5 / 6)
    quantile = t.ppf(0.975, max(freedom, 1))
    for end in (low, high):
        error = np.sqrt(end * (1 - end) / min(size, len(right) * 6))
        assert abs(value - end) == pytest.approx(quantile * error, rel=1e-9)
    over_questions = np.mean(right, axis=0).var(ddof=1) / 6
    assert (variance > over_questions * 1.01) == is_wider


@some
@given(arrays(np.int8, st.integers(2, 20), elements=st.integers(-1, 1)))
def test_a_difference_of_one_seed_is_a_t_test_with_two_questions_more(values):
    first, second = values > 0, values < 0
    (own,) = differences(first[None, None], second[None, None])
    test = ttest_1samp([*values.tolist(), 1, -1], 0)
    low, high = test.confidence_interval(0.95)
    assert own.p_value == pytest.approx(test.pvalue)
    assert own.estimate.value == pytest.approx(values.mean())
    assert own.estimate.low == pytest.approx(max(-1, min(low, values.mean())), abs=1e-9)
    assert own.estimate.high == pytest.approx(min(1, max(high, values.mean())), abs=1e-9)


@some
@given(SHAPES, st.data())
def test_laws_of_a_difference(shape, data):
    first, second = (data.draw(arrays(bool, (1, *shape))) for _ in range(2))
    (forth,), (back,) = differences(first, second), differences(second, first)
    ends = [forth.estimate.value, forth.estimate.low, forth.estimate.high]
    others = [back.estimate.value, back.estimate.high, back.estimate.low]
    assert ends == pytest.approx([-end for end in others], abs=1e-12)
    assert forth.p_value == pytest.approx(back.p_value)
    assert -1 <= ends[1] <= ends[0] <= ends[2] <= 1
    excludes_0 = forth.estimate.low > 0 or forth.estimate.high < 0
    assert excludes_0 == (forth.p_value < 0.05)


def test_seeds_that_are_no_pairs():
    """Copies of a seed say what one says; seeds that differ make the interval wider."""
    draw = np.random.default_rng(0)
    first, second = draw.random((2, 1, 1, 30)) < 0.6
    (one,) = differences(first, second)
    (copies,) = differences(np.repeat(first, 2, axis=1), np.repeat(second, 3, axis=1))
    assert copies.estimate.low == pytest.approx(one.estimate.low)
    assert copies.p_value == pytest.approx(one.p_value)
    unlike = np.stack([first[0, 0], np.ones(30, dtype=bool)])[None]
    (same,) = differences(unlike.mean(axis=1, keepdims=True), second)
    (wider,) = differences(unlike, np.repeat(second, 3, axis=1))
    assert wider.estimate.value == pytest.approx(same.estimate.value)
    assert wider.estimate.high > same.estimate.high


@pytest.mark.parametrize("n_seeds", [1, 5])
def test_intervals_hold_the_truth(n_seeds):
    """In 2,000 draws of questions and seeds, in .93 to .98 of the cases, with 4 standard errors.

    A question is known with probability 0, .5 or 1, and a seed has .05 more or less.
    """
    draw, shape = np.random.default_rng(0), (2000, n_seeds, 200)
    known = draw.choice([0.1, 0.5, 0.9], (shape[0], 1, shape[2]))
    luck = draw.choice([-0.05, 0.05], (*shape[:2], 1)) if n_seeds > 1 else 0
    _, low, high = accuracy_intervals(draw.random(shape) < known + luck)
    coverage = ((low <= 0.5) & (high >= 0.5)).mean()
    assert 0.93 - 4 * 0.0057 < coverage < 0.98 + 4 * 0.0031
