"""Several processes that train one head together: each computes its share of every batch.

The loss of a step is a sum over the batch, divided by what it is averaged over. So the processes
add up their counts, losses and gradients, and each takes the step of the whole batch. The main
process, of rank 0, tells the others what to train (`Job`); everything else it does alone.

Sums are taken on the CPU by gloo, also of GPUs, since a head is small. Neither the Trainer nor
accelerate knows of the other processes: they would divide and average in their own way.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate.utils.environment import get_cpu_distributed_information
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from likra.errors import LikraError
from likra.heads.base import BaseModel
from likra.heads.processes import separate
from likra.heads.quantized import FOUR_BIT, is_four_bit
from likra.progress import note

T = TypeVar("T")
LONGEST_START = timedelta(minutes=10)  # until all processes are there
LONGEST_WAIT = timedelta(days=30)  # while the main process scores; the default is half an hour


@dataclass(frozen=True)
class Job:
    """A training in which all processes take part.

    Attributes:
        model: the base's name.
        dtype: the dtype that it was opened with.
        objective: of `likra.heads.objectives.OBJECTIVES`; None for a likra head.
        arguments: of `likra.heads.train.train_head` or `likra.heads.preference.train_objective`.

    """

    model: str
    dtype: str
    objective: str | None
    arguments: Mapping[str, Any]


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _is_grouped() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return not _is_grouped() or dist.get_rank() == 0


def _is_grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def together() -> Iterator[bool]:
    """Join the processes that this one was started with.

    Inside, the main process trains as ever (`likra.heads.train.train_head`), and at the end it
    announces None; the others follow (`likra.heads.follow.follow`).

    Yields:
        Whether this is the main process.

    Raises:
        LikraError: the processes do not find each other, or there are too few GPUs.

    """
    process = get_cpu_distributed_information()
    if process.rank == 0:
        note(f"{process.world_size} processes train together, once all are there")
    _take_gpu(process.local_rank, process.local_world_size)
    try:
        _meet(process.rank, process.world_size)
    except (ValueError, RuntimeError) as error:
        raise LikraError(f"the processes do not find each other: {error}") from error
    separate()  # from here on for all other libraries
    try:
        yield process.rank == 0
    finally:
        dist.destroy_process_group()


def _meet(rank: int, size: int) -> None:
    """Make the process group, once all processes are there."""
    store, *_ = next(rendezvous("env://", rank, size, timeout=LONGEST_START))
    store.set(f"likra {rank}", "here")
    store.wait([f"likra {other}" for other in range(size)], LONGEST_START)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)


def _take_gpu(local_rank: int, local_count: int) -> None:
    """Let this process see one GPU, its own."""
    n_gpus = torch.cuda.device_count()
    if not n_gpus:
        return
    if local_count > n_gpus:
        raise LikraError(f"{local_count} processes need as many GPUs, and there are {n_gpus}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    own = visible[local_rank] if len(visible) == n_gpus and visible[0] else str(local_rank)
    os.environ["CUDA_VISIBLE_DEVICES"] = own


# --------------------------------------------------------------------------------------------
# Jobs


def tell(base: BaseModel, objective: str | None, **arguments: Any) -> None:
    """Have the other processes, if there are some, take part in the training that begins."""
    if count() > 1 and is_main():
        four_bit = is_four_bit(base.model)
        dtype = FOUR_BIT if four_bit else str(base.model.dtype).removeprefix("torch.")
        announce(Job(base.name, dtype, objective, arguments))


def announce(job: Job | None) -> None:
    """Tell the others what to train, or that there is nothing more to do."""
    with _talking():
        dist.broadcast_object_list([job], src=0)


def received() -> Job | None:
    """What the main process announces next."""
    jobs: list[Job | None] = [None]
    with _talking():
        dist.broadcast_object_list(jobs, src=0)
    return jobs[0]


@contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's for a connection that was closed
        raise LikraError(
            f"another of the {count()} processes has ended: see its own message"
        ) from error


# --------------------------------------------------------------------------------------------
# Shares and sums


def own_share(examples: list[T]) -> list[T]:
    """This process's part of a batch; empty where there are more processes than examples."""
    return examples[dist.get_rank() :: dist.get_world_size()]


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, of the same shape."""
    total = values.detach().cpu()
    with _talking():
        dist.all_reduce(total)
    return total.to(values.device)


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give all processes the sum of their gradients; one that has none adds zeros."""
    own = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    total = summed(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for parameter, part in zip(own, total.split([p.numel() for p in own]), strict=True):
        parameter.grad = part.view_as(parameter)
