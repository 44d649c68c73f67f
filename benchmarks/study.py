"""The evaluation of a whole study: `likra run` beside the procedure of the paper's code.

Both evaluate the same two heads at each of their snapshots, on the same strings. The paper's code
is written anew here from what it does: each mode, weight and checkpoint is an evaluation of its
own, which scores every choice of every question with both heads, one right-padded row for each,
and takes the log-softmax of the whole vocabulary at all places. The time to open the model and to
train the heads counts for neither; that to write tables, figures and report counts for likra.

One of those evaluations takes as long as any other, and a question as long as any other, so only
some are run (`--evaluations`, `--paper-questions`), and their mean time counts for all. likra's run
is a whole one; with the sweep over weights, its time is that and of a second run in its folder.
"""

import argparse
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import common
from likra import (
    BaseModel,
    Head,
    Question,
    Study,
    encode_questions,
    open_model,
    run_study,
    train_heads,
)
from likra.engine.products import float32_products
from likra.progress import hidden
from likra.scores.ratio import MODES as FORMULAS
from likra.scores.ratio import is_correct
from likra.scores.selection import Ranking, ratio_of
from likra.scores.table import Scores
from likra.study.config import parse_study
from likra.study.prepare import prepare
from likra.study.tables import read_run_scores

MODES = ("sft", "likra", "base-likra", "positive-base")
WEIGHTS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)
SNAPSHOTS = (8, 16, 32, 64, 128, 256, 512, 1024)
SMALL = {"task": "pocket", "data": None, "snapshots": [8, 16], "eval_questions": 16}
METRIC = "acc_norm"


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the paper's code."""

    mode: str
    n: int
    weight: float = 1.0


def evaluations(snapshots: Sequence[int], weights: Sequence[float]) -> list[Evaluation]:
    """All that a study takes: where the mode has a weight, one for each."""
    return [
        Evaluation(mode, n, weight)
        for n, mode in product(snapshots, MODES)
        for weight in (weights if FORMULAS[mode].weighted else (1.0,))
    ]


# --------------------------------------------------------------------------------------------
# The two sides


@dataclass(frozen=True)
class PaperCode:
    """The paper's procedure on the heads of a run; every call of `picks_right` is an evaluation."""

    base: BaseModel
    questions: Sequence[Question]
    heads: Path
    batch_size: int

    def picks_right(self, one: Evaluation) -> list[bool]:
        """Score all choices with both heads, and pick the best per character."""
        formula = FORMULAS[one.mode]
        weight = one.weight if formula.weighted else 0.0
        positive, negative = map(self._logprobs, (formula.positive, formula.negative), (one.n,) * 2)
        values = iter(zip((positive - weight * negative).tolist(), self._choices(), strict=True))
        right = []
        for question in self.questions:
            own = [next(values) for _ in question.choices]
            best = max(own, key=lambda pair: pair[0] / len(pair[1].text))
            right.append(bool(best[1].is_right))
        return right

    def _choices(self) -> Iterator[Any]:
        return (choice for question in self.questions for choice in question.choices)

    def _logprobs(self, head: str, n: int) -> np.ndarray:
        pairs = encode_questions(self.base, self.questions)
        padding = self.base.tokenizer.eos_token_id
        folders = [None] if head == "base" else self.heads.glob(f"{head}/seed=0/**/n={n}")
        (folder,) = folders
        own = Head(self.base, folder)
        with own.on() as model, float32_products(self.base.model):  # read from the disk each time
            return common.padded_logprobs(model, padding, pairs, self.batch_size)


@dataclass(frozen=True)
class LikraRun:
    """A run of likra on heads that are trained: its time, and its scores."""

    seconds: float
    swept: float  # with the sweep over weights
    scores: Scores

    @classmethod
    def of(cls, study: Study, trained: Path, scratch: Path) -> "LikraRun":
        """Score, count and draw in a copy of the folder with the heads."""
        with TemporaryDirectory(dir=scratch) as folder:  # none beside it, to take scores from
            copy = Path(folder) / "run"
            shutil.copytree(trained, copy)
            start = time.perf_counter()
            run, _ = run_study(study, copy, lambda line: None)
            end = time.perf_counter()
            run_study(study.model_copy(update={"weights": list(WEIGHTS)}), copy, lambda line: None)
            return cls(end - start, time.perf_counter() - start, read_run_scores(run))

    def picks_right(self, one: Evaluation, questions: Sequence[Question]) -> list[bool]:
        """Whether likra's pick is right, by the same rule as in the paper's code."""
        ranking = Ranking(one.mode, one.weight if FORMULAS[one.mode].weighted else 0.0, METRIC)
        right = is_correct(ratio_of(self.scores, ranking, one.n), self.scores, METRIC)
        known = dict(zip(self.scores.question_ids, right.tolist(), strict=True))
        return [bool(known[question.id]) for question in questions]


# --------------------------------------------------------------------------------------------


def compare(study: Study, scratch: Path, arguments: argparse.Namespace) -> None:
    """Train the heads, time both sides in turn, and print the ratios."""
    trained = scratch / "trained" / "run"
    train_heads(study, trained, lambda line: None)
    base = open_model(study.model, device="cpu", layout="padded")
    questions = list(prepare(study).evaluation)
    some = questions[:: max(1, len(questions) // arguments.paper_questions)]
    heads = trained / "heads"
    code = PaperCode(base, some, heads, best_batch_size(base, some, heads, study))
    asked = evaluations(study.snapshots, [1.0])
    step = max(1, len(asked) // arguments.evaluations)
    sample = asked[step - 1 :: step][: arguments.evaluations]
    timings = {name: common.Timing() for name in ("w = 1", "sweep", "paper")}
    same = 0
    for _ in range(arguments.repeats):
        own = LikraRun.of(study, trained, scratch)
        timings["w = 1"].seconds.append(own.seconds)
        timings["sweep"].seconds.append(own.swept)
        start = time.perf_counter()
        picks = [code.picks_right(one) for one in sample]
        per_question = (time.perf_counter() - start) / len(sample) / len(some)
        timings["paper"].seconds.append(per_question * len(questions))
        likra_picks = [own.picks_right(one, some) for one in sample]
        same = int((np.array(picks) == np.array(likra_picks)).sum())
    print(
        f"\n{study.task}, {len(questions)} questions of {study.num_fewshot} shots, "
        f"2 heads, {len(study.snapshots)} snapshots, {len(MODES)} modes; "
        f"the paper's code at batches of {code.batch_size}, run on {len(some)} of the questions"
    )
    print_rows(study, timings, len(sample))
    count = len(sample) * len(some)
    print(
        f"  of {count} answers that the paper's code picked, {same} are right or wrong as likra's"
    )


def print_rows(study: Study, timings: dict[str, common.Timing], n_run: int) -> None:
    """Seconds and ratios, without and with the sweep over weights."""
    print(f"  {'':34} {'seconds':>10} {'times likra':>24}")
    for name, weights in (("w = 1", (1.0,)), ("sweep", WEIGHTS)):
        count = len(evaluations(study.snapshots, weights))
        whole = common.Timing([count * one for one in timings["paper"].seconds])
        shown = "w = 1" if name == "w = 1" else f"{len(weights)} weights"
        rows = {
            f"likra run, {shown}": timings[name],
            f"paper's code, {count} ({n_run} run)": whole,
        }
        for label, timing in rows.items():
            ratio = common.times(timing, timings[name])
            print(f"  {label:34} {np.median(timing.seconds):10,.1f} {ratio:>24}")


def best_batch_size(
    base: BaseModel, questions: Sequence[Question], heads: Path, study: Study
) -> int:
    """The fastest of several batch sizes for the paper's code, on a few questions; two attempts."""
    one = Evaluation("likra", study.snapshots[-1])
    some = questions[:3]
    seconds = {}
    for size in (1, 8, 32):
        code = PaperCode(base, some, heads, size)
        own = []
        for _ in range(2):
            start = time.perf_counter()
            code.picks_right(one)
            own.append(time.perf_counter() - start)
        seconds[size] = min(own)
    return min(seconds, key=lambda size: seconds[size])


def main() -> None:
    """Parse the arguments and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("--questions", type=common.positive, default=300)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument(
        "--evaluations", type=common.positive, default=4, help="of the paper's code to run"
    )
    parser.add_argument(
        "--paper-questions", type=common.positive, default=16, help="of each of its evaluations"
    )
    parser.add_argument("--repeats", type=common.positive, default=1, help="of every side")
    parser.add_argument(
        "--small", action="store_true", help="pocket, 2 snapshots and 16 questions, in seconds"
    )
    arguments = parser.parse_args()
    settings: dict[str, Any] = {
        "name": "study",
        "modes": ["base", *MODES],
        "weights": [1.0],
        "metric": METRIC,
        "num_fewshot": arguments.shots,
        "dtype": "float32",
    }
    warnings.simplefilter("ignore")
    with TemporaryDirectory(prefix="likra-benchmark-") as scratch, hidden():
        if arguments.small:
            own = {"model": "pocket", **SMALL}
            compare(parse_study(settings | own), Path(scratch), arguments)
            return
        data = common.real_data()
        with common.random_model(data) as folder:
            own = {
                "model": folder,
                "task": "arc_challenge",
                "data": str(data / common.ARC),
                "snapshots": list(SNAPSHOTS),
                "eval_questions": arguments.questions,
            }
            compare(parse_study(settings | own), Path(scratch), arguments)


if __name__ == "__main__":
    main()
