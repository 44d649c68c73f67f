"""How often 95% intervals contain the truth, over drawn questions and training seeds.

A model knows the answer of a question with a probability that depends on the question and on the
training seed: logits are a constant, a normal effect of the question with standard deviation 2, and
one of the seed. In the runs in docs/data the latter has a standard deviation of 0 to .2, by mode:
`--runs FOLDER...` prints it. It needs no model:

    python -m benchmarks.coverage [--runs docs/data/smollm2-paper/arc docs/data/smollm2-paper/sciq]
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import t

from benchmarks.common import SEED
from likra.report.modes import ModeScores, reported_scores
from likra.scores.intervals import accuracy_intervals, differences
from likra.scores.resampling import estimate, resampled_sums
from likra.study.folder import read_run

ACCURACIES = (0.2, 0.5, 0.8, 0.95, 0.99)
QUESTIONS = (20, 100, 600, 2000)
SEEDS = (1, 2, 3, 5)
OF_SEEDS = (0.0, 0.1, 0.2)  # standard deviations of the seeds' effect, in logits
OF_QUESTIONS = 2.0
DRAWS = 1000
BOOTSTRAPPED = 100  # draws of the bootstrap, which is slow

Intervals = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [draws, seeds, questions]


@dataclass(frozen=True)
class World:
    """Where questions and seeds are drawn from; all draws have their own questions."""

    of_seeds: float
    n_seeds: int
    n_questions: int
    generator: np.random.Generator

    def answers(self, level: float, questions: np.ndarray) -> np.ndarray:
        """[draws, seeds, questions], whether each answer is right."""
        seeds = self.of_seeds * self.generator.normal(size=(len(questions), self.n_seeds, 1))
        known = expit(level + seeds + questions)
        right: np.ndarray = self.generator.random(known.shape) < known
        return right

    def questions(self, draws: int) -> np.ndarray:
        """The questions' effects, [draws, 1, questions]."""
        return OF_QUESTIONS * self.generator.normal(size=(draws, 1, self.n_questions))


def accuracy_at(level: float, of_seeds: float) -> float:
    """The accuracy over all questions and seeds: a normal integral, by Gauss and Hermite."""
    places, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = np.hypot(OF_QUESTIONS, of_seeds)
    return float(weights @ expit(level + spread * places) / weights.sum())


def level_of(accuracy: float, of_seeds: float) -> float:
    """The constant at which a model has this accuracy."""
    return float(brentq(lambda level: accuracy_at(level, of_seeds) - accuracy, -30, 30))


# --------------------------------------------------------------------------------------------
# Intervals


def ours(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Likra's."""
    _, low, high = accuracy_intervals(correct)
    return low, high


def students(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Student's t over the seeds' accuracies; for one seed, the normal one over questions."""
    mean, n_seeds = correct.mean(axis=(1, 2)), correct.shape[1]
    values = correct.mean(axis=2) if n_seeds > 1 else correct[:, 0]
    error = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    half = t.ppf(0.975, values.shape[1] - 1) * error
    return mean - half, mean + half


def bootstrap(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles of resampled questions and seeds."""
    size = correct.shape[1] * correct.shape[2]
    sums = [resampled_sums(own[None], SEED)[:, 0] for own in correct]
    found = [estimate(own / size) for own in sums]
    return np.array([own.low for own in found]), np.array([own.high for own in found])


METHODS: dict[str, tuple[Intervals, int]] = {
    "likra": (ours, DRAWS),
    "t over seeds": (students, DRAWS),
    "bootstrap": (bootstrap, BOOTSTRAPPED),
}


# --------------------------------------------------------------------------------------------
# Coverage


def of_accuracies(world: World, accuracy: float) -> dict[str, float]:
    """The share of draws whose interval contains the accuracy, by method."""
    level = level_of(accuracy, world.of_seeds)
    correct = world.answers(level, world.questions(DRAWS))
    shares = {}
    for name, (method, draws) in METHODS.items():
        low, high = method(correct[:draws])
        shares[name] = float(((low <= accuracy) & (accuracy <= high)).mean())
    return shares


def of_differences(world: World, accuracy: float, gap: float) -> tuple[float, float]:
    """The share of draws whose interval contains the difference, and that with p < .001."""
    levels = [level_of(own, world.of_seeds) for own in (accuracy + gap, accuracy)]
    questions = world.questions(DRAWS)
    found = differences(*(world.answers(level, questions) for level in levels))
    inside = [own.estimate.low <= gap <= own.estimate.high for own in found]
    return float(np.mean(inside)), float(np.mean([own.p_value < 0.001 for own in found]))


def worlds() -> Iterator[World]:
    """All numbers of seeds and questions; one seed has no spread of seeds that could be seen."""
    for of_seeds in OF_SEEDS:
        for n_seeds in SEEDS:
            for n_questions in QUESTIONS:
                if n_seeds > 1 or not of_seeds:
                    yield World(of_seeds, n_seeds, n_questions, np.random.default_rng(SEED))


def spread_of_seeds(folder: Path) -> dict[str, float]:
    """Of each trained mode of a run: the standard deviation of its seeds, in logits.

    The seeds' variance less that of their questions, as medians over n and samplers.
    """
    run = read_run(folder)
    modes, spreads = ModeScores(reported_scores(run), run.study), dict[str, float]()
    for mode in run.study.modes:
        found = []
        for source, n in modes.cells():
            correct = modes.correct(mode, source, n)
            if correct.shape[1] < 2:
                continue
            mean, rest = correct.mean(), correct - correct.mean(axis=1, keepdims=True)
            noise = (rest**2).sum() / (correct.shape[1] - 1) / len(correct) ** 2
            of_seeds = max(0.0, correct.mean(axis=0).var(ddof=1) - noise)
            found.append(np.sqrt(of_seeds) / (mean * (1 - mean)))
        if found:
            spreads[mode] = float(np.median(found))
    return spreads


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", nargs="*", type=Path, default=[])
    for folder in parser.parse_args().runs:
        print(f"{folder}: standard deviation of seeds, logits, median over n")
        for mode, spread in spread_of_seeds(folder).items():
            print(f"  {mode:20} {spread:.2f}")
    accuracy_tables()
    difference_table()


def accuracy_tables() -> None:
    """Print the coverage of accuracies: at each place, and its lowest and highest values."""
    heads = " ".join(f"{accuracy:>15}" for accuracy in ACCURACIES)
    print(f"\n{' / '.join(METHODS)}: coverage of an accuracy of")
    print(f"{'spread':>6} {'seeds':>5} {'questions':>9} {heads}")
    found: dict[tuple[float, int], list[dict[str, float]]] = {}
    for world in worlds():
        shares = [of_accuracies(world, accuracy) for accuracy in ACCURACIES]
        found.setdefault((world.of_seeds, world.n_seeds), []).extend(shares)
        cells = ["/".join(f"{x:.3f}".lstrip("0") for x in own.values()) for own in shares]
        row = " ".join(f"{cell:>15}" for cell in cells)
        print(f"{world.of_seeds:6} {world.n_seeds:5} {world.n_questions:9,} {row}", flush=True)
    print("\nlowest and highest of these, the median in brackets")
    print(f"{'spread':>6} {'seeds':>5} " + " ".join(f"{name:>22}" for name in METHODS))
    for (of_seeds, n_seeds), shares in found.items():
        columns = [[own[name] for own in shares] for name in METHODS]
        cells = [f"{min(c):.3f} to {max(c):.3f} ({np.median(c):.3f})" for c in columns]
        print(f"{of_seeds:6} {n_seeds:5} " + " ".join(f"{cell:>22}" for cell in cells))


def difference_table() -> None:
    """Print the coverage of differences, and how often p is small where there is none."""
    print("\ndifference: coverage, and in brackets how often p < .001 where there is none")
    print(
        f"{'spread':>6} {'seeds':>5} {'questions':>9} {'.5 and .5':>15} {'.9 and .9':>15} .6 and .5"
    )
    for world in worlds():
        cells = []
        for accuracy, gap in ((0.5, 0.0), (0.9, 0.0), (0.5, 0.1)):
            inside, false = of_differences(world, accuracy, gap)
            cells.append(f"{inside:.3f}" + ("" if gap else f" ({false:.4f})"))
        print(
            f"{world.of_seeds:6} {world.n_seeds:5} {world.n_questions:9,} "
            f"{cells[0]:>15} {cells[1]:>15} {cells[2]:>9}",
            flush=True,
        )


if __name__ == "__main__":
    main()
