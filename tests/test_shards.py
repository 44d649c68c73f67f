"""Shards: several processes at once on one folder give what one process gives."""

import subprocess
import sys

import pytest

from likra.errors import LikraError
from likra.study.shards import Shard

STUDY = ["pocket", "--seeds", "0", "--snapshots", "8", "--eval-questions", "20"]


def likra_run(folder, *options):
    command = [sys.executable, "-m", "likra", "run", *STUDY, "-o", str(folder), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_two_shards_at_once_give_the_bytes_of_one_run(tmp_path):
    whole, shared = tmp_path / "a" / "run", tmp_path / "b" / "run"
    started = [likra_run(whole)]
    started += [likra_run(shared, "--shard", shard) for shard in ("0/2", "1/2")]
    outputs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], outputs
    tables = {path.name: path.read_bytes() for path in whole.glob("scores/*.parquet")}
    assert len(tables) >= 3
    assert {path.name: path.read_bytes() for path in shared.glob("scores/*.parquet")} == tables
    assert (shared / "curve.csv").read_bytes() == (whole / "curve.csv").read_bytes()


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(LikraError, match="0/n to"):
        Shard.parse(text)
