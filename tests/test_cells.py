"""Cells: valid exactly while their inputs are the same, and each computed once."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from likra.data.load import load_task
from likra.errors import LikraError
from likra.heads import train as train_module
from likra.heads.base import POCKET
from likra.report.results import run_study, write_results
from likra.scores.table import BASE, HeadKey, file_name
from likra.study import cells as cells_module
from likra.study.config import parse_study
from likra.study.folder import Run, read_run
from likra.study.run import run_cells, train_heads

SMALL = {
    "name": "small",
    "seeds": [0],
    "snapshots": [8],
    "weights": [0.5],
    "modes": ["base", "sft", "likra"],
    "training": {"learning_rate": 1e-3, "batch_size": 8},
}


def silent(_: str) -> None:
    pass


def small(**changes):
    return parse_study(SMALL | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    return run_cells(small(), tmp_path_factory.mktemp("runs") / "small", silent)


@pytest.fixture
def copy(finished, tmp_path) -> Run:
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Run(finished.study, tmp_path / "copy")


# --------------------------------------------------------------------------------------------
# Each once


def test_a_head_is_scored_once_whatever_the_modes_and_weights(tmp_path, passes):
    study = small(
        seeds=[0, 1],
        negatives=["random_choice", "hardest"],
        modes=["base", "pmi", "sft", "likra"],
        weights=[0, 0.5, 1, 2],
    )
    run_study(study, tmp_path / "run", silent)
    # base and prior; for each seed a positive and two negative heads; and the base on the
    # training questions, by which hardest ranks
    assert passes.count("score 512") == 2 + 2 * 3
    assert passes.count("score 768") == 1
    assert passes.count("train [8]") == 2 * 3


def test_other_analysis_settings_need_no_pass(copy, passes):
    """Another weight, metric, set of modes: arithmetic on the same tables."""
    _, before = run_study(copy.study, copy.folder, silent)
    for changes in ({"weight": 0.9}, {"metric": "acc"}, {"modes": ["likra", "sft"]}):
        run = Run(copy.study.model_copy(update=changes), copy.folder)
        write_results(run)
        assert read_run(copy.folder).study == run.study
    _, again = run_study(copy.study, copy.folder, silent)
    assert passes == []
    assert again.equals(before)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seeds": [0, 1]}, ["train [8]", "score 512"] * 2),
        ({"negatives": ["random_choice", "other_question"]}, ["train [8]", "score 512"]),
        ({"snapshots": [8, 16]}, ["train [16]", "score 512"] * 2),
        ({"modes": ["base", "sft", "likra", "pmi"]}, ["score 512"]),
        ({"modes": ["base", "sft"]}, []),
    ],
    ids=["seed", "sampler", "snapshot", "mode", "fewer"],
)
def test_what_is_added_to_a_run_is_all_that_is_computed(copy, passes, changes, expected):
    run_study(small(**changes), copy.folder, silent)
    assert passes == expected


def test_what_was_added_has_the_bytes_of_a_run_that_had_it_from_the_start(copy, tmp_path):
    wider = small(snapshots=[8, 16], negatives=["random_choice", "other_question"])
    run_study(wider, copy.folder, silent)
    alone = tmp_path / "alone" / "new"  # where no other run is beside it
    run_study(wider, alone, silent)
    for kind in ("heads", "scores"):
        new = sorted(path for path in (alone / kind).rglob("*") if path.is_file())
        assert len(new) > 3
        for path in new:
            assert path.read_bytes() == (copy.folder / path.relative_to(alone)).read_bytes()


def test_other_versions_are_reported_and_compute_nothing(copy, passes, monkeypatch):
    monkeypatch.setattr(cells_module, "library_versions", lambda: {"torch": "99.0"})
    lines: list[str] = []
    run_study(copy.study, copy.folder, lines.append)
    (line,) = [line for line in lines if "other versions" in line]
    assert "torch " in line
    assert "(5 cells)" in line  # two heads and three tables
    assert passes == []


# --------------------------------------------------------------------------------------------
# Never mixed


def refused(study, folder: Path, words: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(LikraError, match=words):
        run_cells(study, folder, silent)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


OTHER_RATE = {"training": {"learning_rate": 5e-4, "batch_size": 8}}


def test_other_settings_are_refused_in_the_same_folder(copy):
    refused(
        small(**OTHER_RATE),
        copy.folder,
        r"another training.learning_rate \(0.001 there, 0.0005 now\)",
    )


def test_heads_are_not_taken_for_those_of_other_settings_without_a_study_file(copy):
    (copy.folder / "study.yaml").unlink()
    refused(
        small(**OTHER_RATE),
        copy.folder,
        r"another training.learning_rate \(0.001 there, 0.0005 now\)",
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Run:
    """A finished run with another learning rate."""
    return run_cells(small(**OTHER_RATE), tmp_path_factory.mktemp("runs") / "other", silent)


def test_a_table_copied_from_another_run_is_refused(copy, other):
    key = HeadKey("positive", 8, 0)
    shutil.copy(other.scores_path(key), copy.scores_path(key))
    with pytest.raises(LikraError, match="is not the table that this run computed"):
        write_results(copy)
    refused(copy.study, copy.folder, "another training.learning_rate")


def test_settings_of_another_run_are_refused(copy, other):
    """As those of a run that was stopped by the heads of one beside it."""
    shutil.copy(other.study_path, copy.study_path)
    with pytest.raises(LikraError, match="have other settings of training: `likra run`"):
        write_results(read_run(copy.folder))


def test_a_head_copied_from_another_run_is_refused(copy, other):
    key = HeadKey("negative", 8, 0, "random_choice")
    copy.scores_path(key).unlink()
    shutil.rmtree(copy.head_folder(key))
    shutil.copytree(other.head_folder(key), copy.head_folder(key))
    refused(copy.study, copy.folder, "another training.learning_rate")


def test_an_edited_head_is_refused(copy):
    key = HeadKey("positive", 8, 0)
    copy.scores_path(key).unlink()
    path = copy.head_folder(key) / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    refused(copy.study, copy.folder, "adapter_config.json' was changed after training")


def test_a_table_without_a_stamp_is_refused(copy):
    path = copy.scores_path(BASE)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    refused(copy.study, copy.folder, "does not say which head was scored")


def test_a_head_replaced_while_the_run_goes_on_is_not_scored(copy, other, monkeypatch):
    """Two runs with other settings may start on one folder at the same moment."""
    key = HeadKey("positive", 8, 0)
    copy.scores_path(key).unlink()
    shutil.rmtree(copy.head_folder(key))
    train_head = train_module.train_head

    def replaced(*arguments, **options):
        losses = train_head(*arguments, **options)
        shutil.rmtree(copy.head_folder(key))
        shutil.copytree(other.head_folder(key), copy.head_folder(key))
        return losses

    monkeypatch.setattr(train_module, "train_head", replaced)
    with pytest.raises(LikraError, match="another training.learning_rate"):
        run_cells(copy.study, copy.folder, silent)
    assert not copy.scores_path(key).exists()


def test_swapped_score_tables_are_noticed(copy):
    first, second = HeadKey("positive", 8, 0), HeadKey("negative", 8, 0, "random_choice")
    copy.scores_path(first).write_bytes(copy.scores_path(second).read_bytes())
    with pytest.raises(LikraError, match="positive.seed=0.n=8.*is not the table"):
        write_results(copy)


def preferences(path: Path, count: int = 24) -> None:
    rows = [
        {"prompt": f"Number {n}", "chosen": [f" yes {n}", f" sure {n}"], "rejected": f" no {n}"}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_data_that_changed_are_refused_whatever_is_left_to_compute(tmp_path):
    path = tmp_path / "mine.jsonl"
    preferences(path)
    study = small(task=str(path), modes=["base", "sft"])
    run_cells(study, tmp_path / "run", silent)
    path.write_text(path.read_text().replace(" yes ", " yeah "))
    refused(study, tmp_path / "run", "(training examples|evaluation questions).* have changed")


def test_samples_of_other_questions_are_refused(tmp_path, monkeypatch):
    """A blank line in the file moves the names of all questions without an id."""
    monkeypatch.setattr(
        "likra.heads.sample.sample_answers",
        lambda base, contexts, **_: [[f"no {n}", "never"] for n in range(len(contexts))],
    )
    path = tmp_path / "mine.jsonl"
    preferences(path)
    study = small(train_task=str(path), negatives=["generated"])
    train_heads(study, tmp_path / "run", silent)
    shutil.rmtree(tmp_path / "run" / "heads")
    path.write_text("\n" + path.read_text())
    with pytest.raises(LikraError, match=r"generated.jsonl.*other training questions"):
        train_heads(study, tmp_path / "run", silent)


def incomplete(path: Path) -> str:
    """A sampler from a file that has wrong answers to half of pocket's training questions."""
    questions = load_task("pocket").questions("train")
    rows = [{"id": question.id, "rejected": "nobody"} for question in questions[::2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def test_other_modes_never_pair_heads_that_saw_different_questions(tmp_path):
    sampler = incomplete(tmp_path / "wrong.jsonl")
    settings = {"negatives": [sampler], "metric": "acc"}
    run, _ = run_study(
        small(**settings, modes=["base", "sft", "base-likra"]), tmp_path / "run", silent
    )
    likra = Run(small(**settings, modes=["likra"]), run.folder)
    with pytest.raises(LikraError, match="has no scores of positive.seed=0.source=file"):
        write_results(likra)
    _, after = run_study(likra.study, run.folder, silent)
    _, new = run_study(likra.study, tmp_path / "alone" / "new", silent)
    assert after.equals(new)
    assert run.head_folder(HeadKey("positive", 8, 0, sampler)).is_dir()


def test_a_smaller_snapshot_cuts_neither_losses_nor_examples(copy):
    folder = copy.training_folder(HeadKey("positive", 8, 0))
    study = small(snapshots=[8, 16])
    run_cells(study, copy.folder, silent)
    files = [folder / "losses.csv", folder / "examples.jsonl"]
    before = [path.read_bytes() for path in files]
    assert before[0].count(b"\n") == 3  # the header, and two batches
    assert before[1].count(b"\n") == 16
    shutil.rmtree(folder / "n=8")
    copy.scores_path(HeadKey("positive", 8, 0)).unlink()
    run_cells(small(snapshots=[8]), copy.folder, silent)
    assert [path.read_bytes() for path in files] == before


def test_a_study_that_trains_nothing_needs_no_snapshots(tmp_path):
    study = small(modes=["base", "pmi"], snapshots=[])
    _, points = run_study(study, tmp_path / "run", silent)
    assert set(points["mode"]) == {"base", "pmi"}


def test_a_model_that_changed_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    study = small(model=str(folder), modes=["base", "sft"])
    run = run_cells(study, tmp_path / "run", silent)
    run.scores_path(BASE).unlink()
    weights = load_file(folder / "model.safetensors")
    scaled = {name: 1.01 * tensor for name, tensor in weights.items()}
    save_file(scaled, folder / "model.safetensors", {"format": "pt"})
    refused(study, tmp_path / "run", "another model")


def test_a_file_that_says_nothing_about_the_model_changes_nothing(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    study = small(model=str(folder), modes=["base", "sft"])
    train_heads(study, tmp_path / "run", silent)
    (folder / "README.md").write_text("mine")
    lines: list[str] = []
    train_heads(study, tmp_path / "run", lines.append)
    assert lines == [f"all heads of '{tmp_path / 'run'}' are trained: nothing to compute"]


def test_two_files_of_the_same_name_are_two_samplers():
    names = {file_name("file:a/b.jsonl"), file_name("file:a%2Fb.jsonl"), file_name("file:ab.jsonl")}
    assert len(names) == 3


def test_epochs_are_in_the_stamp_and_a_stopped_run_of_a_schedule_goes_on(copy, passes, tmp_path):
    """Each snapshot of a schedule is a run of its own; one that is there is not trained again."""
    training = {**SMALL["training"], "lr_scheduler_type": "cosine"}
    short, long = (small(training=training, modes=["sft"], snapshots=own) for own in ([8], [8, 16]))
    with pytest.raises(LikraError, match=r"another training.epochs \(the default there, 2 now\)"):
        run_cells(small(training={**SMALL["training"], "epochs": 2}), copy.folder, silent)
    whole = run_cells(long, tmp_path / "alone" / "whole", silent)
    stopped = tmp_path / "stopped"
    run_cells(short, stopped, silent)
    passes.clear()
    run_cells(long, stopped, silent)
    assert passes == ["train [16]", "score 512"]
    for file in (whole.folder / "heads").rglob("adapter_model.safetensors"):
        assert file.read_bytes() == (stopped / file.relative_to(whole.folder)).read_bytes()


def test_a_tracker_is_in_no_stamp(copy, passes):
    training = {**SMALL["training"], "report_to": "tensorboard"}
    run_cells(small(training=training), copy.folder, silent)
    assert passes == []
