"""Studies: every cell once, resumed after a kill, the same bytes, the same questions for all."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from likra.errors import LikraError
from likra.heads import score as scoring_module
from likra.heads.base import POCKET
from likra.report.results import write_results
from likra.scores.table import BASE, HeadKey
from likra.scores.weights import split_validation
from likra.study import run as study_module
from likra.study.config import parse_study, read_study
from likra.study.run import (
    Run,
    Workbench,
    read_run,
    read_run_scores,
    run_study,
    train_heads,
)

SMALL = {
    "name": "small",
    "seeds": [0, 1],
    "snapshots": [8, 16],
    "negatives": ["random_choice", "other_question"],
    "weights": [0.5],
    "training": {"learning_rate": 1e-3, "batch_size": 8},
}


def silent(_: str) -> None:
    pass


def small(**changes):
    return parse_study(SMALL | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return run_study(small(), folder, silent)


def examples(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_files_that_a_study_leaves(finished):
    run, _ = finished
    names = set(digests(run.folder))
    assert {"study.yaml", "curve.csv", "summary.json", "report.html"} <= names
    for figure in ("learning_curve", "weight_curve"):
        assert {f"figures/{figure}.svg", f"figures/{figure}.png"} <= names
    assert "heads/positive/seed=1/n=16/adapter_model.safetensors" in names
    assert "heads/negative/seed=0/source=other_question/n=8/adapter_config.json" in names
    assert sum(name.startswith("scores/") for name in names) == 1 + 2 * 3 * 2
    assert not [name for name in names if ".tmp" in name or "/." in name]


def test_both_heads_saw_the_same_questions_in_the_same_order(finished):
    run, _ = finished
    for seed in (0, 1):
        folders = [run.training_folder(k[0]) for k in run.trainings if k[0].seed == seed]
        seen = [[example["question_id"] for example in examples(f)] for f in folders]
        assert len(seen) == 3
        assert seen[0] == seen[1] == seen[2]
        assert len(set(seen[0])) == 16


def test_the_heads_saw_right_and_wrong_answers(finished):
    run, _ = finished
    gold = {q.id: q.right[0].continuation for q in Workbench(run.study).train}
    for keys in run.trainings:
        for example in examples(run.training_folder(keys[0])):
            right = gold[example["question_id"]]
            if keys[0].head == "positive":
                assert example == {"question_id": example["question_id"], "answer": right}
            else:
                assert right not in example["wrong"]
                assert len(example["wrong"]) == 1


def test_running_again_computes_nothing(finished, monkeypatch):
    run, points = finished
    before = digests(run.folder)
    for name in ("_train", "_write", "_prepare"):
        monkeypatch.setattr(study_module, name, lambda *_, **__: pytest.fail("computed again"))
    _, again = run_study(small(), run.folder, silent)
    assert digests(run.folder) == before
    pd.testing.assert_frame_equal(again, points)


def test_the_same_seeds_give_the_same_bytes(finished, tmp_path):
    run, _ = finished
    run_study(small(), tmp_path / "again", silent)
    assert digests(tmp_path / "again") == digests(run.folder)


def test_figures_and_report_again_from_the_tables(finished):
    run, _ = finished
    before = digests(run.folder)
    for name in ("curve.csv", "report.html", "figures/learning_curve.svg"):
        (run.folder / name).unlink()
    write_results(read_run(run.folder))
    assert digests(run.folder) == before


def test_the_curve_has_every_mode_source_and_seed(finished):
    _, points = finished
    for seed in ("0", "1", "all"):
        shown = points[(points.seed == seed) & (points.metric == "acc")]
        assert set(shown[shown["mode"] == "likra"].source) == {"random_choice", "other_question"}
        assert set(shown[shown["mode"] == "likra"].weight) == {0.5, 1.0}
        assert set(shown[shown["mode"] == "sft"].source) == {""}
        assert set(shown[shown["mode"] == "sft"].n_train) == {8, 16}
    alone = points[(points.seed != "all")]
    assert ((alone.ci_low <= alone.value) & (alone.value <= alone.ci_high)).all()


def test_the_report_stands_alone(finished):
    run, _ = finished
    page = (run.folder / "report.html").read_text()
    page = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)  # see test_report.py
    assert page.count("<svg") == 5
    assert not re.search(r'(?<!<a )(src|href)="(?!#)|@import|url\((?!#)', page)
    for words in ("learning_rate", "0.001", "transformers", "likra (random_choice)"):
        assert words in page


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(finished, tmp_path):
    run, _ = finished
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "likra", "run", "small.yaml", "-o", "killed"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=-3, stderr=-3)
    started = tmp_path / "killed" / "heads" / "negative" / "seed=0"
    deadline = time.monotonic() + 120
    while not started.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert started.exists()
    assert not (tmp_path / "killed" / "curve.csv").exists()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    there, expected = digests(tmp_path / "killed"), digests(run.folder)
    left = {name for name in there if name not in expected}
    assert all("/." in name for name in left)  # at most a temporary file of the killed one
    assert {name: there[name] for name in expected} == expected


def test_other_settings_are_refused_in_the_same_folder(finished):
    run, _ = finished
    before = digests(run.folder)
    with pytest.raises(LikraError, match=r"another 'snapshots' \(\[8, 16\] there, \[8\] now\)"):
        run_study(small(snapshots=[8]), run.folder, silent)
    assert digests(run.folder) == before


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    run, _ = finished
    shutil.copytree(run.folder, tmp_path / "copy")
    return Run(run.study, tmp_path / "copy")


def test_a_damaged_score_table_is_named(copy):
    path = copy.scores_path(BASE)
    path.write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(LikraError, match=r"cannot read the scores in '.*base.parquet'"):
        run_study(copy.study, copy.folder, silent)


def test_swapped_score_tables_are_noticed(copy):
    first, second = HeadKey("positive", 8, 0), HeadKey("positive", 16, 0)
    copy.scores_path(first).write_bytes(copy.scores_path(second).read_bytes())
    with pytest.raises(LikraError, match="does not hold the scores of positive.seed=0.n=8"):
        write_results(copy)


def test_a_damaged_head_is_named(copy):
    key = HeadKey("positive", 8, 0)
    copy.scores_path(key).unlink()
    (copy.head_folder(key) / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(LikraError, match=r"cannot read the head in '.*n=8'.*delete the folder"):
        run_study(copy.study, copy.folder, silent)


def test_a_lost_head_is_trained_again_to_the_same_bytes(copy, finished):
    key = HeadKey("positive", 16, 1)
    shutil.rmtree(copy.head_folder(key))
    copy.scores_path(key).unlink()
    run_study(copy.study, copy.folder, silent)
    assert digests(copy.folder) == digests(finished[0].folder)


def test_nothing_is_written_when_the_input_is_bad(tmp_path):
    with pytest.raises(LikraError, match="needs as many training questions, and there are 192"):
        run_study(small(snapshots=[1000]), tmp_path / "bad", silent)
    with pytest.raises(LikraError, match="no head fits"):
        train_heads(small(lora={"target_modules": "no_such_layer"}), tmp_path / "bad", silent)
    assert not (tmp_path / "bad").exists()


def test_training_alone_leaves_the_heads(tmp_path):
    chosen = small(seeds=[0], snapshots=[8], negatives=["random_choice"])
    run = train_heads(chosen, tmp_path / "heads", silent)
    assert run.heads_done()
    assert not (run.folder / "scores").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"snapshot": [8]}, "unknown key 'snapshot': did you mean 'snapshots'?"),
        ({"training": {"lr": 1}}, "unknown key 'training.lr'.*known: training.batch_size"),
        ({"training": {"learning_rat": 1.0}}, "did you mean 'training.learning_rate'?"),
        ({"seeds": []}, "'seeds': list should have at least 1 item"),
        ({"seeds": ["a"]}, "'seeds.0': input should be a valid integer.*not 'a'"),
        ({"snapshots": [16, 8]}, "'snapshots' must ascend"),
        ({"snapshots": [0]}, "'snapshots.0': .*greater than or equal to 1"),
        ({"seeds": [1, 1]}, "'seeds' holds a value twice"),
        ({"modes": ["likr"]}, "unknown mode 'likr': did you mean 'likra'?"),
        ({"negatives": ["randm_choice"]}, "did you mean 'random_choice'?"),
        ({"metric": "accnorm"}, "unknown metric 'accnorm': did you mean 'acc_norm'?"),
        ({"weight": -1}, "'weight': input should be greater than or equal to 0"),
        ({"name": "../up"}, "'name'"),
    ],
)
def test_bad_settings_name_the_key(changes, words):
    with pytest.raises(LikraError, match=words):
        small(**changes)


def test_built_in_studies_are_good_ones():
    assert read_study("pocket").seeds == [0, 1, 2]
    assert read_study("pocket").snapshots == [8, 16, 32, 64, 128, 192]
    assert (
        read_study("arc-challenge", {"training.learning_rate": 1e-4}).training.learning_rate == 1e-4
    )
    with pytest.raises(LikraError, match="unknown study 'pokcet': did you mean 'pocket'?"):
        read_study("pokcet")


def test_a_head_is_scored_once_whatever_the_modes_and_weights(tmp_path, monkeypatch):
    calls = []
    score = scoring_module.score_pairs

    def counting(base, pairs, **options):
        calls.append(len(pairs))
        return score(base, pairs, **options)

    monkeypatch.setattr(scoring_module, "score_pairs", counting)
    sources = ["random_choice", "hardest"]
    study = small(negatives=sources, modes=["base", "pmi", "sft", "likra"], weights=[0, 0.5, 1, 2])
    run, _ = run_study(study, tmp_path / "run", silent)
    # base and prior; one positive and two negative heads at each seed and snapshot; and the base
    # on the training questions, by which hardest ranks
    n_heads = 3 * len(study.seeds) * len(study.snapshots)
    assert len(calls) == 2 + n_heads + 1
    assert sorted(set(calls)) == [4 * 128, 4 * 192]
    assert calls.count(4 * 192) == 1
    monkeypatch.setattr(study_module, "_write", lambda *_: pytest.fail("scored again"))
    write_results(run)
    assert len(calls) == 3 + n_heads


def test_the_weight_is_chosen_on_questions_that_are_not_reported(tmp_path):
    settings = {"negatives": ["random_choice"], "modes": ["base", "likra"], "metric": "acc"}
    study = small(**settings, validation_fraction=0.5)
    run, _ = run_study(study, tmp_path / "run", silent)
    scores = read_run_scores(run)
    aside = split_validation(scores.question_ids, 0.5)
    assert 40 < aside.sum() < 88
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["n_questions"] == 128 - aside.sum()
    keys = [key for key in run.keys if key.head != "base"]
    by_head = {(key.head, key.n_train, key.seed): scores.logprob[key] for key in keys}
    for row in summary["chosen_weights"]:
        n = row["n_train"]

        def accuracy(weight, among, n=n):
            values = []
            for seed in study.seeds:
                ratio = by_head["positive", n, seed] - weight * by_head["negative", n, seed]
                best = ratio[among].argmax(axis=1)
                values.append(scores.is_right[among][range(len(best)), best].mean())
            return sum(values) / len(values)

        assert row["validation"] == pytest.approx(accuracy(row["weight"], aside))
        assert row["value"] == pytest.approx(accuracy(row["weight"], ~aside))
        best = max(accuracy(weight, aside) for weight in study.all_weights)
        assert row["validation"] == pytest.approx(best)


def preferences(path: Path, count: int = 24) -> None:
    rows = [
        {"prompt": f"Number {n}", "chosen": [f" yes {n}", f" sure {n}"], "rejected": f" no {n}"}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_data_that_changed_are_refused_whatever_is_left_to_compute(tmp_path):
    path = tmp_path / "mine.jsonl"
    preferences(path)
    study = small(task=str(path), seeds=[0], snapshots=[8], modes=["base", "sft"])
    run_study(study, tmp_path / "run", silent)
    path.write_text(path.read_text().replace(" yes 3", " yes 33"))
    with pytest.raises(LikraError, match="mine.jsonl' has changed since"):
        run_study(study, tmp_path / "run", silent)


def test_a_model_that_changed_is_refused(tmp_path):
    """Else heads of one model would be scored on another."""
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    study = small(model=str(folder), seeds=[0], snapshots=[8], modes=["base", "sft"])
    run, _ = run_study(study, tmp_path / "run", silent)
    run.scores_path(BASE).unlink()
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: 1.01 * tensor for name, tensor in weights.items()}, folder / "model.safetensors"
    )
    with pytest.raises(LikraError, match="model' has changed since"):
        run_study(study, tmp_path / "run", silent)


def test_a_folder_called_pocket_is_not_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pocket").mkdir()
    study = small(name="pocket", seeds=[0], snapshots=[8], modes=["base", "sft"])
    run_study(study, Path("pocket"), silent)
    said = []
    run_study(study, Path("pocket"), said.append)
    assert said == ["all 2 heads of 'pocket' are scored: nothing to compute"]


def test_cards_and_files_that_a_study_reads_are_known(tmp_path):
    preferences(tmp_path / "mine.jsonl")
    preferences(tmp_path / "other.jsonl")
    preferences(tmp_path / "quiz.jsonl")
    (tmp_path / "base.yaml").write_text(CARD)
    (tmp_path / "card.yaml").write_text("include: base.yaml\ntask: card\n")
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    study = small(
        task=str(tmp_path / "card.yaml"),
        train_task=str(tmp_path / "mine.jsonl"),
        negatives=[f"other_task:{tmp_path / 'other.jsonl'}"],
        chat_template=str(tmp_path / "chat.jinja"),
    )
    before = Workbench(study, silent).digests
    assert len(before) == 5
    for name in ("base.yaml", "mine.jsonl", "other.jsonl", "quiz.jsonl", "chat.jinja"):
        path = tmp_path / name
        kept = path.read_text()
        path.write_text(kept.replace("Number 1", "Numbers 1") + "\n")
        now = Workbench(study, silent).digests
        changed = "card.yaml" if name == "base.yaml" else name
        assert [Path(p).name for p in before if before[p] != now[p]] == [changed]
        path.write_text(kept)


CARD = """
task: base
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {data_files: {test: quiz.jsonl}}
test_split: test
doc_to_text: "Number 1 {{prompt}}"
doc_to_choice: ["yes", "no"]
doc_to_target: 0
"""


def test_a_chat_template_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "chat.jinja").write_bytes(b"\xff")
    study = small(apply_chat_template=True, chat_template=str(tmp_path / "chat.jinja"))
    with pytest.raises(LikraError, match="chat.jinja' is not UTF-8"):
        train_heads(study, tmp_path / "heads", silent)


def test_both_heads_see_the_same_questions_though_some_lack_an_answer(tmp_path):
    rows = [{"prompt": f"Number {n}", "chosen": f" yes {n}"} for n in range(60)]
    for row in rows[::2]:
        row["rejected"] = " no"
    for row in rows[::5]:
        del row["chosen"]
        row["rejected"] = " never"
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = small(train_task=str(path), snapshots=[8, 24], negatives=["random_choice"])
    bench = Workbench(study, silent)
    whole = {n for n, row in enumerate(rows) if {"chosen", "rejected"} <= set(row)}
    for seed in (0, 1):
        heads = [
            [question.id for question in bench.examples(seed, *head, 30).questions]
            for head in (("positive", None), ("negative", "random_choice"))
        ]
        assert heads[0][: len(whole)] == heads[1][: len(whole)]
        assert {int(name.split()[-1]) - 1 for name in heads[0][: len(whole)]} == whole


def test_what_a_mixture_was_drawn_from_is_said(tmp_path):
    """A part that gives nothing would else stand in its name alone."""
    (tmp_path / "wrong.jsonl").write_text('{"question": "Of whom?", "rejected": "x"}\n')
    source = f"0.5 file:{tmp_path / 'wrong.jsonl'} + 0.5 random_choice"
    said = []
    train_heads(small(seeds=[0], negatives=[source]), tmp_path / "heads", said.append)
    (line,) = [line for line in said if "drawn from" in line]
    assert "drawn from file 0, random_choice 16; candidates refused: file: nothing for a" in line


def test_a_source_with_too_little_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    """And what was sampled is not lost: fewer examples are asked for in the same folder."""
    n_calls = 0

    def some_right(base, contexts, **settings):
        nonlocal n_calls
        n_calls += 1
        return [["yes 1"] if n % 2 else ["no"] for n, _ in enumerate(contexts)]

    monkeypatch.setattr("likra.heads.sample.sample_answers", some_right)
    rows = [{"prompt": f"Number {n}", "completion": " yes 1"} for n in range(24)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"train_task": str(path), "negatives": ["generated"]}
    words = r"answers to 12 questions \(seed 0\).*fewer --snapshots \(.*right 12"
    with pytest.raises(LikraError, match=words):
        train_heads(small(**settings, snapshots=[]), tmp_path / "heads", silent)
    assert not (tmp_path / "heads/heads").exists()
    run = train_heads(small(**settings, snapshots=[8]), tmp_path / "heads", silent)
    assert run.heads_done()
    assert n_calls == 1
    assert read_run(run.folder).study.snapshots == [8]


def test_of_several_right_answers_each_seed_draws_one(tmp_path):
    preferences(tmp_path / "mine.jsonl")
    study = small(task=str(tmp_path / "mine.jsonl"), seeds=list(range(8)), snapshots=[16])
    said = []
    bench = Workbench(study, said.append)
    drawn = [bench.examples(seed, "positive", None, 16) for seed in study.seeds]
    for examples in drawn:
        assert len(examples.right) == 16
        for question, choice in zip(examples.questions, examples.right, strict=True):
            assert choice in question.right
    texts = {choice.text.split()[0] for examples in drawn for choice in examples.right}
    assert texts == {"yes", "sure"}
    again = bench.examples(0, "positive", None, 16)
    assert again.right == drawn[0].right
    bench.describe_train()
    assert "have several right answers: each seed trains on one" in said[-1]
