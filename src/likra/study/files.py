"""Studies as YAML files: the built-in ones, and what a file includes. Needs no torch."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from likra.errors import LikraError
from likra.plain_yaml import parse_yaml

STUDIES = files("likra.study") / "studies"

Tree = dict[str, object]  # settings as YAML holds them; a section is a tree, too


def study_names() -> list[str]:
    """The built-in studies: "NAME", "FOLDER/NAME", and of the paper "paper/TASK-MODEL"."""
    folders = [path for path in STUDIES.iterdir() if path.is_dir()]
    inner = [f"{folder.name}/{name}" for folder in folders for name in _names(folder)]
    return sorted([*_names(STUDIES), *inner, *_paper_studies()])


def _names(folder: Traversable) -> Iterator[str]:
    """The YAML files of a folder, but not "_NAME.yaml", which others include."""
    for path in folder.iterdir():
        if path.name.endswith(".yaml") and not path.name.startswith("_"):
            yield path.name.removesuffix(".yaml")


def _paper_studies() -> dict[str, list[str]]:
    """What each of the paper's studies includes: the settings of a task and of a model."""
    return {
        f"paper/{task}-{model}": [f"paper/tasks/{task}", f"paper/models/{model}"]
        for task in _names(STUDIES / "paper" / "tasks")
        for model in _names(STUDIES / "paper" / "models")
    }


def read_tree(name: str, folder: Path | None = None, chain: tuple[str, ...] = ()) -> Tree:
    """The settings of a study, on top of those that it includes.

    An included study does not give its ``name``: results of two studies lie in two folders.

    Args:
        name: a built-in study, or a file's path relative to ``folder``.
        folder: of the file that includes it; by default the working directory.
        chain: the studies that include it, the outermost first.

    Raises:
        LikraError: no such file, not a mapping in YAML, or a study that includes itself.

    """
    key, tree, place = _open(name, folder)
    if key in chain:
        steps = " -> ".join([*chain[chain.index(key) :], key])
        raise LikraError(f"study '{key}' includes itself: {steps}")
    if is_card(tree):  # an ``include`` in it is the harness's
        return tree
    merged: Tree = {}
    for part in _included(tree):
        merged = merge(merged, read_tree(part, place, (*chain, key)))
    merged.pop("name", None)
    return merge(merged, {key: value for key, value in tree.items() if key != "include"})


def is_card(tree: Mapping[str, object]) -> bool:
    """Whether it holds a task card, and not a study."""
    return "output_type" in tree or "dataset_path" in tree


def merge(below: Mapping[str, object], above: Mapping[str, object]) -> Tree:
    """Both settings, of which ``above`` wins; sections are merged in the same way."""
    merged = {**below, **above}
    for key, value in above.items():
        section = below.get(key)
        if isinstance(section, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(section, value)
    return merged


def _included(tree: Mapping[str, object]) -> list[str]:
    value = tree.get("include", [])
    return [str(name) for name in (value if isinstance(value, list) else [value])]


def _open(name: str, folder: Path | None) -> tuple[str, Tree, Path | None]:
    """What identifies a study, its own settings, and the folder that its includes start from."""
    composed = _paper_studies()
    if name in composed:
        return name, {"include": composed[name]}, None
    built_in = STUDIES / f"{name}.yaml"
    if built_in.is_file():
        return name, _parse(built_in, f"study '{name}'"), None
    path = (folder or Path()) / name
    if not path.is_file():
        raise LikraError(f"no study at '{path}'")
    return str(path.resolve()), _parse(path, f"'{path}'"), path.parent


def _parse(path: Traversable, where: str) -> Tree:
    tree = parse_yaml(path.read_bytes(), where)  # a function in a task card is only text here
    if not isinstance(tree, dict):
        raise LikraError(f"{where} is not a study: it must be a mapping of settings")
    return tree
