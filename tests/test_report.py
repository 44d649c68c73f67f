"""The report, the figures and the comparison of runs, on score tables made up here."""

import copy
import csv
import io
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.errors import LikraError
from likra.report.analysis import report_data
from likra.report.compare import write_comparison
from likra.report.figures import densities, learning_curve, sources_curve
from likra.report.grid import write_grid
from likra.report.groups import MOST, REFERENCES, mode_groups
from likra.report.html import accuracy_rows, payload
from likra.report.modes import ModeScores
from likra.report.paper import opening
from likra.report.results import write_results
from likra.report.sentences import (
    accuracies,
    best_snapshot,
    factor,
    findings,
    headline,
    in_short,
    p_value,
    signed,
)
from likra.report.style import STYLES, mode_style, source_text
from likra.report.tables import as_csv, as_latex, as_markdown
from likra.scores.curves import curve
from likra.scores.table import Scores, choice_table, score_table, write_scores
from likra.scores.weights import split_validation
from likra.study.config import parse_study
from likra.study.folder import Record, Run, read_run, write_record
from likra.study.tables import read_run_scores, score_keys

SETTINGS = {
    "name": "made-up",
    "task": "pocket",
    "seeds": [0, 1],
    "snapshots": [8, 32],
    "negatives": ["random_choice", "0.5*random_choice+0.5*other_question"],
    "weights": [0.5, 1.0],
    "metric": "acc",
}
RISE = {"positive": 0.4, "negative": -0.5, "dpo": 0.8}


def made_up(folder: Path, n_questions: int = 40, seed: int = 0, name: str = "q", **changes) -> Run:
    """A finished run with invented scores: the more examples, the better the heads."""
    study = parse_study(SETTINGS | changes)
    generator = np.random.default_rng(seed)
    words = ["one & <b>only</b>", "two", "three_3", "four | 4"]
    questions = [
        question(
            f"{name}{i}", words[i % 4], [w for w in words if w != words[i % 4]], f"Number {i}?"
        )
        for i in range(n_questions)
    ]
    base = generator.normal(-6, 2, (n_questions, 4))
    run = Run(study, folder)
    about = {
        "study": study.model_dump(mode="json"),
        "versions": {"likra": "0.1.0"},
        "layout": "forest",
        "layout_reason": "as asked for",
        "n_train_questions": 64,
        "n_eval_questions": n_questions,
        "notes": ["3 rows were skipped"],
        "leaks": [["t1", f"{name}1", 1.0], ["t2", f"{name}2", 0.9]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(about))
    choices = choice_table(questions)
    for key in score_keys(run):
        scores = base + generator.normal(0, 0.9, base.shape) * (key.head != "base")
        scores[:, 0] += RISE.get(key.head, 0) * np.log2(1 + key.n_train) / 3
        table = score_table(
            study.task, "test", choices, key, scores.ravel(), [1] * 4 * n_questions, "rows"
        )
        write_scores(run.scores_path(key), table, {"digest": str(key), "inputs": {}})
    rows = [
        {"id": q.id, "stem": q.stem, "choices": [choice.text for choice in q.choices]}
        for q in questions
    ]
    write_record(run, Record(scores={str(key): str(key) for key in score_keys(run)}))
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def curves(run: Run) -> tuple[Scores, pd.DataFrame]:
    scores, study = read_run_scores(run), run.study
    return scores, pd.DataFrame(curve(scores, study.task, study.modes, study.all_weights))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = made_up(tmp_path_factory.mktemp("runs") / "made-up")
    write_results(run)
    return run


@pytest.fixture(scope="module")
def data(run):
    texts = {f"q{i}": {"stem": f"Number {i}?", "choices": list("abcd")} for i in range(40)}
    return report_data(run.study, *curves(run), texts)


@pytest.fixture(scope="module")
def page(run):
    return (run.folder / "report.html").read_text()


# --------------------------------------------------------------------------------------------
# Values, against loops in plain Python


def by_hand(
    run: Run, mode: str, source: str, n: int, weight: float = 1.0
) -> list[list[list[float]]]:
    """[seeds][questions][choices], ratios; the right choice is the first."""
    study, tables = run.study, {}
    for key in score_keys(run):
        rows = pq.read_table(run.scores_path(key))["logprob"].to_pylist()
        tables[key.head, key.n_train, key.seed, key.source] = [
            rows[i : i + 4] for i in range(0, len(rows), 4)
        ]
    base = tables["base", 0, None, None]
    by_seed = []
    for seed in study.seeds:
        positive = tables["positive", n, seed, None] if mode in ("sft", "likra") else base
        negative = tables["negative", n, seed, source] if mode in ("likra", "base-likra") else None
        by_seed.append(
            [
                [p - (weight * negative[q][c] if negative else 0) for c, p in enumerate(row)]
                for q, row in enumerate(positive)
            ]
        )
    return by_seed


def right(ratios: list[list[float]]) -> list[bool]:
    return [max(range(4), key=row.__getitem__) == 0 for row in ratios]


SOURCE = SETTINGS["negatives"][1]


@pytest.mark.parametrize("mode", ["likra", "base-likra", "sft"])
def test_learning_curves_hold_the_means_and_the_single_seeds(run, data, mode):
    source = "" if mode == "sft" else SOURCE
    (line,) = [x for x in data["curves"]["acc"] if (x["mode"], x["source"]) == (mode, source)]
    assert line["n"] == [8, 32]
    for n, value, seeds in zip(line["n"], line["value"], line["seeds"], strict=True):
        each = [np.mean(right(r)) for r in by_hand(run, mode, SOURCE, n)]
        assert seeds == pytest.approx(each)
        assert value == pytest.approx(np.mean(each))


def test_the_base_has_one_point_and_the_interval_over_questions(data):
    (line,) = [x for x in data["curves"]["acc"] if x["mode"] == "base"]
    assert line["n"] == [0]
    assert line["low"][0] < line["value"][0] < line["high"][0]


def test_weight_curves(run, data):
    likra = [
        x for x in data["weight_curves"]["acc"] if (x["mode"], x["source"]) == ("likra", SOURCE)
    ]
    assert [x["n"] for x in likra] == [8, 32]
    assert likra[0]["weight"] == [0.5, 1.0]
    each = [np.mean(right(r)) for r in by_hand(run, "likra", SOURCE, 8, weight=0.5)]
    assert likra[0]["value"][0] == pytest.approx(np.mean(each))


def test_separation_is_the_mean_over_seeds_and_densities_sum_to_one(run, data):
    panels = {(p["head"], p["source"], p["n"]): p for p in data["separation"]}
    assert len(panels) == 1 + 2 + 2 * 2 + 2 * 2
    panel = panels["likra", SOURCE, 8]
    aurocs, margins = [], []
    for ratios in by_hand(run, "likra", SOURCE, 8):
        rights, wrongs = [r[0] for r in ratios], [x for r in ratios for x in r[1:]]
        wins = [(x > y) + (x == y) / 2 for x, y in itertools.product(rights, wrongs)]
        aurocs.append(np.mean(wins))
        margins.append(np.mean([r[0] - np.mean(r[1:]) for r in ratios]))
    assert panel["auroc"][0] == pytest.approx(np.mean(aurocs), abs=1e-4)
    assert panel["margin"][0] == pytest.approx(np.mean(margins), abs=1e-4)
    assert panel["margin"][1] < panel["margin"][0] < panel["margin"][2]
    for panel in panels.values():
        for kind in ("right", "wrong"):
            assert panel[kind][0] == panel[kind][-1] == 0
            assert np.trapezoid(
                panel[kind], np.linspace(*panel["range"], len(panel[kind]))
            ) == pytest.approx(1, abs=0.05)


def test_reliability(run, data):
    (diagram,) = [
        r for r in data["reliability"] if (r["mode"], r["source"], r["n"]) == ("likra", SOURCE, 32)
    ]
    chosen, correct = [], []
    for ratios in by_hand(run, "likra", SOURCE, 32):
        for row in ratios:
            top = max(row)
            chosen.append(1 / sum(np.exp(x - top) for x in row))
            correct.append(row[0] == top)
    error = 0.0
    for edge in range(10):
        inside = [i for i, p in enumerate(chosen) if edge / 10 < p <= (edge + 1) / 10]
        if inside:
            gap = np.mean([chosen[i] for i in inside]) - np.mean([correct[i] for i in inside])
            error += abs(gap) * len(inside) / len(chosen)
    assert diagram["ece"] == pytest.approx(error, abs=1e-4)
    assert diagram["confidence"] == pytest.approx(np.mean(chosen), abs=1e-4)
    assert sum(diagram["count"]) == 2 * 40
    assert 0 <= diagram["ece_scaled"] <= 1


def test_the_scaled_error_is_also_known_of_the_half_that_chose_no_weight(run):
    scores, points = curves(run)
    rest = scores.of(~split_validation(scores.question_ids, 0.5))
    diagrams = report_data(run.study, rest, points, {})["reliability"]
    assert all(0 <= row["ece_scaled"] <= 1 for row in diagrams)


def test_comparisons(run, data):
    pairs = {(c["first"], c["second"]) for c in data["comparisons"]}
    assert {("likra", "sft"), ("base-likra", "sft"), ("likra", "base")} <= pairs
    (row,) = [
        c
        for c in data["comparisons"]
        if (c["first"], c["second"], c["source"], c["n"]) == ("likra", "sft", SOURCE, 8)
    ]
    one, two = (
        np.mean([right(r) for r in by_hand(run, m, SOURCE, 8)], axis=0) for m in ("likra", "sft")
    )
    assert row["difference"][0] == pytest.approx((one - two).mean(), abs=1e-4)
    assert row["first_better"] == (one > two).sum()
    assert row["second_better"] == (one < two).sum()


def test_names_in_the_curves_are_no_formulas(tmp_path):
    write_results(made_up(tmp_path, task="=1+1", seeds=[0], figures=[]))
    assert set(pd.read_csv(tmp_path / "curve.csv")["task"]) == {"'=1+1"}


def test_a_single_seed_has_intervals_over_questions(tmp_path):
    run = made_up(tmp_path, seeds=[3], negatives=["random_choice"])
    data = report_data(run.study, *curves(run), {})
    assert all(low < high for _, low, high in (c["difference"] for c in data["comparisons"]))
    line = data["curves"]["acc"][0]
    assert line["seeds"] == [[], []]
    assert all(low < high for low, high in zip(line["low"], line["high"], strict=True))


def test_example_efficiency(tmp_path):
    run = made_up(tmp_path, seeds=[0], negatives=["random_choice"], n_questions=100)
    rows = {(w["mode"], w["n"]): w for w in report_data(run.study, *curves(run), {})["efficiency"]}
    base = np.mean(right(by_hand(run, "base", "", 0)[0]))
    sft = [base] + [np.mean(right(by_hand(run, "sft", "", m)[0])) for m in (8, 32)]
    target = np.mean(right(by_hand(run, "base-likra", "random_choice", 8)[0]))
    assert sft[0] < sft[1] < sft[2]
    assert target > sft[1]
    never = target > sft[2]
    expected = 32 / 8 if never else 4 ** ((target - sft[1]) / (sft[2] - sft[1]))
    assert rows["base-likra", 8]["is_bound"] == never
    assert rows["base-likra", 8]["k"][0] == pytest.approx(expected, rel=1e-3)


def test_examples_are_those_that_differ_most(data, run):
    bench = ModeScores(read_run_scores(run), run.study)
    examples = [e for e in data["examples"] if (e["source"], e["n"]) == (SOURCE, 8)]
    assert len(examples) == 6
    assert [e["distance"] for e in examples] == sorted(
        (e["distance"] for e in examples), reverse=True
    )
    likra, sft = (
        np.mean(bench.probabilities(m, SOURCE, 8, scaled=True), axis=0) for m in ("likra", "sft")
    )
    assert examples[0]["distance"] == pytest.approx(
        np.abs(likra - sft).sum(axis=1).max() / 2, abs=1e-4
    )
    for example in examples:
        assert example["stem"].startswith("Number")
        assert [c["text"] for c in example["choices"]] == list("abcd")
        for mode in ("likra", "sft"):
            assert sum(c[mode] for c in example["choices"]) == pytest.approx(1, abs=1e-3)
            assert sum(c[f"{mode}_picks"] for c in example["choices"]) == 1


def test_the_rest_of_the_data(data):
    assert data["chance"] == 0.25
    assert data["cost"] == {
        "trainings": 2 * 3, "examples": 2 * 3 * 32, "scored": 1 + 2 * 3 * 2,
        "questions": 40, "candidates": 160,
    }  # fmt: skip
    json.dumps(data, allow_nan=False)  # plain values throughout


# --------------------------------------------------------------------------------------------
# Texts


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("random_choice", "a wrong choice of the same question"),
        ("contaminated:0.2", "a wrong choice of the same question, 20% of them right answers"),
        ("other_task:dir/piqa", "an answer of another task (piqa)"),
        (
            "0.5*random_choice+0.5*generated",
            "50% a wrong choice of the same question + 50% the base model's own wrong answers",
        ),
        ("something_new:3", "something_new:3"),
    ],
)
def test_sources_in_words(source, text):
    assert source_text(source) == text


def test_every_mode_has_a_look_of_its_own():
    looks = [(style.color, style.dash, style.marker) for style in STYLES.values()]
    assert len(set(looks)) == len(looks)
    assert mode_style("a-mode-to-come").label == "a-mode-to-come"


def test_numbers_in_words():
    assert signed([0.516, -0.042, 0.609]) == "+51.6 points [\u22124.2, +60.9]"
    assert [p_value(p) for p in (1e-5, 0.00123, 0.0456, 1.0)] == [
        "< 0.0001",
        "0.0012",
        "0.046",
        "1.00",
    ]
    flags = {"is_bound": False, "low_is_bound": False, "high_is_bound": True}
    assert factor({"k": [2.4, 1.9, 3.0], **flags}) == "2.4 [1.9, > 3]"
    assert factor({"k": [2.0, 2.0, 2.0]} | dict.fromkeys(flags, True)) == "> 2"


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.158, 0.02, "help here. With them, 16 more of every 100 questions"),
        (-0.0042, 0.02, "do harm here. With them, 0.4 fewer of every 100 questions"),
        (0.158, 0.03, "it is not clear whether wrong answers help here"),  # two n: p is 0.06
    ],
)
def test_the_result_in_short(run, data, difference, p, words):
    data = copy.deepcopy(data)
    for row in data["comparisons"]:
        row["difference"], row["p_value"] = [difference, -0.5, 0.5], p
    (short, *_) = in_short(run.study, data)
    assert short.startswith(f"In short: {words}" if "clear" in words else "In short: wrong answers")
    assert words in short


@pytest.mark.parametrize(("p", "is_as_good"), [(0.9, True), (1e-6, False)])
def test_what_does_as_well_without_wrong_answers_is_named(run, data, p, is_as_good):
    study = run.study.model_copy(update={"modes": [*run.study.modes, "pmi"]})
    data = copy.deepcopy(data)
    data["comparisons"] = [row for row in data["comparisons"] if row["second"] == "sft"]
    for row in data["comparisons"]:
        row["difference"], row["p_value"] = [0.158, 0.1, 0.2], 1e-6
    data["comparisons"] += [{**row, "second": "pmi", "p_value": p} for row in data["comparisons"]]
    (short, *_) = in_short(study, data)
    assert short.startswith(f"In short: wrong answers {'may help' if is_as_good else 'help'} here.")
    assert ("PMI, which saw no wrong answer, is not clearly worse" in short) == is_as_good


@pytest.mark.parametrize(("snapshots", "times"), [([8, 32], 2), ([8], 1)])
def test_p_at_the_chosen_n_is_corrected_for_the_choice(tmp_path, snapshots, times):
    run = made_up(tmp_path, snapshots=snapshots, seeds=[0])
    data = report_data(run.study, *curves(run), {})
    n = best_snapshot(data)
    (row,) = [
        c
        for c in data["comparisons"]
        if (c["first"], c["second"], c["source"], c["n"]) == ("likra", "sft", "random_choice", n)
    ]
    assert 1e-4 < times * row["p_value"] < 1
    sentence = findings(run.study, data)[0]
    note = ", corrected for the choice of n" if times > 1 else ""
    assert f"(p {p_value(times * row['p_value'], equals=True)}{note})" in sentence
    write_results(run)
    assert ("Bonferroni" in (tmp_path / "report.html").read_text()) == (times > 1)
    row["p_value"] = 0.9
    assert f"(p = {min(1, 0.9 * times):.2f}" in findings(run.study, data)[0]


def test_likra_is_put_beside_the_strongest_rival(tmp_path):
    rivals = ["positive-base", "dpo", "dpo-reward"]
    run = made_up(tmp_path, seeds=[0], modes=["base", "sft", "likra", "base-likra", *rivals])
    data = report_data(run.study, *curves(run), {})
    n = best_snapshot(data)
    best = max(rivals, key=lambda mode: accuracies(data, mode)[n][0])
    likra, other = (accuracies(data, mode)[n][0] for mode in ("likra", best))
    (row,) = [
        c
        for c in data["comparisons"]
        if (c["second"], c["n"], c["source"]) == (best, n, "random_choice")
    ]
    row["p_value"] = 0.01
    (sentence,) = [line for line in findings(run.study, data) if "rival" in line]
    assert sentence.startswith(f"Besides SFT, {best} is the strongest rival at n = {n}: ")
    assert f" {100 * (likra - other):+.1f} points ".replace("-", "\u2212") in sentence
    assert "(p = 0.06, corrected for the choice of n and rival)" in sentence


def test_without_a_rival_there_is_no_sentence_of_one(tmp_path):
    run = made_up(tmp_path, seeds=[0], modes=["base", "sft", "likra", "base-likra"])
    data = report_data(run.study, *curves(run), {})
    assert "rival" not in " ".join(findings(run.study, data))


ROWS = [
    ("likra (random_choice)", [None, (0.957, 0.808, 1.106), (1.0, 1.0, 1.0)]),
    ("a|b & 50% {c}", [(0.4219, 0.3359, 0.5078), None, None]),
]
CELLS = [["", "0.957 ±0.149", "1.000 ±0.000"], ["0.422 ±0.086", "", ""]]


def test_markdown_is_read_back():
    lines = as_markdown([0, 8, 32], ROWS).splitlines()
    table = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert table[0] == ["mode", "n = 0", "n = 8", "n = 32"]
    assert all(re.fullmatch(r"-+:?", cell) for cell in table[1])
    assert [row[1:] for row in table[2:]] == CELLS
    assert [row[0].replace("\\|", "|") for row in table[2:]] == [label for label, _ in ROWS]
    assert len({len(line) for line in lines}) == 1  # aligned


def test_latex_is_read_back():
    text = as_latex([0, 8, 32], ROWS)
    assert text.startswith("\\begin{tabular}{lrrr}\n\\toprule\n")
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    rows = [re.split(r"(?<!\\)&", line.removesuffix(" \\\\")) for line in body.splitlines()]
    cells = [[c.strip().replace(r" $\pm$ ", " ±") for c in row] for row in rows]
    assert [row[1:] for row in cells] == CELLS
    assert [row[0] for row in cells] == [r"likra (random\_choice)", r"a|b \& 50\% \{c\}"]


def test_csv_is_read_back():
    rows = list(csv.DictReader(io.StringIO(as_csv([0, 8, 32], ROWS))))
    assert [(r["mode"], int(r["n"]), float(r["value"])) for r in rows] == [
        ("likra (random_choice)", 8, 0.957),
        ("likra (random_choice)", 32, 1.0),
        ("a|b & 50% {c}", 0, 0.4219),
    ]
    assert float(rows[0]["ci_high"]) == 1.106


# --------------------------------------------------------------------------------------------
# The page


LOADING = ("link", "img", "iframe", "object", "embed", "audio", "video")


class Reader(HTMLParser):
    """Collects what a page would load, its links, ids, and the text of its <pre>."""

    def __init__(self) -> None:
        super().__init__()
        self.loads, self.links, self.ids, self.copies = [], [], [], {}
        self.inside, self.charts = None, 0

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "a":
            self.links.append(attributes["href"])
        elif tag in LOADING or "src" in attributes or attributes.get("href", "#")[0] != "#":
            self.loads.append((tag, attributes))
        self.ids.append(attributes.get("id"))
        self.inside = attributes.get("id") if tag == "pre" else None

    def handle_data(self, data):
        if self.inside:
            self.copies[self.inside] = self.copies.get(self.inside, "") + data

    def handle_endtag(self, tag):
        self.inside = None


def test_the_page_loads_nothing(page):
    reader = Reader()
    reader.feed(page)
    assert reader.loads == []
    assert all(link[0] == "#" or link.startswith("https://") for link in reader.links)
    assert "default-src 'none'" in page
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"@import|url\((?!#)", plain)
    assert {link[1:] for link in reader.links if link[0] == "#"} <= set(reader.ids)
    assert plain.count("<svg") == 5  # for readers without JavaScript
    assert "Copyright" not in page  # the charts are our own
    assert len(page) < 700_000


def test_ids_stand_once(page):
    reader = Reader()
    reader.feed(page)
    ids = [i for i in reader.ids if i]
    assert len(set(ids)) == len(ids)


def test_what_is_copied_are_the_tables_of_the_page(run, page):
    reader = Reader()
    reader.feed(page)
    assert sorted(reader.copies) == sorted(
        f"copy-{metric}-{name}"
        for metric in ("acc", "acc_norm")
        for name in ("Markdown", "LaTeX", "CSV")
    )
    _, points = curves(run)
    rows = accuracy_rows(points, run.study, "acc")
    assert [label for label, _ in rows[:2]] == ["likra (random_choice)", f"likra ({SOURCE})"]
    for _, cells in rows:
        for cell in filter(None, cells):
            assert cell in reader.copies["copy-acc-Markdown"]
            assert f"<td>{cell}</td>" in page


def test_texts_are_escaped(page):
    assert "one &amp; &lt;b&gt;only&lt;/b&gt;" in page
    assert "<b>only</b>" not in page
    assert "</script" not in payload({"task": "</script><script>alert(1)"})


def test_a_result_no_better_than_a_blind_guess_is_called_one(run, page, tmp_path, monkeypatch):
    assert "a blind guess 25.0%" in page
    assert "not clearly better than a blind guess" not in page
    assert "one wrong answer does as much as" in page
    monkeypatch.setitem(RISE, "positive", 0)
    monkeypatch.setitem(RISE, "negative", 0)
    poor = made_up(tmp_path)
    write_results(poor)
    page = (tmp_path / "report.html").read_text()
    assert "not clearly better than a blind guess (25.0%)" in page
    assert "does as much as" not in page


@pytest.mark.parametrize(("high", "how"), [(0.0, "worse"), (0.9, "no better")])
def test_wrong_answers_that_do_harm_are_said_to(run, data, high, how):
    data = copy.deepcopy(data)
    rows = [c for c in data["curves"][data["metric"]] if c["mode"] == "base-likra"]
    for line in rows:
        line["high"] = [high] * len(line["high"])
    for row in data["efficiency"]:
        row["k"] = [0.0, 0.0, 0.0]
    sentences = " ".join(findings(run.study, data))
    assert f"wrong answers alone do {how} than the untrained base model" in sentences


def test_the_page_has_its_sections_in_order(run, page, data):
    body = page.partition("<body>")[2]
    order = [
        "What does pocket learn",
        "40 questions of pocket; 2 also in the training data, or nearly, which stayed in it",
        headline(run.study, data),
    ]
    order += ["Learning curves", "AUROC", "ECE", "excludes 0", "what is one wrong answer worth?"]
    order += ["Copy as", "disagree most", "3 rows were skipped", "learning_rate", "0.1.0"]
    places = [body.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "changes",
    [
        {"modes": ["base-likra"]},
        {"modes": ["base", "sft"], "weights": []},
        {"modes": ["base", "sft", "likra", "pmi", "dpo", "dpo-reward"], "snapshots": [8]},
        {"negatives": ["contaminated:0.2"], "seeds": [0], "weights": [], "metric": "acc_norm"},
        {"n_questions": 1},
    ],
    ids=",".join,
)
def test_pages_of_other_studies(tmp_path, changes):
    run = made_up(tmp_path, **changes)
    (tmp_path / "questions.jsonl").unlink()
    write_results(run)
    page = (tmp_path / "report.html").read_text()
    for mode in run.study.modes:
        assert mode_style(mode).label in page
    if {"sft", "likra"} <= set(run.study.modes):
        assert "only the ids are shown" in page
        assert ">q0<" in page or "q1" in page


def test_a_damaged_file_of_questions_is_named(tmp_path):
    run = made_up(tmp_path)
    for damaged in ("{", '{"id": "q0"}'):
        (tmp_path / "questions.jsonl").write_text(damaged)
        with pytest.raises(LikraError, match=r"cannot read '.*questions.jsonl'"):
            write_results(run)


def test_figures_come_as_svg_pdf_and_png_with_the_same_bytes_again(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "figures")
    write_results(read_run(tmp_path / "again"))
    names = ("learning_curve", "sources", "weight_curve", "densities", "reliability")
    files = {f"{name}.{ending}" for name in names for ending in ("svg", "pdf", "png")}
    assert {path.name for path in (run.folder / "figures").iterdir()} == files
    for name in files:
        first, again = (f / "figures" / name for f in (run.folder, tmp_path / "again"))
        assert first.read_bytes() == again.read_bytes(), name
    for name in names:
        pdf = (run.folder / "figures" / f"{name}.pdf").read_bytes()
        assert b"/CIDFontType2" in pdf or b"/TrueType" in pdf
        assert b"/Type3" not in pdf


def test_only_the_figures_asked_for_are_drawn(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "again")
    again = read_run(tmp_path / "again")

    def draw(figures):
        write_results(Run(again.study.model_copy(update={"figures": figures}), again.folder))

    draw(["densities"])
    names = {path.name for path in (tmp_path / "again" / "figures").iterdir()}
    assert names == {"densities.svg", "densities.pdf", "densities.png"}
    page = (tmp_path / "again" / "report.html").read_text()
    assert page.count("<noscript>") == 1
    draw([])
    page = (tmp_path / "again" / "report.html").read_text()
    assert "<noscript>" not in page
    assert "The folder <code>figures</code>" not in page
    assert 'id="curves"' in page  # the chart needs no figure


def test_the_table_of_a_grid(run, tmp_path):
    """Trained modes stand at the last n with the first source, the base as it is."""
    table = write_grid([(run, curves(run)[1])] * 2, tmp_path)
    rows = pd.read_csv(tmp_path / "table.csv")
    assert (
        rows[["model", "task", "metric", "n"]].to_numpy().tolist()
        == [["pocket", "pocket", "acc", 32]] * 2
    )
    likra = [np.mean(right(r)) for r in by_hand(run, "likra", "random_choice", 32)]
    assert rows.likra[0] == pytest.approx(np.mean(likra))
    assert rows.base[0] == pytest.approx(np.mean(right(by_hand(run, "base", "", 0)[0])))
    half = (rows.likra_high[0] - rows.likra_low[0]) / 2
    assert table.likra[0] == f"{rows.likra[0]:.3f} ±{half:.3f}"
    assert (tmp_path / "table.md").read_text().count("\n") == 4
    assert r"\toprule" in (tmp_path / "table.tex").read_text()


# --------------------------------------------------------------------------------------------
# The paper's figures


def line(mode, source, values, n=(8, 32)):
    return {
        "mode": mode,
        "source": source,
        "label": mode,
        "n": list(n),
        "value": list(values),
        "low": list(values),
        "high": list(values),
        "seeds": [[] for _ in n],
    }


def margin(slot, title, source, n, value):
    return {
        "head": slot,
        "slot": slot,
        "title": title,
        "source": source,
        "n": n,
        "margin": [value, value, value],
    }


NEAR, FAR = "random_choice", "other_question"
PLAIN = {
    "metric": "acc",
    "snapshots": [8, 32],
    "curves": {
        "acc": [
            line("likra", NEAR, [0.5, 0.875]),
            line("likra", FAR, [0.5, 0.75]),
            line("base-likra", NEAR, [0.625, 0.8]),
            line("base-likra", FAR, [0.25, 0.9]),
            line("sft", "", [0.25, 0.5]),
            line("base", "", [0.125], n=[0]),
        ]
    },
    "weight_curves": {
        "acc": [
            {"mode": mode, "source": NEAR, "n": n, "weight": [0.0, 0.5, 1.0], "value": values}
            for mode, n, values in [
                ("likra", 8, [0.1, 0.2, 0.3]),
                ("likra", 32, [0.5, 0.9, 0.9]),
                ("base-likra", 32, [0.3, 0.2, 0.1]),
            ]
        ]
    },
    "separation": [
        margin("base", "base model", "", 0, -0.5),
        margin("positive", "positive head", "", 8, 9.0),
        margin("positive", "positive head", "", 32, 1.25),
        margin("negative", "negative head", NEAR, 32, -2.0),
        margin("negative", "negative head", FAR, 32, 0.0),
        margin("ratio", "ratio (Likra)", NEAR, 32, 3.25),
    ],
}
MARGINS = "the mean log-likelihood of right answers minus that of wrong ones, in nats, is "
SHOWN = {
    1: "from 8 to 32 training examples, accuracy goes from 25.0% to 50.0% with SFT and from 50.0% "
    "to 87.5% with Likra; the untrained base model has 12.5%",
    2: MARGINS
    + "\u22120.50 under the base model, +1.25 under the positive head, \u22122.00 under the "
    "negative head, +3.25 in the ratio (Likra)",
    3: "Base-Likra, which learns from wrong answers alone, is 12.5 points above Likra after 8 "
    "examples and 7.5 points below Likra after 32 examples, where it answers 80.0% correctly",
    4: "after 32 examples, Likra is most accurate at a weight of 0.5 to 1 (90.0%), against 50.0% "
    "at 0 and 90.0% at 1",
    5: "after 32 examples, by negatives, Likra's accuracy is between 75.0% (the answer of another "
    "question) and 87.5% (a wrong choice of the same question); Base-Likra's accuracy is between "
    "80.0% (a wrong choice of the same question) and 90.0% (the answer of another question); "
    "fine-tuning on right answers only has 50.0%",
    6: MARGINS
    + "\u22120.50 under the base model, \u22122.00 under the negative head trained on a wrong "
    "choice of the same question, +0.00 under the negative head trained on the answer of another "
    "question",
}


@pytest.mark.parametrize("number", SHOWN)
def test_what_a_figure_of_the_paper_shows_is_computed(number):
    settings = {**SETTINGS, "paper_figure": number, "negatives": [NEAR, FAR], "model": "a/tiny/"}
    first = opening(parse_study(settings), PLAIN)
    start = f"Figure {number} of the paper (arXiv:2503.14391), here with tiny on the task pocket: "
    assert first.sentence == f"{start}{SHOWN[number]}."
    assert first.n == 32


@pytest.mark.parametrize("number", [1, 3, 4, 5, 6])
def test_without_its_modes_a_figure_opens_nothing(number):
    alone = {"acc": [line("base", "", [0.125], n=[0])]}
    data = {
        **PLAIN,
        "curves": alone,
        "weight_curves": {"acc": []},
        "separation": PLAIN["separation"][:1],
    }
    assert opening(parse_study({**SETTINGS, "paper_figure": number}), data) is None
    assert opening(parse_study(SETTINGS), PLAIN) is None


def test_a_report_opens_with_the_papers_figure_that_its_study_repeats(run, page, tmp_path):
    shutil.copytree(run.folder, tmp_path / "fig4")
    study = run.study.model_copy(update={"paper_figure": 4, "figures": []})
    write_results(Run(study, tmp_path / "fig4"))
    opened = (tmp_path / "fig4" / "report.html").read_text()
    assert "figure 4 of the paper" in opened
    assert "of the paper</p>" not in page
    sentences = json.loads((tmp_path / "fig4" / "summary.json").read_text())["sentences"]
    assert sentences[0].startswith("Figure 4 of the paper (arXiv:2503.14391)")
    assert re.findall(r'<p class="headline">(.*?)</p>', opened)[0] == sentences[0]
    order = re.findall(r'<section id="(\w+)-section"', opened)
    usual = re.findall(r'<section id="(\w+)-section"', page)
    assert order == ["weights", *(name for name in usual if name != "weights")]


# --------------------------------------------------------------------------------------------
# Panels


@given(st.lists(st.sampled_from(list(STYLES)), min_size=1, unique=True))
def test_every_mode_is_in_one_panel_that_has_few(modes):
    groups = mode_groups(modes)
    assert sorted(itertools.chain(*groups)) == sorted(modes)
    assert all(len({*group, *({*REFERENCES} & {*modes})}) <= MOST for group in groups)


def test_many_modes_are_drawn_in_panels_with_the_same_axes():
    modes = ["likra", "base-likra", "sft", "dpo", "dpo-reward", "nca", "nca-reward"]
    lines = [line(mode, NEAR, [0.1 * i, 0.1 + 0.1 * i]) for i, mode in enumerate(modes)]
    figure = learning_curve(lines, parse_study({**SETTINGS, "negatives": [NEAR]}))
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == [
        "Likra, Base-Likra, SFT",
        "DPO",
        "NCA",
    ]
    assert len({(axis.get_xlim(), axis.get_ylim()) for axis in figure.axes}) == 1
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == sorted(mode_style(mode).short for mode in modes)


def test_many_samplers_have_a_panel_each():
    sources = [NEAR, FAR, "all_choices", "easiest", "hardest"]
    lines = [line(mode, s, [0.2, 0.4]) for mode in ("likra", "base-likra") for s in sources]
    lines += [line("sft", "", [0.1, 0.3])]
    for count, panels in ((2, 2), (5, 5)):
        study = parse_study({**SETTINGS, "negatives": sources[:count]})
        few = [one for one in lines if one["source"] in ("", *study.negatives)]
        figure = sources_curve(few, study)
        assert sum(axis.get_visible() for axis in figure.axes) == panels
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "SFT",
        "Likra",
        "Base-Likra",
    ]


def test_the_panels_of_heads_have_the_same_axes(run, data):
    figure = densities(data["separation"], run.study)
    ranges = [(axis.get_xlim(), axis.get_ylim()) for axis in figure.axes if axis.get_visible()]
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "base model"
    heads = [own for own, title in zip(ranges, titles, strict=False) if "ratio" not in title]
    assert len(heads) == 4  # the base, the positive head, two negative ones
    assert len(set(heads)) == 1
    assert ranges[-1] not in heads


# --------------------------------------------------------------------------------------------
# Comparison of runs


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("runs") / "other", seed=1, snapshots=[32, 64], seeds=[0])


def test_runs_on_the_same_questions_are_compared_in_pairs(run, other, tmp_path):
    assert write_comparison([run.folder, other.folder], tmp_path / "compare.html") == []
    page = (tmp_path / "compare.html").read_text()
    one = np.mean([right(r) for r in by_hand(run, "likra", SOURCE, 32)], axis=0)
    two = np.array(right(by_hand(other, "likra", SOURCE, 32)[0]))
    assert f"{100 * (one - two).mean():+.1f} points".replace("-", "\u2212") in page
    assert f"Likra ({SOURCE}): made-up &minus; other" in page
    reader = Reader()
    reader.feed(page)
    rows = reader.copies["copy-acc-Markdown"].splitlines()
    assert [cell.strip() for cell in rows[0].split("|")[2:-1]] == ["n = 0", "n = 32"]
    assert reader.loads == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "arc_challenge"}, "their tasks differ (pocket, arc_challenge)"),
        ({"n_questions": 39}, "their questions differ (40 and 39, of which 39 are the same)"),
        ({"name": "w"}, "their questions differ (40 and 40, of which 0 are the same)"),
        (
            {"snapshots": [16], "modes": ["likra"]},
            "they have no mode at the same number of examples",
        ),
    ],
)
def test_why_runs_cannot_be_compared_in_pairs(run, tmp_path, changes, reason):
    name = changes.pop("name", "q")
    made_up(tmp_path / "b", name=name, **changes)
    (line,) = write_comparison([run.folder, tmp_path / "b"], tmp_path / "compare.html")
    assert line.startswith(f"made-up and b: {reason}")
    assert reason in (tmp_path / "compare.html").read_text()


def test_other_choices_are_noticed(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "b")
    path = tmp_path / "b" / "questions.jsonl"
    path.write_text(path.read_text().replace('"two"', '"too"'))
    (line,) = write_comparison([run.folder, tmp_path / "b"], tmp_path / "compare.html")
    assert line.endswith("their choices differ, first at question 'q0'")


def test_other_questions_of_the_same_names_and_choices_are_noticed(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "b")
    path = tmp_path / "b" / "questions.jsonl"
    path.write_text(path.read_text().replace("Number 3?", "Number three?"))
    (line,) = write_comparison([run.folder, tmp_path / "b"], tmp_path / "compare.html")
    assert line.endswith("their questions differ, first 'q3'")
    path.unlink()
    (line,) = write_comparison([run.folder, tmp_path / "b"], tmp_path / "compare.html")
    assert line.endswith("the questions of b are not in its questions.jsonl")


def test_runs_without_a_mode_in_common_are_compared_without_a_headline(tmp_path):
    for name, modes in (("a", ["sft"]), ("b", ["base"])):
        made_up(tmp_path / name, modes=modes)
    (line,) = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "compare.html")
    assert line == "a and b: they have no mode at the same number of examples"
    page = (tmp_path / "compare.html").read_text().partition("<body>")[2]
    assert 'class="headline"' not in page
    assert "a: sft" in page
    assert "b: base" in page


def test_folders_that_cannot_be_compared(run, tmp_path, capsys, monkeypatch):
    from likra.cli.main import main

    page = tmp_path / "compare.html"
    (tmp_path / "empty").mkdir()
    unfinished = made_up(tmp_path / "unfinished")
    unfinished.scores_path(score_keys(unfinished)[-1]).unlink()
    for folders, words in (
        ([run.folder], "at least two runs"),
        ([run.folder, run.folder], "is named twice"),
        ([run.folder, tmp_path / "empty"], "there is no study.yaml"),
        ([run.folder, tmp_path / "unfinished"], "has no scores of negative"),
    ):
        monkeypatch.setattr("sys.argv", ["likra", "compare", *map(str, folders), "-o", str(page)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err
    assert not page.exists()


def test_runs_of_the_same_name_are_told_apart(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "made-up")
    write_comparison([run.folder, tmp_path / "made-up"], tmp_path / "compare.html")
    assert f"{tmp_path.name}/made-up" in (tmp_path / "compare.html").read_text()


# --------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture
def visit(chromium):
    """Opens a page; at the end there must have been no error, and nothing but files loaded."""
    contexts, faults = [], []

    def opened(path: Path, **options):
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}} | options)
        contexts.append(context)
        context.set_default_timeout(60_000)
        tab = context.new_page()
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on(
            "console",
            lambda m: faults.append(m.text) if m.type in ("error", "warning") else None,
        )
        tab.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "blob:")) else faults.append(r.url),
        )
        tab.goto(path.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def series(tab, chart: str = "curves") -> list[str]:
    """The names of a chart's curves, from the first drawn to the topmost."""
    groups = tab.locator(f"#{chart} svg [data-series]")
    return groups.evaluate_all("groups => groups.map((group) => group.dataset.series)")


def outline(tab, name: str, chart: str = "curves") -> str:
    return tab.locator(f'#{chart} [data-series="{name}"] .line').get_attribute("d")


def color(tab, name: str = "Likra", chart: str = "curves") -> str:
    line = tab.locator(f'#{chart} [data-series="{name}"] .line')
    return line.evaluate("line => getComputedStyle(line).stroke")


def test_curves_are_drawn_with_bands_markers_and_single_seeds(run, visit):
    tab = visit(run.folder / "report.html")
    likra = tab.locator('#curves [data-series="Likra"]')
    assert likra.locator(".band").count() == 1
    assert likra.locator(".marker").count() == 2  # n = 8 and 32
    assert likra.locator(".dot").count() == 2 * 2  # for each of two seeds
    x8, y8, x32, y32 = map(float, re.findall(r"[\d.]+", outline(tab, "Likra")))
    assert x8 < x32
    assert y8 > y32  # more examples, higher accuracy, further up
    assert tab.locator('#curves [data-series="base model"] .marker').count() == 0
    ticks = tab.locator("#curves .axes text").all_text_contents()
    assert ticks[:2] == ["8", "32"]
    assert tab.locator("#curves .rule").text_content() == "chance"
    assert len(series(tab, "reliability")) == 5
    assert [series(tab, f"density-{name}") for name in ("base", "ratio")] == [
        ["right answers", "wrong answers"]
    ] * 2


def test_legends_hide_curves_and_show_one_alone(run, visit):
    tab = visit(run.folder / "report.html")
    everything = series(tab)
    assert everything == ["base model", "SFT", "Positive-Base", "Base-Likra", "Likra"]
    curves = tab.locator("#curves-section")
    likra = curves.get_by_role("button", name="Likra", exact=True)
    likra.click()
    assert likra.get_attribute("aria-pressed") == "false"
    assert series(tab) == everything[:-1]
    likra.click()
    assert series(tab) == everything
    base = curves.get_by_role("button", name="base model")
    base.dblclick()
    assert series(tab) == ["base model"]
    base.dblclick()
    assert series(tab) == everything
    likra.focus()
    tab.keyboard.press("Shift+Enter")
    assert series(tab) == ["Likra"]
    assert likra.locator("svg .line, svg .marker").count() == 2  # as its curve is drawn


def test_legends_of_sources_and_of_snapshots(run, visit):
    tab = visit(run.folder / "report.html")
    assert series(tab, "sources") == ["SFT", "base model", "random_choice", SOURCE]
    sources = tab.locator("#sources-section")
    sources.get_by_role("button", name=source_text(SOURCE)).click()
    assert series(tab, "sources") == ["SFT", "base model", "random_choice"]
    assert series(tab, "weights") == ["n = 8", "n = 32"]
    tab.locator("#weights-section").get_by_role("button", name="n = 8").click()
    assert series(tab, "weights") == ["n = 32"]
    palest, strongest = "rgb(158, 202, 225)", "rgb(8, 48, 107)"
    swatches = tab.locator("#weights-section .swatch .line")
    strokes = swatches.evaluate_all("lines => lines.map((l) => getComputedStyle(l).stroke)")
    assert strokes == [palest, strongest]
    assert color(tab, "n = 32", "weights") == strongest


def test_pickers_change_charts_and_tables(run, visit):
    tab = visit(run.folder / "report.html")
    curves = tab.locator("#curves-section")
    before = outline(tab, "Base-Likra")
    curves.get_by_role("button", name=SOURCE).click()
    assert outline(tab, "Base-Likra") != before
    before = outline(tab, "random_choice", "sources")
    sources = tab.locator("#sources-section")
    sources.get_by_role("button", name="Likra", exact=True).click()
    assert outline(tab, "random_choice", "sources") != before
    before = outline(tab, "n = 32", "weights")
    weights = tab.locator("#weights-section")
    weights.get_by_role("button", name="Base-Likra", exact=True).click()
    assert outline(tab, "n = 32", "weights") != before
    shown = tab.locator("#paired-section tbody tr:visible")
    assert {row.split("\t")[1] for row in shown.all_inner_texts()} == {"32"}
    before = outline(tab, "right answers", "density-positive")
    tab.locator("#separation-section").get_by_role("button", name="8", exact=True).click()
    assert {row.split("\t")[1] for row in shown.all_inner_texts()} == {"8"}
    assert outline(tab, "right answers", "density-positive") != before
    assert tab.locator("#tables-section table:visible thead").inner_text().startswith("acc\t")
    curves.get_by_role("button", name="acc_norm").click()
    assert tab.locator("#tables-section table:visible thead").inner_text().startswith("acc_norm")


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({"modes": ["base-likra"], "weights": []}, ["Base-Likra"]),
        ({"modes": ["base", "sft"], "snapshots": [8], "seeds": [0]}, ["base model", "SFT"]),
        (
            {"modes": ["dpo", "pmi", "likra"], "n_questions": 1, "negatives": ["hardest"]},
            ["DPO", "PMI", "Likra"],
        ),
    ],
    ids=["base-likra", "sft", "dpo"],
)
def test_charts_of_other_studies(visit, tmp_path, changes, drawn):
    write_results(made_up(tmp_path, **changes))
    tab = visit(tmp_path / "report.html")
    assert sorted(series(tab)) == sorted(drawn)
    outlines = tab.locator(".chart path").evaluate_all("ps => ps.map((p) => p.getAttribute('d'))")
    assert not any("NaN" in outline or "undefined" in outline for outline in outlines)


def at_n(data, mode: str, n: int, source: str = "") -> str:
    """What a tooltip says about a point."""
    (line,) = [x for x in data["curves"]["acc"] if (x["mode"], x["source"]) == (mode, source)]
    value, low, high = (line[end][line["n"].index(n)] for end in ("value", "low", "high"))
    return f"n = {n}: {value:.3f} [{low:.3f}, {high:.3f}]".replace("-", "\u2212")


def middle(tab, name: str, marker: int) -> tuple[float, float]:
    """Where a marker of the curves is on the screen."""
    tab.locator("#curves").scroll_into_view_if_needed()
    box = tab.locator(f'#curves [data-series="{name}"] .marker').nth(marker).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_hover_shows_value_and_interval_of_the_nearest_point(run, data, visit):
    tab = visit(run.folder / "report.html")
    tooltip = tab.locator("#curves .tooltip")
    assert not tooltip.is_visible()
    x, y = middle(tab, "SFT", 1)
    tab.mouse.move(x - 3, y + 3)
    assert tooltip.inner_text() == f"SFT\n{at_n(data, 'sft', 32)}"
    assert tab.locator("#curves .ring").get_attribute("visibility") == "visible"
    x, y = middle(tab, "Base-Likra", 0)
    tab.mouse.move(x + 3, y)
    assert tooltip.inner_text() == f"Base-Likra\n{at_n(data, 'base-likra', 8, 'random_choice')}"
    tab.mouse.move(5, 5)
    assert not tooltip.is_visible()


def test_a_tap_shows_the_point_until_another_place_is_tapped(run, data, visit):
    phone = {"width": 390, "height": 844}
    tab = visit(run.folder / "report.html", viewport=phone, has_touch=True)
    x, y = middle(tab, "SFT", 1)
    tab.touchscreen.tap(x, y + 2)
    tooltip = tab.locator("#curves .tooltip")
    assert tooltip.inner_text() == f"SFT\n{at_n(data, 'sft', 32)}"
    box = tooltip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    tab.locator("#curves-section h2").tap()
    assert not tooltip.is_visible()


def test_arrow_keys_read_out_the_points(run, data, visit):
    tab = visit(run.folder / "report.html")
    tab.locator("#curves-section").get_by_role("button", name="base model").focus()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "curves"
    tooltip, status = tab.locator("#curves .tooltip"), tab.locator("#status")
    assert tooltip.inner_text().startswith("base model\nuntrained: 0.")
    seen = set()
    for _ in range(5):
        tab.keyboard.press("ArrowUp")
        seen.add(tooltip.inner_text().partition("\n")[0])
    assert "Likra" in seen
    for _ in range(8):
        if tooltip.inner_text().startswith("SFT"):
            break
        tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert tooltip.inner_text() == f"SFT\n{at_n(data, 'sft', 32)}"
    assert status.inner_text() == f"SFT, {at_n(data, 'sft', 32)}"
    tab.keyboard.press("Escape")
    assert not tooltip.is_visible()


@pytest.mark.parametrize("clipboard", [True, False])
def test_tables_are_copied_with_feedback(run, visit, clipboard):
    tab = visit(run.folder / "report.html", permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:
        tab.evaluate(
            "() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }"
        )
    button = tab.locator("#tables-section").get_by_role("button", name="LaTeX")
    button.click()
    tab.get_by_role("button", name="Copied ✓").wait_for()
    assert "LaTeX: Copied" in tab.locator("#status").inner_text()
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("\\begin{tabular}")
    assert r"base-likra (random\_choice) &" in copied
    button.wait_for(timeout=4000)  # has its name again


def test_dark_paper_and_a_phone(run, other, visit, tmp_path):
    write_comparison([run.folder, other.folder], tmp_path / "compare.html")
    for path in (run.folder / "report.html", tmp_path / "compare.html"):
        colors = {}
        for scheme in ("light", "dark"):
            phone = {"width": 390, "height": 844}
            tab = visit(path, color_scheme=scheme, viewport=phone, has_touch=True)
            assert tab.evaluate("document.documentElement.scrollWidth") == 390
            for box in tab.locator(".wide:visible").all():  # who is cut off can be scrolled to
                cut = box.evaluate("box => box.scrollWidth > box.clientWidth")
                assert box.get_attribute("tabindex") == ("0" if cut else None)
            name = series(tab)[-1]
            colors[scheme] = color(tab, name)
            for chart in tab.locator(".chart:visible").all():
                assert chart.locator("svg .line").count() > 0
                assert chart.locator("svg").bounding_box()["width"] <= 390
        assert colors["light"] != colors["dark"]
    tab.emulate_media(color_scheme="light")  # while the page is open
    assert color(tab, name) == colors["light"]
    tab.emulate_media(color_scheme="dark", media="print")  # paper is white
    assert color(tab, name) == colors["light"]
    assert tab.locator(".pick:visible, .copy:visible").count() == 0
    assert tab.locator(".chip:visible").count() > 0  # the legend of what is drawn
    assert tab.locator(".chip[aria-pressed=false]:visible").count() == 0


def test_a_wide_table_scrolls_by_keyboard_in_a_box_of_its_own(run, visit):
    tab = visit(run.folder / "report.html", viewport={"width": 390, "height": 844})
    box = tab.locator("#paired-section .wide")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    assert box.evaluate("box => getComputedStyle(box).outlineStyle") == "solid"
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
    assert tab.evaluate("scrollX") == 0
    folded = tab.locator("#how-section details", has_text="Settings").locator(".wide")
    assert not folded.is_visible()
    tab.set_viewport_size({"width": 320, "height": 844})
    tab.locator("summary", has_text="Settings").press("Enter")
    folded.wait_for()
    cut = folded.evaluate("box => box.scrollWidth > box.clientWidth")
    tab.wait_for_function(
        "([box, cut]) => box.hasAttribute('tabindex') === cut", arg=[folded.element_handle(), cut]
    )


def test_densities_have_legends_in_the_colours_of_their_curves(run, visit):
    tab = visit(run.folder / "report.html")
    keys = tab.locator("#separation-section .key:visible")
    assert keys.count() == tab.locator("#separation-section .chart:visible").count() > 0
    for kind in ("right", "wrong"):
        line = keys.first.locator(f"[data-key={kind}] .line")
        assert keys.first.locator(f"[data-key={kind}]").inner_text() == f"{kind} answers"
        assert line.evaluate("line => getComputedStyle(line).stroke") == color(
            tab, f"{kind} answers", "density-base"
        )
        assert line.bounding_box()["width"] < 40


def test_the_top_is_in_plain_words_and_the_statistics_are_folded(run, data, visit):
    tab = visit(run.folder / "report.html")
    (short,) = in_short(run.study, data)
    header = tab.locator("body > header")
    assert short in header.inner_text()
    for term in ("Bonferroni", "bootstrap", "Student", "p <"):
        assert term not in header.inner_text()
    header.locator("summary").press("Enter")
    assert "crossed random effects" in header.inner_text()
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0


def test_charts_follow_the_width_of_the_window(run, visit):
    tab = visit(run.folder / "report.html")
    before = outline(tab, "Likra")
    tab.set_viewport_size({"width": 500, "height": 900})
    tab.wait_for_function(
        "before => document.querySelector('#curves [data-series=Likra] .line')"
        ".getAttribute('d') !== before",
        arg=before,
    )
    assert tab.evaluate("document.documentElement.scrollWidth") == 500


def test_without_javascript_figures_and_numbers_are_there(run, visit):
    tab = visit(run.folder / "report.html", java_script_enabled=False)
    assert tab.locator("figure > svg:visible").count() == 5
    assert tab.locator("button:visible").count() == 0
    assert tab.locator("#paired-section tbody tr:visible").count() > 0
    assert tab.locator("article:visible").count() == 6


def test_runs_are_switched_on_and_off(run, other, visit, tmp_path):
    write_comparison([run.folder, other.folder], tmp_path / "compare.html")
    tab = visit(tmp_path / "compare.html")
    assert any(name.startswith("other: SFT") for name in series(tab))
    assert not any("Positive-Base" in name for name in series(tab))
    tab.get_by_role("button", name="other", exact=True).click()
    assert series(tab)
    assert all(name.startswith("made-up: ") for name in series(tab))
