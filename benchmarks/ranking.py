"""Ranking options under two heads: likra beside two passes, and beside plain transformers and PEFT.

All get the same model, heads, strings and options. "Two passes" is `likra.score` for each head on
the same packs; "transformers + PEFT" is what one would write without likra: both adapters loaded
into one model, right-padded batches, all logits, and `set_adapter` between the two. Then the time
of a single question: the first one of a fresh model, which reads the heads, and those after it.
Speed does not depend on what the heads have learned: their weights are random.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import common
from likra import BaseModel, Head, Likra, LoraSettings, encode_questions, open_model, score
from likra.engine.products import float32_products, is_small, onednn_is_exact
from likra.heads.base import source_of
from likra.heads.lora import fresh_head, save_head
from likra.questions import Question

NAMES = ("positive", "negative")
BATCH_SIZES = (4, 16, 64)  # tried for transformers
FIRST = "likra, a fresh model's first"
TEXT = (
    "the water boils when hot iron is placed near ice and old stone makes steam rise quickly above "
    "rivers that carry sand to a warm sea where small animals find food"
)
WORDS = TEXT.split()

Asked = list[tuple[str, list[str]]]


def questions_of(count: int) -> Asked:
    """Questions of 10 to 30 words with four options of 1 to 6 words each."""
    draw = np.random.default_rng(common.SEED)
    asked = []
    for _ in range(count):
        text = " ".join(draw.choice(WORDS, draw.integers(10, 31)))
        options = [" ".join([*draw.choice(WORDS, draw.integers(0, 6)), end]) for end in "abcd"]
        asked.append((f"{text.capitalize()}?", options))
    return asked


def save_heads(base: BaseModel, folder: Path) -> None:
    """Two heads of the default shape with small random weights."""
    for seed, name in enumerate(NAMES):
        with fresh_head(base, LoraSettings(), seed) as head, torch.no_grad():
            for parameter in head.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.02)
            save_head(head, folder / name)


def likra_of(base: BaseModel, folder: Path) -> Likra:
    """A model of the two heads, which has not read them yet."""
    return Likra(Head(base, folder / NAMES[0]), Head(base, folder / NAMES[1]))


def rendered(model: Likra, asked: Asked) -> list[Question]:
    """The questions as likra puts them to the model."""
    tokenizer = model.base.tokenizer
    return [model.parts.prompt.question(tokenizer, text, options) for text, options in asked]


# --------------------------------------------------------------------------------------------
# The sides. Each returns the scores of all options, question by question.


def likra_side(model: Likra, asked: Asked) -> common.Side:
    """Likra, as its user calls it."""

    def run() -> np.ndarray:
        values = []
        for (_, options), ranked in zip(asked, model.rank_many(asked), strict=True):
            of = {option.text: option.score for option in ranked}
            values += [of[option] for option in options]
        return np.array(values)

    return run


def two_passes_side(model: Likra, folder: Path, asked: Asked) -> common.Side:
    """A pass for each head on the same packs, each head read from the disk for it."""

    def run() -> np.ndarray:
        packed = model.base.pack(encode_questions(model.base, rendered(model, asked)))
        first, second = (score(Head(model.base, folder / n), packed).logprobs for n in NAMES)
        return np.asarray(first - second)

    return run


def peft_side(name: str, folder: Path, model: Likra, asked: Asked, batch_size: int) -> common.Side:
    """Plain transformers and PEFT, on a model of its own that has both adapters loaded."""
    plain = AutoModelForCausalLM.from_pretrained(source_of(name), dtype=torch.float32)
    both = PeftModel.from_pretrained(plain, str(folder / NAMES[0]), adapter_name=NAMES[0])
    both.load_adapter(str(folder / NAMES[1]), adapter_name=NAMES[1])
    both.eval()
    tokenizer = AutoTokenizer.from_pretrained(source_of(name))
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    def run() -> np.ndarray:
        pairs = encode_questions(model.base, rendered(model, asked))
        values = {}
        for adapter in NAMES:
            both.set_adapter(adapter)
            padding = tokenizer.pad_token_id
            values[adapter] = common.padded_logprobs(both, padding, pairs, batch_size)
        return np.asarray(values[NAMES[0]] - values[NAMES[1]])

    return run


def best_batch_size(name: str, folder: Path, model: Likra, asked: Asked) -> int:
    """The fastest batch size of transformers on a few of the questions; two attempts each."""
    some = asked[: max(16, len(asked) // 16)]
    sides = {str(size): peft_side(name, folder, model, some, size) for size in BATCH_SIZES}
    timings = common.alternate(sides, repeats=2)
    return int(min(timings, key=lambda size: min(timings[size].seconds)))


# --------------------------------------------------------------------------------------------


def compare_many(name: str, base: BaseModel, folder: Path, count: int, repeats: int) -> None:
    """Time all sides on many questions, and print the ratios."""
    model = likra_of(base, folder)
    asked = questions_of(count)
    batch_size = best_batch_size(name, folder, model, asked)
    usual = f"transformers + PEFT, batch {batch_size}"
    sides = {
        "likra": likra_side(model, asked),
        "likra, two passes": two_passes_side(model, folder, asked),
        usual: peft_side(name, folder, model, asked, batch_size),
    }
    timings = common.alternate(sides, repeats)
    print(f"\n{count:,} questions with four options each")
    print_ratios(timings)
    for other in list(sides)[1:]:
        difference = np.abs(timings["likra"].values - timings[other].values).max()
        print(f"  largest difference of any score to {other}: {difference:.1e} nats")


def compare_single(base: BaseModel, folder: Path, repeats: int) -> None:
    """Time a fresh model's first question and those after it, against two passes each."""
    asked = questions_of(repeats)
    timings = {name: common.Timing() for name in ("likra", FIRST, "likra, two passes")}
    for question, options in asked:
        model = likra_of(base, folder)
        one: Asked = [(question, options)]
        two_passes = two_passes_side(model, folder, one)
        for name, side in (
            (FIRST, lambda model=model, one=one: model.rank(*one[0])),
            ("likra", lambda model=model, one=one: model.rank(*one[0])),
            ("likra, two passes", two_passes),
        ):
            start = time.perf_counter()
            side()
            timings[name].seconds.append(time.perf_counter() - start)
    print("\none question with four options; likra: one after the first")
    print_ratios(timings)


def print_ratios(timings: dict[str, common.Timing]) -> None:
    """A line for each side."""
    width = max(map(len, timings))
    print(f"  {'':{width}} {'seconds':>9} {'times likra':>24}")
    for name, timing in timings.items():
        ratio = common.times(timing, timings["likra"])
        print(f"  {name:{width}} {np.median(timing.seconds):9.4f} {ratio:>24}")


def main() -> None:
    """Parse the arguments, and compare on many questions and on single ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("--model", default="pocket", help="(default: %(default)s)")
    parser.add_argument(
        "--questions", type=common.positive, default=1000, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=common.positive, default=3, help="of every side (default: %(default)s)"
    )
    parser.add_argument(
        "--singles",
        type=common.positive,
        default=15,
        help="single questions (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="likra-benchmark-") as scratch:
        base = open_model(arguments.model, device="cpu")
        by_onednn = onednn_is_exact() and not is_small(base.model)
        print(
            f"model: {arguments.model}, {base.model.num_parameters():,} parameters, float32; "
            f"layout: {base.layout}; {torch.get_num_threads()} threads; products of all sides by "
            f"{'oneDNN' if by_onednn else 'default'}"
        )
        folder = Path(scratch)
        with float32_products(base.model):
            save_heads(base, folder)
            compare_many(arguments.model, base, folder, arguments.questions, arguments.repeats)
            compare_single(base, folder, arguments.singles)


if __name__ == "__main__":
    main()
