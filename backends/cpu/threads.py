"""The numbers of threads of BLAS and of the compiled kernels."""

import os
from functools import cache
from math import ceil
from types import TracebackType
from typing import Any, NamedTuple

from backends.cpu.cgroup import cpu_quota
from backends.errors import ArgumentError
from backends.libraries import LibraryError, needing, note_once, require

VARIABLES = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "NUMBA_NUM_THREADS")
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class Limit(NamedTuple):
    """A number of threads, and the reason for it."""

    threads: int
    reason: str


_asked: Limit | None = None


def available_cores() -> int:
    """The number of CPU cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit() -> Limit:
    """The number of threads for compiled kernels, and the reason for it.

    A number that was set explicitly has priority over the limits of the system and the environment.
    """
    if _asked:
        return _asked
    cores, granted = available_cores(), _granted()
    return granted if granted and granted.threads < cores else Limit(cores, "cores")


def share(processes: int) -> None:
    """Take an equal share of the cores or of the CPU quota, for so many processes; at least one thread.

    A number of threads that was set for each process stays as it is.
    """
    global _asked
    before = limit()
    if before.threads < available_cores() and before != _quota():
        return
    limit_threads(max(1, before.threads // processes))
    _asked = Limit(count(), f"{processes} processes share {before.threads} threads")


def count() -> int:
    """The number of threads for compiled kernels."""
    return limit().threads


def blas_limit() -> Limit:
    """The number of threads of the linear algebra library, and the reason for it."""
    pools, usual = blas_libraries(), limit()
    threads = max((pool["num_threads"] for pool in pools), default=usual.threads)
    if threads == usual.threads:
        return usual
    variables = [f"{name}={os.environ[name]}" for name in BLAS_VARIABLES if os.environ.get(name)]
    return Limit(threads, ", ".join(variables) or "the linear algebra library")


def limit_blas_to_quota() -> None:
    """Limit the threads of the linear algebra library to the CPU quota, which it ignores."""
    quota = None if _asked else _quota()
    if quota and any(pool["num_threads"] > quota.threads for pool in blas_libraries()):
        with needing("threadpoolctl", "to limit the threads to a CPU quota"):
            import threadpoolctl

            threadpoolctl.threadpool_limits(quota.threads, user_api="blas")


def blas_libraries() -> list[dict[str, Any]]:
    """The linear algebra libraries that threadpoolctl finds; empty, with a note, if it fails."""
    purpose = "to find the linear algebra library and its threads"
    try:
        with needing("threadpoolctl", purpose):
            pools = require("threadpoolctl", purpose).threadpool_info()
            return [pool for pool in pools if pool["user_api"] == "blas"]
    except LibraryError as error:
        note_once(str(error))
        return []


@cache
def _granted() -> Limit | None:
    """The smallest number of threads set by a quota or an environment variable."""
    return min(filter(None, (_quota(), *map(_variable, VARIABLES))), default=None)


def _quota() -> Limit | None:
    quota = cpu_quota()
    return Limit(ceil(quota), f"a CPU quota of {quota:g}") if quota else None


def _variable(name: str) -> Limit | None:
    """The limit that an environment variable sets; None if it is not a number of threads."""
    value = os.environ.get(name, "")
    threads = value.partition(",")[0].strip()  # OpenMP accepts a list, one for each nesting level
    return Limit(int(threads), f"{name}={value}") if threads.isdecimal() and int(threads) else None


class limit_threads:  # noqa: N801 - used as a function is
    """Set the number of threads of this process; as a context manager, only for its block."""

    def __init__(self, threads: int) -> None:
        global _asked
        cores = available_cores()
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= cores:
            raise ArgumentError(
                f"threads is {threads!r}, expected a whole number from 1 to this machine's {cores}"
            )
        purpose = f"to limit the threads to {threads}"
        with needing("threadpoolctl", purpose):
            library = require("threadpoolctl", purpose)
            self._blas = library.threadpool_limits(limits=threads, user_api="blas")
        self._before, _asked = _asked, Limit(threads, "asked for")

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _asked
        _asked = self._before
        self._blas.restore_original_limits()
