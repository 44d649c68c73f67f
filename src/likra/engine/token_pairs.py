"""Token pairs of many questions in a few arrays: 4 bytes a token, and no object for each."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import overload

from likra.engine.tokens import TokenPair


class TokenPairs(Sequence[TokenPair]):
    """A list of token pairs, each made when it is asked for.

    A context that a pair has in common with the one before it is stored once.
    """

    def __init__(self, pairs: Iterable[TokenPair] = ()) -> None:
        self._tokens = array("I")
        self._starts = array("Q")  # of the contexts
        self._lengths = array("I")  # of the contexts
        self._ends = array("Q")  # of the continuations
        self._n_cut = array("I")
        self._last: list[int] | None = None  # the context stored last
        self.extend(pairs)

    def extend(self, pairs: Iterable[TokenPair]) -> None:
        """Append pairs."""
        for pair in pairs:
            if pair.context == self._last:
                self._starts.append(self._starts[-1])
            else:
                self._starts.append(len(self._tokens))
                self._tokens.extend(pair.context)
                self._last = pair.context
            self._tokens.extend(pair.continuation)
            self._lengths.append(len(pair.context))
            self._ends.append(len(self._tokens))
            self._n_cut.append(pair.n_cut)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> TokenPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenPair]: ...
    def __getitem__(self, index: int | slice) -> TokenPair | list[TokenPair]:
        places = range(len(self))[index]
        return self._pair(places) if isinstance(places, int) else [self._pair(n) for n in places]

    def _pair(self, place: int) -> TokenPair:
        start, end = self._starts[place], self._ends[place]
        border = start + self._lengths[place]
        before = self._ends[place - 1] if place else 0  # a context before it ends here, or earlier
        continuation = self._tokens[max(border, before) : end].tolist()
        return TokenPair(self._tokens[start:border].tolist(), continuation, self._n_cut[place])


@dataclass(frozen=True)
class TokenExamples(Sequence[Sequence[TokenPair]]):
    """Examples of one or more token pairs each.

    Attributes:
        pairs: of all examples, one after the other.
        ends: the place in ``pairs`` at which each example ends.
        places: of the examples that this list holds.

    """

    pairs: TokenPairs
    ends: "array[int]"
    places: range

    @classmethod
    def of(cls, examples: Iterable[Sequence[TokenPair]]) -> "TokenExamples":
        """Store examples, which are read one at a time; those that are stored stay as they are."""
        if isinstance(examples, cls) and len(examples) == len(examples.ends):
            return examples
        pairs, ends = TokenPairs(), array("Q")
        for example in examples:
            pairs.extend(example)
            ends.append(len(pairs))
        return cls(pairs, ends, range(len(ends)))

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> list[TokenPair]: ...
    @overload
    def __getitem__(self, index: slice) -> "TokenExamples": ...
    def __getitem__(self, index: int | slice) -> "list[TokenPair] | TokenExamples":
        places = self.places[index]
        if not isinstance(places, int):
            return replace(self, places=places)
        return self.pairs[self.ends[places - 1] if places else 0 : self.ends[places]]
