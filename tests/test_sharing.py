"""Runs beside one another share their cells, and each ends as if it had been alone."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from likra.atomic import link_or_copy
from likra.scores.table import BASE, HeadKey
from likra.study.config import parse_study
from likra.study.folder import Run
from likra.study.pack import pack_run
from likra.study.plan import plan_lines, plan_study
from likra.study.run import run_cells, train_heads

SMALL = {
    "name": "first",
    "seeds": [0],
    "snapshots": [8, 16],
    "modes": ["base", "sft", "likra"],
    "eval_questions": 16,
    "training": {"learning_rate": 1e-3, "batch_size": 8},
}
POSITIVE, NEGATIVE = HeadKey("positive", 16, 0), HeadKey("negative", 16, 0, "random_choice")


def small(**changes):
    return parse_study(SMALL | changes)


def silent(_: str) -> None:
    pass


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    return run_cells(small(), tmp_path_factory.mktemp("runs") / "first", silent)


@pytest.fixture
def first(finished, tmp_path) -> Run:
    shutil.copytree(finished.folder, tmp_path / "first")
    return Run(finished.study, tmp_path / "first")


@pytest.mark.parametrize(
    ("changes", "expected", "taken"),
    [
        ({"modes": ["base", "sft", "likra", "base-likra"]}, [], "4 heads and 5 score tables"),
        ({"snapshots": [8]}, [], "2 heads and 3 score tables"),
        ({"snapshots": [8, 16, 24]}, ["train [24]", "score 64"] * 2, "4 heads and 5 score tables"),
    ],
    ids=["modes", "fewer", "more"],
)
def test_what_a_run_beside_it_has_is_taken_to_the_same_bytes(
    first, tmp_path, passes, changes, expected, taken
):
    lines: list[str] = []
    second = small(name="second", **changes)
    run_cells(second, tmp_path / "second", lines.append)
    assert passes == expected
    assert lines[0] == f"taken  {taken} from '{first.folder}'"
    run_cells(second, tmp_path / "alone" / "second", silent)
    assert digests(tmp_path / "second") == digests(tmp_path / "alone" / "second")


def test_losses_that_end_within_a_batch_are_not_those_of_a_longer_run(finished, first, tmp_path):
    """After 12 examples the second batch is half of what it is in the run of 16."""
    twelve = small(name="second", snapshots=[12], modes=["sft"])
    run_cells(twelve, first.folder, silent)  # n = 12 beside the losses of 16
    run_cells(twelve, tmp_path / "second", silent)
    folder = tmp_path / "second" / "heads" / "positive" / "seed=0"
    assert {path.name for path in folder.iterdir()} == {"n=12", "examples.jsonl"}


def test_a_run_beside_it_may_vanish_or_be_changed_later(finished, first, tmp_path):
    second = run_cells(small(name="second"), tmp_path / "second", silent)
    before = digests(second.folder)
    shutil.rmtree(first.folder)
    assert digests(second.folder) == before
    run_cells(small(name="second"), second.folder, silent)  # and all are valid


def test_what_cannot_be_read_there_is_computed(finished, first, tmp_path, passes):
    weights = first.head_folder(POSITIVE) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    first.scores_path(NEGATIVE).write_bytes(b"PAR1" + bytes(50))
    first.scores_path(POSITIVE).unlink()
    lines: list[str] = []
    run_cells(small(), tmp_path / "second", lines.append)
    assert lines[0] == f"taken  3 heads and 3 score tables from '{first.folder}'"
    assert passes == ["train [16]", "score 64", "score 64"]
    assert digests(tmp_path / "second") == digests(finished.folder)


@pytest.mark.parametrize("content", ["nothing", "[]", '{"heads": 1}'])
def test_a_folder_whose_record_cannot_be_read_is_passed_over(tmp_path, content):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "cells.json").write_text(content)
    plan = plan_study(small(), tmp_path / "second", silent, calibrate=False)
    assert not plan.shared


def test_losses_that_were_changed_are_not_taken(first, tmp_path):
    path = first.training_folder(POSITIVE) / "losses.csv"
    path.write_text(path.read_text().replace("\n1,", "\n1,1"))
    run = run_cells(small(), tmp_path / "second", silent)
    assert not (run.training_folder(POSITIVE) / "losses.csv").exists()
    assert (run.training_folder(NEGATIVE) / "losses.csv").is_file()


def test_cells_of_other_settings_are_not_taken(first, tmp_path):
    other = small(training={"learning_rate": 2e-3, "batch_size": 8})
    plan = plan_study(other, tmp_path / "second", silent, calibrate=False)
    assert plan.shared.tables == [BASE]  # which no training decides
    assert not plan.shared.heads


def test_a_packed_run_gives_its_tables(first, tmp_path, passes):
    pack_run(first.folder, tmp_path / "kept")
    shutil.rmtree(first.folder)
    run = run_cells(small(), tmp_path / "second", silent)
    assert passes == []
    assert not (run.folder / "heads").exists()
    assert len(list((run.folder / "scores").iterdir())) == 5


def test_the_plan_counts_what_is_taken_as_done_and_takes_nothing(first, tmp_path):
    study = small(snapshots=[8, 16, 24])
    plan = plan_study(study, tmp_path / "second", silent, calibrate=False)
    assert (plan.heads, plan.heads_done) == (6, 4)
    assert (plan.scoring.runs, plan.scoring.done) == (7, 5)
    assert plan.training.to_do == 2
    assert "taken  4 heads and 5 score tables from other runs" in "\n".join(plan_lines(plan))
    assert not (tmp_path / "second").exists()


def test_what_the_base_computes_first_is_taken_too(first, tmp_path, passes):
    hardest = {"negatives": ["hardest"], "modes": ["base", "base-likra"], "snapshots": [8]}
    run_cells(small(name="ranked", **hardest), tmp_path / "ranked", silent)
    assert passes.count("score 768") == 1  # four choices of 192 training questions
    plan = plan_study(small(**hardest), tmp_path / "second", silent, calibrate=False)
    assert (plan.training.to_do, plan.scoring.to_do) == (0, 0)
    passes.clear()
    lines: list[str] = []
    run_cells(small(name="second", **hardest), tmp_path / "second", lines.append)
    assert passes == []
    assert lines[0] == f"taken  scores/train/base.parquet from '{tmp_path / 'ranked'}'"


def test_heads_that_were_trained_alone_are_taken(tmp_path, passes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_heads(small(), Path("heads"), silent)
    assert passes == ["train [8, 16]"] * 2
    lines: list[str] = []
    run = run_cells(small(), Path("run"), lines.append)
    assert lines[0] == "taken  4 heads from 'heads'"
    assert passes[2:] == ["score 64"] * 5
    weights = [
        Path(name, "heads/positive/seed=0/n=8/adapter_model.safetensors").stat()
        for name in ("heads", str(run.folder))
    ]
    assert weights[0].st_ino == weights[1].st_ino  # linked: no space is taken twice


def test_a_file_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("another file system")

    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert (tmp_path / "a").stat().st_nlink == 1
