"""What may stand in the place of the base in Base-Likra, ``L - w L-``, by the tables of a run.

``L-`` is the head of the run's first sampler of wrong answers. ``L`` is the base, the positive head
(that is Likra), or the head of another sampler of the run:

- `other_question`: what an answer looks like, to whatever question;
- `contaminated:P` with P one divided by the number of choices: any choice of the question, each as
  often as the others. Such a head knows what an answer to this question looks like, and nothing of
  which one is right.

Each is compared with the base alone, on the same questions. It needs no model:

    python -m benchmarks.base_term docs/data/smollm2-paper/sciq
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from likra.report.modes import reported_scores
from likra.scores.comparison import paired
from likra.scores.intervals import accuracy_intervals
from likra.scores.ratio import is_correct, likelihood_ratio
from likra.scores.table import BASE, HeadKey, Scores
from likra.study.folder import Run, read_run


def terms(run: Run, n: int) -> Iterator[tuple[str, list[HeadKey]]]:
    """What can stand before the negative head: its name, and its head for each seed."""
    seeds = run.study.seeds
    yield "base", [BASE for _ in seeds]
    for source in run.study.negatives[1:]:
        yield source, [HeadKey("negative", n, seed, source) for seed in seeds]
    yield "positive", [HeadKey("positive", n, seed) for seed in seeds]


def correct(run: Run, scores: Scores, heads: list[HeadKey], n: int, weight: float) -> np.ndarray:
    """[seeds, questions], whether ``L - w L-`` picks a right choice."""
    source = run.study.negatives[0]
    rows = []
    for seed, head in zip(run.study.seeds, heads, strict=True):
        negative = scores.logprob[HeadKey("negative", n, seed, source)]
        ratio = likelihood_ratio(scores.logprob[head], negative, weight)
        rows.append(is_correct(ratio, scores, run.study.metric))
    return np.stack(rows)


def report(folder: Path, weight: float) -> None:
    """Print a row for each term, and a column for each number of examples."""
    run = read_run(folder)
    scores, study = reported_scores(run), run.study
    base = is_correct(scores.logprob[BASE], scores, study.metric)
    print(
        f"\n{folder}: {study.metric}, {len(study.seeds)} seeds, {len(base)} questions, "
        f"w = {weight}; the base alone {base.mean():.3f}"
    )
    print(f"  {'L':<22}" + "".join(f"{f'n = {n}':>34}" for n in study.snapshots))
    rows: dict[str, str] = {}
    for n in study.snapshots:
        for name, heads in terms(run, n):
            own = correct(run, scores, heads, n, weight)
            value, low, high = accuracy_intervals(own)
            found = paired(own.T, base)
            difference = found.difference
            cell = (
                f"{value:.3f} ±{(high - low) / 2:.3f} ({difference.value:+.3f}, "
                f"p {found.p_value:.3f})"
            )
            rows[name] = rows.get(name, "") + f"{cell:>34}"
    for name, cells in rows.items():
        print(f"  {name:<22}{cells}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or packed ones")
    parser.add_argument("--weight", type=float, default=1.0)
    options = parser.parse_args()
    for folder in options.runs:
        report(folder, options.weight)


if __name__ == "__main__":
    main()
