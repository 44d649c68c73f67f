"""Tests, separation, calibration, examples and weights, with expected values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logsumexp

from likra.errors import LikraError
from likra.scores import comparison, resampling
from likra.scores.calibration import (
    Bin,
    _log_sum_exp,
    calibration,
    choice_probabilities,
    fit_temperature,
)
from likra.scores.comparison import paired, separation
from likra.scores.efficiency import example_efficiency, examples_to_reach
from likra.scores.resampling import (
    RESAMPLES,
    Estimate,
    estimate,
    resampled_dot,
    resampled_sums,
    with_resamples,
)
from likra.scores.table import Scores
from likra.scores.weights import choose_weight, split_validation

YES, NO = True, False


def scores_of(is_right: list[list[bool]], width: int | None = None) -> Scores:
    """Scores of no head; shorter rows are padded."""
    shape = (len(is_right), width or max(map(len, is_right)))
    exists, right = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for number, row in enumerate(is_right):
        exists[number, : len(row)] = True
        right[number, : len(row)] = row
    ids = tuple(f"q{number}" for number in range(len(is_right)))
    return Scores(ids, exists, right, np.ones(shape), {})


@st.composite
def ranked(draw: st.DrawFn) -> tuple[np.ndarray, Scores]:
    """Values, often equal, of up to 5 questions with at least one right and one wrong choice."""
    rows = st.lists(st.booleans(), min_size=2, max_size=5).filter(lambda row: len(set(row)) == 2)
    scores = scores_of(draw(st.lists(rows, min_size=1, max_size=5)))
    values = draw(arrays(np.float64, scores.exists.shape, elements=st.integers(-4, 4)))
    return values, scores


# Resampling


def test_resamples_draw_as_many_as_there_are():
    counts = with_resamples(7, 3)
    assert counts[0].tolist() == [1] * 7
    assert (counts.sum(axis=1) == 7).all()
    assert len(np.unique(counts[1:], axis=0)) > 500


def test_resamples_in_blocks_are_those_drawn_at_once(monkeypatch):
    values = np.random.default_rng(1).normal(size=300)
    drawn = np.random.default_rng(3).multinomial(300, [1 / 300] * 300, RESAMPLES)
    monkeypatch.setattr(resampling, "WHOLE", 1)
    counts = with_resamples(300, 3)
    assert np.array_equal(counts[1:], drawn)
    expected = [values.sum(), *(drawn @ values)]
    assert resampled_dot(counts, values) == pytest.approx(expected, abs=1e-11)
    is_right = values[None, None] > 0
    assert resampled_sums(is_right, 3)[1:, 0].tolist() == (drawn @ (values > 0)).tolist()


def test_an_estimate_is_the_first_row_between_percentiles():
    result = estimate(np.array([7.0, *range(1000)]))
    assert (result.value, result.low, result.high) == pytest.approx((7, 24.975, 974.025))


# Paired


def test_paired_by_hand():
    """Of 10 questions both answer 2, only the first 5, only the second 1, none 2."""
    first = np.array([1] * 7 + [0] * 3, dtype=bool)
    second = np.array([1] * 2 + [0] * 5 + [1] + [0] * 2, dtype=bool)
    result = paired(first, second)
    assert result.difference.value == pytest.approx(0.4)
    assert (result.first_better, result.second_better) == (5, 1)


def test_several_seeds_by_hand():
    """The differences of the four questions are 0.5, 0.5, 1 and 0."""
    first = np.array([[YES, NO], [YES, YES], [YES, YES], [NO, YES]])
    second = np.array([[NO, NO, NO, NO], [YES, NO, YES, NO], [NO] * 4, [YES, YES, NO, NO]])
    result = paired(first, second)
    assert result.difference.value == pytest.approx(0.5)
    assert (result.first_better, result.second_better) == (3, 0)


def test_seeds_that_agree_add_no_evidence():
    first, second = np.ones((8, 3), dtype=bool), np.zeros((8, 3), dtype=bool)
    assert paired(first, second) == paired(first[:, 0], second[:, 0])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones(3), np.ones(4), "different questions: 3 and 4"),
        (np.ones(0), np.ones(0), "shape \\(0,\\)"),
        (np.ones((1, 1, 1)), np.ones(1), "shape \\(1, 1, 1\\)"),
        (np.array([2.0, 1.0]), np.ones(2), "between 0 and 1"),
        (np.array([np.nan, 1.0]), np.ones(2), "between 0 and 1"),
    ],
)
def test_what_cannot_be_paired(first, second, message):
    with pytest.raises(LikraError, match=message):
        paired(first, second)


# Separation


def test_separation_by_hand():
    """q0: right 3, wrong 1 and 3; q1: right 0, wrong 2.

    All: 3 beats 1 and 2 and ties with 3, 0 beats none: 2.5 of 6. Within: q0 1.5 of 2, q1 0.
    Margin: 3 - 2 and 0 - 2. A quarter of the resamples holds only q0, a quarter only q1: their
    values are the ends.
    """
    values = np.array([[3.0, 1.0, 3.0], [0.0, 2.0, 9.0]])  # 9 is padding
    result = separation(values, scores_of([[YES, NO, NO], [YES, NO]]))
    assert result.auroc == Estimate(pytest.approx(2.5 / 6), 0.0, 0.75)
    assert result.within_auroc == Estimate(0.375, 0.0, 0.75)
    assert result.mean_margin == Estimate(-0.5, -2.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(ranked())
def test_separation_against_all_pairs(case):
    values, scores = case
    right, wrong = scores.is_right, scores.exists & ~scores.is_right

    def share(rights: np.ndarray, wrongs: np.ndarray) -> float:
        return np.mean([(r > w) + (r == w) / 2 for r in rights for w in wrongs])

    rows = zip(values, right, wrong, strict=True)
    within = [share(value[r], value[w]) for value, r, w in rows]
    result = separation(values, scores)
    assert result.auroc.value == pytest.approx(share(values[right], values[wrong]))
    assert result.within_auroc.value == pytest.approx(np.mean(within))
    assert 0 <= result.auroc.low <= result.auroc.high <= 1


@settings(max_examples=25, deadline=None)
@given(ranked())
def test_separation_is_of_ranks_and_turns_over_with_them(case):
    values, scores = case
    result, cubed, turned = (separation(v, scores) for v in (values, values**3, -values))
    assert (cubed.auroc, cubed.within_auroc) == (result.auroc, result.within_auroc)
    assert turned.auroc.value == pytest.approx(1 - result.auroc.value)
    assert turned.auroc.low == pytest.approx(1 - result.auroc.high)
    assert turned.mean_margin.value == pytest.approx(-result.mean_margin.value)


@pytest.mark.parametrize("row", [[YES, YES], [NO, NO]])
def test_a_question_that_cannot_be_ranked_is_named(row):
    scores = scores_of([[YES, NO], row])
    with pytest.raises(LikraError, match="'q1' has no right or no wrong choice"):
        separation(np.zeros((2, 2)), scores)


# Calibration


def test_choice_probabilities_by_hand():
    """e^0 : e^ln 2 = 1 : 2, at temperature 2 as 1 : sqrt 2; 1000 overflows nothing."""
    scores = scores_of([[YES, NO], [YES, NO, NO]])
    ratio = np.array([[0.0, math.log(2), 99.0], [1000.0, 1000.0, 1000.0 + math.log(2)]])
    probabilities = choice_probabilities(ratio, scores)
    assert probabilities == pytest.approx(np.array([[1 / 3, 2 / 3, 0], [1 / 4, 1 / 4, 1 / 2]]))
    assert choice_probabilities(ratio, scores, 2.0)[0, 1] == pytest.approx(2**0.5 / (1 + 2**0.5))


@settings(deadline=None)
@given(ranked(), st.floats(0.1, 10), st.floats(-100, 100))
def test_probabilities_add_up_and_a_shift_changes_nothing(case, temperature, shift):
    ratio, scores = case
    result = choice_probabilities(ratio, scores, temperature)
    assert result.sum(axis=1) == pytest.approx(np.ones(len(ratio)))
    assert (result[~scores.exists] == 0).all()
    assert choice_probabilities(ratio + shift, scores, temperature) == pytest.approx(result)


def test_calibration_by_hand():
    """(0.5, 0.6] holds 0.55, right, and 0.6, wrong: |0.5 - 0.575|. (0.9, 1] holds 0.95 and 1,
    both right: |1 - 0.975|. Halves of 0.075 and of 0.025."""
    result = calibration(np.array([0.55, 0.95, 0.6, 1.0]), np.array([YES, YES, NO, YES]))
    assert result.ece == pytest.approx(0.05)
    assert result.bins == (
        Bin(0.5, 0.6, 2, pytest.approx(0.575), 0.5),
        Bin(0.9, 1.0, 2, pytest.approx(0.975), 1.0),
    )


def test_the_ends_belong_to_the_first_and_the_last_bin():
    result = calibration(np.array([0.0, 1.0]), np.array([NO, NO]), bins=4)
    assert [(b.low, b.high) for b in result.bins] == [(0.0, 0.25), (0.75, 1.0)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 30)
)
def test_bins_hold_every_prediction_once(pairs, bins):
    probability, correct = (np.array(column) for column in zip(*pairs, strict=True))
    result = calibration(probability, correct, bins)
    assert sum(b.count for b in result.bins) == len(pairs)
    assert 0 <= result.ece <= 1
    for b in result.bins:
        inside = (probability > b.low) & (probability <= b.high)
        assert b.count == inside.sum() + (b.low == 0) * (probability == 0).sum()
        assert b.low - 1e-12 <= b.confidence <= b.high + 1e-12
    # by the triangle inequality; equal in a single bin
    gap = abs(probability.mean() - correct.mean())
    assert result.ece >= gap - 1e-12
    assert calibration(probability, correct, 1).ece == pytest.approx(gap)


@pytest.mark.parametrize(
    ("probability", "bins", "message"),
    [
        ([0.5], 10, "1 probabilities for 2"),
        ([0.5, 0.5], 0, "at least 1"),
        ([0.5, 1.5], 10, "0 and 1"),
    ],
)
def test_what_cannot_be_binned(probability, bins, message):
    with pytest.raises(LikraError, match=message):
        calibration(np.array(probability), np.array([YES, NO]), bins)


def test_a_temperature_by_hand():
    """The right choice is 1 nat ahead in 3 questions of 4, else behind. The best probability for
    it is then 3/4 when it is ahead, odds of 3: 1 / T = ln 3. Padding says nothing."""
    ratio = np.array([[1.0, 0.0, 50.0]] * 3 + [[0.0, 1.0, 50.0]])
    scores = scores_of([[YES, NO]] * 4, width=3)
    assert fit_temperature(ratio, scores) == pytest.approx(1 / math.log(3), rel=1e-4)


def test_a_temperature_with_several_right_choices_by_hand():
    """9 questions with two right choices at 1 and a wrong one at 0, and one the other way round:
    the odds of the two at 1 are 2 e^(1/T), best 9 to 1: 1 / T = ln 4.5."""
    ratio = np.array([[1.0, 1.0, 0.0]] * 10)
    scores = scores_of([[YES, YES, NO]] * 9 + [[NO, NO, YES]])
    assert fit_temperature(ratio, scores) == pytest.approx(1 / math.log(4.5), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 20), st.integers(6, 9))
def test_a_temperature_grows_with_the_ratios(factor, n_right):
    ahead = np.arange(10) < n_right
    ratio = factor * np.stack([ahead, ~ahead], axis=1).astype(float)
    expected = factor / math.log(n_right / (10 - n_right))
    assert fit_temperature(ratio, scores_of([[YES, NO]] * 10)) == pytest.approx(expected, rel=1e-4)


def test_temperatures_without_a_best_one_stay_within_bounds():
    scores = scores_of([[YES, NO]] * 3)
    ahead = np.array([[1.0, 0.0]] * 3)
    assert 1e-3 <= fit_temperature(ahead, scores) < 0.1
    assert fit_temperature(-ahead, scores) == pytest.approx(1e3)
    assert fit_temperature(0 * ahead, scores) == 1.0
    assert fit_temperature(1e6 * ahead, scores) == 1.0


def test_a_temperature_needs_right_choices():
    with pytest.raises(LikraError, match="'q0' has no right choice"):
        fit_temperature(np.zeros((1, 2)), scores_of([[NO, NO]]))


# Examples

N = [0, 8, 32, 128]
ACCURACY = [0.4, 0.5, 0.7, 0.6]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0.3, 0),  # the base is there already
        (0.4, 0),
        (0.45, 4),  # half of the way from 0 to 8, linear in n
        (0.5, 8),
        (0.6, 16),  # half of the way from 2^3 to 2^5; and not 128, where it is there again
        (0.65, 2**4.5),  # three quarters of it
        (0.7, 32),
        (0.71, math.inf),
    ],
)
def test_examples_by_hand(target, expected):
    assert examples_to_reach(N, ACCURACY, target) == pytest.approx(expected)


def test_a_curve_without_the_base_begins_at_its_first_snapshot():
    assert examples_to_reach([8, 32], [0.5, 0.7], 0.4) == 8
    assert examples_to_reach([8], [0.5], 0.6) == math.inf


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 20), min_size=2, max_size=8),
    st.integers(0, 20),
    st.integers(1, 9),
)
def test_the_curve_read_at_the_answer_gives_the_target(accuracy, target, first):
    n = [0, *(first * 2**i for i in range(len(accuracy) - 1))]
    result = examples_to_reach(n, accuracy, target)
    if target > max(accuracy):
        assert result == math.inf
        return
    assert result <= examples_to_reach(n, accuracy, max(accuracy))
    # by numpy: with n for the first segment and log2 for the others
    place = result / first if result < first else 1 + math.log2(result / first)
    read = np.interp(place, range(len(n)), accuracy)
    assert read == pytest.approx(max(target, accuracy[0]))
    before = np.interp(np.linspace(0, place, 50, endpoint=False), range(len(n)), accuracy)
    assert result == 0 or (before < target).all()


@pytest.mark.parametrize(
    ("n", "accuracy", "message"),
    [
        ([8, 8], [0.1, 0.2], "must ascend"),
        ([-1, 8], [0.1, 0.2], "must ascend"),
        ([], [], "must ascend"),
        ([8], [0.1, 0.2], "1 numbers of examples for 2"),
    ],
)
def test_what_is_no_curve(n, accuracy, message):
    with pytest.raises(LikraError, match=message):
        examples_to_reach(n, accuracy, 0.5)


# Worth


def answers(*counts: int, of: int = 4) -> np.ndarray:
    """[snapshots, 1 seed, questions]: the first so many questions are answered."""
    return np.arange(of)[None, None, :] < np.array(counts)[:, None, None]


def test_example_efficiency_by_hand():
    """SFT answers 0, 1, 3 of 4 after 0, 4, 16 examples. 2 of 4 are half of the way from 4 to 16
    in log2, at 8: one example does as much as 8 / 4; after 16, as 8 / 16. 4 of 4 it
    never reaches: more than 16 / 16. What the base can do already takes 0."""
    positive = answers(0, 1, 3)
    first, second = example_efficiency([0, 4, 16], positive, answers(0, 2, 2))
    assert (first.n, first.accuracy, first.is_bound) == (4, 0.5, False)
    assert first.k.value == pytest.approx(2)
    assert (second.n, second.k.value) == (16, pytest.approx(0.5))
    none, bound = example_efficiency([0, 4, 16], positive, answers(0, 0, 4))
    assert (none.k.value, none.is_bound, none.bound_share) == (0, False, 0)
    assert (bound.k.value, bound.is_bound) == (1, True)


def test_an_interval_of_questions_by_hand():
    """Question a is answered by SFT after 4, question b never; the other mode answers both
    after 4. A quarter of the resamples is a alone: 4 / 4. All others are bounds: 16 / 4."""
    positive = np.array([[[NO, NO]], [[YES, NO]], [[YES, NO]]])
    other = np.array([[[NO, NO]], [[YES, YES]], [[YES, YES]]])
    result = example_efficiency([0, 4, 16], positive, other)[0]
    assert (result.k, result.is_bound) == (Estimate(4, 1, 4), True)
    assert result.bound_share == pytest.approx(0.75, abs=0.06)  # 4 standard errors


def test_an_interval_of_seeds_by_hand():
    """The same with seeds in the place of questions, of which there are two of a kind."""
    positive = np.array([[[NO], [NO]], [[YES], [NO]], [[YES], [NO]]]).repeat(2, axis=2)
    other = np.array([[[NO], [NO]], [[YES], [YES]], [[YES], [YES]]]).repeat(2, axis=2)
    result = example_efficiency([0, 4, 16], positive, other)[0]
    assert (result.k, result.is_bound) == (Estimate(4, 1, 4), True)
    assert result.bound_share == pytest.approx(0.75, abs=0.06)


def test_a_resample_that_reaches_counts_though_the_whole_does_not():
    """The other way round: SFT reaches it on the whole (10 of 11 at 16, as the other mode at 4),
    and not in the resamples in which the question that only the other mode answers weighs more
    than the one that only SFT does."""
    positive = answers(0, 0, 10, of=11)
    other = np.roll(answers(0, 10, 10, of=11), 1, axis=2)
    result = example_efficiency([0, 4, 16], positive, other)[0]
    assert (result.k.value, result.is_bound, result.k.high) == (4, False, 4)
    # two Poisson counts of mean 1: one is larger with chance (1 - e^-2 I0(2)) / 2 = 0.346
    assert result.bound_share == pytest.approx(0.346, abs=0.06)


@settings(max_examples=25, deadline=None)
@given(arrays(bool, st.tuples(st.just(4), st.integers(1, 3), st.integers(3, 6))))
def test_an_example_of_sft_is_worth_no_more_than_one_of_sft(correct):
    """In every resample the curves are the same, to the last bit, so that none is a bound."""
    for result in example_efficiency([0, 4, 8, 32], correct, correct):
        assert result.k.high <= 1
        assert not result.is_bound
        assert result.bound_share == 0


@settings(max_examples=25, deadline=None)
@given(
    arrays(bool, st.tuples(st.just(2), st.just(3), st.integers(1, 3), st.integers(3, 6))),
    st.integers(0, 3),
)
def test_example_efficiency_stays_below_its_bound_and_follows_its_seed(correct, seed):
    result = example_efficiency([0, 4, 16], *correct, seed)
    assert result == example_efficiency([0, 4, 16], *correct, seed)
    for at in result:
        bound = 16 / at.n
        assert 0 <= at.k.low <= at.k.high <= bound
        assert at.k.value == bound or not at.is_bound
        assert at.k.high == bound or at.bound_share <= 0.025
        assert at.k.low == bound or at.bound_share <= 0.975


@pytest.mark.parametrize(
    ("n", "shape", "message"),
    [
        ([4, 16], (2, 1, 4), "begin with the base"),
        ([0], (1, 1, 4), "begin with the base"),
        ([0, 4, 4], (3, 1, 4), "must ascend"),
        ([0, 4], (3, 1, 4), "2 snapshots, seeds, questions"),
        ([0, 4, 16], (3, 4), "3 snapshots, seeds, questions"),
        ([0, 4, 16], (3, 9, 2), "3 snapshots, seeds, questions"),
    ],
)
def test_what_has_no_worth(n, shape, message):
    with pytest.raises(LikraError, match=message):
        example_efficiency(n, np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool))


# Weights


@pytest.mark.parametrize(
    ("weights", "accuracy", "expected"),
    [
        ([0.0, 0.5, 1.0], [0.1, 0.3, 0.2], 0.5),
        ([0.0, 0.5, 0.9], [0.2, 0.2, 0.2], 0.9),  # nearest to 1
        ([1.1, 0.9], [0.2, 0.2], 0.9),  # as near: the smaller
        ([0.5, 1.0], [0.1 + 0.2, 0.3], 1.0),  # equal but for rounding
    ],
)
def test_the_chosen_weight(weights, accuracy, expected):
    assert choose_weight(weights, accuracy) == expected
    assert choose_weight(weights[::-1], accuracy[::-1]) == expected


def test_no_weight_to_choose():
    with pytest.raises(LikraError, match="0 weights for 0"):
        choose_weight([], [])
    with pytest.raises(LikraError, match="not a finite number"):
        choose_weight([1.0], [math.nan])


IDS = [f"question-{number}" for number in range(2000)]


@settings(deadline=None)
@given(st.permutations(IDS[:60]), st.integers(30, 60), st.integers(0, 5))
def test_a_questions_side_depends_on_its_id_alone(ids, size, seed):
    side = dict(zip(IDS, split_validation(IDS, 0.5, seed).tolist(), strict=True))
    assert split_validation(ids[:size], 0.5, seed).tolist() == [side[name] for name in ids[:size]]


def test_the_fraction_is_met_about_and_seeds_divide_otherwise():
    """Standard error of the share: sqrt(0.25 * 0.75 / 2000), 0.01."""
    one, two = split_validation(IDS, 0.25, 0), split_validation(IDS, 0.25, 1)
    assert one.mean() == pytest.approx(0.25, abs=0.04)
    assert (one & two).mean() == pytest.approx(0.25**2, abs=0.03)
    assert (split_validation(IDS, 0.5, 0) >= one).all()  # a larger part holds the smaller


@pytest.mark.parametrize("fraction", [0.0, 1.0, math.nan])
def test_a_fraction_that_leaves_nothing(fraction):
    with pytest.raises(LikraError, match="between 0 and 1"):
        split_validation(IDS, fraction)


def test_too_few_questions_to_divide():
    for ids in (["one"], []):
        with pytest.raises(LikraError, match="too few questions"):
            split_validation(ids)


@given(
    arrays(np.float64, (3, 4), elements=st.sampled_from([-np.inf, -800.0, -1.5, 0.0, 1e-9, 700]))
)
def test_log_sum_exp_is_scipys(values):
    values[:, 0] = 0.25  # a choice in each row
    assert _log_sum_exp(values).tolist() == logsumexp(values, axis=1).tolist()


def test_an_interval_does_not_depend_on_how_the_resamples_are_divided(monkeypatch):
    draw = np.random.default_rng(0)
    scores = scores_of([[YES, NO, NO]] * 6)
    values = draw.normal(size=(6, 3))
    whole = separation(values, scores)
    monkeypatch.setattr(comparison, "LARGEST", 100)
    assert separation(values, scores) == whole
