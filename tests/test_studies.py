"""The studies that come with likra: all can be read, and say how they are run."""

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import question

from likra.data.card import card_names
from likra.errors import LikraError
from likra.scores.table import HeadKey, score_table
from likra.study.config import STUDIES, Study, read_study, study_names

MODELS = {
    "pocket",
    "mistralai/Mistral-7B-v0.1",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "meta-llama/Llama-3.2-3B-Instruct",
}
PAPER = [name for name in study_names() if name.startswith("paper/")]


@pytest.mark.parametrize("name", study_names())
def test_a_shipped_study_can_be_read_and_says_its_command(name):
    study = read_study(name)
    assert study.name == name.replace("/", "-")  # runs/NAME is one folder
    assert study.model in MODELS
    assert {study.task, study.train_task or study.task} <= set(card_names())
    first = (STUDIES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.split()[:4] == ["#", "likra", "run", name]


def test_the_paper_has_four_tasks_and_three_models():
    tasks = ("arc", "hellaswag", "winogrande", "math")
    models = ("mistral-7b-v0.1", "mistral-7b-instruct-v0.3", "llama3.2-3b")
    assert set(PAPER) == {f"paper/{task}-{model}" for task in tasks for model in models}


@pytest.mark.parametrize("name", PAPER)
def test_the_settings_are_the_papers(name):
    study = read_study(name)
    assert study.training.learning_rate == (1e-3 if "llama" in name else 1e-4)
    assert study.training.batch_size == 32
    assert (study.lora.r, study.lora.alpha, study.lora.dropout) == (8, 8, 0)
    assert study.lora.target_modules == "mlp"
    assert (study.dtype, study.long_prompts) == ("bfloat16", "truncate")
    assert study.snapshots == []  # powers of two optimizer steps, and all questions
    assert len(study.seeds) == 3
    shots = {"arc": 25, "hellaswag": 10, "winogrande": 5, "math": 0}
    assert study.num_fewshot == shots[study.task]
    assert study.train_task == ("winogrande_fill" if study.task == "winogrande" else None)


@pytest.mark.parametrize("name", ["paper/arc-llama-3.2-3b", "paper/arc"])
def test_a_mistyped_study_in_a_folder_is_no_data_set_of_the_hub(name):
    with pytest.raises(LikraError, match="did you mean 'paper/arc-llama3.2-3b'?"):
        read_study(name)


def test_a_file_of_the_users_own_may_lie_in_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "answers.jsonl").touch()
    assert read_study("paper/answers.jsonl").task == "paper/answers.jsonl"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", [0, -1]),
        ("seeds", [2**31]),
        ("split_seed", -1),
        ("split_seed", 2**31),
        ("weight", math.inf),
        ("weight", math.nan),
        ("weights", [0.5, math.inf]),
        ("beta", math.inf),
        ("generation.temperature", math.inf),
        ("training.learning_rate", math.inf),
    ],
)
def test_a_number_that_cannot_be_used_is_named(key, value):
    with pytest.raises(LikraError, match=rf"study 'pocket': '{key}"):
        read_study("pocket", {key: value})


def test_the_largest_seed_fits_into_a_score_table():
    study = read_study("pocket", {"seeds": [2**31 - 1], "split_seed": 2**31 - 1})
    key = HeadKey("positive", 8, study.seeds[0])
    asked = [question("a", "one", ["two"])]
    table = score_table("t", "test", asked, key, np.zeros(2), [1, 1], "rows")
    assert table["seed"].to_pylist() == [2**31 - 1] * 2


@pytest.mark.parametrize(
    "content", ["name: caf\xe9".encode("latin-1"), b"name: 2020-13-45", b"name: [", b"\0"]
)
def test_a_file_that_is_no_yaml_is_named(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(LikraError, match=r"^'.*mine.yaml' is not YAML: [^\n]+$"):
        read_study(str(path))


def test_the_documentation_lists_every_study_and_setting():
    text = (Path(__file__).parents[1] / "docs/studies.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1] for line in text.splitlines() if line.startswith("| `")}
    for name in set(study_names()) - set(PAPER):
        assert any(f"`{name}`" in row for row in rows) or f"`{name}`" in text.split("## ")[0]
    for key, field in Study.model_fields.items():
        sections = getattr(field.annotation, "model_fields", None)
        for part in [f"{key}.{inner}" for inner in sections] if sections else [key]:
            short = part[len(key) :] if sections else part
            assert any(f"`{part}`" in row or f"`{short}`" in row for row in rows), part
