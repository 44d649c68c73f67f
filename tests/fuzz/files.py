"""People's data files."""

from hypothesis import strategies as st

from tests.fuzz.cases import Case, flat
from tests.fuzz.damage import TEXTS, cut, damaged
from tests.fuzz.folders import model_files
from tests.fuzz.rows import CHOICE_ROWS, ROWS, WRITERS, as_jsonl

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
