"""Cells that fail: recorded, left out of the results by whole seeds or modes, and tried again."""

import errno
import json
import shlex
from pathlib import Path

import pytest
from commands import likra
from test_report import made_up

from likra.errors import LikraError, NotFiniteError
from likra.heads import train as train_module
from likra.report.results import draw, run_grid, write_results
from likra.scores.table import BASE, PRIOR, HeadKey
from likra.study.complete import complete_part, left_out
from likra.study.config import parse_study
from likra.study.failures import SCORING, TRAINING, FailedCells, IncompleteError
from likra.study.folder import Run, read_facts, read_run
from likra.study.prepare import prepare
from likra.study.run import resolve

COMMAND = "run pocket --seeds 0,1 --snapshots 8,16 --modes base,sft,likra --eval-questions 20"
STUDY = [*shlex.split(COMMAND), "--negatives", "random_choice", "--set", "figures=[]"]


# --------------------------------------------------------------------------------------------
# A run


@pytest.mark.slow
def test_a_failed_head_leaves_out_its_seed_until_the_same_command_computes_it(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        late = RuntimeError("CUDA error:\n  an illegal memory access")
        real = train_module.save_head

        def save_head(head, folder, stamp):
            if folder.parts[-4:] == ("negative", "seed=1", "source=random_choice", "n=16"):
                raise late
            real(head, folder, stamp)

        patch.setattr(train_module, "save_head", save_head)
        first = likra(*STUDY, "-o", "a/run", cwd=tmp_path)
    assert first.returncode == 1
    cell = "negative (random_choice), seed 1, n = 16"
    reason = "RuntimeError: CUDA error: an illegal memory access"
    assert f"error: {cell}: training failed: {reason}\n" in first.stderr
    assert "Traceback" not in first.stderr
    sentence = (
        "Incomplete: 1 of 9 score tables could not be computed, so these results leave out seed 1."
    )
    assert sentence in first.stdout
    folder = tmp_path / "a" / "run"
    page = (folder / "report.html").read_text()
    assert sentence in page
    assert f"{cell}: training failed" in page
    names = {path.name for path in folder.glob("scores/*.parquet")}
    assert len(names) == 8  # the head after 8 examples was saved, and is scored
    (path,) = (folder / "failures").iterdir()
    assert path.name == "negative.seed=1.source=random_choice.n=16.json"
    record = json.loads(path.read_text())
    assert (record["stage"], record["reason"]) == ("training", reason)
    assert "save_head" in record["traceback"]

    again = likra(*STUDY, "-o", "a/run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "scored negative (random_choice), seed 1, n = 16" in again.stderr
    assert not (folder / "failures").exists()
    assert "Incomplete" not in (folder / "report.html").read_text()
    assert {str(seed) for seed in read_run(folder).study.seeds} == {"0", "1"}


def test_a_head_that_fails_does_not_stop_the_training_of_the_others(tmp_path, monkeypatch):
    real = train_module.save_head

    def save_head(head, folder, stamp):
        if "positive" in folder.parts:
            raise MemoryError
        real(head, folder, stamp)

    monkeypatch.setattr(train_module, "save_head", save_head)
    options = ["--seeds", "0", "--snapshots", "8", "--negatives", "random_choice"]
    done = likra("train", "--task", "pocket", "-o", "heads", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "error: positive, seed 0, n = 8: training failed: MemoryError\n" in done.stderr
    saved = Path("heads/heads/negative/seed=0/source=random_choice/n=8")
    assert f"head   {saved}\n" in done.stderr + done.stdout
    assert [path.parent for path in (tmp_path / "heads").rglob("*.safetensors")] == [
        tmp_path / saved
    ]


def test_the_results_are_those_of_the_complete_seeds(tmp_path):
    run = made_up(tmp_path / "run", seeds=[0, 1], negatives=["random_choice"], figures=[])
    alone = made_up(tmp_path / "alone", seeds=[0], negatives=["random_choice"], figures=[])
    write_results(alone)
    run.scores_path(HeadKey("positive", 8, 1)).unlink()
    with pytest.raises(IncompleteError, match="positive.seed=1.n=8: not computed") as raised:
        draw(run)
    part, points = raised.value.results
    assert part.study == alone.study
    assert set(points.seed) == {"0", "", "all"}
    curve = (run.folder / "curve.csv").read_bytes()
    assert curve == (alone.folder / "curve.csv").read_bytes()
    assert read_run(run.folder).study.seeds == [0]  # `likra plot` draws them again
    assert read_facts(run.folder)["incomplete"][0].endswith("leave out seed 1.")


def test_nothing_is_drawn_without_the_base(tmp_path):
    run = made_up(tmp_path / "run")
    run.scores_path(BASE).unlink()
    with pytest.raises(IncompleteError, match="base: not computed; too little") as raised:
        draw(run)
    assert raised.value.results is None
    assert not (run.folder / "report.html").exists()


def test_a_grid_goes_on_after_a_study_that_is_incomplete(tmp_path):
    grid = parse_study(
        {"name": "grid", "tasks": ["pocket", "pocket_sums"], "snapshots": [8], "modes": ["base"]}
    )
    seen = []

    def run_one(study, folder, log):
        seen.append(study.task)
        raise IncompleteError(["base: scoring failed: no"])

    with pytest.raises(IncompleteError, match="grid-pocket-pocket_sums: base: scoring") as raised:
        run_grid(grid, tmp_path, lambda line: None, run_one)
    assert seen == ["pocket", "pocket_sums"]
    assert raised.value.results is None


# --------------------------------------------------------------------------------------------
# What is recorded


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    study = parse_study({"name": "small", "snapshots": [8, 16], "eval_questions": 4})
    run = Run(study, tmp_path_factory.mktemp("runs") / "small")
    return resolve(run, prepare(study), lambda line: None)[0]


KEYS = [HeadKey("positive", 8, 0), HeadKey("positive", 16, 0)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotFiniteError("the loss became nan at step 1"), "the loss became nan at step 1"),
        (MemoryError(), "MemoryError"),
        (ValueError("a\n b"), "ValueError: a b"),
    ],
)
def test_failures_of_the_computation_are_recorded(cells, error, reason):
    lines = []
    failed = FailedCells(cells, lines.append)
    cells.run.head_folder(KEYS[0]).mkdir(parents=True, exist_ok=True)  # saved before it failed
    with failed.kept(TRAINING, KEYS):
        raise error
    assert set(failed.failures) == {KEYS[1]}
    assert lines == [f"failed positive, seed 0, n = 16: training failed: {reason}"]
    with failed.kept(SCORING, KEYS[:1]):
        raise error
    assert set(failed.failures) == set(KEYS)


@pytest.mark.parametrize(
    "error",
    [
        LikraError("a head was replaced"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        KeyboardInterrupt(),
        SystemExit(143),
    ],
)
def test_bad_input_a_full_disk_and_signals_stop_the_run(cells, error):
    failed = FailedCells(cells, print)
    with pytest.raises(type(error)), failed.kept(SCORING, KEYS):
        raise error
    assert not failed.failures


# --------------------------------------------------------------------------------------------
# What is left out

SEEDS, N = [0, 1, 2], [8, 16]
POSITIVE, NEGATIVE = "positive", "negative"
SAMPLERS = ["random_choice", "other_question"]


def of(head, n=N, seeds=SEEDS, source=None):
    """The tables of a head at these numbers of examples and seeds."""
    return [HeadKey(head, number, seed, source) for number in n for seed in seeds]


@pytest.mark.parametrize(
    ("changes", "missing", "text"),
    [
        ({}, of(POSITIVE, [8], [1]), "seed 1"),
        ({}, of(POSITIVE, [8], [1]) + of(NEGATIVE, [16], [2], SAMPLERS[1]), "seeds 1, 2"),
        # every seed lacks something: whatever lacks the largest share goes first
        ({}, of("dpo", source=SAMPLERS[0]), "mode dpo"),
        ({}, of(NEGATIVE, source=SAMPLERS[1]), "negatives other_question"),
        ({}, of(POSITIVE, [16]) + of(NEGATIVE, [16], source=SAMPLERS[0]), "n = 16"),
        (
            {},
            of("dpo", source=SAMPLERS[0]) + of(POSITIVE, [8], [2]),
            "seed 2 and mode dpo",
        ),
        ({"seeds": [0]}, of(NEGATIVE, [16], [0], SAMPLERS[0]), "n = 16"),
        ({"modes": ["base", "sft", "pmi"]}, [PRIOR], "mode pmi"),
        # without that sampler, DPO would need another one
        ({}, of(NEGATIVE, source=SAMPLERS[0]), "mode dpo and negatives random_choice"),
    ],
)
def test_what_is_left_out(tmp_path, changes, missing, text):
    settings = {
        "seeds": SEEDS,
        "snapshots": N,
        "negatives": SAMPLERS,
        "modes": ["base", "sft", "likra", "dpo"],
    }
    run = made_up(tmp_path / "run", n_questions=3, **{**settings, **changes})
    for key in missing:
        run.scores_path(key).unlink()
    part = complete_part(run)
    assert left_out(run.study, part.study) == text


def test_every_mode_of_a_part_can_be_drawn(tmp_path):
    run = made_up(tmp_path / "run", seeds=[0], snapshots=N, modes=["base", "sft", "likra"])
    for key in of(POSITIVE, N, [0]):
        run.scores_path(key).unlink()
    assert complete_part(run).study.modes == ["base"]
    for key in (PRIOR, BASE):
        run.scores_path(key).unlink(missing_ok=True)
    assert complete_part(run) is None
