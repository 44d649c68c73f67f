"""Models and runs: their folders, and commands that read damaged ones."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from hypothesis import strategies as st

from likra.engine.tokens import TokenPair
from likra.heads.base import open_model
from likra.heads.lora import Head, fresh_head, save_head
from likra.heads.score import score
from likra.model.folder import save
from likra.model.parts import Parts
from tests.fuzz.cases import Case, Files
from tests.fuzz.damage import cut, damaged
from tests.fuzz.rows import CHOICE_ROWS, as_json, as_jsonl, as_yaml

REPOSITORY = Path(__file__).parents[2]
RUNS = REPOSITORY / "docs" / "data" / "tuning" / "1e-3"  # a packed run


@cache
def model_folder() -> TemporaryDirectory[str]:
    """A model on pocket whose heads have not learnt anything."""
    scratch = TemporaryDirectory(prefix="likra-fuzz-")
    base, folder = open_model("pocket"), Path(scratch.name)
    for name in ("positive", "negative"):
        with fresh_head(base, None, seed=0) as head:
            save_head(head, folder / name)
    score(Head(base, folder / "positive"), [TokenPair([1], [2])])
    save(Parts(Head(base, folder / "positive"), Head(base, folder / "negative"), weight=1.0),
         folder / "model")  # fmt: skip
    return scratch


def files_of(folder: Path, under: str) -> Files:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {f"{under}/{path.relative_to(folder)}": path.read_bytes() for path in paths}


@cache
def model_files() -> Files:
    return files_of(Path(model_folder().name) / "model", "model")


@cache
def run_files() -> Files:
    return files_of(RUNS, "run")


@st.composite
def changed(draw: st.DrawFn, files: Files) -> Files:
    """The files, one of them damaged, missing, or renamed."""
    files = dict(files)
    name = draw(st.sampled_from([own for own in files if not own.endswith(".md")]))
    how = draw(st.sampled_from(["damage", "damage", "damage", "cut", "drop", "rename"]))
    content = files.pop(name)
    if how == "damage" and name.endswith((".json", ".yaml")):
        is_json = name.endswith(".json")
        value = draw(damaged(json.loads(content) if is_json else yaml.safe_load(content)))
        files[name] = as_json(value) if is_json else as_yaml(value)
    elif how in {"damage", "cut"}:
        files[name] = draw(cut(content))
    elif how == "rename":
        files[name.replace(".safetensors", ".bin") + draw(st.sampled_from(["", "x"]))] = content
    return files


@st.composite
def of_models(draw: st.DrawFn) -> Case:
    files = draw(changed(model_files())) | {"rows.jsonl": as_jsonl(CHOICE_ROWS)}
    command = draw(
        st.sampled_from(
            [
                ["rank", "model", "-q", "What?", "--option", "a", "--option", "b"],
                ["rank", "model", "rows.jsonl", "-o", "out.jsonl"],
                ["card", "model"],
                ["fit", "rows.jsonl", "-o", "out", "--positive-from", "model/positive"],
            ]
        )
    )
    return Case("models", tuple(command), files)


@st.composite
def of_runs(draw: st.DrawFn) -> Case:
    files = draw(changed(run_files()))
    command = draw(
        st.sampled_from(
            [
                ["verdict", "run"],
                ["verdict", "run", "-o", "out.csv"],
                ["pack", "run", "-o", "out"],
                ["fit", "--from-run", "run", "-o", "out"],
                ["compare", "run", "run", "-o", "out.html"],
            ]
        )
    )
    return Case("runs", tuple(command), files)
