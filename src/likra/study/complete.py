"""The part of a study that can be drawn where some of its score tables are missing."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from likra.scores.ratio import MODES
from likra.scores.table import BASE, HeadKey
from likra.study.config import Study
from likra.study.folder import Run
from likra.study.tables import StoredTables, score_keys


def missing_tables(run: Run) -> list[HeadKey]:
    """The score tables that the modes of a run need and that are not there."""
    stored = StoredTables(run)
    return [key for key in score_keys(run) if stored.path(str(key)) is None]


def complete_part(run: Run) -> Run | None:
    """The run without what lacks a score table; None where nothing is left to draw.

    Curves are compared at the same seeds and numbers of examples, so what is left out is a whole
    seed, for seeds can stand for one another. Where no seed is complete, the number of examples,
    the sampler or the head (with the modes that need it) that lacks the largest share of its tables
    is left out first; of equal ones, in this order.
    """
    while missing := missing_tables(run):
        if BASE in missing:
            return None
        study, incomplete = run.study, {key.seed for key in missing}
        seeds = [seed for seed in study.seeds if seed not in incomplete]
        if 0 < len(seeds) < len(study.seeds):
            run = replace(run, study=study.model_copy(update={"seeds": seeds}))
            continue
        smaller = _without_the_worst(study, score_keys(run), set(missing))
        if smaller is None:
            return None
        run = replace(run, study=smaller)
    return run


def _without_the_worst(
    study: Study, keys: Sequence[HeadKey], missing: set[HeadKey]
) -> Study | None:
    """The study without the part that lacks the largest share of its tables; None without any."""

    def lacking(part: tuple[Sequence[HeadKey], Study]) -> tuple[float, int]:
        count = len(missing.intersection(part[0]))
        return count / len(part[0]), count

    parts = [part for part in _parts(study, keys) if missing.intersection(part[0])]
    return max(parts, key=lacking)[1] if parts else None


def _parts(study: Study, keys: Sequence[HeadKey]) -> Iterator[tuple[Sequence[HeadKey], Study]]:
    """The tables of each number of examples, sampler and head, and the study without it."""
    for name, field in (("snapshots", "n_train"), ("negatives", "source")):
        values = getattr(study, name)
        for value in values if len(values) > 1 else ():
            rest = [other for other in values if other != value]
            if own := [key for key in keys if getattr(key, field) == value]:
                yield own, study.model_copy(update={name: rest})
    for head in dict.fromkeys(key.head for key in keys):
        modes = [m for m in study.modes if head not in {MODES[m].positive, MODES[m].negative}]
        if modes:
            own = [key for key in keys if key.head == head]
            yield own, study.model_copy(update={"modes": modes})


def left_out(study: Study, part: Study) -> str:
    """What of a study is not in its part, in words."""
    names = {"seeds": "seed", "modes": "mode", "negatives": "negatives", "snapshots": "n ="}
    texts = []
    for field, name in names.items():
        gone = [str(v) for v in getattr(study, field) if v not in getattr(part, field)]
        plural = "s" if len(gone) > 1 and field in {"seeds", "modes"} else ""
        texts += [f"{name}{plural} {', '.join(gone)}"] if gone else []
    return " and ".join(texts)
