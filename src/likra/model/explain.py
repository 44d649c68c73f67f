"""Which words of an answer speak for it, and which give it away."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

from likra.data.formats import Text
from likra.data.prompts import as_text
from likra.errors import LikraError
from likra.model.parts import Parts
from likra.model.prompt import Fields
from likra.questions import Question


@dataclass(frozen=True)
class Share:
    """A token or a word with its share of the score.

    Attributes:
        text: as it stands in the answer, with the space before it.
        score: ``positive_logprob - w * negative_logprob``, per character where the model divides
            by length.
        positive_logprob: given all before it, in nats; of a word the sum over its tokens.
        negative_logprob: the same under the negative term; 0 where there is none.

    """

    text: str
    score: float
    positive_logprob: float
    negative_logprob: float


@dataclass(frozen=True)
class Explanation:
    """The shares of an answer's tokens and words; both sum to its score.

    Attributes:
        question: what was asked.
        answer: the answer.
        score: as `likra.model.likra.Likra.rank` gives it.
        tokens: in order.
        words: in order; a word is what spaces set apart.

    """

    question: str
    answer: str
    score: float
    tokens: tuple[Share, ...]
    words: tuple[Share, ...]

    @property
    def gives_away(self) -> Share:
        """The word that speaks most against the answer."""
        return min(self.words, key=lambda word: word.score)

    def as_html(self) -> str:
        """The answer with its words coloured, as a paragraph of HTML."""
        largest = max(abs(word.score) for word in self.words) or 1.0
        marks = []
        for word in self.words:
            color = "0,114,178" if word.score > 0 else "213,94,0"
            title = (
                f"{word.score:+.2f}: log p+ {word.positive_logprob:.2f}, "
                f"log p- {word.negative_logprob:.2f}"
            )
            marks.append(
                f'<mark style="background:rgba({color},{0.6 * abs(word.score) / largest:.2f});'
                f'color:inherit" title="{escape(title)}">{escape(word.text)}</mark>'
            )
        return f"<p>{''.join(marks)} <small>score {self.score:+.2f}</small></p>"


def explain(parts: Parts, question: Text | Fields, answer: Text) -> Explanation:
    """The shares of an answer's tokens and words: see `likra.model.likra.Likra.explain`."""
    tokenizer = parts.base.tokenizer
    asked = parts.prompt.question(tokenizer, question, [answer])
    (found,) = token_shares(parts, [asked])
    shares = found.scores
    texts = token_texts(tokenizer, found.tokens)
    columns = zip(
        texts, shares.tolist(), found.positive.tolist(), found.negative.tolist(), strict=True
    )
    rows = [Share(*row) for row in columns]
    score = float(shares.sum())
    return Explanation(asked.stem, as_text(answer), score, tuple(rows), tuple(_words(rows)))


def as_page(explanations: Sequence[Explanation]) -> str:
    """A page of explanations, each question above its answers; it needs no other file."""
    parts = "\n".join(
        f"<h2>{escape(asked)}</h2>\n" + "\n".join(one.as_html() for one in own)
        for asked, own in groupby(explanations, key=lambda one: one.question)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Explanation</title>'
        "<style>body{font:16px/1.6 system-ui,sans-serif;max-width:44rem;margin:2rem auto;"
        "padding:0 1rem;color-scheme:light dark}h2{font-size:1.1rem}"
        "mark{border-radius:.2em;padding:.1em 0}</style>"
        "</head><body>\n<p><small>Blue words speak for an answer, orange ones against it; hold the "
        "pointer over a word for its share.</small></p>\n"
        f"{parts}\n</body></html>\n"
    )


@dataclass(frozen=True)
class TokenShares:
    """An answer's tokens with their shares of its score.

    Attributes:
        tokens: of the answer.
        scores: [tokens] float64, which sum to the answer's score.
        positive: [tokens] float64, nats.
        negative: [tokens] float64, nats; 0 without a negative term.

    """

    tokens: list[int]
    scores: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def token_shares(parts: Parts, questions: Sequence[Question]) -> list[TokenShares]:
    """The shares of each token of all choices of the questions.

    Raises:
        LikraError: the terms divide an answer into different tokens; or as
            `likra.model.rank.scores_of`.

    """
    positive, *others = parts.terms.token_logprobs(questions, truncate=parts.truncate)
    choices = [choice for question in questions for choice in question.choices]
    shares = []
    for number, (choice, (tokens, own)) in enumerate(zip(choices, positive, strict=True)):
        negative = np.zeros_like(own)
        if others:
            other, negative = others[0][number]
            if other != tokens:  # without its question an answer may be divided otherwise
                raise LikraError("the two terms divide the answer into different tokens")
        scores = (own - parts.weight * negative) / (len(choice.text) if parts.per_character else 1)
        shares.append(TokenShares(tokens, scores, own, negative))
    return shares


def token_texts(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[str]:
    """The text that each token adds to those before it; together they are the whole text.

    A character may take several tokens: it is the text of the last of them.
    """
    texts: list[str] = []
    done = ""
    for end in range(1, len(tokens) + 1):
        whole = str(tokenizer.decode(tokens[:end], clean_up_tokenization_spaces=False))
        if whole.endswith("�") and end < len(tokens):
            texts.append("")
            continue
        texts.append(whole[len(done) :])
        done = whole
    return texts


def _words(parts: list[Share]) -> list[Share]:
    """Tokens to words: a new one begins where a token begins with a space."""
    groups: list[list[Share]] = []
    for part in parts:
        if not groups or part.text[:1].isspace():
            groups.append([])
        groups[-1].append(part)
    return [
        Share(
            "".join(part.text for part in group),
            sum(part.score for part in group),
            sum(part.positive_logprob for part in group),
            sum(part.negative_logprob for part in group),
        )
        for group in groups
    ]
