"""Score tables: written whole, checked when read, never mixed up."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.errors import LikraError
from likra.scores.table import (
    BASE,
    HeadKey,
    arranged,
    choice_table,
    combine,
    file_name,
    read_scores,
    read_stamp,
    score_table,
    write_scores,
)

QUESTIONS = [question("a", "one", ["two", "three"]), question("b", "ünö", ["dos"])]
P = HeadKey("positive", 8, 0)


def table(key: HeadKey = BASE, questions=QUESTIONS, logprobs=None) -> pa.Table:
    n = sum(len(q.choices) for q in questions)
    scores = np.arange(n, dtype=float) if logprobs is None else np.array(logprobs)
    return score_table("t", "test", choice_table(questions), key, scores, [1] * n, "forest")


@given(st.lists(st.text("ab/_%2F", max_size=6), min_size=2, max_size=2, unique=True))
def test_every_head_has_a_file_of_its_own(sources):
    names = [str(HeadKey("negative", 8, 0, source)) for source in sources]
    assert len({*names}) == 2
    assert "/" not in "".join(names)


def test_names_of_files():
    assert str(HeadKey("negative", 8, 0, "0.5*random_choice")) == (
        "negative.seed=0.source=0.5*random_choice.n=8"
    )
    assert file_name("file:a/b.jsonl") == "file:a%2Fb.jsonl"
    assert file_name("file:a_b.jsonl") == "file:a_b.jsonl"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "base.parquet"
    write_scores(path, table(), {"digest": "ü", "inputs": {}})
    again = read_scores(path)
    assert again.equals(table())
    assert read_stamp(path) == {"digest": "ü", "inputs": {}}
    assert again["n_chars"].to_pylist() == [3, 3, 5, 3, 3]
    assert again["n_bytes"].to_pylist() == [3, 3, 5, 5, 3]  # of 'ünö'
    assert [path.name for path in tmp_path.iterdir()] == ["base.parquet"]


def test_arrays_are_arranged_as_tables_are_combined():
    values = {BASE: np.arange(5) - 9.5, HeadKey("positive", 8, 0): np.arange(5) * -2.0}
    tables = [
        score_table("t", "test", choice_table(QUESTIONS), key, own, [1] * 5, "forest")
        for key, own in values.items()
    ]
    expected, found = combine(tables), arranged(QUESTIONS, values)
    assert found.question_ids == expected.question_ids
    for name in ("exists", "is_right", "n_chars"):
        assert (getattr(found, name) == getattr(expected, name)).all(), name
    assert found.logprob.keys() == expected.logprob.keys()
    assert all((found.logprob[key] == expected.logprob[key]).all() for key in values)


def test_combine_pads_questions_with_fewer_choices():
    scores = combine([table(), table(P)])
    assert scores.question_ids == ("a", "b")
    assert scores.exists.tolist() == [[True, True, True], [True, True, False]]
    assert scores.is_right.tolist() == [[True, False, False], [True, False, False]]
    assert scores.logprob[P].tolist() == [[0, 1, 2], [3, 4, 0]]


def test_heads_scored_on_other_strings_are_refused():
    others = [QUESTIONS[0], question("b", "uno", ["dos"])]
    with pytest.raises(LikraError, match="not of the same questions: they differ in 'prompt_sha'"):
        combine([table(), table(P, others)])


def test_the_same_head_twice_is_refused():
    with pytest.raises(LikraError, match="two tables of scores of positive.seed=0.n=8"):
        combine([table(P), table(P)])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "base.parquet"
    write_scores(path, table(), {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LikraError, match=r"cannot read the scores in '.*base.parquet'"):
        read_scores(path)


def test_a_missing_column_is_refused(tmp_path):
    pq.write_table(table().drop_columns(["seed"]), tmp_path / "x.parquet")
    with pytest.raises(LikraError, match="is not a score table of this version"):
        read_scores(tmp_path / "x.parquet")


def test_a_choice_that_stands_twice_is_refused(tmp_path):
    pq.write_table(pa.concat_tables([table(), table()]), tmp_path / "x.parquet")
    with pytest.raises(LikraError, match="holds a choice twice"):
        read_scores(tmp_path / "x.parquet")


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_score_that_is_no_number_is_refused(tmp_path, bad):
    write_scores(tmp_path / "x.parquet", table(logprobs=[-1.0, bad, -1.0, -1.0, -1.0]), {})
    with pytest.raises(LikraError, match="not a finite number"):
        read_scores(tmp_path / "x.parquet")


def test_columns_that_are_not_those_written_are_found(tmp_path):
    path = tmp_path / "base.parquet"
    write_scores(path, table(), {"digest": "d", "inputs": {}})
    metadata = pq.read_schema(path).metadata
    other = table(logprobs=[0, 1, 2, 3, 5]).replace_schema_metadata(metadata)
    pq.write_table(other, path)
    with pytest.raises(LikraError, match="its content is not what was written"):
        read_scores(path)


def test_a_stamp_that_is_not_the_one_written_is_found(tmp_path):
    path = tmp_path / "base.parquet"
    write_scores(path, table(), {"digest": "d", "inputs": {"seed": 1}})
    metadata = pq.read_schema(path).metadata
    changed = {**metadata, b"likra": metadata[b"likra"].replace(b"1", b"2")}
    pq.write_table(table().replace_schema_metadata(changed), path)
    with pytest.raises(LikraError, match="its content is not what was written"):
        read_scores(path)


def test_a_table_without_a_digest_of_its_content_is_read(tmp_path):
    path = tmp_path / "base.parquet"
    pq.write_table(table().replace_schema_metadata({"likra": "{}"}), path)
    assert read_scores(path).equals(table())
