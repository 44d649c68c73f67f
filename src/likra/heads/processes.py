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


def check_one_process() -> None:
    """Refuse to compute in several processes that each would compute the same.

    Raises:
        LikraError: more than one was started; or one whose model is to be divided over devices.

    """
    for name, library in SHARDED.items():
        if os.environ.get(name, "").lower() in {"1", "true", "yes"}:
            raise LikraError(
                f"{library} is not supported ({name} is set): likra trains in one process, on one "
                "device; start it without `accelerate launch`"
            )
    for name in WORLD:
        if os.environ.get(name, "").isdecimal() and int(os.environ[name]) > 1:
            raise LikraError(
                f"{os.environ[name]} processes were started together ({name}), and each would "
                "train all heads: start likra once, or give each process its part of a study, "
                "as with --shard $RANK/$WORLD_SIZE"
            )


def separate() -> None:
    """Let this process compute by itself, whatever it was started with.

    The Trainer would wait for the others at each step.
    """
    for name in (*WORLD, *RANKS):
        os.environ.pop(name, None)
