"""The shape of the project: layers, light imports, and what the package holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import likra

SOURCE = Path(likra.__file__).parent
# Each imports only from those before it; study and the report are one layer.
LAYERS = [
    ["errors"],
    ["questions"],
    ["leakage"],
    ["negatives"],
    ["tasks"],
    ["forest"],
    ["likelihood"],
    ["heads"],
    ["training", "scoring", "generation"],
    ["baselines"],
    ["table"],
    ["ratio"],
    ["statistics"],
    ["settings"],
    ["digests"],
    ["workbench"],
    ["study", "report", "catalogue"],
    ["plan"],
    ["suite"],
    ["integrations"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """The modules of likra that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("likra."):
            found.add(node.module.split(".")[1])
    return found


@pytest.mark.parametrize("module", sorted(RANK))
def test_imports_go_one_way(module):
    files = [SOURCE / f"{module}.py"]
    files = files if files[0].exists() else sorted((SOURCE / module).glob("*.py"))
    for path in files:
        for used in imports(path) - {module}:
            same_layer = RANK[used] == RANK[module] == RANK["study"]
            assert RANK[used] < RANK[module] or same_layer, f"{path.name} imports {used}"


def test_every_module_has_its_layer():
    names = {p.stem for p in SOURCE.glob("*.py")} | {
        p.parent.name for p in SOURCE.glob("*/__init__.py")
    }
    assert names - {"__init__", "__main__", "pocket"} == set(RANK)


HEAVY = "{'torch', 'transformers', 'peft', 'lm_eval', 'pandas', 'matplotlib', 'datasets'}"


@pytest.mark.parametrize(
    "code",
    [
        "import likra; likra.LikraError",
        "import likra.cli.main",
        "import sys; sys.argv = ['likra', '--help']\n"
        "import likra.cli.main\n"
        "try: likra.cli.main.app()\n"
        "except SystemExit: pass",
    ],
)
def test_import_and_help_are_light(code):
    check = f"{code}\nimport sys; print('LOADED', sorted({HEAVY} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert "LOADED []" in result.stdout


@pytest.mark.parametrize(
    "module", ["likra.scores.ratio", "likra.study.config", "likra.report.html"]
)
def test_what_comes_after_the_score_table_needs_no_torch(module):
    check = f"import {module}, sys; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_every_public_name_is_there_and_described():
    for name in likra.__all__:
        assert getattr(likra, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        likra.nonsense  # noqa: B018
