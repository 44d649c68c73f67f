"""Token pairs of many questions in a few arrays: two or four bytes a token, no object for each."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import overload

from likra.engine.tokens import TokenPair

BLOCK = 256  # pairs that are stored together; one array of all would be copied as it grows


class TokenPairs(Sequence[TokenPair]):
    """A list of token pairs, each made when it is asked for.

    A context that a pair has in common with the one before it is stored once.
    """

    def __init__(self, pairs: Iterable[TokenPair] = ()) -> None:
        self._blocks: list[_Block] = []
        self._last: list[TokenPair] = []  # less than a block
        self.extend(pairs)

    def extend(self, pairs: Iterable[TokenPair]) -> None:
        """Append pairs."""
        for pair in pairs:
            self._last.append(pair)
            if len(self._last) == BLOCK:
                self._blocks.append(_Block(self._last))
                self._last = []

    def __len__(self) -> int:
        return len(self._blocks) * BLOCK + len(self._last)

    @overload
    def __getitem__(self, index: int) -> TokenPair: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenPair]: ...
    def __getitem__(self, index: int | slice) -> TokenPair | list[TokenPair]:
        places = range(len(self))[index]
        return self._pair(places) if isinstance(places, int) else [self._pair(n) for n in places]

    def _pair(self, place: int) -> TokenPair:
        block, own = divmod(place, BLOCK)
        return self._blocks[block].pair(own) if block < len(self._blocks) else self._last[own]


class _Block:
    """Pairs that do not change any more."""

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        tokens: list[int] = []
        self._starts = array("I")  # of the contexts
        self._borders = array("I")  # where the contexts end
        self._ends = array("I")  # of the continuations
        self._n_cut = array("I", (pair.n_cut for pair in pairs))
        context: list[int] | None = None
        for pair in pairs:
            if pair.context != context:
                context = pair.context
                self._starts.append(len(tokens))
                tokens += context
                self._borders.append(len(tokens))
            else:
                self._starts.append(self._starts[-1])
                self._borders.append(self._borders[-1])
            tokens += pair.continuation
            self._ends.append(len(tokens))
        self._tokens = array("H" if max(tokens, default=0) < 1 << 16 else "I", tokens)

    def pair(self, place: int) -> TokenPair:
        start, border = self._starts[place], self._borders[place]
        before = self._ends[place - 1] if place else 0
        continuation = self._tokens[max(border, before) : self._ends[place]]
        context = self._tokens[start:border]
        return TokenPair(context.tolist(), continuation.tolist(), self._n_cut[place])


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
