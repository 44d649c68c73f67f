"""Scoring ARC-Challenge: likra beside lm-evaluation-harness's own Hugging Face backend.

Both get the same strings and the same model, and tokenizing counts for both. The harness runs at
the best of several batch sizes. The floor is the least work that the scores take: one ordinary
causal pass over the unique tokens, and the LM head where an answer token is predicted.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks import common
from likra import BaseModel, Head, Question, build_forest, encode_questions, open_model, score
from likra.engine.products import onednn_products
from likra.integrations.lm_eval import LikraBaseLM

BATCH_SIZES = (1, 8, 32)  # tried for the harness
LENGTH = 512  # tokens of one pass of the floor


def likra_side(base: BaseModel, questions: Sequence[Question]) -> common.Side:
    """Likra, as its user calls it."""
    return lambda: score(Head(base), encode_questions(base, questions)).logprobs


def harness_side(folder: str, questions: Sequence[Question], batch_size: int) -> common.Side:
    """The harness's backend on the same strings."""
    backend = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=batch_size)
    return _through(backend, questions)


def engine_side(folder: str, questions: Sequence[Question]) -> common.Side:
    """Likra's engine behind the harness's own interface, which also says what is greedy."""
    backend = LikraBaseLM(pretrained=folder, device="cpu", dtype="float32")
    return _through(backend, questions)


def _through(backend: HFLM, questions: Sequence[Question]) -> common.Side:
    requests = [
        Instance("loglikelihood", doc={}, arguments=(choice.context, choice.continuation), idx=0)
        for question in questions
        for choice in question.choices
    ]
    return lambda: np.array(
        [logprob for logprob, _ in backend.loglikelihood(requests, disable_tqdm=True)]
    )


def floor_side(base: BaseModel, questions: Sequence[Question]) -> common.Side:
    """The unique tokens as plain sequences."""
    pairs = encode_questions(base, questions)
    forest = build_forest(pairs)
    length = max(LENGTH, *(len(pair.tokens) for pair in pairs))

    def run() -> np.ndarray:
        with torch.inference_mode():
            for start in range(0, len(forest.input_ids), length):
                common.causal_logits(base.model, forest, start, start + length)
        return np.zeros(0)

    return run


def best_batch_size(folder: str, questions: Sequence[Question]) -> int:
    """The harness's fastest batch size on a quarter of the questions; each has two attempts."""
    some = questions[: max(1, len(questions) // 4)]
    sides = {str(size): harness_side(folder, some, size) for size in BATCH_SIZES}
    timings = common.alternate(sides, repeats=2)
    return int(min(timings, key=lambda size: min(timings[size].seconds)))


def compare(
    title: str, folder: str, base: BaseModel, questions: Sequence[Question], repeats: int
) -> None:
    """Time all sides on the questions, and print the table."""
    batch_size = best_batch_size(folder, questions)
    harness = f"lm_eval, batch {batch_size}"
    sides = {
        "likra": likra_side(base, questions),
        "likra-base in the harness": engine_side(folder, questions),
        harness: harness_side(folder, questions, batch_size),
        common.FLOOR: floor_side(base, questions),
    }
    timings = common.alternate(sides, repeats)
    pairs = encode_questions(base, questions)
    common.print_table(
        f"{title}: {len(questions)} questions, {len(pairs)} answers",
        timings,
        unique=len(build_forest(pairs).input_ids),
    )
    difference = np.abs(timings["likra"].values - timings[harness].values).max()
    print(f"  largest difference of any score: {difference:.1e} nats")


def main() -> None:
    """Parse the arguments and compare, zero-shot and with 25 examples."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__)
    parser.add_argument(
        "--questions", type=common.positive, default=120, help="zero-shot (default: %(default)s)"
    )
    parser.add_argument(
        "--fewshot-questions",
        type=common.positive,
        default=8,
        help="with 25 examples, different for each question (default: %(default)s)",
    )
    parser.add_argument(
        "--fixed-questions",
        type=common.positive,
        default=24,
        help="with the same 25 examples for all (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats", type=common.positive, default=3, help="of every side (default: %(default)s)"
    )
    arguments = parser.parse_args()
    data = common.real_data()
    with common.random_model(data) as folder, onednn_products():
        base = open_model(folder, device="cpu")
        common.print_setting(base)
        zero_shot = common.arc_questions(data, "test", arguments.questions)
        compare("zero-shot", folder, base, zero_shot, arguments.repeats)
        few_shot = common.arc_questions(data, "test", arguments.fewshot_questions, num_fewshot=25)
        compare("25 examples per question", folder, base, few_shot, arguments.repeats)
        fixed = common.arc_questions(data, "test", arguments.fixed_questions, 25, "fixed")
        compare("the same 25 examples for all", folder, base, fixed, arguments.repeats)


if __name__ == "__main__":
    main()
