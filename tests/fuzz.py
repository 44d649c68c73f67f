"""Bad input for every entry point, drawn by hypothesis: what must come out is a clear refusal.

    python -m tests.fuzz [--count 3000] [--entries files cards ...] [--seed 0]

Valid files, cards, studies, options, requests, models and runs are damaged: values are replaced by
others, keys dropped or doubled, bytes cut or changed. A command must end with exit code 0 or 2 and
one line, a request with a status below 500; with no traceback, within `LONGEST` seconds, and with
no scratch files left. Outcomes are counted, and each failure is printed with what was given.
"""

import argparse
import copy
import csv
import gzip
import io
import json
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import yaml
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from likra.cli.main import main as likra
from likra.engine.tokens import TokenPair
from likra.heads.base import open_model
from likra.heads.lora import Head, fresh_head, save_head
from likra.heads.score import score
from likra.model.folder import save
from likra.model.parts import Parts
from likra.serve.app import create_app
from likra.serve.models import Source, open_served
from likra.serve.settings import Settings

LONGEST = 60  # seconds
RUNS = Path(__file__).parent.parent / "docs" / "data" / "tuning" / "1e-3"  # a packed run

Files = dict[str, bytes]  # by path


@dataclass(frozen=True)
class Case:
    """A command with its files, or a request.

    Attributes:
        entry: one of `ENTRIES`.
        command: of likra; empty for a request.
        files: beside which it is started.
        request: method, path, headers and body.

    """

    entry: str
    command: tuple[str, ...] = ()
    files: Files = field(default_factory=dict)
    request: tuple[str, str, Mapping[str, str], bytes] | None = None


# --------------------------------------------------------------------------------------------
# Bad values, and damage to good ones

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "", " ", "\n", "\0", "\x1b[31m", "\x9b2J", "\ud800", "../..", "/", "~", "[/x]", "{}",
            "{question}", "{{ ", "{{ x }}", "{% for %}", "=1+1", "!function os.system", "A" * 5000,
            "[" * 5000, "pocket", "lm_eval:", "a/b", "file:x", "hardest", "1e999", "-1", "None",
        ]
    ),
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 0.5, -1.0, 1e308, float("nan")]),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in lists and mappings."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, own in inner:
        found += places(own, (*path, key))
    return found


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """The value with one or two of its parts replaced, dropped, or under another name."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        if not (paths := places(value)):
            return draw(VALUES)
        *outer, last = draw(st.sampled_from(paths))
        section = value
        for key in outer:
            section = section[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "wrap"]))
        if action == "replace":
            section[last] = draw(VALUES)
        elif action == "wrap":
            section[last] = [section[last]]
        else:
            old = section.pop(last)
            if action == "rename" and isinstance(section, dict):
                section[draw(st.text(max_size=5))] = old
    return value


@st.composite
def cut(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, most often as they are; else cut, or with some of them changed."""
    how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "change", "insert", "utf-16"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "cut":
        return content[:place]
    if how == "change" and content:
        byte = draw(st.integers(0, 255))
        return content[:place] + bytes([byte]) + content[place + 1 :]
    if how == "insert":
        return content[:place] + draw(st.binary(max_size=8)) + content[place:]
    if how == "utf-16":
        return content.decode("utf-8", "replace").encode("utf-16")
    return content


# --------------------------------------------------------------------------------------------
# Files

CHOICE_ROWS = [
    {"id": f"q{n}", "question": f"What is {n}?", "choices": ["a", "b", f"c{n}"], "answer": n % 3}
    for n in range(6)
]
PAIR_ROWS = [{"prompt": f"Say {n}", "chosen": f" {n}", "rejected": f" {n + 1}"} for n in range(6)]
CHAT_ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"{n}"}]}
    for n in range(3)
]
LABEL_ROWS = [{"prompt": f"P{n // 2}", "completion": f" {n}", "label": n % 2} for n in range(6)]
ROWS = (CHOICE_ROWS, PAIR_ROWS, CHAT_ROWS, LABEL_ROWS)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def as_jsonl(rows: Any) -> bytes:
    listed = rows if isinstance(rows, list) else [rows]
    return as_bytes("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in listed))


def as_json(rows: Any) -> bytes:
    return as_bytes(json.dumps(rows))


def as_csv(rows: Any) -> bytes:
    """With lists as JSON in their fields."""
    listed = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    buffer = io.StringIO()
    writer = csv.writer(buffer, escapechar="\\")
    names = list(dict.fromkeys(name for row in listed for name in row))
    writer.writerow(names)
    for row in listed:
        values = [row.get(name, "") for name in names]
        writer.writerow([v if isinstance(v, str) else json.dumps(v) for v in values])
    return as_bytes(buffer.getvalue())


def as_parquet(rows: Any) -> bytes:
    """As far as Arrow takes the values; else JSON under a false name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue().to_pybytes()
    except Exception:  # whatever Arrow does not take
        return as_json(rows)


WRITERS: dict[str, Callable[[Any], bytes]] = {
    ".jsonl": as_jsonl,
    ".json": as_json,
    ".csv": as_csv,
    ".tsv": as_csv,
    ".parquet": as_parquet,
    ".jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows)),
}
NAMES = st.sampled_from(["rows", "train", "[/x]", "=1+1", "a b", "-x", "é", "..."])


@st.composite
def data_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name and its content."""
    ending, write = draw(st.sampled_from(list(WRITERS.items())))
    rows = draw(damaged(draw(st.sampled_from(ROWS))))
    return f"./{draw(NAMES)}{ending}", draw(cut(write(rows)))


TEMPLATES = st.one_of(
    TEXTS,
    st.sampled_from(
        [
            "{question}:", "{{ question }}", "{{ question * 10**8 }}", "{{ question.x.y }}",
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "{{ ''.__class__ }}", "{{ question | nothing }}", "{prompt} {prompt}", "{{ 1/0 }}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ question }}", "{question!r}",
            "{% include 'x' %}{{ question }}", "{{ question }}{% raise %}",
        ]
    ),
)  # fmt: skip
FILE_OPTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("--columns"), st.sampled_from(["prompt=question", "x", "a=b", "id=id"])),
        st.tuples(st.just("--prompt-template"), TEMPLATES),
        st.tuples(st.just("--on-bad-row"), st.sampled_from(["skip", "error", "x"])),
        st.tuples(st.just("--answer-base"), st.sampled_from(["0", "1", "2"])),
    ),
    max_size=2,
)


def argument(text: str) -> str:
    """As a shell can give it."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def flat(options: list[tuple[str, str]]) -> list[str]:
    return [argument(part) for pair in options for part in pair]


@st.composite
def of_files(draw: st.DrawFn) -> Case:
    name, content = draw(data_files())
    options = flat(draw(FILE_OPTIONS))
    command = draw(st.sampled_from(["show", "show", "plan", "rank", "rank out", "fit", "source"]))
    files = {name: content}
    if command == "source":
        files["good.jsonl"] = as_jsonl(CHOICE_ROWS)
        arguments = ["plan", "good.jsonl", "--no-calibrate", "--negatives", f"file:{name}"]
    elif command in {"show", "plan"}:
        first = ["tasks", "show"] if command == "show" else ["plan"]
        arguments = [*first, name, *(["--no-calibrate"] if command == "plan" else []), *options]
    elif command == "fit":
        # no questions to measure on, so that what is no fault ends at once
        arguments = ["fit", name, "-o", "out", "--folds", "1", *options]
    else:
        files |= model_files()
        out = ["-o", draw(st.sampled_from(["out.jsonl", "out.csv", "out.parquet", "out.x"]))]
        arguments = ["rank", "model", name, *(out if command == "rank out" else [])]
    return Case("files", tuple(arguments), files)


# --------------------------------------------------------------------------------------------
# Cards, studies, options

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


def as_yaml(value: Any) -> bytes:
    try:
        return as_bytes(yaml.safe_dump(value, allow_unicode=True))
    except Exception:  # a text that YAML cannot hold
        return as_json(value)


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


# --------------------------------------------------------------------------------------------
# Models, runs, requests


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


REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/rank": {"question": "What?", "candidates": ["a", "b"]},
    "/v1/explain": {"question": "What?", "answer": "a"},
    "/v1/generate": {"question": "What?", "way": "positive", "n": 1, "max_new_tokens": 2},
    "/v1/rerank": {"query": "What?", "documents": ["a", {"text": "b"}], "top_n": 1},
    "/v2/rerank": {"query": "What?", "documents": ["a", "b"]},
    "/rerank": {"query": "What?", "texts": ["a", "b"], "raw_scores": True},
    "/v1/score": {"text_1": "What?", "text_2": ["a", "b"]},
    "/v1/models/reload": {},
}


@st.composite
def of_requests(draw: st.DrawFn) -> Case:
    path, body = draw(st.sampled_from(list(REQUESTS.items())))
    content = draw(cut(as_json(draw(damaged(body)))))
    kind = draw(st.sampled_from(["application/json", "application/json", "text/plain", ""]))
    method = draw(st.sampled_from(["POST", "POST", "POST", "GET", "PUT"]))
    return Case("requests", request=(method, path, {"content-type": kind}, content))


ENTRIES = {
    "files": of_files,
    "cards": of_cards,
    "studies": of_studies,
    "options": of_options,
    "models": of_models,
    "runs": of_runs,
    "requests": of_requests,
}


# --------------------------------------------------------------------------------------------
# What comes out


class HangError(BaseException):
    """It took longer than `LONGEST`; not an Exception, so that nothing catches it."""


@contextmanager
def alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@cache
def client() -> TestClient:
    served = open_served(Source(str(Path(model_folder().name) / "model")))
    return TestClient(create_app(served, Settings()), raise_server_exceptions=False)


def outcome(case: Case) -> str:
    """ "exit 2" and the like where all is well; else what went wrong, in lines."""
    try:
        with alarm():
            return _requested(case) if case.request else _commanded(case)
    except HangError:
        return f"FAILED: no end within {LONGEST} seconds"


def _requested(case: Case) -> str:
    assert case.request is not None
    method, path, headers, body = case.request
    status = client().request(method, path, headers=headers, content=body).status_code
    return f"status {status}" if status < 500 else f"FAILED: status {status}"


def _commanded(case: Case) -> str:
    stdout, stderr = io.StringIO(), io.StringIO()
    with TemporaryDirectory(prefix="likra-fuzz-") as scratch:
        folder = Path(scratch)
        for name, content in case.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before, saved = set(folder.rglob("*")), sys.argv
        sys.argv = ["likra", *case.command]
        try:
            with chdir(folder), redirect_stdout(stdout), redirect_stderr(stderr):
                likra()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error}"[:300] + _where(error)
        finally:
            sys.argv = saved
        new = {path.relative_to(folder) for path in set(folder.rglob("*")) - before}
    if code not in {0, 2}:
        return f"FAILED: exit {code}: {stderr.getvalue()[-300:]}"
    if "Traceback" in stderr.getvalue():
        return f"FAILED: a traceback is printed: {stderr.getvalue()[-300:]}"
    if left := [str(path) for path in new if path.name.startswith(".")]:
        return f"FAILED: left {', '.join(left)}"
    if code == 2 and not stderr.getvalue().strip():
        return "FAILED: exit 2 without a word"
    return f"exit {code}"


def _where(error: BaseException) -> str:
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "likra" in frame.filename
    ]
    return "".join(f"\n    {frame.filename}:{frame.lineno}" for frame in frames[-4:])


def check(entry: str, count: int, of: int, found: Callable[[Case, str], None]) -> None:
    """Draw so many cases of an entry point, by a seed, and give each with its outcome."""

    @seed(of)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(ENTRIES[entry]())
    def draw(case: Case) -> None:
        found(case, outcome(case))

    draw()


def _shown(case: Case) -> str:
    files = {name: own[:300] for name, own in case.files.items() if len(case.files) < 4}
    return f"{case.command or case.request} {files or ''}"[:1500]


def main() -> None:
    """Print the outcomes of each entry point; exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, default=list(ENTRIES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    total: Counter[str] = Counter()

    def count(counts: Counter[str], case: Case, result: str) -> None:
        counts[result.partition(":")[0]] += 1
        if result.startswith("FAILED"):
            print(f"{result}\n  {_shown(case)}", flush=True)

    for entry in options.entries:
        counts: Counter[str] = Counter()
        check(entry, options.count // len(options.entries), options.seed, partial(count, counts))
        print(
            f"{entry:9} {', '.join(f'{own}: {n}' for own, n in sorted(counts.items()))}", flush=True
        )
        total += counts
    print(f"all       {', '.join(f'{own}: {n}' for own, n in sorted(total.items()))}")
    shutil.rmtree(model_folder().name, ignore_errors=True)
    raise SystemExit(1 if total["FAILED"] else 0)


if __name__ == "__main__":
    main()
