"""Names of samplers, mixtures of them, and the draw of wrong answers."""

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from likra.errors import LikraError, unknown
from likra.negatives.samplers import SAMPLERS, Draw, Material, Sampler, right
from likra.questions import Choice, Question

TAKES_ARGUMENT = {"other_task": "TASK", "file": "PATH", "contaminated": "FRACTION"}
_FUNCTIONS: dict[str, Sampler] = {**SAMPLERS, "right": right}  # contaminated draws right answers


@dataclass(frozen=True)
class Part:
    """One part of a mixture: with that probability, a question draws from that sampler."""

    fraction: float
    source: str
    argument: str = ""


# the next part of a mixture; any other + belongs to an argument, as in file:a+b.jsonl
_NEXT = re.compile(r"\+(?=\s*\d*\.?\d+\s*\*?\s*[a-z_]+\s*(?:[:+]|$))")
_PART = re.compile(r"\s*(?:([\d.]+)\s*\*?\s*)?([a-z_]+)(?::(.+?))?\s*")


def parts_as_written(text: str) -> list[tuple[str, str, str]]:
    """The parts of a mixture: the fraction ("" for the whole), the sampler, its argument.

    Raises:
        LikraError: the text is no mixture.

    """
    matches = [_PART.fullmatch(piece) for piece in _NEXT.split(text)]
    if None in matches:
        raise LikraError(
            f"'{text}' is not a sampler of negatives (try 'random_choice') or a mixture of them "
            "(try '0.5 random_choice + 0.5 hardest')"
        )
    return [(match[1] or "", match[2], match[3] or "") for match in matches if match]


@cache
def parse_source(text: str) -> tuple[Part, ...]:
    """The parts of a source: "hardest", "contaminated:0.2", "0.5 random_choice + 0.5 hardest".

    Raises:
        LikraError: an unknown sampler, a missing argument, or fractions that do not sum to 1.

    """
    parts: list[Part] = []
    for fraction, name, argument in parts_as_written(text):
        parts += _parts(_fraction(fraction or "1", text), name, argument, text)
    if not math.isclose(sum(part.fraction for part in parts), 1.0, abs_tol=1e-9):
        raise LikraError(f"the fractions of '{text}' do not sum to 1")
    return tuple(parts)


def _parts(fraction: float, name: str, argument: str, text: str) -> list[Part]:
    if name not in {*SAMPLERS, "contaminated"}:
        raise unknown("sampler of negatives", name, [*SAMPLERS, "contaminated"])
    if bool(argument) != (name in TAKES_ARGUMENT):
        raise LikraError(f"sampler of negatives '{text}': write {_usage(name)}")
    if name != "contaminated":
        return [Part(fraction, name, argument)]
    noise = _fraction(argument, text)
    return [Part(fraction * (1 - noise), "random_choice"), Part(fraction * noise, "right")]


def _fraction(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise LikraError(f"sampler of negatives '{where}': '{text}' is not a fraction from 0 to 1")
    return number


def canonical(text: str) -> str:
    """A sampler's name as it is written in files: "0.5*random_choice+0.5*hardest"."""
    parse_source(text)
    return "+".join(
        f"{fraction}*" * bool(fraction) + name + f":{argument}" * bool(argument)
        for fraction, name, argument in parts_as_written(text)
    )


def described_samplers() -> list[tuple[str, str]]:
    """Each sampler as it is written, and what it gives."""
    texts = {name: (sampler.__doc__ or "").splitlines()[0] for name, sampler in SAMPLERS.items()}
    texts["contaminated"] = "As random_choice, but a fraction of right answers: label noise."
    return [(_usage(name), text) for name, text in texts.items()]


def _usage(name: str) -> str:
    return f"{name}:{TAKES_ARGUMENT[name]}" if name in TAKES_ARGUMENT else name


@dataclass(frozen=True)
class Drawn:
    """Wrong answers of questions, and what did not become one.

    Attributes:
        answers: for each question its wrong answers; empty where the sampler has none for it.
        refused: how many candidates were refused, by reason.
        taken: how many questions have answers, by the part of a mixture that gave them.

    """

    answers: list[list[Choice]]
    refused: Counter[str]
    taken: Counter[str]


def draw(source: str, questions: Sequence[Question], seed: int, material: Material) -> Drawn:
    """The wrong answers of each question, in their order; ``source`` is for `parse_source`.

    Raises:
        LikraError: no such sampler, or it lacks what it draws from.

    """
    parts = parse_source(source)
    refused: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    answers = []
    for question in questions:
        part = _pick(parts, seed, question)
        generator = random.Random(f"{seed}/{question.id}")
        drawn = _FUNCTIONS[part.source](Draw(question, material, generator, refused))
        if drawn:
            taken[part.source] += 1
        else:
            refused[f"no answer from {part.source}"] += 1
        answers.append(drawn)
    return Drawn(answers, refused, taken)


def _pick(parts: Sequence[Part], seed: int, question: Question) -> Part:
    place = random.Random(f"{seed}/part/{question.id}").random()
    for part in parts:
        place -= part.fraction
        if place < 0:
            return part
    return parts[-1]


def draw_negatives(
    source: str, questions: Sequence[Question], seed: int, material: Material | None = None
) -> list[Choice]:
    """The first wrong answer of each of the questions, in their order.

    Args:
        source: see `parse_source`.
        questions: those that need a wrong answer.
        seed: the same seed gives the same answers.
        material: what the samplers draw from; by default the questions themselves.

    Raises:
        LikraError: no such sampler, or one that finds no wrong answer for a question.

    """
    drawn = draw(source, questions, seed, material or Material(pool=questions))
    for question, answers in zip(questions, drawn.answers, strict=True):
        if not answers:
            raise LikraError(f"{source}: no wrong answer for {question.where}")
    return [answers[0] for answers in drawn.answers]
