"""The score tables of a run, checked against what the run says that it computed."""

from collections.abc import Iterator

import pyarrow as pa

from likra.errors import LikraError
from likra.scores.table import HeadKey, Scores, combine, read_scores, read_stamp
from likra.study.examples import heads_of, untrained_of
from likra.study.folder import Run, read_record


def read_run_scores(run: Run) -> Scores:
    """The scores of all heads that the modes of a run need.

    Raises:
        LikraError: a table is missing, damaged, of another head than its name says, or not the one
            that the run computed.

    """
    return combine(_tables(run))


def score_keys(run: Run) -> list[HeadKey]:
    """The heads whose scores the modes of a run need."""
    study, own = run.study, read_record(run.folder).own_positives
    keys = [
        HeadKey(head, n, seed, source)
        for seed in study.seeds
        for head, source in heads_of(study)
        for n in study.snapshots
    ]
    if "likra" in study.modes:
        pairs = [HeadKey("positive", key.n_train, key.seed, key.source) for key in keys]
        keys += dict.fromkeys(pair for pair in pairs if pair.source and str(pair) in own)
    return [*untrained_of(study), *keys]


def _tables(run: Run) -> Iterator[pa.Table]:
    digests = read_record(run.folder).scores
    for key in score_keys(run):
        path = run.scores_path(key)
        if not path.is_file() or str(key) not in digests:
            raise LikraError(
                f"'{run.folder}' has no scores of {key} ('{path.name}'): `likra run` with these "
                "settings computes what is missing"
            )
        if read_stamp(path)["digest"] != digests[str(key)]:
            raise LikraError(
                f"'{path}' is not the table that this run computed: it was scored with other "
                "settings, data or heads; delete it, and `likra run` computes it again"
            )
        table = read_scores(path)
        row = table.select(["head", "n_train", "seed", "source"]).slice(0, 1).to_pylist()
        if row != [vars(key)]:
            raise LikraError(f"'{path}' does not hold the scores of {key}")
        yield table
