"""The README's example runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(code, names)  # noqa: S102
    questions = names["test"]
    ratio = names["ratio"].reshape(len(questions), 4)
    right = [[choice.is_right for choice in q.choices].index(True) for q in questions]
    accuracy = (ratio.argmax(1) == np.array(right)).mean()
    assert accuracy > 0.8  # the base alone: 0.42
