"""Every shell and Python block of README and of the pages for beginners works as it stands.

Blocks are run in order, in a folder with small files under the names that the pages use for the
reader's own. Two kinds of lines are not run to their end:

- ``likra run`` takes minutes: ``likra plan`` is run instead, with the same options but one seed and
  few evaluation questions. It reads model and data and packs all batches.
- Lines with a text of `NOT_HERE` need what no test has. The command itself reads them, study and
  settings included, and is stopped where it would begin to work.
"""

import csv
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import likra
from likra.cli.main import app
from likra.serve.forms import RankRequest

ROOT = Path(__file__).parents[1]
HUB = "data of the hub"
NOT_HERE = {
    "--model meta-llama/": "a model of the hub, with a licence to accept",
    "model.Q4_K_M.gguf": "a model in a GGUF file, and " + HUB,
    "lm_eval:copa": HUB,
    "likra train --model ./my-model --task arc_challenge": HUB,
    "likra plan arc-challenge": HUB,
    "models=[A,B]": "models of the reader's choice, and " + HUB,
    "paper/": "models and " + HUB,
    "smollm2-paper/": "a model and questions from packages",
    "likra eval": HUB,
    "likra fit answers.jsonl": "half a minute more: the fits of pocket and capitals.csv are run",
    "likra fit quiz.jsonl": "the same",
    "likra serve": "a server, which does not end by itself",
    "likra doctor": "half a minute: test_doctor.py runs it",
    "--launcher": "several processes: test_shards.py starts them",
}
WORK = (
    "report.results.run_study",
    "report.results.run_grid",
    "launch.run.launch_study",
    "study.run.train_heads",
    "study.plan.plan_study",
    "integrations.lm_eval_run._execute",
    "model.likra.Likra.fit",
    "serve.run.serve",
    "doctor.examine.examine",
)
INSTALLING = ("python3 -m venv ", ". .venv/bin/activate")
FORMULA = "score(answer) = "


class Stopped(Exception):  # noqa: N818
    """The command has read its line, and would begin to work."""


def blocks(document: str) -> Iterator[tuple[str, str]]:
    """The (language, text) of each block: fenced, or in Markdown's older way, indented."""
    text = (ROOT / document).read_text("utf-8")
    pattern = r"^```(\w*)\n(.*?)^```$|(?<=\n\n)((?:    [^\n]*\n|\n(?=    ))+)"
    for match in re.finditer(pattern, text, re.DOTALL | re.MULTILINE):
        language, fenced, indented = match.groups()
        if fenced is not None:
            yield language, fenced
        elif not indented.lstrip().startswith(FORMULA):
            yield "sh", re.sub(r"^    ", "", indented, flags=re.MULTILINE)


def commands(block: str) -> Iterator[str]:
    """The commands of a shell block: a line each, or as far as it goes on below."""
    lines = iter(block.splitlines())
    for line in lines:
        command = [line]
        while command[-1].endswith("\\"):
            command.append(next(lines))
        if end := re.search(r"<<'(\w+)'$", line):
            while command[-1] != end[1]:
                command.append(next(lines))
        if line.strip():
            yield "\n".join(command)


def run_likra(line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints, run, planned or read."""
    arguments = shlex.split(line, comments=True)[1:]
    with monkeypatch.context() as patch:
        missing = [text for text in NOT_HERE if text in line]
        if missing:
            for place in WORK:
                module, _, name = place.rpartition(".")
                owner = likra.Likra if name == "fit" else import_module(f"likra.{module}")
                patch.setattr(owner, name, stop)
        elif arguments[0] == "run":
            small = ["--no-calibrate", "--eval-questions", "8", "--output", "planned"]
            if "--seed" not in arguments:
                small += ["--seeds", "0"]
            arguments = ["plan", *arguments[1:], *small]
        result = CliRunner().invoke(app, arguments)
    if missing:
        assert isinstance(result.exception, Stopped), f"{line}: {result.output}"
    else:
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(line) from result.exception
        assert result.exit_code == 0, f"{line}: {result.output}"
    return result.output


def stop(*_: object, **__: object) -> None:
    raise Stopped


def run_command(line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command of a shell block prints."""
    name = line.split(maxsplit=1)[0]
    if name == "likra":
        return run_likra(line, monkeypatch)
    if name == "pip":  # it would install: what it names must be there
        *_, wanted = shlex.split(line)
        extra = re.fullmatch(r"(?:\.|likra)(?:\[(\w+)\])?", wanted)
        assert extra, line
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        assert extra[1] is None or extra[1] in project["optional-dependencies"], line
        assert (ROOT / "constraints.txt").is_file()
        return ""
    if line.startswith(INSTALLING):
        return ""
    if name == "make":
        return shell(["make", "--dry-run", *shlex.split(line, comments=True)[1:]], ROOT)
    if name == "curl":  # no server is there: the request must be one that it takes
        body = shlex.split(line)[-1]
        assert "localhost:8000/v1/rank " in line
        return RankRequest.model_validate_json(body).model_dump_json()
    assert name == "cat", f"nothing says how to test: {line}"
    return shell(["sh", "-c", line], Path.cwd())


def shell(command: list[str], folder: Path) -> str:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def run_document(document: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict[str, str]]:
    """Run a document's blocks in order; its Python names, and what its shell commands print."""
    names: dict = {}
    printed = {}
    for language, text in blocks(document):
        if language == "python":
            exec(text, names)  # noqa: S102
        else:
            assert language == "sh", f"{document}: a block in {language!r}"
            for command in commands(text):
                printed[command] = run_command(command, monkeypatch)
    return names, printed


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that README names as the reader's own: pocket and its questions."""
    place = tmp_path_factory.mktemp("reader")
    (place / "my-model").symlink_to(str(files("likra.pocket") / "model"))
    (place / "my-ranker").symlink_to("capitals")  # which the first commands of README make
    train, test = (likra.load_task("pocket").questions(split)[:40] for split in ("train", "test"))
    pairs = [(q.choices[0].context, q.right[0], q.wrong[0]) for q in train]
    write_jsonl(
        place / "answers.jsonl",
        [
            {"prompt": prompt, "chosen": right.continuation, "rejected": wrong.continuation}
            for prompt, right, wrong in pairs
        ],
    )
    write_jsonl(
        place / "mistakes.jsonl",
        [{"prompt": p, "completion": wrong.continuation, "label": False} for p, _, wrong in pairs],
    )
    write_jsonl(
        place / "questions.jsonl",
        [{"question": q.stem, "choices": [c.text for c in q.choices]} for q in test[:3]],
    )
    with (place / "quiz.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["frage", "A", "B", "C", "D", "key"])
        for q in train:
            key = "ABCD"[[choice.is_right for choice in q.choices].index(True)]
            rows.writerow([q.stem, *(choice.text for choice in q.choices), key])
    (place / "my-study.yaml").write_text("include: pocket\nseeds: [1]\n", encoding="utf-8")
    sums = [
        {
            "id": f"{n}",
            "question": f"What is {n} plus {n + 1}?",
            "choices": {"text": [f"{2 * n + 1}", f"{2 * n}"], "label": ["A", "B"]},
            "answerKey": "A",
        }
        for n in range(1200)
    ]
    (place / "ai2_arc").mkdir()
    write_jsonl(place / "ai2_arc/ARC-Challenge.train.jsonl", sums[:1100])
    write_jsonl(place / "ai2_arc/ARC-Challenge.test.jsonl", sums[1100:])
    for run, kept in (("pocket", "1e-3"), ("r16", "3e-4")):
        shutil.copytree(ROOT / f"docs/data/tuning/{kept}", place / f"runs/{run}")
    return place


@pytest.mark.slow
def test_the_readme_and_the_front_page(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names, printed = run_document("README.md", monkeypatch)
    assert names["best"].text == "Lisbon"
    assert names["answer"] in {"Lisbon", None}
    assert names["against"].text.strip() == "Paris"
    assert "clearly better than the base model" in capsys.readouterr().out
    again = names["model"].rank(names["question"], names["options"])
    assert again[0].text == "Lisbon"
    first = next(text for line, text in printed.items() if line.startswith("likra rank capitals"))
    assert first.index("Lisbon") < first.index("Moscow")
    names, _ = run_document("docs/index.md", monkeypatch)  # the same commands: nothing is fitted
    assert names["best"] == again[0]


@pytest.mark.slow
def test_the_quickstart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed = run_document("docs/quickstart.md", monkeypatch)
    (fitted,) = (text for line, text in printed.items() if line.startswith("likra fit"))
    assert "clearly better than the base model" in " ".join(fitted.split())
    asked = {line: text for line, text in printed.items() if "Portugal" in line and "rank" in line}
    ranked = [text for line, text in asked.items() if "--mode sft" not in line]
    assert len(ranked) == 2
    assert all(text.index("Lisbon") < text.index("Paris") for text in ranked)
    rows = list(csv.DictReader((tmp_path / "ranked.csv").open(encoding="utf-8")))
    assert [row["prediction"] for row in rows] == ["Stockholm", "Doha"]
    assert names["ankara"] > names["rome"]


def test_the_paper(folder, monkeypatch):
    monkeypatch.chdir(folder)
    _, printed = run_document("docs/paper.md", monkeypatch)
    table = (ROOT / "docs/paper.md").read_text("utf-8")
    for study in re.findall(r"`likra run ([\w-]+)`", table):
        assert likra.read_study(study).name == study
    assert len(printed) > 3


def test_what_is_not_run_is_in_a_document():
    text = "".join((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/paper.md"))
    assert not [part for part in NOT_HERE if part not in text]


@pytest.mark.slow
def test_the_lower_level(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    *_, (_, example) = (block for block in blocks("docs/model.md") if block[0] == "python")
    exec(example, names)  # noqa: S102
    questions = names["test"]
    ratio = names["ratio"].reshape(len(questions), 4)
    right = [[choice.is_right for choice in q.choices].index(True) for q in questions]
    accuracy = (ratio.argmax(1) == np.array(right)).mean()
    assert accuracy > 0.8  # the base alone: 0.42
