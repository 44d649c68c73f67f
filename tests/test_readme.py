"""The examples of README and docs run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def run_example(document: str, number: int = 0) -> dict:
    """Run a document's Python example, and return its names."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text("utf-8"), re.DOTALL)
    names: dict = {}
    exec(examples[number], names)  # noqa: S102
    return names


@pytest.mark.slow
def test_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_example("README.md")
    assert names["best"].text == "Lisbon"
    assert names["answer"] in {"Lisbon", None}
    assert names["against"].text.strip() == "Paris"
    assert "clearly better than the base model" in capsys.readouterr().out
    again = names["model"].rank(names["question"], names["options"])
    assert again[0].text == "Lisbon"


@pytest.mark.slow
def test_the_lower_level(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_example("docs/model.md", -1)
    questions = names["test"]
    ratio = names["ratio"].reshape(len(questions), 4)
    right = [[choice.is_right for choice in q.choices].index(True) for q in questions]
    accuracy = (ratio.argmax(1) == np.array(right)).mean()
    assert accuracy > 0.8  # the base alone: 0.42
