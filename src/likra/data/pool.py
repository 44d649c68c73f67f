"""Right answers of a pool of questions, as wrong answers to the others."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from likra.questions import Choice, Question
from likra.text import comparable, shuffled


class Answers:
    """The first right answer to each question of a pool, as wrong answers to the others.

    Reads the pool once and keeps numbers; a draw reads the questions that it takes.
    """

    def __init__(self, pool: Sequence[Question]) -> None:
        self.pool = pool
        self._numbers: dict[str, int] = {}
        self._stems: list[int] = []
        self._texts: list[int | None] = []  # None where there is no right answer
        for question in pool:
            text = comparable(question.right[0].continuation) if question.right else ""
            self._stems.append(self._number(comparable(question.stem)))
            self._texts.append(self._number(text) if text else None)
        self._distinct = {text for text in self._texts if text is not None}

    def _number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def of_others(self, question: Question, generator: random.Random) -> Iterator[Choice]:
        """Right answers of other questions as wrong ones of this one, each text once, shuffled.

        Texts are the same up to case and punctuation. A question with the same stem gives none:
        its answers may be right here, too.
        """
        right = {self._numbers.get(comparable(choice.continuation)) for choice in question.right}
        left, given = len(self._distinct) - len(self._distinct & right), set[int]()
        stem = self._numbers.get(comparable(question.stem))
        context = (question.right or question.choices)[0].context
        for index in shuffled(len(self.pool), generator):
            if len(given) == left:
                return
            text = self._texts[index]
            if text is None or text in right or text in given:
                continue
            if self._stems[index] != stem:
                given.add(text)
                yield replace(self.pool[index].right[0], context=context, is_right=False)
