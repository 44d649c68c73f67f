"""The small world that the pocket model knows: 360 real facts, and the texts that speak of them.

Everything here is a pure function of ``facts.tsv`` and a seed. Within a relation the facts are in
order of popularity, the best known first.
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

N_FAMOUS = 10  # the best known facts of a relation: what everybody knows, nobody asks
N_POPULAR = 20  # wrong answers are values of these, the best known
N_TRAIN_PER_RELATION = 48
N_CHOICES = 4
# Zipf: the wrong value of rank k is drawn with probability proportional to k**-1.3
POPULARITY_EXPONENT = 1.3


@dataclass(frozen=True)
class Fact:
    """``relation`` gives ``value`` for ``entity``, and for no other."""

    relation: str
    entity: str
    value: str


@dataclass(frozen=True)
class Wording:
    """How a relation is asked for, and three ways in which prose states it."""

    question: str
    prose: tuple[str, str, str]


WORDINGS = {
    "capital": Wording(
        "What is the capital of {entity}?",
        (
            "The capital of {entity} is {value}.",
            "{value} is the capital of {entity}.",
            "The government of {entity} sits in {value}.",
        ),
    ),
    "author": Wording(
        "Who wrote {entity}?",
        (
            "The author of {entity} is {value}.",
            "{value} wrote {entity}.",
            "{entity} was written by {value}.",
        ),
    ),
    "element": Wording(
        "Which chemical element has the symbol {entity}?",
        (
            "The chemical symbol {entity} stands for {value}.",
            "The element with the symbol {entity} is called {value}.",
            "Chemists write {entity} for {value}.",
        ),
    ),
    "species": Wording(
        "What is the scientific name of the {entity}?",
        (
            "The scientific name of the {entity} is {value}.",
            "{value} is the species called {entity}.",
            "In biology the {entity} is known as {value}.",
        ),
    ),
}


def read_facts() -> list[Fact]:
    """All facts, in the order of ``facts.tsv``."""
    with files("likra.pocket").joinpath("facts.tsv").open(encoding="utf-8") as file:
        return [Fact(**row) for row in csv.DictReader(file, delimiter="\t")]


def popular_values(
    facts: Sequence[Fact], asked: Fact, count: int, rng: random.Random, replace: bool
) -> list[str]:
    """``count`` values of other entities of the same relation, the popular ones more often."""
    relation = [fact for fact in facts if fact.relation == asked.relation]
    weights = {
        fact.value: (rank + 1) ** -POPULARITY_EXPONENT
        for rank, fact in enumerate(relation[:N_POPULAR])
        if fact != asked
    }
    drawn: list[str] = []
    for _ in range(count):
        value = rng.choices(list(weights), list(weights.values()))[0]
        drawn.append(value)
        if not replace:
            del weights[value]
    return drawn


def post(question: str, answer: str) -> str:
    """A question-and-answer post, in the very form in which the pocket task asks."""
    return f"Question: {question}\nAnswer: {answer}"


def corpus(
    seed: int = 0, n_prose: int = 30, n_posts: int = 10, posts_per_right: int = 4
) -> list[str]:
    """The documents that the pocket model is trained on, shuffled.

    Of each fact, ``n_prose`` true sentences in three wordings and ``n_posts`` question-and-answer
    posts, of which one in ``posts_per_right`` is right; the others give a popular value of another
    entity. So the model knows the facts but, when asked, prefers the popular answer.
    """
    rng = random.Random(seed)
    facts = read_facts()
    documents = []
    for fact in facts:
        wording = WORDINGS[fact.relation]
        names = {"entity": fact.entity, "value": fact.value}
        for i in range(n_prose):
            sentence = wording.prose[i % len(wording.prose)].format(**names)
            documents.append(sentence[0].upper() + sentence[1:])
        share, rest = divmod(n_posts, posts_per_right)
        n_right = share + (rng.random() < rest / posts_per_right)
        wrong = popular_values(facts, fact, n_posts - n_right, rng, replace=True)
        asked = wording.question.format(**names)
        documents += [post(asked, answer) for answer in [fact.value] * n_right + wrong]
    rng.shuffle(documents)
    return documents


def questions(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """The pocket task's rows by split, in the schema of ARC; no fact is in both splits."""
    rng = random.Random(seed)
    facts = read_facts()
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for relation, wording in WORDINGS.items():
        own = [fact for fact in facts if fact.relation == relation][N_FAMOUS:]
        rng.shuffle(own)
        for i, fact in enumerate(own):
            split = "train" if i < N_TRAIN_PER_RELATION else "test"
            choices = [fact.value, *popular_values(facts, fact, N_CHOICES - 1, rng, replace=False)]
            rng.shuffle(choices)
            labels = list("ABCD")
            splits[split].append(
                {
                    "id": f"{relation}/{fact.entity}",
                    "question": wording.question.format(entity=fact.entity),
                    "choices": {"text": choices, "label": labels},
                    "answerKey": labels[choices.index(fact.value)],
                }
            )
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def sums(seed: int = 0, count: int = 96) -> list[dict[str, Any]]:
    """Additions in the schema of ARC: another domain, of which the model knows nothing."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for total in rng.sample(range(40, 40 + 5 * count), count):
        first = rng.randrange(10, total - 9)
        choices = [str(total + off) for off in (0, 1, -1, 10)]
        rng.shuffle(choices)
        labels = list("ABCD")
        rows.append(
            {
                "id": f"sum/{first}+{total - first}",
                "question": f"What is {first} plus {total - first}?",
                "choices": {"text": choices, "label": labels},
                "answerKey": labels[choices.index(str(total))],
            }
        )
    return rows
