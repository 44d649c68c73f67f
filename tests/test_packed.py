"""Packed score tables: nothing is lost, nothing is computed again, damage is found."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import question
from hypothesis import given
from hypothesis import strategies as st

from likra.cli.studies import pack
from likra.errors import LikraError
from likra.report.compare import write_comparison
from likra.report.results import run_study, write_results
from likra.scores.packed import PackedScores, write_packed
from likra.scores.table import (
    BASE,
    PRIOR,
    HeadKey,
    choice_table,
    read_scores,
    read_stamp,
    score_table,
)
from likra.study.config import parse_study
from likra.study.folder import (
    Run,
    read_about,
    read_record,
    read_run,
    write_about,
    write_record,
)
from likra.study.pack import pack_run
from likra.study.plan import plan_study
from likra.study.tables import read_run_scores

QUESTIONS = [question("a", "one", ["two", "three"]), question("b", "ünö", ["dos"])]
N = 5  # choices
P = HeadKey("positive", 8, 0)
finite = st.floats(allow_nan=False, allow_infinity=False)


def table(key=BASE, logprobs=range(N), n_tokens=(1,) * N, questions=QUESTIONS, layout="forest"):
    scores = np.array(list(logprobs), dtype=np.float64)
    return score_table("t", "test", choice_table(questions), key, scores, list(n_tokens), layout)


def stamp(digest: str) -> dict:
    return {"digest": digest, "inputs": {"head": "ü"}}


@given(
    st.lists(finite, min_size=N, max_size=N),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=N, max_size=N),
    st.lists(st.integers(0, 9), min_size=N, max_size=N),
    st.text("ab/=. %", max_size=8),
)
def test_every_table_comes_back_as_it_was(tmp_path_factory, wide, short, n_tokens, source):
    path = tmp_path_factory.mktemp("packed") / "scores.parquet"
    negative = HeadKey("negative", 8, 0, source)
    tables = {
        str(BASE): (table(BASE, wide), stamp("1")),
        str(PRIOR): (table(PRIOR, short, n_tokens, layout="padded"), stamp("2")),
        str(negative): (table(negative, short), stamp("3")),
    }
    write_packed(path, tables)
    packed = PackedScores(path)
    assert packed.stamps == {name: own for name, (_, own) in tables.items()}
    for name, (before, _) in tables.items():
        assert packed.table(name).equals(before)
    assert [p.name for p in path.parent.iterdir()] == ["scores.parquet"]


def test_float32_only_where_it_loses_nothing(tmp_path):
    path = tmp_path / "scores.parquet"
    tables = {"base": (table(logprobs=[-0.5] * N), stamp("1")), str(P): (table(P), stamp("2"))}
    tables[str(P)] = (table(P, [-0.1] * N), stamp("2"))  # no float32 is -0.1
    write_packed(path, tables)
    kinds = pq.read_schema(path)
    assert (str(kinds.field("base").type), str(kinds.field(str(P)).type)) == ("float", "double")


def test_a_flipped_bit_changes_nothing_unnoticed(tmp_path):
    path = tmp_path / "scores.parquet"
    tables = {"base": (table(), stamp("1")), str(P): (table(P, range(5, 10)), stamp("2"))}
    write_packed(path, tables)
    whole, noticed = path.read_bytes(), 0
    for place in range(0, len(whole), 2):
        flipped = whole[place] ^ (1 << place // 2 % 8)
        path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        try:
            packed = PackedScores(path)
            assert packed.stamps == {name: own for name, (_, own) in tables.items()}
            for name, (before, _) in tables.items():
                assert packed.table(name).equals(before)
        except LikraError:
            noticed += 1
    assert noticed > len(whole) / 4


def test_a_footer_that_places_the_pages_of_another_head_is_noticed(tmp_path):
    """Each page is whole, and its checksum right: only the digest of the columns can tell."""
    path = tmp_path / "scores.parquet"
    tables = {"base": (table(), stamp("1")), str(P): (table(P, range(5, 10)), stamp("2"))}
    write_packed(path, tables)
    swapped = pq.read_table(path)
    names = [{"base": str(P), str(P): "base"}.get(n, n) for n in swapped.column_names]
    metadata = pq.read_metadata(path).metadata
    pq.write_table(swapped.rename_columns(names).replace_schema_metadata(metadata), path)
    with pytest.raises(LikraError, match="its columns are not those that were written"):
        PackedScores(path).table("base")


def test_tables_of_other_questions_are_not_packed_together(tmp_path):
    others = [QUESTIONS[0], question("b", "uno", ["dos"])]
    tables = {"base": (table(), stamp("1")), str(P): (table(P, questions=others), stamp("2"))}
    with pytest.raises(LikraError, match="not of the same questions, and differ in 'n_bytes'"):
        write_packed(tmp_path / "scores.parquet", tables)
    assert not list(tmp_path.iterdir())


def test_another_parquet_file_is_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    pq.write_table(table(), path)
    with pytest.raises(LikraError, match="cannot read the packed scores"):
        PackedScores(path)


# --------------------------------------------------------------------------------------------
# Runs

SMALL = {
    "name": "small",
    "seeds": [0],
    "snapshots": [8, 16],
    "weights": [0.5],
    "modes": ["base", "sft", "likra", "pmi"],
    "figures": ["learning_curve"],
    "training": {"learning_rate": 1e-3, "batch_size": 8},
}
KEPT = {"study.yaml", "cells.json", "curve.csv", "summary.json", "scores.parquet"}


def silent(_: str) -> None:
    pass


def small(**changes):
    return parse_study(SMALL | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Run:
    run, _ = run_study(small(), tmp_path_factory.mktemp("runs") / "small", silent)
    return run


@pytest.fixture
def run(finished, tmp_path) -> Run:
    shutil.copytree(finished.folder, tmp_path / "run")
    return Run(finished.study, tmp_path / "run")


@pytest.fixture
def kept(finished, tmp_path) -> Run:
    pack_run(finished.folder, tmp_path / "kept")
    return read_run(tmp_path / "kept")


def test_a_copy_has_what_is_needed_and_no_texts(finished, kept):
    assert {path.name for path in kept.folder.iterdir()} == KEPT
    singles = list((finished.folder / "scores").iterdir())
    packed = PackedScores(kept.packed_path)
    assert len(singles) == len(packed.stamps) == 6
    for path in singles:
        assert packed.table(path.stem).equals(read_scores(path))
        assert packed.stamps[path.stem] == read_stamp(path)
    assert kept.packed_path.stat().st_size * 4 < sum(path.stat().st_size for path in singles)


def test_results_of_a_copy_are_those_of_the_run(finished, kept):
    assert not (kept.folder / "questions.jsonl").exists()
    for name in ("curve.csv", "summary.json"):
        (kept.folder / name).unlink()
    write_results(kept)
    for name in ("curve.csv", "summary.json", "study.yaml"):
        assert (kept.folder / name).read_bytes() == (finished.folder / name).read_bytes()


def test_a_copy_is_compared_with_a_run(finished, kept, tmp_path):
    write_comparison([finished.folder, kept.folder], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("kept") > 1


def test_running_a_copy_computes_nothing(kept, passes):
    lines: list[str] = []
    run_study(small(), kept.folder, lines.append)
    assert lines == [f"all 6 score tables of '{kept.folder}' exist: nothing to compute"]
    assert passes == []
    assert not (kept.folder / "heads").exists()


def test_one_more_seed_computes_that_seed_alone(kept, passes, tmp_path):
    """In a working copy, which is then packed over the kept one."""
    work = tmp_path / "work"
    shutil.copytree(kept.folder, work)
    more = small(seeds=[0, 1])
    plan = plan_study(more, work, silent, calibrate=False)
    assert (plan.scoring.done, plan.scoring.runs, plan.training.to_do) == (6, 10, 2)
    run, points = run_study(more, work, silent)
    assert passes == ["train [8, 16]", "score 512", "score 512"] * 2
    assert len(list((work / "scores").iterdir())) == 4
    _, expected = run_study(more, tmp_path / "alone" / "new", silent)
    assert points.equals(expected)
    assert pack_run(work, kept.folder).n_tables == 10
    assert {path.name for path in kept.folder.iterdir()} == KEPT
    before, after = read_run_scores(run), read_run_scores(read_run(kept.folder))
    assert list(before.logprob) == list(after.logprob)
    assert all((after.logprob[key] == before.logprob[key]).all() for key in before.logprob)


def test_one_more_snapshot_trains_up_to_it_without_the_heads(kept, passes):
    run_study(small(snapshots=[8, 16, 24]), kept.folder, silent)
    assert passes == ["train [24]", "score 512"] * 2


def test_other_settings_are_refused(kept):
    other = small(training={"learning_rate": 5e-4, "batch_size": 8})
    with pytest.raises(
        LikraError, match="scores.parquet' was computed with another training.learn"
    ):
        run_study(other, kept.folder, silent)


def test_packing_in_place_removes_the_single_files(run, passes):
    before = read_run_scores(run)
    assert pack_run(run.folder).n_tables == 6
    assert not (run.folder / "scores").exists()
    assert (run.folder / "heads").exists()
    after = read_run_scores(run)
    assert all((after.logprob[key] == before.logprob[key]).all() for key in before.logprob)
    assert pack_run(run.folder).n_tables == 6  # once more changes nothing
    run_study(run.study, run.folder, silent)
    assert passes == []


def test_a_head_in_both_has_one_stamp(run, finished, kept):
    """As when packing was stopped: the same; as when somebody copied a file: refused."""
    shutil.copy(kept.packed_path, run.packed_path)
    assert read_run_scores(run).logprob.keys() == read_run_scores(finished).logprob.keys()
    path = run.scores_path(P)
    old = pq.read_table(path)
    changed = json.dumps({**read_stamp(path), "versions": {"torch": "0"}})
    pq.write_table(old.replace_schema_metadata({"likra": changed}), path)
    for act in (lambda: write_results(run), lambda: run_study(run.study, run.folder, silent)):
        with pytest.raises(LikraError, match=r"both hold scores of positive.seed=0.n=8"):
            act()


def test_a_table_that_is_not_the_runs_is_not_packed(run):
    shutil.copy(run.scores_path(HeadKey("positive", 16, 0)), run.scores_path(P))
    with pytest.raises(LikraError, match="is not the table that this run computed"):
        pack_run(run.folder)
    assert len(list((run.folder / "scores").iterdir())) == 6


def test_packed_scores_of_another_run_are_refused(run, kept, tmp_path):
    record = read_record(kept.folder)
    write_record(kept, replace(record, scores={**record.scores, str(P): "0" * 64}))
    with pytest.raises(LikraError, match="that this run computed for positive.seed=0.n=8"):
        read_run_scores(kept)


def test_a_copy_says_nothing_of_where_the_run_was_started(run, tmp_path):
    about = read_about(run.folder)
    facts = {key: value for key, value in about.items() if key != "study"}
    write_about(run, {**facts, "started_in": str(tmp_path)})
    pack_run(run.folder, tmp_path / "copy")
    assert read_about(tmp_path / "copy") == about


def test_only_an_older_copy_is_replaced(run, finished, tmp_path):
    copy = tmp_path / "copy"
    run.scores_path(P).unlink()
    assert pack_run(run.folder, copy).n_tables == 5
    assert pack_run(finished.folder, copy).n_tables == 6
    with pytest.raises(LikraError, match="already holds scores of positive.seed=0.n=8"):
        pack_run(run.folder, copy)
    with pytest.raises(LikraError, match="is the folder of a run that is not packed"):
        pack_run(copy, finished.folder)


def test_what_the_base_computed_for_the_samplers_is_kept(tmp_path, passes):
    study = small(negatives=["hardest"], snapshots=[8], modes=["base", "base-likra"])
    run_study(study, tmp_path / "run", silent)
    pack_run(tmp_path / "run", tmp_path / "kept")
    passes.clear()
    run_study(study, tmp_path / "kept", silent)
    assert passes == []


def test_nothing_to_pack(tmp_path):
    with pytest.raises(LikraError, match="no run in"):
        pack_run(tmp_path)


def test_the_command_names_paths_of_this_machine(run, tmp_path, capsys):
    about = read_about(run.folder)
    about["study"]["data"] = "/some/where"
    run.study_path.write_text(yaml.safe_dump(about))  # without a checksum, as older versions
    pack(run.folder, Path(tmp_path / "copy"))
    out = capsys.readouterr().out
    assert "note   the study's data is a path of this machine: /some/where" in out
    assert "packed 6 score tables, " in out
