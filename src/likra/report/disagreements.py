"""The questions that Likra and SFT answer most differently."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from likra.checksum import checked
from likra.errors import LikraError
from likra.report.modes import ModeScores
from likra.scores.table import Scores

SHOWN = 6  # questions for each number of examples and source
PAIR = ("likra", "sft")


class Choice(TypedDict):
    """One answer: probabilities, and scores (nats, means over seeds), under both modes."""

    text: str
    is_right: bool
    likra: float
    sft: float
    likra_score: float
    sft_score: float
    likra_picks: bool
    sft_picks: bool


class Disagreement(TypedDict):
    """One question; ``stem`` is None where its text is not known.

    ``distance`` is that of total variation between the probabilities of the two modes.
    """

    source: str
    n: int
    distance: float
    id: str
    stem: str | None
    outcome: str
    choices: list[Choice]


class QuestionText(TypedDict):
    """A line of ``questions.jsonl``, as far as pages need it."""

    id: str
    stem: str
    choices: list[str]


def disagreements(
    modes: ModeScores, texts: Mapping[str, QuestionText], count: int = SHOWN
) -> list[Disagreement]:
    """For each source and n, the questions with the largest distance between Likra and SFT.

    Probabilities are means over seeds, at the temperature that fits these questions best: each
    ratio has a scale of its own.
    """
    rows: list[Disagreement] = []
    if not set(PAIR) <= set(modes.study.modes):
        return rows
    for source, n in modes.cells():
        by_seed = [modes.probabilities(mode, source, n, scaled=True) for mode in PAIR]
        if not all(by_seed):
            continue
        probability = [np.mean(values, axis=0) for values in by_seed]
        score = [np.mean(modes.by_seed(mode, source, n), axis=0) for mode in PAIR]
        distance = np.abs(probability[0] - probability[1]).sum(axis=1) / 2
        for row in np.argsort(-distance, kind="stable")[:count].tolist():
            name = modes.scores.question_ids[row]
            text = texts.get(name)
            words = text["choices"] if text else []
            choices = _choices(modes.scores, row, probability, score, words)
            rows.append(
                Disagreement(
                    source=source,
                    n=n,
                    distance=round(float(distance[row]), 4),
                    id=name,
                    stem=text["stem"] if text else None,
                    outcome=_outcome(choices),
                    choices=choices,
                )
            )
    return rows


def _outcome(choices: Sequence[Choice]) -> str:
    likra = "right" if any(c["likra_picks"] and c["is_right"] for c in choices) else "wrong"
    sft = "right" if any(c["sft_picks"] and c["is_right"] for c in choices) else "wrong"
    return f"both {likra}" if likra == sft else f"Likra {likra}, SFT {sft}"


def _choices(
    scores: Scores,
    row: int,
    probability: Sequence[np.ndarray],
    score: Sequence[np.ndarray],
    texts: Sequence[str],
) -> list[Choice]:
    """The choices of the question in that row; both sequences are of Likra and SFT."""
    likra, sft = (values[row].tolist() for values in probability)
    likra_score, sft_score = (values[row].tolist() for values in score)
    return [
        Choice(
            text=texts[c] if c < len(texts) else f"choice {c + 1}",
            is_right=bool(scores.is_right[row, c]),
            likra=round(likra[c], 4),
            sft=round(sft[c], 4),
            likra_score=round(likra_score[c], 2),
            sft_score=round(sft_score[c], 2),
            likra_picks=c == likra.index(max(likra)),
            sft_picks=c == sft.index(max(sft)),
        )
        for c in np.flatnonzero(scores.exists[row]).tolist()
    ]


def read_questions(folder: Path) -> dict[str, QuestionText]:
    """The texts of the evaluation questions by id; none where the run left no questions.jsonl.

    Raises:
        LikraError: the file cannot be read.

    """
    path = folder / "questions.jsonl"
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        rows = (checked(json.loads(line)) for line in lines)
        return {
            row["id"]: QuestionText(id=row["id"], stem=row["stem"], choices=row["choices"])
            for row in rows
        }
    except (ValueError, KeyError, TypeError) as error:
        raise LikraError(f"cannot read '{path}': {type(error).__name__}") from error
