"""Training and evaluation questions from one set of questions."""

import hashlib
import random
from collections.abc import Iterable

from likra.errors import LikraError
from likra.text import comparable

TRAIN, HELD_OUT = "train", "held-out"


def folds(
    stems: Iterable[str], count: int, seed: int, together: Iterable[tuple[int, int]] = ()
) -> list[int]:
    """The fold of each question, for cross-validation; those with the same stem are in one fold.

    Folds are as even as the groups of equal stems allow.

    Args:
        stems: what each question asks, in order.
        count: of the folds, at least 2.
        seed: the same seed gives the same folds.
        together: numbers of two questions each that belong in one fold, too, as near-duplicates.

    Returns:
        [questions], numbers from 0; fewer folds where there are fewer different stems.

    Raises:
        LikraError: fewer than two folds are asked for, or there are fewer than two stems.

    """
    groups = _joined(list(_by_stem(stems).values()), together)
    if count < 2 or len(groups) < 2:
        raise LikraError(
            f"cross-validation takes at least 2 folds and 2 questions that differ in their words, "
            f"not {count} and {len(groups)}"
        )
    random.Random(seed).shuffle(groups)
    fold_of = [0] * sum(map(len, groups))
    sizes = [0] * min(count, len(groups))
    for group in sorted(groups, key=len, reverse=True):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(group)
        for number in group:
            fold_of[number] = fold
    return fold_of


def _joined(groups: list[list[int]], together: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of numbers, those joined that a pair connects."""
    group_of = {number: group for group in groups for number in group}
    for one, two in together:
        left, right = group_of[one], group_of[two]
        if left is not right:
            left += right
            group_of.update(dict.fromkeys(right, left))
    return list({id(group): group for group in group_of.values()}.values())


def _by_stem(stems: Iterable[str]) -> dict[bytes, list[int]]:
    """Numbers of the questions with the same stem."""
    by_stem: dict[bytes, list[int]] = {}
    for number, stem in enumerate(stems):
        text = comparable(stem).encode("utf-8", "surrogatepass")
        by_stem.setdefault(hashlib.blake2b(text, digest_size=8).digest(), []).append(number)
    return by_stem


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
    groups = list(_by_stem(stems).values())
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
