"""Cards, studies, and options of commands."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.cases import Case, argument
from tests.fuzz.damage import TEXTS, VALUES, cut, damaged
from tests.fuzz.folders import model_files
from tests.fuzz.rows import CHOICE_ROWS, as_jsonl, as_yaml

CARD = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"train": "rows.jsonl", "test": "rows.jsonl"}},
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metadata": {"splits": {"train": ["/train"]}, "distractors": 1, "overlaps": "none"},
}
STUDY = {
    "name": "mine",
    "model": "pocket",
    "task": "rows.jsonl",
    "seeds": [0, 1],
    "snapshots": [1],
    "negatives": ["random_choice", "0.5 hardest + 0.5 file:rows.jsonl"],
    "modes": ["base", "likra"],
    "training": {"learning_rate": 1e-3, "batch_size": 1},
    "lora": {"r": 2, "target_modules": ["up_proj"]},
    "weights": [0, 0.5],
    "eval_fraction": 0.5,
    "columns": {"prompt": "question"},
}

BOMB = b"a: &a [x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 112)
)


@st.composite
def yamls(draw: st.DrawFn, value: Any) -> bytes:
    content = draw(cut(as_yaml(draw(damaged(value)))))
    return content + draw(
        st.sampled_from([b"", b"", b"", b"x: " + b"[" * 5000, BOMB, b"y: &y [*y]"])
    )


@st.composite
def of_cards(draw: st.DrawFn) -> Case:
    files = {"mine.yaml": draw(yamls(CARD)), "rows.jsonl": as_jsonl(CHOICE_ROWS)}
    few = ["--num-fewshot", draw(st.sampled_from(["0", "2"]))]
    command = draw(st.sampled_from([["tasks", "show", "mine.yaml"], ["plan", "mine.yaml"]]))
    more = ["--no-calibrate"] if command[0] == "plan" else []
    return Case("cards", (*command, *few, *more), files)


@st.composite
def of_studies(draw: st.DrawFn) -> Case:
    files = {"mine.yaml": draw(yamls(STUDY)), "rows.jsonl": as_jsonl(CHOICE_ROWS)}
    return Case("studies", ("plan", "mine.yaml", "--no-calibrate"), files)


KEYS = sorted({*STUDY, "lora.r", "training.epochs", "data", "train_task", "dtype", "chat_template"})


@st.composite
def of_options(draw: st.DrawFn) -> Case:
    files = {"rows.jsonl": as_jsonl(CHOICE_ROWS)} | model_files()
    value = draw(TEXTS | VALUES.map(json.dumps))
    key = draw(st.sampled_from(KEYS) | st.text(max_size=8))
    commands = [
        ["plan", "rows.jsonl", "--no-calibrate", "--set", f"{key}={value}"],
        ["plan", value, "--no-calibrate"],
        ["tasks", "show", value],
        ["run", value, "--snapshots", value],
        ["train", "-o", "out", "--task", "rows.jsonl", "--heads", value],
        ["rank", "model", "-q", value, "--option", "a", "--option", value],
        ["rank", "model", "rows.jsonl", "--weight", value],
        ["rank", "model", "rows.jsonl", "--mode", value],
        ["rank", value, "-q", "a", "--option", "a", "--option", "b"],
        ["explain", "model", "-q", "What?", "-a", value],
        ["generate", "model", "-q", value, "--max-new-tokens", "2"],
        ["fit", "rows.jsonl", "-o", "out", "--negatives", value, "--folds", "1"],
        ["fit", "rows.jsonl", "-o", "out", "--positive-from", value, "--folds", "1"],
        ["verdict", value],
        ["pack", value],
        ["eval", "--model", "likra", "--model_args", f"path=model,mode={value}", "--tasks", "nope"],
    ]
    command = [argument(part) for part in draw(st.sampled_from(commands))]
    return Case("options", tuple(command), files)
