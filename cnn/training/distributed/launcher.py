"""What a launcher such as mpiexec has told this process, in environment variables."""

import os

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # MPICH, Intel MPI and Slurm's PMI; Open MPI
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
LOCAL_RANKS = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK")
OPEN_MPI = "OMPI_COMM_WORLD_SIZE"
PMIX = "PMIX_RANK"  # of Slurm's --mpi=pmix, which says no size


def size() -> int:
    """How many processes were started; 1 without a launcher, or if it does not say so."""
    return _first(SIZES, 1)


def rank() -> int:
    """The number of this process, from 0."""
    return _first(RANKS, 0)


def local_rank() -> int:
    """The number of this process among those on this machine."""
    return _first(LOCAL_RANKS, 0)


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    is_step = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return size() > 1 or (is_step and PMIX in os.environ)


def is_open_mpi() -> bool:
    """Whether the launcher is that of Open MPI."""
    return OPEN_MPI in os.environ


def _first(names: tuple[str, ...], otherwise: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), otherwise)
