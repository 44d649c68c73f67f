"""The commands as a user types them: what they print, and one line with exit code 2 for a fault."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from test_tasks import CARD, row, write_jsonl

TINY = ["--snapshots", "8", "--seeds", "0", "--negatives", "random_choice"]


def likra(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "likra", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def assert_refused(result: subprocess.CompletedProcess[str], words: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_run_then_run_again_then_plot(tmp_path):
    first = likra("run", "pocket", *TINY, "-o", "out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for words in (
        "128 evaluation questions",
        "layout forest",
        "likra (random_choice)",
        "leaks  none",
    ):
        assert words in first.stdout
    again = likra("run", "pocket", *TINY, "-o", "out", cwd=tmp_path)
    assert "nothing to compute" in again.stdout
    plot = likra("plot", "out", cwd=tmp_path)
    assert "mean ± half of the 95% interval" in plot.stdout
    assert first.stdout.endswith(plot.stdout)
    assert again.stdout.endswith(plot.stdout)


@pytest.mark.slow
def test_train_leaves_plain_peft_folders(tmp_path):
    result = likra("train", "-o", "heads", "--snapshots", "8,16", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    config = tmp_path / "heads/heads/negative/seed=0/source=random_choice/n=16/adapter_config.json"
    assert json.loads(config.read_text())["target_modules"]
    refused = likra("train", "-o", "heads", "--snapshots", "8", cwd=tmp_path)
    assert_refused(refused, "another 'snapshots'")


@pytest.mark.slow
def test_real_arc_with_a_real_checkpoint(tmp_path, real_data):
    model, data = real_data / "models/stories260K", real_data / "data/ai2_arc"
    options = ["--snapshots", "32", "--seeds", "0", "--long-prompts", "truncate", "-o", "arc"]
    arguments = ["--model", str(model), "--data", str(data), *options]
    result = likra("run", "arc-challenge", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1,119 training questions" in result.stdout
    assert "1,172 evaluation questions" in result.stdout
    assert "questions stand in training and evaluation" in result.stdout
    summary = json.loads((tmp_path / "arc/summary.json").read_text())
    assert summary["n_questions"] == 1172
    assert len(summary["leaks"]) >= 6
    modes = {row["mode"] for row in summary["accuracy"]}
    assert modes == {"base", "sft", "likra", "base-likra", "positive-base"}
    for point in summary["accuracy"]:
        assert 0.15 < point["value"] < 0.35  # chance, with this model


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "pokcet"], "unknown study 'pokcet': did you mean 'pocket'?"),
        (["run", "pocket", "--model", "pokcet"], "unknown model 'pokcet': did you mean 'pocket'?"),
        (["run", "pocket", "--task", "arc"], "unknown task 'arc'"),
        (["run", "pocket", "--modes", "likra,stf"], "unknown mode 'stf': did you mean 'sft'?"),
        (["run", "pocket", "--negatives", "x"], "unknown source of negatives 'x'"),
        (["run", "pocket", "--set", "lora.rank=4"], "unknown key 'rank'"),
        (["run", "pocket", "--set", "lora"], "--set takes KEY=VALUE"),
        (["run", "pocket", "--seeds", "1;2"], "--seeds takes whole numbers"),
        (["run", "pocket", "--snapshots", "8,999"], "a snapshot at 999 examples"),
        (["run", "pocket", "--snapshots", "8,12,16"], "within a batch of 8"),
        (["run", "pocket", "--num-fewshot", "60"], "the model's context is 512"),
        (["run", "pocket", "--dtype", "int4"], "unknown dtype 'int4'"),
        (["run", "nowhere.yaml"], "no study at 'nowhere.yaml'"),
        (["plot", "nowhere"], "no run in 'nowhere'"),
        (["run", "pocket", *TINY, "-o", "/proc/likra"], "cannot read or write"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, arguments, words):
    assert_refused(likra(*arguments, cwd=tmp_path), words)
    assert not list(tmp_path.iterdir())


def test_a_bad_question_is_named(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [row("e1")])
    write_jsonl(tmp_path / "train.jsonl", [row("t1"), row("t2", ("Paris", "Paris"), "A")])
    (tmp_path / "mine.yaml").write_text(CARD)
    result = likra("run", "pocket", "--task", "mine.yaml", *TINY, cwd=tmp_path)
    assert_refused(result, "question 't2': 'Paris' is both a right and a wrong answer")
    assert not (tmp_path / "runs").exists()


def full_disk() -> None:
    """No file may grow beyond 20 kB: a head fits no more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_is_one_line_and_leaves_no_half_written_head(tmp_path):
    result = likra("run", "pocket", *TINY, "-o", "out", cwd=tmp_path, preexec_fn=full_disk)
    assert_refused(result, "cannot")
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    assert not list((tmp_path / "out").rglob("n=8"))


def test_help_teaches():
    for arguments in ([], ["--help"], ["run", "--help"], ["train", "--help"], ["plot", "--help"]):
        text = likra(*arguments, cwd=Path.cwd()).stdout
        assert "Usage" in text
    assert "pocket" in likra("run", "--help", cwd=Path.cwd()).stdout


def test_version():
    from likra import __version__

    assert likra("--version", cwd=Path.cwd()).stdout.strip() == __version__
