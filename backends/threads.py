"""How many threads the processor may use: those of BLAS, and those of the compiled kernels."""

import os
from types import TracebackType

from backends.errors import ArgumentError

_allowed: int | None = None  # None: as many as there are cores


def available_cores() -> int:
    """The processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count() -> int:
    """How many threads compiled kernels may use."""
    return _allowed or available_cores()


class limit_threads:  # noqa: N801 - used as a function is
    """Let the process use so many threads from now on; in ``with``, for its block only."""

    def __init__(self, threads: int) -> None:
        global _allowed
        cores = available_cores()
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= cores:
            raise ArgumentError(
                f"threads is {threads!r}, expected a whole number from 1 to this machine's {cores}"
            )
        import threadpoolctl

        self._before, _allowed = _allowed, threads
        self._blas = threadpoolctl.threadpool_limits(limits=threads, user_api="blas")

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _allowed
        _allowed = self._before
        self._blas.restore_original_limits()
