"""Training and evaluation questions from one set of questions."""

import random
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from likra.data.stems import numbered, stem_key
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
    groups = _joined(_by_stem(stems), together)
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


def _by_stem(stems: Iterable[str]) -> list[list[int]]:
    """Numbers of the questions with the same stem."""
    by_stem: dict[int, list[int]] = {}
    for number, stem in enumerate(stems):
        by_stem.setdefault(stem_key(comparable(stem)), []).append(number)
    return list(by_stem.values())


def hold_out(stems: Iterable[str], fraction: float, seed: int) -> dict[str, Sequence[int]]:
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
    group_of = numbered(stem_key(comparable(stem)) for stem in stems)
    sizes = np.bincount(group_of)
    order = array("Q", range(len(sizes)))
    random.Random(seed).shuffle(order)
    is_held, n_held = np.zeros(len(sizes), dtype=bool), 0
    wanted = max(1, round(fraction * len(group_of)))
    for group in order:  # one that is too large goes to the other side
        if n_held + sizes[group] <= wanted:
            is_held[group] = True
            n_held += sizes[group]
    if not 0 < n_held < len(group_of):
        raise LikraError(
            f"{len(group_of):,} questions cannot be divided with {fraction:g} of them held out: "
            f"only {len(sizes)} of them differ in their words, and the same words stay together"
        )
    held = is_held[group_of]
    return {TRAIN: _places(~held), HELD_OUT: _places(held)}


def _places(chosen: NDArray[np.bool_]) -> "array[int]":
    return array("Q", np.flatnonzero(chosen).astype(np.uint64).tobytes())
