"""Grids of models x tasks: each cell is a study, and its numbers are that study's."""

from dataclasses import replace

import pandas as pd
import pytest
from test_report import curves, made_up
from test_tasks import CARD, row, write_jsonl

from likra.errors import LikraError
from likra.report.results import run_grid
from likra.report.tables import cell
from likra.scores.table import BASE
from likra.study.config import parse_study, read_study
from likra.study.grid import grid_studies

TABLE = {
    "name": "small",
    "models": ["pocket"],
    "snapshots": [8],
    "metric": "acc",
    "modes": ["base", "sft", "likra"],
}


def test_the_studies_of_a_table():
    study = parse_study({**TABLE, "models": ["a/b", "./c"], "tasks": ["arc", "hellaswag"]})
    cells = grid_studies(study)
    assert [(cell.model, cell.task) for cell in cells] == [
        ("a/b", "arc"),
        ("a/b", "hellaswag"),
        ("./c", "arc"),
        ("./c", "hellaswag"),
    ]
    assert [cell.name for cell in cells] == [
        "small-a-b-arc",
        "small-a-b-hellaswag",
        "small-c-arc",
        "small-c-hellaswag",
    ]
    assert not any(cell.models or cell.tasks for cell in cells)


def test_the_table_that_comes_with_likra_is_of_pocket():
    assert [(c.model, c.task) for c in grid_studies(read_study("table1"))] == [("pocket", "pocket")]


def test_a_table_holds_what_its_studies_found(tmp_path):
    names = [f"town{n}" for n in range(16)]
    rows = [row(name, ("Rome", "Oslo"), "AB"[n % 2], name) for n, name in enumerate(names)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", [{**r, "question": r["question"] + " now"} for r in rows])
    (tmp_path / "mine.yaml").write_text(CARD)
    tasks = ["pocket", str(tmp_path / "mine.yaml")]
    lines = []
    folder, shown = run_grid(parse_study({**TABLE, "tasks": tasks}), tmp_path / "out", lines.append)
    assert list(shown.task) == tasks
    table = pd.read_csv(folder / "table.csv")
    for part, line in zip(
        grid_studies(parse_study({**TABLE, "tasks": tasks})), table.itertuples(), strict=True
    ):
        curve = pd.read_csv(folder / part.name / "curve.csv", keep_default_na=False)
        curve = curve[(curve.metric == "acc") & (curve.seed.astype(str).isin(["0", ""]))]
        assert line.base == curve[curve["mode"] == BASE.head].value.iloc[0]
        assert line.sft == curve[curve["mode"] == "sft"].value.iloc[0]
        likra = curve[(curve["mode"] == "likra") & (curve.weight == 1.0)]
        assert line.likra == likra.value.iloc[0]
        assert line.likra_low <= line.likra <= line.likra_high
    markdown = (folder / "table.md").read_text().splitlines()
    assert len(markdown) == 2 + len(tasks)
    assert [cell.strip() for cell in markdown[0].strip("|").split("|")] == [
        "model",
        "task",
        "n",
        *TABLE["modes"],
    ]
    assert (folder / "table.tex").read_text().count(r"\\") == 1 + len(tasks)
    again, _ = run_grid(parse_study({**TABLE, "tasks": tasks}), tmp_path / "out", lines.append)
    assert again == folder
    assert sum("nothing to compute" in line for line in lines) == 2


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
@pytest.mark.parametrize(
    "modes", [["base", "sft"], ["sft"], ["pmi", "base-likra"], ["base"]], ids=",".join
)
def test_a_table_has_the_modes_that_the_study_has(tmp_path, monkeypatch, modes, seeds):
    def run_study(study, folder, log):
        run = made_up(folder, modes=study.modes, seeds=study.seeds)
        return replace(run, study=run.study.model_copy(update={"task": study.task})), curves(run)[1]

    monkeypatch.setattr("likra.report.results.run_study", run_study)
    monkeypatch.setattr(
        "likra.report.results.check_grid", lambda parts: None
    )  # there is no such task
    study = parse_study({**TABLE, "modes": modes, "seeds": seeds, "tasks": ["50%_a|b"]})
    folder, shown = run_grid(study, tmp_path, lambda line: None)
    assert list(shown.columns) == ["model", "task", "n", *modes]
    (line,) = pd.read_csv(folder / "table.csv").to_dict("records")
    _, points = run_study(study, tmp_path / "again", print)
    for mode in modes:
        untrained = mode in ("base", "pmi")
        point = points[(points["mode"] == mode) & (points.metric == "acc")]
        point = point[point.n_train == (0 if untrained else 32)]
        point = point[point.source == ("random_choice" if mode == "base-likra" else "")]
        point = point[point.weight == (1.0 if mode in ("pmi", "base-likra") else 0.0)]
        several = len(seeds) > 1 and not untrained
        (row,) = point[(point.seed == "all") == several].itertuples()
        assert line[mode] == row.value
        assert shown[mode][0] == cell((row.value, row.ci_low, row.ci_high))
    assert r"| 50%_a\|b |" in (folder / "table.md").read_text()
    assert r" & 50\%\_a|b & " in (folder / "table.tex").read_text()


def test_a_model_or_task_that_is_none_is_refused_before_the_first_cell(tmp_path):
    models = parse_study({**TABLE, "models": ["pocket", str(tmp_path / "no-model")]})
    with pytest.raises(LikraError, match="no-model"):
        run_grid(models, tmp_path / "table")
    tasks = parse_study({**TABLE, "tasks": ["pocket", "pocket_sum"]})
    with pytest.raises(LikraError, match="did you mean 'pocket_sums'"):
        run_grid(tasks, tmp_path / "table")
    short = parse_study({**TABLE, "snapshots": [1000]})
    with pytest.raises(LikraError, match="needs as many training questions"):
        run_grid(short, tmp_path / "table")
    assert not (tmp_path / "table").exists()
