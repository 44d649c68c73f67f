"""What `Likra.fit` chooses, calibrates and holds back, tried on score tables many times over.

A run's evaluation questions are divided at random, again and again: on one part mode, weight,
length normalisation, temperature and threshold are chosen as `Likra.fit` does, on the other part
they are measured. It needs no model, only the tables of a run:

    python -m benchmarks.choosing docs/data/smollm2-paper/arc docs/data/smollm2-paper/sciq
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import SEED
from likra.model.evidence import choose
from likra.report.modes import reported_scores
from likra.scores.abstention import abstention_threshold
from likra.scores.calibration import calibration, choice_probabilities
from likra.scores.ratio import is_correct
from likra.scores.selection import CANDIDATES, Ranking, ratio_of, scores_of_pair, values_of
from likra.scores.table import Scores
from likra.study.folder import Run, read_run

SPLITS, FOLDS = 200, 5
FIXED = {"Likra, w = 1": Ranking("likra", 1.0, "acc"), "SFT": Ranking("sft", 0.0, "acc")}
LEVELS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Heads:
    """The scores of one seed's heads, as `Likra.fit` has them."""

    scores: Scores
    n: int


def heads_of(run: Run, n: int | None) -> list[Heads]:
    """The heads of each seed, trained on n questions; by default on as many as there are."""
    scores = reported_scores(run)
    n = run.study.snapshots[-1] if n is None else n
    source = run.study.negatives[0]
    return [Heads(scores_of_pair(scores, seed, source, n), n) for seed in run.study.seeds]


def splits(count: int, size: int) -> Iterator[np.ndarray]:
    """Which questions to choose on, [questions] bool, again and again."""
    generator = np.random.default_rng(SEED)
    for _ in range(SPLITS):
        chosen = np.zeros(count, dtype=bool)
        chosen[generator.permutation(count)[:size]] = True
        yield chosen


@dataclass
class Measured:
    """What a split gave on the questions that nothing was chosen on."""

    ranking: Ranking
    accuracy: dict[str, float]
    ece: tuple[float, float]
    wrong: dict[float, int]
    answered: dict[float, int]


def measure(heads: Heads, chosen: np.ndarray) -> Measured:
    """Choose on some of the questions, and measure on the others."""
    scores, n = heads.scores, heads.n
    folds = np.arange(int(chosen.sum())) % FOLDS
    fitted = choose(scores.of(chosen), folds, "at random")
    ranking = fitted.ranking
    accuracy = {}
    for name, own in {"chosen": ranking, **FIXED}.items():
        correct = is_correct(ratio_of(scores, own, n), scores, own.metric)
        accuracy[name] = float(correct[~chosen].mean())
    correct = is_correct(ratio_of(scores, ranking, n), scores, ranking.metric)
    values = values_of(ratio_of(scores, ranking, n), scores, ranking)
    before, after = (
        choice_probabilities(values, scores, t).max(axis=1) for t in (1.0, fitted.temperature)
    )
    confidence, right = np.array(fitted.confidence), np.array(fitted.correct)
    errors = [calibration(p[~chosen], correct[~chosen]).ece for p in (before, after)]
    wrong, answered = {}, {}
    for level in LEVELS:
        threshold = abstention_threshold(confidence, right, level)
        sure = (after >= threshold) & ~chosen
        wrong[level], answered[level] = int((sure & ~correct).sum()), int(sure.sum())
    return Measured(ranking, accuracy, (errors[0], errors[1]), wrong, answered)


def report(name: str, run: Run, size: int, n: int | None) -> None:
    """Print what choosing is worth on one run."""
    every = heads_of(run, n)
    count = len(every[0].scores.question_ids)
    if size >= count:
        raise SystemExit(f"{name} has {count} questions, and {size} are to choose on")
    rows = [
        measure(every[number % len(every)], chosen)
        for number, chosen in enumerate(splits(count, size))
    ]
    left = count - size
    print(
        f"\n{name}: heads of {every[0].n} questions, {len(every)} seeds; {SPLITS} random splits, "
        f"{size} questions to choose on, {left} to measure on"
    )
    for way in ("chosen", *FIXED):
        print(f"  accuracy, {way:<13} {np.mean([row.accuracy[way] for row in rows]):.3f}")
    modes = [row.ranking.mode for row in rows]
    shares = {mode: modes.count(mode) / len(modes) for mode in CANDIDATES if mode in modes}
    print(f"  modes chosen: {', '.join(f'{mode} {share:.0%}' for mode, share in shares.items())}")
    before, after = np.mean([row.ece for row in rows], axis=0)
    print(f"  expected calibration error: {before:.3f} before scaling, {after:.3f} after it")
    for level in LEVELS:
        wrong = np.array([row.wrong[level] for row in rows])
        answered = np.array([row.answered[level] for row in rows])
        # no answer is no wrong answer
        errors = wrong / np.maximum(answered, 1)
        spread = errors.std(ddof=1) / np.sqrt(len(errors))
        print(
            f"  wrong among the answers at {level:.0%}: {errors.mean():.1%} (standard error "
            f"{spread:.1%}); {answered.mean() / left:.0%} of the questions answered"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or packed ones")
    parser.add_argument("--choose-on", type=int, default=100, help="questions to choose on")
    parser.add_argument("--n", type=int, help="training questions of the heads")
    options = parser.parse_args()
    for folder in options.runs:
        report(str(folder), read_run(folder), options.choose_on, options.n)


if __name__ == "__main__":
    main()
