"""The shape of the project: layers, light imports, and what the package holds."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import likra

SOURCE = Path(likra.__file__).parent
# The folder listing is the pipeline: each imports only from those before it.
LAYERS = [
    "errors",
    "text",
    "atomic",
    "checksum",
    "plain_yaml",
    "progress",
    "hub",
    "questions",
    "data",
    "negatives",
    "engine",
    "heads",
    "scores",
    "study",
    "report",
    "launch",
    "model",
    "integrations",
    "serve",
    "doctor",
    "cli",
    "__main__",
]
APART = {"__init__": "the public names", "pocket": "a program of its own"}


def files_of(layer: str) -> list[Path]:
    module = SOURCE / f"{layer}.py"
    return [module] if module.exists() else sorted((SOURCE / layer).glob("*.py"))


def imports(path: Path) -> set[str]:
    """The modules of likra that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        modules |= {tuple(n.split(".")[1:]) for n in names if n.startswith("likra.")}
    return modules


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer):
    before = set(LAYERS[: LAYERS.index(layer)])
    for path in files_of(layer):
        used = {module[0] for module in imports(path)} - {layer, "__version__"}
        assert used <= before, f"{path.name} imports {sorted(used - before)}"


@pytest.mark.parametrize("layer", [name for name in LAYERS if (SOURCE / name).is_dir()])
def test_modules_of_a_folder_import_one_another_one_way(layer):
    graph = {
        path.stem: {m[1] for m in imports(path) if m[0] == layer and len(m) > 1} - {path.stem}
        for path in files_of(layer)
    }
    graph = {name: used & set(graph) for name, used in graph.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_every_module_has_its_layer():
    names = {p.stem for p in SOURCE.glob("*.py")}
    names |= {p.parent.name for p in SOURCE.glob("*/__init__.py")}
    assert names - set(APART) == set(LAYERS)


HEAVY = (
    "{'torch', 'transformers', 'peft', 'lm_eval', 'pandas', 'matplotlib', 'datasets', 'fastapi'}"
)


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


def test_dir_lists_the_public_names():
    """Those that are not imported yet, too, and nothing else that the module needs itself."""
    names = subprocess.run(
        [sys.executable, "-c", "import likra; print(*dir(likra))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert names == sorted([*likra.__all__, "__version__"])
