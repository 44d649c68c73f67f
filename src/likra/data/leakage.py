"""Leakage: evaluation questions that are also, or nearly, training questions."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    for little. No pair above `NEAR` is missed. Only stems and ids are read, one question at a time.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for question in train:
        by_stem[comparable(question.stem)].append(question.id)
    asked = [(question.id, comparable(question.stem)) for question in evaluation]
    exact = [
        Leak(train_id, name, 1.0) for name, stem in asked for train_id in by_stem.get(stem, ())
    ]
    return exact + list(_near(by_stem, asked))


def _near(by_stem: dict[str, list[str]], asked: Sequence[tuple[str, str]]) -> Iterator[Leak]:
    stems = {*by_stem, *(stem for _, stem in asked)}
    words_of = {stem: frozenset(stem.split()) for stem in stems}
    frequency = Counter(word for words in words_of.values() for word in words)
    weight = {word: math.log((len(stems) + 1) / n) for word, n in frequency.items()}
    total = {stem: math.fsum(weight[word] for word in words) for stem, words in words_of.items()}
    index: dict[str, list[str]] = defaultdict(list)
    for stem in by_stem:
        for word in _prefix(stem, weight):
            index[word].append(stem)
    for eval_id, stem in asked:
        candidates = {other for word in _prefix(stem, weight) for other in index.get(word, ())}
        for other in sorted(candidates - {stem}):
            lesser, greater = sorted((total[stem], total[other]))
            if lesser < NEAR * greater * (1 - 1e-9):  # they cannot have enough in common
                continue
            # fsum: a set's order is another in each process, and must not show in the last digit
            common = math.fsum(weight[word] for word in words_of[stem] & words_of[other])
            similarity = common / (lesser + greater - common)
            if similarity >= NEAR:
                # the same words in another order are not the same stem
                below = min(similarity, math.nextafter(1.0, 0.0))
                yield from (Leak(train_id, eval_id, below) for train_id in by_stem[other])


def _prefix(stem: str, weight: dict[str, float]) -> list[str]:
    """The rarest words of a stem, as many as two stems above `NEAR` must share one of.

    What follows weighs less than `NEAR` of the whole, so it alone could not make the pair.
    """
    words = sorted(set(stem.split()), key=lambda word: (-weight[word], word))
    left = math.fsum(weight[word] for word in words)
    enough = NEAR * left * (1 - 1e-9)
    taken = 0
    while taken < len(words) and left >= enough:
        left -= weight[words[taken]]
        taken += 1
    return words[:taken]
