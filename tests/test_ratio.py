"""Ratios, accuracies and intervals, with expected values worked out by hand."""

import numpy as np
import pytest

from likra.errors import LikraError
from likra.scores.curves import curve
from likra.scores.ratio import MODES, PAPER_MODES, Mode, is_correct, likelihood_ratio
from likra.scores.table import BASE, BASELINES, PRIOR, HeadKey, Scores

P = HeadKey("positive", 8, 0)
N = HeadKey("negative", 8, 0, "random_choice")


def two_questions() -> Scores:
    """Three choices (the first is right) and two choices (the second is right).

    |            | q0: right, w, w        | q1: wrong, right |
    | base       | -4, -2, -9             | -1, -3           |
    | positive   | -3, -2, -9             | -1, -2           |
    | negative   | -6, -1, -9             | -1, -6           |
    | characters | 1, 4, 9                | 1, 2             |
    """
    return Scores(
        ("q0", "q1"),
        exists=np.array([[True, True, True], [True, True, False]]),
        is_right=np.array([[True, False, False], [False, True, False]]),
        n_chars=np.array([[1.0, 4.0, 9.0], [1.0, 2.0, 1.0]]),
        logprob={
            BASE: np.array([[-4.0, -2.0, -9.0], [-1.0, -3.0, 0.0]]),
            P: np.array([[-3.0, -2.0, -9.0], [-1.0, -2.0, 0.0]]),
            N: np.array([[-6.0, -1.0, -9.0], [-1.0, -6.0, 0.0]]),
        },
    )


def test_the_ratio_is_the_papers_formula():
    assert likelihood_ratio(np.array([-3.0]), np.array([-6.0]), 0.5) == 0.0


def accuracy(mode: str, metric: str, weight: float = 1.0) -> float:
    rows = curve(two_questions(), "t", [mode], [weight])
    chosen = [r for r in rows if r["metric"] == metric and r["seed"] != "all"]
    assert len(chosen) == 1
    return chosen[0]["value"]


@pytest.mark.parametrize(
    ("mode", "metric", "expected"),
    [
        ("base", "acc", 0.0),  # q0: -2 wins; q1: -1 wins
        ("base", "acc_norm", 0.0),  # q0: -4, -.5, -1; q1: -1, -1.5
        ("sft", "acc", 0.0),  # q0: -2 wins; q1: -1 wins
        ("sft", "acc_norm", 0.0),  # q0: -3, -.5, -1; q1: -1 and -1, and the first wins
        ("likra", "acc", 1.0),  # q0: 3, -1, 0; q1: 0, 4
        ("likra", "acc_norm", 1.0),  # q0: 3, -.25, 0; q1: 0, 2
        ("base-likra", "acc", 1.0),  # q0: 2, -1, 0; q1: 0, 3
        ("positive-base", "acc", 1.0),  # q0: 1, 0, 0; q1: 0, 1
    ],
)
def test_modes_by_hand(mode, metric, expected):
    assert accuracy(mode, metric) == expected


def test_a_weight_by_hand():
    """w = 0.25: q0 gives -1.5, -1.75, -6.75 (right), q1 -0.75, -0.5 (right); w = 0.1 gives
    -2.4, -1.9, -8.1 (wrong) and -0.9, -1.4 (wrong)."""
    assert accuracy("likra", "acc", 0.25) == 1.0
    assert accuracy("likra", "acc", 0.1) == 0.0


def test_likra_with_weight_zero_is_sft_and_with_the_base_as_head_is_positive_base():
    for metric in ("acc", "acc_norm"):
        assert accuracy("likra", metric, 0.0) == accuracy("sft", metric)


def test_a_tie_goes_to_the_first_choice_as_in_the_harness():
    scores = two_questions()
    flat = np.zeros_like(scores.logprob[BASE])
    assert is_correct(flat, scores, "acc").tolist() == [True, False]


def test_padding_never_wins():
    scores = two_questions()
    low = np.array([[-5.0, -6.0, -7.0], [-9.0, -8.0, 0.0]])
    assert is_correct(low, scores, "acc").tolist() == [True, True]


def test_heads_of_other_seeds_and_numbers_are_never_combined():
    scores = two_questions()
    stray = HeadKey("negative", 16, 0, "random_choice"), HeadKey("negative", 8, 1, "random_choice")
    scores.logprob.update(dict.fromkeys(stray, scores.logprob[N]))
    rows = curve(scores, "t", ["likra"], [1.0])
    assert {(r["n_train"], r["seed"]) for r in rows} == {(8, "0"), (8, "all")}


def test_a_curve_has_each_seed_and_their_mean():
    scores = two_questions()
    rows = curve(scores, "t", ["base", "likra"], [1.0])
    accuracy = {(r["mode"], r["seed"], r["metric"]): r["value"] for r in rows}
    assert set(accuracy) == {
        (mode, seed, metric)
        for mode, own in (("base", ""), ("likra", "0"))
        for seed in (own, "all")
        for metric in ("acc", "acc_norm")
    }
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] for r in rows)


def test_an_unknown_mode_is_named_with_the_nearest():
    with pytest.raises(LikraError, match="unknown mode 'lykra': did you mean 'likra'?"):
        curve(two_questions(), "t", ["lykra"], [1.0])


def test_every_mode_is_the_same_formula():
    for name in PAPER_MODES:
        assert MODES[name].positive in {"base", "positive"}
        assert MODES[name].negative in {"base", "negative"}
    for name in BASELINES:  # a policy, and its implicit reward
        if name == "bradley-terry":  # what it trains is the reward
            assert MODES[name] == Mode(name, "base", weighted=True)
            continue
        assert MODES[name] == Mode(name, "base", weighted=False)
        if name not in {"trl-sft", "classifier"}:
            assert MODES[f"{name}-reward"] == Mode(name, "base", weighted=True)
    assert not {"bradley-terry-reward", "classifier-reward", "trl-sft-reward"} & set(MODES)
    assert MODES["pmi"] == Mode("base", "prior", weighted=True)


def test_pmi_and_rewards_are_differences_of_log_likelihoods():
    """Two choices, the first right. Base: -4, -1; without the question: -6, -2; DPO: -3, -1."""
    dpo = HeadKey("dpo", 8, 0, "random_choice")
    scored = {BASE: [-4.0, -1.0], PRIOR: [-6.0, -2.0], dpo: [-3.0, -1.0]}
    scores = Scores(
        ("q",),
        np.ones((1, 2), bool),
        np.array([[True, False]]),
        np.ones((1, 2)),
        {key: np.array([values]) for key, values in scored.items()},
    )
    points = curve(scores, "t", ["base", "pmi", "dpo", "dpo-reward"], [1.0])
    accuracy = {
        p["mode"]: p["value"] for p in points if p["metric"] == "acc" and p["seed"] != "all"
    }
    # pmi: 2 > 1; dpo as a model: -3 < -1; its reward: 1 > 0
    assert accuracy == {"base": 0.0, "pmi": 1.0, "dpo": 0.0, "dpo-reward": 1.0}
