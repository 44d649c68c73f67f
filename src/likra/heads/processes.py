"""Several processes that were started together: by torchrun, accelerate, mpirun or srun."""

import os

from likra.errors import LikraError

# How many, by the launchers: torchrun and accelerate; MPICH, Intel MPI and srun; Open MPI; MVAPICH.
WORLD = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# What else accelerate takes for a sign that processes belong together.
RANKS = (
    "RANK", "LOCAL_RANK", "PMI_RANK", "PMI_LOCAL_RANK", "MPI_LOCALRANKID",
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK",
)  # fmt: skip
SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def started() -> int:
    """How many processes were started together."""
    found = (os.environ.get(name, "") for name in WORLD)
    return max([1, *(int(value) for value in found if value.isdecimal())])


def check_supported() -> None:
    """Refuse what accelerate would do beside dividing batches.

    Raises:
        LikraError: it is to divide the model over devices.

    """
    for name, library in SHARDED.items():
        if os.environ.get(name, "").lower() in {"1", "true", "yes"}:
            raise LikraError(
                f"{library} is not supported ({name} is set): several processes divide the batches "
                "of a training alone, and the model has to fit each device"
            )


def separate() -> None:
    """Let this process compute by itself, whatever it was started with.

    The Trainer would wait for the others at each step.
    """
    for name in (*WORLD, *RANKS):
        os.environ.pop(name, None)
