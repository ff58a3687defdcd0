"""Finds the other processes."""

import atexit
import os
import re
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from backends.cpu import threads
from cnn.support.errors import ArgumentError
from cnn.support.system import STOP_SIGNALS
from cnn.support.version import VERSION
from cnn.training.distributed import launcher
from cnn.training.distributed.communicator import TIMEOUT, Communicator
from cnn.training.distributed.watchdog import Watchdog

NEEDED = "training in several processes needs MPI"
ADVICE = "pip install mpi4py mpich"


def communicator(shards: int | None = None, timeout: float = TIMEOUT) -> Communicator:
    """The processes that a launcher such as ``mpiexec`` has started, for ``cnn.fit(processes=...)``.

    Without a launcher, it is one process that is alone, and no MPI is needed. Call it once, before the data
    are loaded and the network is built: it gives each process on a machine the same number of threads.

    Parameters
    ----------
    shards : int
        The number of parts that each batch is cut into. It determines the result, while the number of
        processes does not. None: as many as there are processes, or as a resumed run began with.
    timeout : float
        Seconds that a process waits for the others before it gives up and exits with 75. Until the end of the
        first step it is at least 600 seconds.

    Raises
    ------
    ArgumentError
        If MPI is not installed, or belongs to another launcher.
    """
    alone = Communicator(None, shards, timeout)
    if not launcher.is_launched():
        return alone
    mpi = _start_mpi(alone.watchdog)
    if mpi.size == 1:
        return alone
    sys.excepthook = _show_and_leave
    group = Communicator(mpi.Dup(), shards, timeout)
    group.require_same({"xpcnn": VERSION})
    _unlink_shared_memory()
    _share_cores(group)
    return group


def _start_mpi(watchdog: Watchdog) -> Any:
    """The communicator of all processes, from mpi4py; ArgumentError if it is not the launcher's."""
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter without the library
        raise ArgumentError(f"{NEEDED} ({error}): {ADVICE}") from None
    library = MPI.Get_library_version().strip("\0 \n").splitlines()[0].strip()
    if launcher.is_open_mpi() and "Open MPI" not in library:
        raise ArgumentError(_of_another(library))
    if not MPI.Is_initialized():
        with watchdog:
            MPI.Init_thread(MPI.THREAD_FUNNELED)
        atexit.register(_finish, MPI)
    world = MPI.COMM_WORLD
    if world.size == 1 and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        raise ArgumentError(f"Slurm started several processes, MPI sees 1: {_of_another(library)}")
    if world.size != launcher.size() and launcher.PMIX not in os.environ:
        raise ArgumentError(
            f"the launcher started {launcher.size()} processes, MPI sees {world.size}: {_of_another(library)}"
        )
    return world


def _of_another(library: str) -> str:
    return (
        f"this mpiexec belongs to another MPI than Python's, which is {library}: use the mpiexec that was "
        "installed with it"
    )


def _share_cores(group: Communicator) -> None:
    """Share the cores among the processes on this machine, unless the launcher has bound them to some."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    here = [cores for host, cores in group.gather((group.host, own)) if host == group.host]
    if len(here) > 1 and all(cores == own for cores in here):
        threads.share(len(here))


def _unlink_shared_memory() -> None:
    """Let MPICH's shared memory be freed with its last process, however that ends.

    By now all processes have opened it. Without this, each abnormal end would leave about 1 MB a process.
    """
    with suppress(OSError):
        for path in set(re.findall(r"/dev/shm/mpich_shm_\S+", Path("/proc/self/maps").read_text())):
            Path(path).unlink(missing_ok=True)


def _finish(mpi: Any) -> None:
    """Wait for the other processes without taking their time, then end MPI."""
    if not mpi.Is_finalized():
        for number in STOP_SIGNALS:  # they are for the process that still works
            signal.signal(number, signal.SIG_IGN)
        request = mpi.COMM_WORLD.Ibarrier()
        while not request.Test():
            time.sleep(0.01)
        mpi.Finalize()


def _show_and_leave(kind: Any, error: Any, trace: Any) -> None:
    """Show an exception that nobody has caught, and end: otherwise the others would wait forever."""
    if launcher.rank() > 0:
        time.sleep(1)  # if the first process has the same error, it says so and ends this one
    traceback.print_exception(kind, error, trace)
    leave(130 if issubclass(kind, KeyboardInterrupt) else 1)


def leave(code: int) -> NoReturn:
    """End this process at once, and with it all others: the launcher ends them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # nobody reads it any more
            stream.flush()
    os._exit(code)
