"""Verdicts: their laws, Holm's correction, and the table of a run."""

import csv
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from likra.cli.studies import verdict
from likra.errors import LikraError
from likra.report.results import run_study
from likra.report.verdicts import (
    Compared,
    RunVerdicts,
    as_csv,
    as_markdown,
    read_sampler_verdicts,
    read_verdicts,
    run_verdicts,
    write_verdicts,
)
from likra.scores.resampling import RESAMPLES, Estimate, resampled_sums, with_resamples
from likra.scores.verdict import Verdict, holm, verdicts
from likra.study.config import parse_study
from likra.study.folder import Run
from likra.study.pack import pack_run

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(4, 12))
DIFFERENCES = SHAPES.flatmap(lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 1)))


some = settings(max_examples=25)


# --------------------------------------------------------------------------------------------
# Laws


@some
@given(SHAPES)
def test_a_mode_ties_with_itself(shape):
    for own in verdicts(np.zeros(shape)):
        assert own.outcome == "ties"
        assert own.difference.value == 0
        assert own.difference.high == -own.difference.low > 0
        assert (own.p_value, own.adjusted, own.holds) == (1, 1, False)


@some
@given(DIFFERENCES)
def test_swapping_the_sides_turns_wins_into_losses(differences):
    swapped = {"wins": "loses", "loses": "wins", "ties": "ties"}
    for one, two in zip(verdicts(differences), verdicts(-differences), strict=True):
        ends = (one.difference.value, one.difference.low, one.difference.high)
        others = (two.difference.value, two.difference.high, two.difference.low)
        assert ends == pytest.approx([-value for value in others], abs=1e-12)
        assert (one.p_value, one.adjusted) == pytest.approx((two.p_value, two.adjusted))
        assert two.outcome == swapped[one.outcome]


@some
@given(DIFFERENCES)
def test_the_value_is_the_mean_and_lies_in_the_interval_that_p_agrees_with(differences):
    for own, values in zip(verdicts(differences), differences, strict=True):
        assert own.difference.value == pytest.approx(values.mean())
        assert own.p_value <= own.adjusted <= 1
        assert own.difference.low <= own.difference.high
        assert (own.outcome == "ties") == (own.p_value > 0.05)


def test_seeds_that_disagree_widen_the_interval():
    """All questions alike, the seeds not: two seeds say next to nothing."""
    differences = np.zeros((1, 2, 10))
    differences[:, 0] = 1
    (own,) = verdicts(differences)
    assert own.outcome == "ties"
    assert own.difference.high == 1


def test_a_mode_that_is_always_better_wins():
    first, second = verdicts(np.stack([np.ones((2, 9)), np.zeros((2, 9))]))
    assert (first.outcome, second.outcome) == ("wins", "ties")
    assert first.adjusted == pytest.approx(2 * first.p_value)
    assert first.holds


def test_resampled_sums_of_all_seeds_alike():
    """Row by row: sums of the drawn questions, over the drawn seeds."""
    values = np.arange(24).reshape(2, 3, 4)
    sums = resampled_sums(values, 5)
    questions, seeds = with_resamples(4, 5), with_resamples(3, (5, 1))
    for row in (0, 1, RESAMPLES):
        weights = seeds[row][:, None] * questions[row][None, :]
        assert sums[row].tolist() == [(own * weights).sum() for own in values]


@pytest.mark.parametrize(
    ("shape", "value", "words"),
    [((2, 5, 3), 0, "shape"), ((3, 5), 0, "shape"), ((1, 1, 3), 2, "between -1 and 1")],
)
def test_bad_arrays_are_refused(shape, value, words):
    with pytest.raises(LikraError, match=words):
        verdicts(np.full(shape, value))


def test_holm_by_hand():
    # .01 x 4, .02 x 3, .03 x 2 = .06 as well, .5 x 1
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.2]) == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.randoms())
def test_holm_keeps_the_order_and_never_lowers(p_values, random):
    adjusted = holm(p_values)
    assert all(p <= own <= 1 for p, own in zip(p_values, adjusted, strict=True))
    for (p, own), (q, other) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert own <= other if p < q else own >= other or p == q
    places = list(range(len(p_values)))
    random.shuffle(places)
    assert holm([p_values[i] for i in places]) == [adjusted[i] for i in places]


# --------------------------------------------------------------------------------------------
# Runs

SMALL = {
    "name": "small",
    "seeds": [0, 1],
    "snapshots": [8, 64],
    "negatives": ["random_choice"],
    "weights": [0.5],
    "modes": ["base", "sft", "likra", "base-likra", "pmi"],
    "figures": ["learning_curve"],
    "metric": "acc",
    "training": {"learning_rate": 1e-3, "batch_size": 8},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return run_study(parse_study(SMALL), folder, lambda _: None)


def test_differences_are_those_of_the_curves(finished):
    """Of the weight 0.5, too, which is not the run's own."""
    run, points = finished
    means = points[points.seed == "all"]

    def accuracy(mode, n, weight, metric):
        trained, weighted = mode not in {"base", "pmi"}, mode not in {"base", "sft"}
        rows = means[(means["mode"] == mode) & (means.metric == metric)]
        rows = rows[rows.n_train == (n if trained else 0)]
        return rows[rows.weight == (weight if weighted else 0.0)].value.item()

    for weight, metric in ((1.0, "acc"), (0.5, "acc_norm")):
        (own,) = read_verdicts([run.folder], "likra", (), {"weight": weight, "metric": metric})
        assert [(row.other, row.n) for row in own.rows] == [
            (mode, n) for mode in ("base-likra", "sft", "pmi", "base") for n in (8, 64)
        ]
        for row in own.rows:
            expected = accuracy("likra", row.n, weight, metric) - accuracy(
                row.other, row.n, weight, metric
            )
            assert row.verdict.difference.value == pytest.approx(expected)


def test_what_is_not_trained_is_compared_once(finished):
    run, _ = finished
    (own,) = read_verdicts([run.folder], "pmi", ["base"])
    assert [(row.other, row.n) for row in own.rows] == [("base", 0)]
    assert own.numbers == [0]
    (swapped,) = read_verdicts([run.folder], "base", ["pmi", "sft"])
    assert [(row.other, row.n) for row in swapped.rows] == [("pmi", 0), ("sft", 8), ("sft", 64)]
    grid = swapped.grid()
    assert [len(row) for row in grid] == [4, 4]  # a name, and n = 0, 8, 64
    assert grid[0][2:] == ["", ""]


@pytest.fixture(scope="module")
def two_samplers(tmp_path_factory):
    study = parse_study(SMALL | {"negatives": ["random_choice", "other_question"]})
    return run_study(study, tmp_path_factory.mktemp("runs") / "two", lambda _: None)


def test_several_samplers_are_several_rows(two_samplers):
    run, _ = two_samplers
    study, own = run.study, run_verdicts(run, "two", "sft")
    assert {(row.other, row.source) for row in own.rows} == {
        ("base", ""),
        ("pmi", ""),
        *itertools.product(("likra", "base-likra"), study.negatives),
    }
    (labels,) = ({row[0] for row in own.grid()},)
    assert {"base", "likra (random_choice)", "likra (other_question)"} < labels


def test_a_mode_under_two_samplers(two_samplers):
    """The first sampler against the other: the difference of the curves."""
    run, points = two_samplers
    (own,) = read_sampler_verdicts([run.folder], "base-likra", {"metric": "acc_norm"})
    means = points[
        (points["mode"] == "base-likra")
        & (points.seed == "all")
        & (points.metric == "acc_norm")
        & (points.weight == 1.0)
    ].set_index(["source", "n_train"])
    assert [(row.source, row.n) for row in own.rows] == [("other_question", n) for n in (8, 64)]
    for row in own.rows:
        first, second = (means.value[source, row.n] for source in run.study.negatives)
        assert row.verdict.difference.value == pytest.approx(first - second)
    assert own.judged == "base-likra (random_choice)"
    ((label, *_),) = own.grid()
    assert label == "base-likra (other_question)"
    rows = list(csv.DictReader(as_csv([own]).splitlines()))
    assert {(row["mode"], row["source"]) for row in rows} == {(own.judged, "other_question")}


@pytest.mark.parametrize(("mode", "words"), [("likra", "one sampler"), ("sft", "no sampler")])
def test_samplers_that_are_not_there_are_not_compared(finished, mode, words):
    with pytest.raises(LikraError, match=f"'{mode}' has {words} of negatives"):
        read_sampler_verdicts([finished[0].folder], mode)


def test_a_method_that_has_the_first_sampler_alone_is_compared_there(tmp_path):
    study = parse_study(
        SMALL
        | {
            "negatives": ["random_choice", "other_question"],
            "modes": ["base", "likra", "dpo-reward"],
            "figures": ["sources"],
        }
    )
    run, _ = run_study(study, tmp_path / "two", lambda _: None)
    own = run_verdicts(run, "two", "likra")
    places = {(row.other, row.source) for row in own.rows}
    assert ("dpo-reward", "random_choice") in places
    assert ("dpo-reward", "other_question") not in places


def test_questions_that_chose_the_weight_are_left_out(finished):
    run, _ = finished
    study = parse_study(SMALL | {"validation_fraction": 0.5})
    own = run_verdicts(Run(study, run.folder), "half", "likra")
    assert 40 < own.n_questions < 88


def test_a_packed_run_has_the_same_verdicts(finished, tmp_path):
    run, _ = finished
    pack_run(run.folder, tmp_path / "kept")
    one, two = (read_verdicts([folder], "likra") for folder in (run.folder, tmp_path / "kept"))
    assert one[0].rows == two[0].rows


def test_names_are_no_formulas_and_no_tags():
    found = Verdict(Estimate(0.1, 0.0, 0.2), p_value=0.5, adjusted=0.5)
    study = parse_study({"name": "hostile", "task": "=1+1"})
    run = RunVerdicts("@SUM(A1)<b>", study, "likra", "", 10, [Compared("sft", "+file", 8, found)])
    (row,) = csv.DictReader(as_csv([run]).splitlines())
    assert (row["run"], row["task"], row["source"]) == ("'@SUM(A1)<b>", "'=1+1", "'+file")
    assert "<" not in as_markdown([run])


def test_the_files_hold_every_comparison(finished, tmp_path):
    run, _ = finished
    runs = read_verdicts([run.folder], "likra")
    for name in ("verdicts.csv", "verdicts.md"):
        write_verdicts(runs, tmp_path / name)
    with (tmp_path / "verdicts.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["against"], int(row["n"])) for row in rows] == [
        (row.other, row.n) for row in runs[0].rows
    ]
    for row, own in zip(rows, runs[0].rows, strict=True):
        estimates = [float(row[name]) for name in ("difference", "low", "high")]
        value = own.verdict.difference
        assert estimates == pytest.approx([value.value, value.low, value.high], abs=1e-4)
        assert (row["verdict"], row["holds"] == "yes") == (own.verdict.outcome, own.verdict.holds)
        assert float(row["p"]) <= float(row["p_holm"])
    text = (tmp_path / "verdicts.md").read_text(encoding="utf-8")
    assert text.count("\n| ") == 2 + 4 + 2 + 8  # two tables with head and rule
    assert runs[0].summary() in text
    with pytest.raises(LikraError, match="a .md or .csv file, not to"):
        write_verdicts(runs, tmp_path / "verdicts.txt")


@pytest.mark.parametrize(
    ("mode", "against", "words"),
    [
        ("likra", ["likra"], "with other modes only, not with itself"),
        ("likr", [], "did you mean 'likra'"),
        ("likra", ["stf"], "did you mean 'sft'"),
        ("likra", ["dpo"], "has no scores of dpo"),
    ],
)
def test_what_cannot_be_compared_is_one_line(finished, mode, against, words):
    with pytest.raises(LikraError, match=words):
        read_verdicts([finished[0].folder], mode, against)


def test_a_run_with_one_mode_has_nothing_to_compare(finished):
    run, _ = finished
    alone = parse_study(SMALL | {"modes": ["likra"]})
    with pytest.raises(LikraError, match="compare 'likra' with"):
        run_verdicts(Run(alone, run.folder), "alone", "likra")


def test_the_command_counts_wins_ties_and_losses(finished, tmp_path, capsys):
    run, _ = finished
    pack_run(run.folder, tmp_path / "kept")
    verdict([run.folder, tmp_path / "kept"], against="sft, base", output=tmp_path / "v.csv")
    out = capsys.readouterr().out
    (own,) = read_verdicts([run.folder], "likra", ["sft", "base"])
    assert out.count(own.summary().partition(": ")[2]) == 2
    wins = sum(row.verdict.outcome == "wins" for row in own.rows)
    assert f"all 2 runs: likra wins {2 * wins}, " in out
    assert " of 8 comparisons" in out
    assert "n = 64" in out
    assert f"table  {tmp_path / 'v.csv'}" in out


def test_the_command_compares_samplers(two_samplers, capsys):
    run, _ = two_samplers
    verdict([run.folder], samplers=True)
    assert "likra (random_choice) wins" in capsys.readouterr().out
    with pytest.raises(LikraError, match="leave out --against"):
        verdict([run.folder], samplers=True, against="sft")
