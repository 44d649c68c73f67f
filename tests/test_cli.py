"""The commands as a user types them: what they print, and one line with exit code 2 for a fault."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import typer
from commands import likra, process
from test_tasks import CARD, row, write_jsonl
from typer.testing import CliRunner

import likra as likra_package
from likra.cli import main as cli
from likra.study.config import setting_fields

TINY = ["--snapshots", "8", "--seeds", "0", "--negatives", "random_choice"]


def assert_refused(result: subprocess.CompletedProcess[str], words: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_run_then_run_again_then_plot(tmp_path):
    first = process("run", "pocket", *TINY, "-o", "out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for words in (
        "128 evaluation questions",
        "layout forest",
        "base-likra",
        "leaks  none",
    ):
        assert words in first.stdout
    again = likra("run", "pocket", *TINY, "-o", "out", cwd=tmp_path)
    assert "nothing to compute" in again.stdout
    plot = likra("plot", "out", cwd=tmp_path)
    title = "mean ± half of the 95% interval over questions, for one seed"
    assert title in " ".join(plot.stdout.split())
    assert first.stdout.endswith(plot.stdout)
    assert again.stdout.endswith(plot.stdout)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    elsewhere = likra("plot", "out", "--weight", "0.7", "-o", "drawn", cwd=tmp_path)
    assert "weight 0.7" in elsewhere.stdout
    assert (tmp_path / "drawn/report.html").is_file()
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    likra("pack", "out", "-o", "kept", cwd=tmp_path)
    refused = likra("plot", "out", "-o", "kept", cwd=tmp_path)
    assert_refused(refused, "'kept' is the folder of another run")
    options = ["--weight", "0.45", "--metric", "acc_norm", "--modes", "base,likra"]
    other = likra("plot", "out", *options, "--set", "weights=[0.25]", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert "acc_norm on pocket" in other.stdout
    curve = pd.read_csv(tmp_path / "out/curve.csv")
    assert set(curve["mode"]) == {"base", "likra"}
    assert set(curve[curve["mode"] == "likra"].weight) == {0.25, 0.45}
    assert likra("plot", "out", cwd=tmp_path).stdout == other.stdout  # the run keeps them


def test_a_log_has_a_line_for_each_cell_and_a_quiet_run_only_the_results(tmp_path):
    """No progress but theirs, and the results are the same."""
    options = ["pocket", *TINY, "--modes", "base,sft", "--eval-questions", "20"]
    told = likra("run", *options, "-o", "told", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    shown = [re.sub(", about .* left", "", line) for line in told.stderr.splitlines()]
    assert shown == [
        "done   1 of 3 cells: scored base",
        "done   2 of 3 cells: trained positive, seed 0, n = 8",
        "done   3 of 3 cells: scored positive, seed 0, n = 8",
    ]
    quiet = likra("run", *options, "--quiet", "-o", "quiet", cwd=tmp_path)
    assert not quiet.stderr
    results = quiet.stdout.replace("quiet/", "told/")
    assert told.stdout.endswith(results)
    assert "task   pocket" in told.stdout.removesuffix(results)
    assert results.startswith("acc on pocket, weight 1.0: mean")


@pytest.mark.slow
def test_train_leaves_plain_peft_folders(tmp_path):
    result = likra("train", "-o", "heads", "--snapshots", "8,16", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    config = tmp_path / "heads/heads/negative/seed=0/source=random_choice/n=16/adapter_config.json"
    assert json.loads(config.read_text())["target_modules"]
    fewer = likra("train", "-o", "heads", "--snapshots", "8", cwd=tmp_path)
    assert "nothing to compute" in fewer.stdout
    refused = likra("train", "-o", "heads", "--lr", "0.1", cwd=tmp_path)
    assert_refused(refused, "another training.learning_rate")


@pytest.mark.slow
def test_real_arc_with_a_real_checkpoint(tmp_path, real_data):
    model, data = real_data / "models/stories260K", real_data / "data/ai2_arc"
    options = ["--snapshots", "32", "--seeds", "0", "--long-prompts", "truncate", "-o", "arc"]
    options += ["--modes", "base,base-likra", "--eval-questions", "400"]
    arguments = ["--model", str(model), "--data", str(data), *options]
    result = likra("run", "arc-challenge", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1,119 training questions" in result.stdout
    assert "400 of 1,172 questions" in result.stdout
    assert "questions are in training and evaluation" in result.stdout
    summary = json.loads((tmp_path / "arc/summary.json").read_text())
    assert summary["n_questions"] == 400
    assert summary["leaks"]
    modes = {row["mode"] for row in summary["accuracy"]}
    assert modes == {"base", "base-likra"}
    for point in summary["accuracy"]:
        assert 0.15 < point["value"] < 0.35  # chance, with this model


def pocket_rows() -> list[dict]:
    """The facts of pocket as a user might bring them: question, choices, answer."""
    folder = Path(likra_package.__file__).parent / "pocket/data"
    rows = []
    for split in ("train", "test"):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        for document in map(json.loads, lines):
            texts, labels = document["choices"]["text"], document["choices"]["label"]
            gold = labels.index(document["answerKey"])
            rows.append({"question": document["question"], "choices": texts, "answer": gold})
    return rows


def write_preference(path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in pocket_rows():
            texts = [f" {text}" for text in row["choices"]]
            right = texts.pop(row["answer"])
            prompt = f"Question: {row['question']}\nAnswer:"
            file.write(json.dumps({"prompt": prompt, "chosen": right, "rejected": texts}) + "\n")


def write_unpaired(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "completion", "label"])
        for row in pocket_rows():
            prompt = f"Question: {row['question']}\nAnswer:"
            for place, text in enumerate(row["choices"]):
                writer.writerow([prompt, f" {text}", place == row["answer"]])


def write_choices(path: Path) -> None:
    pd.DataFrame(pocket_rows()).to_parquet(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "form"),
    [
        ("answers.jsonl", write_preference, "preference (prompt, chosen, rejected)"),
        ("answers.csv", write_unpaired, "unpaired preference (prompt, completion, label)"),
        ("answers.parquet", write_choices, "multiple choice (prompt=question, choices, answer)"),
    ],
)
def test_a_file_of_the_users_own(tmp_path, name, write, form):
    write(tmp_path / name)
    options = ["--snapshots", "32", "-o", "out", "--weight", "1"]
    result = likra("run", name, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for words in (
        f"data   '{name}': {form}, 320 questions",
        "data   one split: 20% of its questions are held out for evaluation",
        "256 training questions",
        "64 evaluation questions (held-out)",
        "leaks  none",
    ):
        assert words in result.stdout
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    found = {row["mode"]: row["value"] for row in summary["accuracy"] if row["metric"] == "acc"}
    assert found["likra"] > found["sft"] + 0.15  # 32 examples: what the method is for


@pytest.mark.slow
def test_wrong_answers_alone_train_a_negative_head(tmp_path):
    rows = [{"prompt": f"p{n}", "rejected": f" no{n}"} for n in range(20)]
    write_jsonl(tmp_path / "wrong.jsonl", rows)
    refused = likra("train", "--task", "wrong.jsonl", "-o", "heads", cwd=tmp_path)
    assert_refused(refused, "no training question has a right answer")
    options = ["--task", "wrong.jsonl", "--heads", "negative", "-o", "heads"]
    result = likra("train", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "heads/heads/positive").exists()
    found = sorted(p.name for p in (tmp_path / "heads").rglob("n=*"))
    assert found == ["n=16", "n=20", "n=8"]
    again = likra("train", *options, cwd=tmp_path)
    assert "nothing to compute" in again.stdout
    write_preference(tmp_path / "quiz.jsonl")
    options = ["--train-task", "wrong.jsonl", "--modes", "base,base-likra", "--snapshots", "16"]
    result = likra("run", "quiz.jsonl", *options, "-o", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "20 training questions" in result.stdout
    assert "0 with a right answer, 20 with a wrong one" in result.stdout
    assert "320 evaluation questions (task quiz.jsonl, train)" in result.stdout


@pytest.mark.slow
def test_bad_rows_and_leaks_from_the_command_line(tmp_path):
    write_preference(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:40], "{", *lines[40:60]]))
    (tmp_path / "test.jsonl").write_text("\n".join(lines[55:80]))
    options = ["--train-task", "train.jsonl", "--task", "test.jsonl", "--snapshots", "8"]
    refused = likra("run", *options, cwd=tmp_path)
    assert_refused(refused, "train.jsonl, line 41: broken JSON: Expecting property name")
    refused = likra("run", *options, "--on-bad-row", "skip", "--on-leakage", "error", cwd=tmp_path)
    assert_refused(refused, "5 questions are in training and evaluation, and ")
    options += ["--on-bad-row", "skip", "--on-leakage", "drop", "-o", "out", "--modes", "base,sft"]
    result = likra("run", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    left_out = "data   left out 1 rows (broken JSON: 1); train.jsonl, line 41: broken JSON"
    assert left_out in result.stdout
    assert "they are not trained on" in result.stdout
    leaks = json.loads((tmp_path / "out/summary.json").read_text())["leaks"]
    dropped = {train for train, _, _ in leaks}
    assert {f"train.jsonl, line {line}" for line in range(57, 62)} <= dropped
    assert f"{60 - len(dropped)} training questions" in result.stdout
    trained = (tmp_path / "out/heads/positive/seed=0/examples.jsonl").read_text()
    assert not any(f'"{name}"' in trained for name in dropped)


def test_tasks_lists_cards_and_shows_questions(tmp_path):
    listed = likra("tasks", cwd=tmp_path).stdout
    for words in ("hellaswag", "Rowan/hellaswag", "lm_eval:NAME", "3 to 5", "mmlu_text"):
        assert words in listed
    shown = likra("tasks", "show", "pocket", "-n", "1", "--model", "pocket", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "splits test, train; trained on train" in shown.stdout
    assert shown.stdout.count("  right  ' ") == 1
    assert shown.stdout.count("  wrong  ' ") == 3
    assert "tokens + " in shown.stdout
    assert_refused(likra("tasks", "show", "pokcet", cwd=tmp_path), "did you mean 'pocket'?")
    assert not list(tmp_path.iterdir())


def test_answers_are_counted_from_where_the_option_says(tmp_path):
    row = {"question": "Which?", "choices": ["x", "y"], "answer": 1}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    for base, right in (("0", "y"), ("1", "x")):
        shown = likra("tasks", "show", "a.jsonl", "--answer-base", base, cwd=tmp_path)
        assert f"right  ' {right}'" in shown.stdout
    refused = likra("tasks", "show", "a.jsonl", "--answer-base", "2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "'answer_base': input should be less than or equal to 1, not 2" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "name a study, a task or a data file"),
        (["run", "lost.jsonl"], "file not found: 'lost.jsonl'"),
        (["run", "pocket", "--fewshot", "some"], "unknown fewshot 'some'"),
        (["run", "pocket", "--eval-fraction", "0.5"], "has splits of its own (test, train)"),
        (["run", "pocket", "--apply-chat-template"], "needs a chat template"),
        (["run", "pocket", "--columns", "prompt"], "--columns takes pairs such as"),
        (["run", "lm_eval:gsm8k"], "output_type is 'generate_until'"),
        (["train", "--heads", "all", "-o", "x"], "unknown choice of heads 'all'"),
        (["run", "pokcet"], "unknown study 'pokcet': did you mean 'pocket'?"),
        (["run", "pocket", "--model", "pokcet"], "unknown model 'pokcet': did you mean 'pocket'?"),
        (["run", "pocket", "--task", "arcc"], "unknown task 'arcc': did you mean 'arc'?"),
        (["run", "pocket", "--modes", "likra,stf"], "unknown mode 'stf': did you mean 'sft'?"),
        (["run", "pocket", "--negatives", "x"], "unknown sampler of negatives 'x'"),
        (["run", "pocket", "--set", "lora.rank=4"], "'lora.rank': did you mean 'lora.r'?"),
        (["run", "pocket", "--set", "lora"], "--set takes KEY=VALUE"),
        (["run", "pocket", "--seeds", "1;2"], "--seeds takes numbers such as 1,2,3, not '1;2'"),
        (["run", "pocket", "--seed", "1", "--seeds", "0,1"], "give --seed or --seeds, not both"),
        (["train", "--seed", "1", "--seeds", "2", "-o", "x"], "give --seed or --seeds, not both"),
        (["plan", "pocket", "--report-to", "tensorbord"], "did you mean 'tensorboard'?"),
        (["run", "pocket", "--snapshots", "8,999"], "a snapshot at 999 examples"),
        (["run", "pocket", "--snapshots", "8,12,16"], "within a batch of 8"),
        (["run", "pocket", "--num-fewshot", "60"], "the model's context is 512"),
        (["run", "pocket", "--dtype", "int4"], "unknown dtype 'int4'"),
        (["run", "nowhere.yaml"], "no study at 'nowhere.yaml'"),
        (["plot", "nowhere"], "no run in 'nowhere'"),
        (["run", "table1", "--model", "pokcet"], "unknown model 'pokcet'"),
        (["run", "table1", "--task", "pokcet"], "unknown task 'pokcet'"),
        (["run", "pocket", *TINY, "-o", "/proc/likra"], "cannot read or write"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, arguments, words
):
    """In this process, for time; what comes out of a process of its own is tested below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["likra", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert_refused(
        subprocess.CompletedProcess(arguments, stopped.value.code, "", capsys.readouterr().err),
        words,
    )
    assert not list(tmp_path.iterdir())


def test_code_in_a_card_runs_only_when_it_is_allowed(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", [row("e1")])
    write_jsonl(tmp_path / "train.jsonl", [row("t1")])
    (tmp_path / "code.py").write_text("def text(doc):\n    return 'made by code: '\n")
    lines = CARD.splitlines()
    card = ["doc_to_text: !function code.text" if "doc_to_text" in x else x for x in lines]
    (tmp_path / "mine.yaml").write_text("\n".join(card) + "\n")
    refused = likra("tasks", "show", "mine.yaml", cwd=tmp_path)
    assert_refused(refused, "pass --allow-code if you trust it")
    shown = likra("tasks", "show", "mine.yaml", "--allow-code", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "made by code" in shown.stdout


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
    result = process("run", "pocket", *TINY, "-o", "out", cwd=tmp_path, preexec_fn=full_disk)
    assert_refused(result, "cannot")
    assert not list((tmp_path / "out").rglob("*.safetensors"))
    assert not list((tmp_path / "out").rglob("n=8"))


def test_plot_refuses_what_decides_the_scores(tmp_path):
    (tmp_path / "study.yaml").write_text("study: {name: mine}\n")
    for setting in ("training.learning_rate=0.1", "model=other", "seeds=[1]", "name=other"):
        result = likra("plot", ".", "--set", setting, cwd=tmp_path)
        key = setting.split("=")[0]
        assert_refused(result, f"'{key}' decides what is trained or scored: use likra run")
    assert_refused(likra("plot", ".", "--modes", "likr", cwd=tmp_path), "did you mean 'likra'?")


def test_a_grid_takes_the_model_and_task_that_are_given(tmp_path):
    write_preference(tmp_path / "mine.jsonl")
    options = ["--task", "mine.jsonl", "--model", "pocket", "--no-calibrate"]
    result = likra("plan", "table1", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("plan   '") == 1
    assert "plan   'runs/table1/table1-pocket-mine.jsonl'" in result.stdout


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_stopped_command_says_so_and_leaves_no_temporary_folder(tmp_path, number, code):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # a shell starts background jobs, such as this test's own process, with Ctrl-C ignored
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.argv = ['likra', 'run', 'pocket', '-o', 'out'];"
        "from likra.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(scratch.glob("likra-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == code, stderr
    (line,) = [line for line in stderr.splitlines() if not line.startswith("done ")]
    assert line == "stopped: the same command continues where this one stopped, in 'out'"
    assert not list(scratch.iterdir())
    assert not list((tmp_path / "out").rglob(".*"))


OPTIONS = {
    "run": "model task data train-task train-data columns answer-base "
    "prompt-template seeds snapshots negatives "
    "modes weight metric num-fewshot fewshot eval-fraction eval-questions on-leakage on-bad-row "
    "apply-chat-template no-chat-template allow-code lr batch-size epochs report-to long-prompts "
    "dtype set output seed shard launcher workers launcher-option quiet log-format",
    "plan": "model task data train-task train-data columns answer-base "
    "prompt-template seeds snapshots negatives "
    "modes weight metric num-fewshot fewshot eval-fraction eval-questions on-leakage on-bad-row "
    "apply-chat-template no-chat-template allow-code lr batch-size epochs report-to long-prompts "
    "dtype set output seed calibrate no-calibrate",
    "train": "output model task data split heads negatives snapshots columns answer-base "
    "prompt-template "
    "on-bad-row apply-chat-template no-chat-template long-prompts seed seeds lr batch-size epochs "
    "report-to dtype allow-code set log-format",
    "plot": "modes weight weights validation-fraction metric figures paper-figure set output",
    "compare": "output",
    "pack": "output",
    "verdict": "mode against samplers metric weight output",
    "eval": "data allow-code",
    "negatives": "",
    "tasks": "",
    "tasks show": "data columns answer-base prompt-template split num-fewshot fewshot on-bad-row "
    "apply-chat-template no-chat-template allow-code model set",
}


def command_of(name: str) -> typer.core.TyperCommand:
    command = typer.main.get_command(cli.app)
    for part in name.split():
        command = command.commands[part]
    return command


@pytest.mark.parametrize("name", OPTIONS)
def test_the_options_of_a_command(name):
    flags = {
        flag.removeprefix("--")
        for option in command_of(name).params
        for flag in [*option.opts, *option.secondary_opts]
        if flag.startswith("--")
    }
    assert flags == set(OPTIONS[name].split())


HELP = [[], *([name] for name in ("fit", "rank", "explain", "generate", "card", "push"))]
HELP += [name.split() for name in OPTIONS if name != "eval"]  # the harness's own help follows


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_at_80_columns_cuts_nothing(arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(cli.app, [*arguments, "--help"]).output
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    command = command_of(" ".join(arguments))
    words = text.replace("\n", " ").replace(",", " ").split()
    for option in command.params:
        if option.param_type_name == "option":
            assert {*option.opts, *option.secondary_opts} <= set(words)
    said = " ".join(text.split())
    for child in getattr(command, "commands", {}).values():
        assert " ".join(child.help.partition("\n")[0].split()) in said


def test_the_help_of_an_option_is_the_settings_description():
    helps, of_train = (
        {option.name: getattr(option, "help", "") for option in command_of(name).params}
        for name in ("run", "train")
    )
    fields = setting_fields()
    for key in ("dtype", "columns", "on_leakage", "training.learning_rate"):
        words = " ".join(fields[key].description.split())
        assert helps[key.replace(".", "_")] == words
    assert of_train["training_batch_size"].endswith("optimizer step (default: 8).")
    assert helps["dtype"].endswith("by default the checkpoint's own, on a CPU float32.")


def test_help_teaches():
    commands = ("run", "plan", "train", "plot", "verdict", "pack")
    for arguments in ([], ["--help"], *([name, "--help"] for name in commands)):
        text = likra(*arguments, cwd=Path.cwd()).stdout
        assert "Usage" in text
    assert "pocket" in likra("run", "--help", cwd=Path.cwd()).stdout


def test_version():
    from likra import __version__

    assert likra("--version", cwd=Path.cwd()).stdout.strip() == __version__
