"""Tables of models x tasks: every cell is a study, and its numbers are that study's."""

import pandas as pd
from test_tasks import CARD, row, write_jsonl

from likra.settings import parse_study, read_study
from likra.suite import MODES, run_table, table_studies
from likra.table import BASE

TABLE = {
    "name": "small",
    "models": ["pocket"],
    "snapshots": [8],
    "metric": "acc",
    "modes": ["base", "sft", "likra"],
}


def test_the_studies_of_a_table():
    study = parse_study({**TABLE, "models": ["a/b", "./c"], "tasks": ["arc", "hellaswag"]})
    cells = table_studies(study)
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
    assert [(c.model, c.task) for c in table_studies(read_study("table1"))] == [
        ("pocket", "pocket")
    ]


def test_a_table_holds_what_its_studies_found(tmp_path):
    names = [f"town{n}" for n in range(16)]
    rows = [row(name, ("Rome", "Oslo"), "AB"[n % 2], name) for n, name in enumerate(names)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    write_jsonl(tmp_path / "test.jsonl", [{**r, "question": r["question"] + " now"} for r in rows])
    (tmp_path / "mine.yaml").write_text(CARD)
    tasks = ["pocket", str(tmp_path / "mine.yaml")]
    said = []
    folder, shown = run_table(parse_study({**TABLE, "tasks": tasks}), tmp_path / "out", said.append)
    assert list(shown.task) == tasks
    table = pd.read_csv(folder / "table.csv")
    for cell, line in zip(
        table_studies(parse_study({**TABLE, "tasks": tasks})), table.itertuples(), strict=True
    ):
        curve = pd.read_csv(folder / cell.name / "curve.csv", keep_default_na=False)
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
        *MODES,
    ]
    assert (folder / "table.tex").read_text().count(r"\\") == 1 + len(tasks)
    again, _ = run_table(parse_study({**TABLE, "tasks": tasks}), tmp_path / "out", said.append)
    assert again == folder
    assert sum("nothing to compute" in line for line in said) == 2
