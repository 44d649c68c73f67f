"""Leakage: evaluation questions that are also, or nearly, training questions."""

import hashlib
import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from likra.data.stems import numbered, stem_key
from likra.questions import Question
from likra.text import comparable, normalised

NEAR = 0.8  # from this similarity on, two stems are near-duplicates


@dataclass(frozen=True)
class Leak:
    """A training question that gives an evaluation question away.

    ``similarity`` is 1 for stems that are the same but for case and punctuation (stems of
    punctuation alone: character by character), else the share of their words' weight that two
    near-duplicates have in common.
    """

    train_id: str
    eval_id: str
    similarity: float

    @property
    def exact(self) -> bool:
        """Whether the stems are the same."""
        return self.similarity == 1.0


def stem_digest(stem: str) -> str:
    """What tells a stem from others without showing it: 16 hexadecimal digits.

    It is the same for the stems that `find_leaks` calls the same.
    """
    return _digest(comparable(stem))


def ending_digests(prompt: str, separator: str) -> frozenset[str]:
    """`stem_digest` of a prompt and of each of its endings that a separator precedes.

    The separator is blank: each part is normalised once, and not once for each ending.
    """
    parts = prompt.split(separator)
    words = [*(normalised(part + separator) for part in parts[:-1]), normalised(parts[-1])]
    endings = (
        " ".join(filter(None, words[start:])) or separator.join(parts[start:]).strip()
        for start in range(len(parts))
    )
    return frozenset(map(_digest, endings))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_leaks(train: Sequence[Question], evaluation: Sequence[Question]) -> list[Leak]:
    """Every pair of the same stem, and every near-duplicate.

    The similarity is the Jaccard index of the words, each weighted by its rarity
    (``log(n / document frequency)``): a form that all questions of a set have in common counts
    for little. No pair above `NEAR` is missed. Questions are read one at a time, and of each only
    the numbers of its words are kept.
    """
    stems = _Stems(question.stem for questions in (train, evaluation) for question in questions)
    trained = _Index(enumerate(stems.numbers[: len(train)].tolist()))
    asked = stems.numbers[len(train) :].tolist()
    exact = [
        Leak(train[place].id, evaluation[number].id, 1.0)
        for number, stem in enumerate(asked)
        for place in trained.of(stem)
    ]
    near = [
        Leak(train[place].id, evaluation[number].id, similarity)
        for number, other, similarity in _near(stems, trained.keys, asked)
        for place in trained.of(other)
    ]
    return exact + near


class _Stems:
    """Different stems by number, each with the numbers of its words."""

    def __init__(self, stems: Iterable[str]) -> None:
        """Number the stems; those that differ in case and punctuation alone are the same.

        ``numbers`` are those of the stems that are given, in their order.
        """
        keys, known = array("Q"), dict[str, int]()
        self._words = array("I")  # of all that are given, one after the other
        self._starts = array("Q", [0])
        for text in map(comparable, stems):
            keys.append(stem_key(text))
            self._words.extend({known.setdefault(word, len(known)) for word in text.split()})
            self._starts.append(len(self._words))
        self.numbers = numbered(keys)
        self._first = np.unique(self.numbers, return_index=True)[1]  # place of each stem's words

    def __len__(self) -> int:
        return len(self._first)

    def words(self, number: int) -> Sequence[int]:
        """The different words of a stem."""
        place = self._first[number]
        return self._words[self._starts[place] : self._starts[place + 1]]

    def weights(self) -> list[float]:
        """The weight of each word: the log of its rarity."""
        is_first = np.zeros(len(self.numbers), dtype=bool)
        is_first[self._first] = True
        ends = np.array(self._starts, np.int64)
        own = np.repeat(is_first, ends[1:] - ends[:-1])
        frequency = np.bincount(np.array(self._words, np.uint32)[own])
        return [math.log((len(self) + 1) / n) if n else 0.0 for n in frequency.tolist()]


class _Index:
    """The values of each key, ascending; some 12 bytes for each."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take (value, key) pairs."""
        flat = np.fromiter((number for pair in pairs for number in pair), np.uint32)
        values, keys = flat[0::2], flat[1::2]
        order = np.lexsort((values, keys))
        self._values, self._keys = values[order], keys[order]

    @property
    def keys(self) -> list[int]:
        """The different keys, ascending."""
        return np.unique(self._keys).tolist()

    def of(self, key: int) -> list[int]:
        """The values of a key."""
        ends = np.array([key, key + 1], self._keys.dtype)  # of another type, all keys are converted
        low, high = np.searchsorted(self._keys, ends)
        return self._values[low:high].tolist()


def _near(
    stems: _Stems, trained: Sequence[int], asked: Sequence[int]
) -> Iterator[tuple[int, int, float]]:
    """Near-duplicates: the place of a stem among those asked, a trained stem, their similarity."""
    weight = stems.weights()
    total = array(
        "d", (math.fsum(weight[word] for word in stems.words(n)) for n in range(len(stems)))
    )
    index = _Index((stem, word) for stem in trained for word in _prefix(stems.words(stem), weight))
    for number, stem in enumerate(asked):
        words = set(stems.words(stem))
        candidates = {other for word in _prefix(words, weight) for other in index.of(word)}
        for other in sorted(candidates - {stem}):
            lesser, greater = sorted((total[stem], total[other]))
            if lesser < NEAR * greater * (1 - 1e-9):  # they cannot have enough in common
                continue
            # fsum: a set's order is another in each process, and must not show in the last digit
            common = math.fsum(weight[word] for word in words.intersection(stems.words(other)))
            similarity = common / (lesser + greater - common)
            if similarity >= NEAR:
                # the same words in another order are not the same stem
                yield number, other, min(similarity, math.nextafter(1.0, 0.0))


def _prefix(words: Collection[int], weight: Sequence[float]) -> list[int]:
    """The rarest words of a stem, as many as two stems above `NEAR` must share one of.

    What follows weighs less than `NEAR` of the whole, so it alone could not make the pair.
    """
    ordered = sorted(words, key=lambda word: (-weight[word], word))
    left = math.fsum(weight[word] for word in ordered)
    enough = NEAR * left * (1 - 1e-9)
    taken = 0
    while taken < len(ordered) and left >= enough:
        left -= weight[ordered[taken]]
        taken += 1
    return ordered[:taken]
