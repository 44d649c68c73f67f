"""Shards: several processes at once on one folder give what one process gives."""

import os
import subprocess
import sys

import pytest
from commands import likra

from likra.errors import LikraError
from likra.study.config import parse_study
from likra.study.folder import Run
from likra.study.prepare import prepare
from likra.study.run import resolve
from likra.study.shards import Shard

STUDY = ["run", "pocket", "--seeds", "0", "--snapshots", "8", "--eval-questions", "20"]
STUDY += ["--set", "figures=[]", "-o"]


def started(folder, rank):
    """A shard as torchrun starts it; nobody waits at the port."""
    group = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": "9"}
    command = [sys.executable, "-m", "likra", *STUDY, str(folder), "--shard", f"{rank}/2"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=os.environ | group, text=True, **streams)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of a single process."""
    folder = tmp_path_factory.mktemp("runs")
    assert likra(*STUDY, "run", cwd=folder).returncode == 0
    return folder / "run"


def assert_same(folder, whole):
    """The same bytes in all score tables and the curve."""
    tables = {path.name: path.read_bytes() for path in whole.glob("scores/*.parquet")}
    assert len(tables) >= 3
    assert {path.name: path.read_bytes() for path in folder.glob("scores/*.parquet")} == tables
    assert (folder / "curve.csv").read_bytes() == (whole / "curve.csv").read_bytes()


@pytest.mark.slow
def test_two_shards_at_once_give_the_bytes_of_one_run(whole, tmp_path):
    folder = tmp_path / "run"
    processes = [started(folder, rank) for rank in (0, 1)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum("report " in output for output in outputs) >= 1  # the last one draws the results
    assert_same(folder, whole)


RAY = pytest.mark.skipif(
    "LIKRA_RAY" not in os.environ,
    reason="with LIKRA_RAY=1 it starts a cluster, for which a busy machine is too slow",
)
LAUNCHERS = [
    ("local", ""),
    ("submitit", "cluster=debug"),
    pytest.param("ray", "num_cpus=1", marks=RAY),
]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "option"), LAUNCHERS)
def test_workers_give_the_bytes_of_one_run(whole, tmp_path, launcher, option):
    if launcher != "local":
        pytest.importorskip(launcher)
    options = ["--launcher-option", option] if option else []
    result = likra(*STUDY, "run", "--launcher", launcher, "--workers", "2", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "launch 2 workers for 4 score tables" in result.stdout
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_shards_are_disjoint_whole_and_never_divide_a_training(tmp_path, count):
    study = parse_study(
        {
            "name": "shards",
            "seeds": [0, 1],
            "snapshots": [8, 16],
            "negatives": ["random_choice", "other_question"],
            "modes": ["base", "pmi", "sft", "likra", "dpo"],
            "eval_questions": 4,
        }
    )
    run = Run(study, tmp_path)
    cells, _ = resolve(run, prepare(study), lambda line: None)
    parts = [Shard(number, count).keys(cells) for number in range(count)]
    assert sum(map(len, parts)) == len(cells.scores)
    assert set().union(*parts) == set(cells.scores)
    if count <= 1 + len(cells.trainings):  # as many units, with that of the untrained tables
        assert all(parts)
    for training in cells.trainings:
        assert sum(not part.isdisjoint(training.keys) for part in parts) == 1


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(LikraError, match="0/n to"):
        Shard.parse(text)
