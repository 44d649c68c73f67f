"""The examination of a model: what is measured, in order, and what is said beside it."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from likra.data.load import load_task
from likra.doctor.exactness import check_computes, in_float64, random_pairs, training
from likra.doctor.measured import Measured
from likra.doctor.speed import speed
from likra.doctor.tiny import layers_of, tiny_model
from likra.engine.masks import sliding_window
from likra.engine.memory import token_budget
from likra.engine.packing import pack
from likra.engine.tokens import TokenPair
from likra.errors import LikraError
from likra.heads.base import POCKET, BaseModel, limit_threads, open_model
from likra.heads.layout import score_tolerance
from likra.heads.lora import Head
from likra.heads.score import Floats, encode_questions, score
from likra.questions import Question
from likra.study.describe import model_lines
from likra.text import one_line

QUESTIONS = POCKET.parent / "data" / "test.jsonl"  # real ones that any tokenizer can read
N_QUESTIONS, N_QUESTIONS_QUICK = 64, 8
N_STEPS, N_STEPS_QUICK = 200, 20
FAR = 1024  # a quick examination leaves no longer window

Log = Callable[[str], object]


def examine(name: str, log: Log = print, *, quick: bool = False) -> list[Measured]:
    """Find out whether the forest is exact for a model, and how fast this machine is.

    Exactness is measured on a tiny random model of the same architecture, and on the model itself
    in float32. Speed is measured in what the model computes in by default on this device.

    Args:
        name: of the model, as `likra.heads.base.open_model` takes it.
        log: is given each line meant for the user.
        quick: fewer training steps and questions, and no pair beyond a long window.

    Raises:
        LikraError: the model cannot be opened.

    """
    base = open_model(name, dtype="float32")
    limit_threads(base)
    for line in (*model_lines(base), f"layers {layers_of(base.model.config)}"):
        log(line)
    found: list[Measured] = []
    if base.layout == "forest":
        found += _of_architecture(base, N_STEPS_QUICK if quick else N_STEPS, log)
    else:
        log("note   the forest is not used for this model: there is nothing to compare")
    questions = _questions(N_QUESTIONS_QUICK if quick else N_QUESTIONS)
    pairs = encode_questions(base, questions)
    exact = score(Head(base), pairs).logprobs
    if base.layout == "forest":
        found.append(_beside_rows(base, pairs, f"scores of {len(questions)} questions"))
        found += _beyond_window(base, log, quick=quick)
    on_cpu = base.device.type == "cpu"
    if on_cpu:
        found += _speed(base, log)
    layout = base.layout
    del base  # there may not be room for both
    half = open_model(name, dtype="bfloat16", layout=layout)
    rounded = score(Head(half), pairs).logprobs
    found += _in_bfloat16(questions, exact, rounded)
    return found if on_cpu else [*found, *_speed(half, log)]


def _of_architecture(base: BaseModel, steps: int, log: Log) -> Iterator[Measured]:
    """What a tiny model of the same kinds of layers shows."""
    try:
        model = tiny_model(base.model.config)
        check_computes(model)
    except Exception as error:  # the library's own checks and shapes: any type
        log(f"note   no tiny model of this architecture could be made ({one_line(error)})")
        return
    log(f"tiny   {layers_of(model.config)}, {model.num_parameters():,} random parameters")
    yield from in_float64(model)
    yield training(base, model, steps)


def _questions(count: int) -> list[Question]:
    task = load_task(str(QUESTIONS))
    return list(task.questions(task.splits[0])[:count])


def _beside_rows(base: BaseModel, pairs: Sequence[TokenPair], what: str) -> Measured:
    """The model's scores on the forest beside those on plain rows."""
    budget = token_budget(base.device.type)
    forest, rows = (
        score(Head(base), pack(pairs, layout, budget)).logprobs for layout in ("forest", "padded")
    )
    limit = score_tolerance(base.model, pairs, torch.from_numpy(rows))
    return Measured(f"{what} in float32", float(np.abs(forest - rows).max()), "nats", limit)


def _beyond_window(base: BaseModel, log: Log, *, quick: bool) -> Iterator[Measured]:
    config = base.model.config.get_text_config()
    window = sliding_window(config)
    if window is None:
        return
    length = window + 32
    if length + 8 > base.max_length or (quick and length > FAR):
        log(f"note   no pair longer than the window of {window:,} tokens was scored")
        return
    pairs = random_pairs(1, 3, length, vocabulary=config.vocab_size)
    yield _beside_rows(base, pairs, f"scores of {length:,} tokens, beyond the window,")


def _in_bfloat16(
    questions: Sequence[Question], exact: Floats, rounded: Floats
) -> Iterator[Measured]:
    """What bfloat16 changes of the scores, and of the choices that they pick."""
    off = np.abs(rounded - exact)
    ends = np.cumsum([len(question.choices) for question in questions])[:-1]
    picks = [[int(np.argmax(own)) for own in np.split(all_, ends)] for all_ in (exact, rounded)]
    changed = np.mean([one != other for one, other in zip(*picks, strict=True)])
    yield Measured("bfloat16: error of a score, mean", float(off.mean()), "nats")
    yield Measured("bfloat16: error of a score, largest", float(off.max()), "nats")
    yield Measured(f"bfloat16: picks changed of {len(questions)}", float(changed), "share")


def _speed(base: BaseModel, log: Log) -> Iterator[Measured]:
    try:
        yield from speed(base)
    except LikraError as error:
        log(f"note   no training step was timed: {error}")
