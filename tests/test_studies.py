"""Settings, and the studies that come with likra: all can be read, and say how they are run."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import question
from pydantic import ValidationError

from likra.data.card import card_names
from likra.errors import LikraError
from likra.heads.settings import LoraSettings, SamplingSettings, TrainingSettings
from likra.scores.ratio import MODES
from likra.scores.table import HeadKey, choice_table, score_table
from likra.study.config import (
    FIGURES,
    AnalysisSettings,
    CellSettings,
    Study,
    read_study,
    setting_fields,
    with_analysis,
)
from likra.study.files import STUDIES, study_names

MISTRAL = "mistralai/Mistral-7B-v0.1"
MISTRAL_INSTRUCT = "mistralai/Mistral-7B-Instruct-v0.3"
LLAMA = "meta-llama/Llama-3.2-3B-Instruct"
PAPER = [name for name in study_names() if name.startswith("paper/")]


@pytest.mark.parametrize("name", study_names())
def test_a_shipped_study_can_be_read(name):
    study = read_study(name)
    assert study.name == name.replace("/", "-")  # runs/NAME is one folder
    assert study.model in {"pocket", "smollm2", MISTRAL, MISTRAL_INSTRUCT, LLAMA}
    assert {study.task, study.train_task or study.task} <= set(card_names())


@pytest.mark.parametrize("name", sorted(set(study_names()) - set(PAPER)))
def test_a_shipped_study_says_its_command(name):
    first = (STUDIES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.split()[:4] == ["#", "likra", "run", name]


def test_the_short_real_study_is_one_seed_of_the_long_one():
    short, long = read_study("smollm2"), read_study("smollm2-paper/arc")
    assert short.seeds == long.seeds[:1]
    assert set(short.modes) < set(long.modes)
    decided = {"name", "seeds", "modes"}
    assert short.model_dump(exclude=decided) == long.model_dump(exclude=decided)


def test_the_rate_is_tuned_on_questions_that_no_other_real_study_evaluates():
    tuning, arc = read_study("smollm2-paper/tuning"), read_study("smollm2-paper/arc")
    assert (tuning.task, tuning.eval_split) == ("arc_challenge", "validation")
    assert (arc.task, arc.eval_split) == ("arc", None)  # its test split
    assert tuning.train_task == arc.task
    assert tuning.on_leakage == "drop"  # the validation questions are not trained on


def test_the_studies_of_figures_share_all_but_what_they_show():
    fig5 = read_study("fig5")
    assert fig5 == Study(
        name="fig5",
        seeds=[0, 1, 2, 3, 4],
        snapshots=[8, 16, 32, 64, 128, 192],
        negatives=[
            "random_choice",
            "all_choices",
            "hardest",
            "easiest",
            "other_question",
            "other_task:pocket_sums",
            "generated",
        ],
        modes=["base", "sft", "likra", "base-likra"],
        metric="acc",
        paper_figure=5,
        training=TrainingSettings(learning_rate=0.0005, batch_size=8),
    )
    table1 = Study(
        name="table1",
        models=["pocket"],
        tasks=["pocket"],
        seeds=[0, 1, 2, 3, 4],
        snapshots=[8, 16, 32, 64, 128, 192],
        modes=["base", "sft", "likra"],
        metric="acc",
        training=TrainingSettings(learning_rate=0.0005),
    )
    assert read_study("table1") == table1
    assert "_figures" not in study_names()


def test_the_paper_has_four_tasks_and_three_models():
    tasks = ("arc", "hellaswag", "winogrande", "math")
    models = ("mistral-7b-v0.1", "mistral-7b-instruct-v0.3", "llama3.2-3b")
    assert set(PAPER) == {f"paper/{task}-{model}" for task in tasks for model in models}
    repositories = (MISTRAL, MISTRAL_INSTRUCT, LLAMA)
    for task in tasks:
        for model, repository in zip(models, repositories, strict=True):
            study = read_study(f"paper/{task}-{model}")
            assert (study.task, study.model) == (task, repository)


def test_a_study_of_the_paper_is_composed_of_a_task_and_a_model():
    common = {
        "seeds": [0, 1, 2],
        "negatives": ["random_choice"],
        "dtype": "bfloat16",
        "long_prompts": "truncate",
        "lora": LoraSettings(r=8, alpha=8, dropout=0.0, target_modules="mlp"),
    }
    assert read_study("paper/arc-llama3.2-3b") == Study(
        name="paper-arc-llama3.2-3b",
        model=LLAMA,
        task="arc",
        num_fewshot=25,
        metric="acc_norm",
        training=TrainingSettings(learning_rate=0.001, batch_size=32),
        **common,
    )
    assert read_study("paper/winogrande-mistral-7b-v0.1") == Study(
        name="paper-winogrande-mistral-7b-v0.1",
        model=MISTRAL,
        task="winogrande",
        train_task="winogrande_fill",
        num_fewshot=5,
        metric="acc",
        training=TrainingSettings(learning_rate=0.0001, batch_size=32),
        **common,
    )
    assert read_study("paper/math-mistral-7b-instruct-v0.3") == Study(
        name="paper-math-mistral-7b-instruct-v0.3",
        model=MISTRAL_INSTRUCT,
        task="math",
        metric="acc_norm",
        training=TrainingSettings(learning_rate=0.0001, batch_size=32),
        **common,
    )


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
        ("betas", {"dpo": math.inf}),
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
    table = score_table("t", "test", choice_table(asked), key, np.zeros(2), [1, 1], "rows")
    assert table["seed"].to_pylist() == [2**31 - 1] * 2


@pytest.mark.parametrize(
    "content", ["name: caf\xe9".encode("latin-1"), b"name: 2020-13-45", b"name: [", b"\0"]
)
def test_a_file_that_is_no_yaml_is_named(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(LikraError, match=r"^'.*mine.yaml' is not YAML: [^\n]+$"):
        read_study(str(path))


def test_a_study_includes_a_built_in_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("include: pocket\nseeds: [7]\ntraining: {learning_rate: 0.01}\n")
    study, pocket = read_study(str(path)), read_study("pocket")
    assert (study.name, study.seeds) == ("mine", [7])  # its results are not in runs/pocket
    assert study.training == TrainingSettings(learning_rate=0.01, batch_size=8)
    own = {"name", "seeds", "training"}
    assert study.model_dump(exclude=own) == pocket.model_dump(exclude=own)
    path.write_text("include: paper/math-llama3.2-3b\n")
    assert (read_study(str(path)).task, read_study(str(path)).model) == ("math", LLAMA)


def test_a_path_to_include_is_relative_to_the_file(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.yaml").write_text(
        "include: two.yaml\nname: one\nlora: {r: 2}\ncolumns: {prompt: frage}\n"
    )
    (tmp_path / "parts" / "two.yaml").write_text("lora: {r: 1, alpha: 4}\nweight: 0.5\n")
    (tmp_path / "more.yaml").write_text("weight: 0.7\ncolumns: {answer: key}\n")
    path = tmp_path / "mine.yaml"
    path.write_text("include: [parts/one.yaml, more.yaml]\nlora: {dropout: 0.1}\n")
    study = read_study(str(path))
    assert study.lora == LoraSettings(r=2, alpha=4, dropout=0.1)
    assert study.weight == 0.7  # the later one of a list wins
    assert study.columns == {"prompt": "frage", "answer": "key"}
    assert study.name == "mine"


def test_a_card_that_includes_another_is_a_task_and_not_a_study(tmp_path):
    (tmp_path / "_base_yaml").write_text("output_type: multiple_choice\ndataset_path: json\n")
    path = tmp_path / "mine.yaml"
    path.write_text("include: _base_yaml\ntask: quiz\n")
    study = read_study(str(path))
    assert (study.name, study.task) == ("mine", str(path))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("include: b.yaml", "include: a.yaml", r"includes itself: \S*a.yaml -> \S*b.yaml -> \S*a."),
        ("include: a.yaml", "", r"includes itself: \S*a.yaml -> \S*a.yaml$"),
        ("include: b.yaml", "include: nowhere", r"no study at '\S*nowhere'"),
        ("include: b.yaml", "[1]", "b.yaml' is not a study"),
        ("include: b.yaml", "seed: [1]", "unknown key 'seed': did you mean 'seeds'?"),
    ],
)
def test_an_include_that_cannot_be_followed_is_one_line(tmp_path, first, second, words):
    (tmp_path / "a.yaml").write_text(first)
    (tmp_path / "b.yaml").write_text(second)
    with pytest.raises(LikraError, match=words):
        read_study(str(tmp_path / "a.yaml"))


def test_a_model_and_a_task_replace_those_of_a_grid():
    study = read_study("table1", {"model": "a/model", "task": "arc"})
    assert (study.models, study.tasks) == (["a/model"], ["arc"])
    assert read_study("table1", {"task": "arc"}).models == ["pocket"]
    lists = read_study("table1", {"model": "a/model", "models": ["b", "c"]})
    assert lists.models == ["b", "c"]
    assert read_study("fig1", {"model": "a/model"}).models == []


def test_a_study_has_settings_of_two_kinds():
    cells, analysis = set(CellSettings.model_fields), set(AnalysisSettings.model_fields)
    assert not cells & analysis
    assert set(Study.model_fields) - cells - analysis == {
        "name",
        "models",
        "tasks",
        "seeds",
        "snapshots",
        "negatives",
    }
    assert read_study("pocket").figures == list(FIGURES)


def test_the_analysis_of_a_study_can_be_replaced():
    study = read_study("pocket")
    changed = with_analysis(study, {"weight": 0.9, "modes": ["likra"], "figures": ["sources"]})
    assert (changed.weight, changed.modes, changed.figures) == (0.9, ["likra"], ["sources"])
    same = set(Study.model_fields) - {"weight", "modes", "figures"}
    assert changed.model_dump(include=same) == study.model_dump(include=same)
    for key, value in (("training.learning_rate", 1e-4), ("seeds", [1]), ("task", "arc")):
        words = f"'{key}' decides what is trained or scored: use likra run"
        with pytest.raises(LikraError, match=words):
            with_analysis(study, {key: value})
    with pytest.raises(LikraError, match="unknown key 'weigth': did you mean 'weight'?"):
        with_analysis(study, {"weigth": 1.0})
    with pytest.raises(LikraError, match="unknown figure 'source': did you mean 'sources'?"):
        with_analysis(study, {"figures": ["source"]})


def test_settings_of_a_head_are_checked_and_cannot_change():
    assert LoraSettings(target_modules=["a", "b"]).target_modules == ("a", "b")
    assert LoraSettings(target_modules="a").target_modules == "a"
    for kind, wrong in (
        (LoraSettings, {"r": 0}),
        (LoraSettings, {"rank": 8}),
        (LoraSettings, {"target_modules": 3}),
        (TrainingSettings, {"learning_rate": 0.0}),
        (TrainingSettings, {"batch_size": 8.5}),
        (SamplingSettings, {"match": "nearly"}),
    ):
        with pytest.raises(ValidationError):
            kind(**wrong)
    with pytest.raises(ValidationError, match="frozen"):
        TrainingSettings().batch_size = 16
    assert read_study("pocket", {"training.learning_rate": "1e-4"}).training.learning_rate == 1e-4


def test_every_setting_is_described_in_a_sentence():
    for key, field in setting_fields().items():
        assert field.description, key
        assert field.description.endswith("."), key


def test_the_modes_and_figures_that_are_described_are_those_that_exist():
    for key, names in (("modes", MODES), ("figures", FIGURES)):
        words = re.findall(r"[a-z][\w-]+", setting_fields()[key].description or "")
        assert set(names) <= set(words), key


def test_the_documentation_lists_every_study_and_setting():
    text = (Path(__file__).parents[1] / "docs/studies.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1] for line in text.splitlines() if line.startswith("| `")}
    for name in set(study_names()) - set(PAPER):
        assert any(f"`{name}`" in row for row in rows) or f"`{name}`" in text.split("## ")[0]
    for key, field in setting_fields().items():
        description = " ".join((field.description or "").split())
        assert re.search(rf"^\| `{re.escape(key)}` \|.*\| {re.escape(description)} \|$", text, re.M)
