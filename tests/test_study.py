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

import pyarrow.parquet as pq
import pytest
from commands import likra
from conftest import nats

from likra.data.load import load_task
from likra.engine.tokens import encode
from likra.errors import LikraError
from likra.heads.base import POCKET
from likra.heads.lora import Head
from likra.heads.score import score
from likra.heads.stamp import read_stamp
from likra.questions import Choice
from likra.report.results import run_study, write_results
from likra.scores.table import BASE, PRIOR, HeadKey
from likra.scores.weights import split_validation
from likra.study.config import parse_study
from likra.study.folder import Run, read_run, usable_path
from likra.study.run import train_heads
from likra.study.tables import read_run_scores, score_keys

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
    assert likra("run", "small.yaml", "-o", "killed", cwd=tmp_path).returncode == 0
    there, expected = digests(tmp_path / "killed"), digests(run.folder)
    left = {name for name in there if name not in expected}
    assert all("/." in name for name in left)  # at most a temporary file of the killed one
    assert {name: there[name] for name in expected} == expected


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


def test_the_weight_is_chosen_on_questions_that_are_not_reported(tmp_path):
    settings = {"negatives": ["random_choice"], "modes": ["base", "likra"], "metric": "acc"}
    study = small(**settings, validation_fraction=0.5)
    run, _ = run_study(study, tmp_path / "run", silent)
    scores = read_run_scores(run)
    aside = split_validation(scores.question_ids, 0.5)
    assert 40 < aside.sum() < 88
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["n_questions"] == 128 - aside.sum()
    keys = [key for key in score_keys(run) if key.head != "base"]
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


def test_a_folder_called_pocket_is_not_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pocket").mkdir()
    study = small(name="pocket", seeds=[0], snapshots=[8], modes=["base", "sft"])
    run_study(study, Path("pocket"), silent)
    lines = []
    run_study(study, Path("pocket"), lines.append)
    assert lines == ["all 2 score tables of 'pocket' exist: nothing to compute"]


def test_a_chat_template_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "chat.jinja").write_bytes(b"\xff")
    study = small(apply_chat_template=True, chat_template=str(tmp_path / "chat.jinja"))
    with pytest.raises(LikraError, match="chat.jinja' is not UTF-8"):
        train_heads(study, tmp_path / "heads", silent)


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
    words = r"answers to 12 questions \(seed 0\).*fewer --snapshots \(.*right \(12\)"
    with pytest.raises(LikraError, match=words):
        train_heads(small(**settings, snapshots=[16]), tmp_path / "heads", silent)
    assert not (tmp_path / "heads/heads").exists()
    folders = train_heads(small(**settings, snapshots=[8]), tmp_path / "heads", silent)
    assert all((folder / "adapter_model.safetensors").is_file() for folder in folders)
    train_heads(small(**settings, snapshots=[]), tmp_path / "heads", silent)
    assert n_calls == 1
    assert read_run(tmp_path / "heads").study.snapshots == [8, 12]


def test_training_alone_leaves_the_heads(tmp_path):
    chosen = small(seeds=[0], snapshots=[8], negatives=["random_choice"])
    folders = train_heads(chosen, tmp_path / "heads", silent)
    assert [str(folder.relative_to(tmp_path)) for folder in folders] == [
        "heads/heads/positive/seed=0/n=8",
        "heads/heads/negative/seed=0/source=random_choice/n=8",
    ]
    assert all((folder / "adapter_config.json").is_file() for folder in folders)
    assert not (tmp_path / "heads" / "scores").exists()


def test_the_report_of_a_mixture_names_its_parts(tmp_path):
    """A part that gives nothing would otherwise be listed by name alone."""
    (tmp_path / "wrong.jsonl").write_text('{"question": "Who?", "rejected": "x"}\n')
    source = f"0.5 file:{tmp_path / 'wrong.jsonl'} + 0.5 random_choice"
    lines = []
    train_heads(small(seeds=[0], negatives=[source]), tmp_path / "heads", lines.append)
    (line,) = [line for line in lines if "drawn from" in line]
    assert "drawn from file 0, random_choice 16; candidates refused: no answer from file (" in line


def test_the_prior_has_the_token_counts_of_its_own_strings(tmp_path, pocket):
    """Without the question before it, an answer may fall into other tokens."""
    study = small(seeds=[0], snapshots=[8], modes=["base", "pmi"])
    run, _ = run_study(study, tmp_path / "run", silent)
    table = pq.read_table(run.scores_path(PRIOR)).to_pylist()
    task = load_task("pocket")
    choices = [choice for question in task.questions("test") for choice in question.choices]
    for row, choice in zip(table, choices, strict=True):
        tokens = pocket.tokenizer(choice.continuation, add_special_tokens=False)["input_ids"]
        assert row["n_tokens"] == len(tokens)


def test_settings_of_a_run_hold_wherever_the_process_was_started(tmp_path, monkeypatch):
    shutil.copytree(POCKET, tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    train_heads(small(model="model", seeds=[0], snapshots=[8]), Path("heads"), silent)
    monkeypatch.chdir(tmp_path)
    assert usable_path("model", Path("here/heads")) == str(tmp_path / "here" / "model")
    assert usable_path("pocket", Path("here/heads")) == "pocket"


def test_too_few_validation_questions_are_refused_in_a_run_and_a_plot(copy):
    study = copy.study.model_copy(update={"validation_fraction": 0.1})
    with pytest.raises(LikraError, match="each side needs 20"):
        run_study(study, copy.folder, silent)
    with pytest.raises(LikraError, match="each side needs 20"):
        write_results(Run(study, copy.folder))


def test_heads_that_cannot_be_trained_are_refused_before_the_base_computes(tmp_path, monkeypatch):
    study = small(negatives=["hardest"], lora={"target_modules": "no_such_layer"})
    with pytest.raises(LikraError, match="no head fits"):
        run_study(study, tmp_path / "run", silent)
    monkeypatch.setattr("likra.heads.trl.find_spec", lambda name: None)
    with pytest.raises(LikraError, match="a 'trl-' mode needs trl"):
        run_study(small(negatives=["hardest"], modes=["sft", "trl-dpo"]), tmp_path / "run", silent)
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------
# Other methods


METHODS = {
    "seeds": [0],
    "snapshots": [8],
    "negatives": ["random_choice"],
    "learning_rates": {"classifier": 2e-3, "simpo": 5e-4},
    "modes": ["base", "sft", "dpo-reward", "kto", "simpo", "bradley-terry", "classifier"],
}


@pytest.fixture(scope="module")
def with_methods(tmp_path_factory) -> Run:
    return run_study(small(**METHODS), tmp_path_factory.mktemp("runs") / "small", silent)[0]


def stamp_inputs(run: Run, head: str) -> dict:
    source = None if head == "positive" else "random_choice"
    return read_stamp(run.head_folder(HeadKey(head, 8, 0, source)))["inputs"]


def test_the_other_methods_are_trained_and_scored_once(with_methods):
    heads = sorted(path.name for path in (with_methods.folder / "heads").iterdir())
    assert heads == ["bradley-terry", "classifier", "dpo", "kto", "positive", "simpo"]
    curve = (with_methods.folder / "curve.csv").read_text()
    assert all(f"{mode}," in curve for mode in METHODS["modes"])


def test_a_stamp_holds_beta_where_there_is_one_and_the_heads_own_learning_rate(with_methods):
    betas = {"dpo": 0.1, "kto": 0.1, "simpo": 2.0, "bradley-terry": 1.0, "classifier": 1.0}
    rates = {"classifier": 2e-3, "simpo": 5e-4}
    for head, beta in betas.items():
        inputs = stamp_inputs(with_methods, head)
        assert inputs["beta"] == beta
        assert inputs["training"]["learning_rate"] == rates.get(head, 1e-3)
    assert "beta" not in stamp_inputs(with_methods, "positive")


def test_a_learning_rate_changes_the_training_of_that_head_alone(with_methods, tmp_path):
    changes = METHODS | {"modes": ["base", "dpo", "kto"], "learning_rates": {"kto": 5e-4}}
    run, _ = run_study(small(**changes), tmp_path / "other", silent)
    for head, is_same in (("dpo", True), ("kto", False)):
        key = HeadKey(head, 8, 0, "random_choice")
        before, after = (
            (one.head_folder(key) / "adapter_model.safetensors").read_bytes()
            for one in (with_methods, run)
        )
        assert (before == after) == is_same
    assert stamp_inputs(run, "kto")["training"]["learning_rate"] == 5e-4
    with pytest.raises(LikraError, match="another training.learning_rate"):
        run_study(small(**changes), with_methods.folder, silent)


def test_beta_is_the_studys_own_where_it_is_given(with_methods):
    with pytest.raises(LikraError, match=r"another beta \(0.1 there, 0.5 now\)"):
        run_study(small(**METHODS, betas={"dpo": 0.5}), with_methods.folder, silent)


def test_a_classifiers_score_is_the_log_odds_of_yes_against_no(with_methods, pocket):
    key = HeadKey("classifier", 8, 0, "random_choice")
    questions = load_task("pocket").questions("test")[:5]
    asked = [
        Choice(
            f"{choice.context}{choice.continuation}\nIs this answer right?", f" {word}", word, True
        )
        for question in questions
        for choice in question.choices
        for word in ("yes", "no")
    ]
    pairs = encode(pocket.tokenizer, asked, pocket.max_length)
    logprobs = score(Head(pocket, with_methods.head_folder(key)), pairs).logprobs
    rows = pq.read_table(with_methods.scores_path(key)).slice(0, len(asked) // 2)
    assert rows["logprob"].to_pylist() == nats(logprobs[0::2] - logprobs[1::2])
    assert max(rows["logprob"].to_pylist()) != min(rows["logprob"].to_pylist())
    assert rows["question_id"].to_pylist()[:4] == [questions[0].id] * 4
    assert rows["is_right"].to_pylist()[:4] == [c.is_right for c in questions[0].choices]


def test_what_kto_needs_is_asked_for_before_anything_is_trained(tmp_path):
    study = small(**METHODS | {"modes": ["base", "sft", "kto"], "training": {"batch_size": 1}})
    with pytest.raises(LikraError, match="kto compares the questions of a batch"):
        run_study(study, tmp_path / "run", silent)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_head_in_learning_rates_that_is_unknown_is_named_with_the_nearest():
    with pytest.raises(
        LikraError, match="'learning_rates': unknown head 'dpoo': did you mean 'dpo'"
    ):
        small(learning_rates={"dpoo": 1e-4})
    assert (
        small(learning_rates={"dpo": "1e-4"}).training_of("dpo").learning_rate == 1e-4
    )  # as YAML has it
    with pytest.raises(LikraError, match="'learning_rates.dpo'"):
        small(learning_rates={"dpo": 0})


@pytest.mark.slow
def test_the_heads_of_trl_are_those_of_the_forest(with_methods, tmp_path):
    """To what float32 leaves of equal gradients after a step of AdamW."""
    pytest.importorskip("trl")
    changes = METHODS | {"modes": ["base", "dpo", "trl-dpo"], "learning_rates": {}}
    run, _ = run_study(small(**changes), tmp_path / "trl", silent)
    own, trls = (
        pq.read_table(run.scores_path(HeadKey(head, 8, 0, "random_choice")))["logprob"].to_pylist()
        for head in ("dpo", "trl-dpo")
    )
    assert own == pytest.approx(trls, abs=1e-2)
