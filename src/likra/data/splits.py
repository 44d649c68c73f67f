"""Training and evaluation questions from one set of questions."""

import hashlib
import random
from collections.abc import Iterable

from likra.errors import LikraError
from likra.text import comparable

TRAIN, HELD_OUT = "train", "held-out"


def hold_out(stems: Iterable[str], fraction: float, seed: int) -> dict[str, list[int]]:
    """Divide questions at random; those with the same stem stay together, or they would leak.

    Args:
        stems: what each question asks, in order.
        fraction: of the questions, to hold out for evaluation.
        seed: the same seed gives the same division.

    Returns:
        Numbers of the questions in "train" and "held-out", ascending.

    Raises:
        LikraError: one side would be empty.

    """
    by_stem: dict[bytes, list[int]] = {}
    for number, stem in enumerate(stems):
        text = comparable(stem).encode("utf-8", "surrogatepass")
        by_stem.setdefault(hashlib.blake2b(text, digest_size=8).digest(), []).append(number)
    groups = list(by_stem.values())
    count = sum(map(len, groups))
    random.Random(seed).shuffle(groups)
    held: list[int] = []
    left: list[int] = []
    wanted = max(1, round(fraction * count))
    for group in groups:  # one that is too large goes to the other side
        side = held if len(held) + len(group) <= wanted else left
        side += group
    if not held or not left:
        raise LikraError(
            f"{count:,} questions cannot be divided with {fraction:g} of them held out: only "
            f"{len(groups)} of them differ in their words, and the same words stay together"
        )
    return {TRAIN: sorted(left), HELD_OUT: sorted(held)}
