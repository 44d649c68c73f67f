"""What a run is about to compute, in lines for the user."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from likra.study.config import Study
from likra.study.prepare import Data, leakage_summary

if TYPE_CHECKING:
    from likra.engine.tokens import TokenPair
    from likra.heads.base import BaseModel


def model_lines(base: "BaseModel") -> Iterator[str]:
    """The model and its layout."""
    size = base.model.num_parameters()
    device = "" if base.device.type == "meta" else f" on {base.device}"  # meta: no weights
    yield f"model  {base.name}: {size:,} parameters{device}, {base.model.dtype}"
    yield f"layout {base.layout} ({base.layout_reason})"


def training_lines(data: Data) -> Iterator[str]:
    """The notes about the data, and what is trained on."""
    yield from (f"data   {note}" for note in data.notes)
    total = len(data.train)
    counts = [(len(question.right), len(question.wrong)) for question in data.train]
    right, wrong = (sum(count[side] > 0 for count in counts) for side in (0, 1))
    several = sum(n_right > 1 for n_right, _ in counts)
    yield f"task   {data.train_task}: {total:,} training questions"
    if min(right, wrong) < total:
        yield f"       {right:,} with a right answer, {wrong:,} with a wrong one"
    if several:
        yield f"       {several:,} have several right answers: each seed trains on one"


def evaluation_lines(study: Study, data: Data, n_aside: int) -> Iterator[str]:
    """What is evaluated, and what of it leaks."""
    of = "" if data.task == data.train_task else f"task {data.task}, "
    yield f"       {len(data.evaluation):,} evaluation questions ({of}{data.eval_split})"
    if n_aside:
        yield f"       {n_aside:,} of these set aside to choose the weight on, not reported"
    dropped = "; they are not trained on" if study.on_leakage == "drop" else ""
    yield f"leaks  {leakage_summary(data.leaks)}{dropped if data.leaks else ''}"


def cut_lines(pairs: Sequence["TokenPair"], max_length: int) -> Iterator[str]:
    """How many prompts are cut."""
    n_cut = sum(pair.n_cut > 0 for pair in pairs)
    if n_cut:
        yield (
            f"       {n_cut:,} of {len(pairs):,} prompts are cut from the left to the model's "
            f"context of {max_length} tokens"
        )
