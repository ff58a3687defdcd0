"""How many threads the processor may use: those of BLAS, and those of the compiled kernels."""

import os
from types import TracebackType
from typing import Any

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


def blas_libraries() -> list[dict[str, Any]]:
    """What threadpoolctl tells of each linear algebra library in use; nothing where it is not installed."""
    try:
        import threadpoolctl
    except ImportError:
        return []
    return [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


class limit_threads:  # noqa: N801 - used as a function is
    """Let the process use so many threads from now on; in ``with``, for its block only."""

    def __init__(self, threads: int) -> None:
        global _allowed
        cores = available_cores()
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= cores:
            raise ArgumentError(
                f"threads is {threads!r}, expected a whole number from 1 to this machine's {cores}"
            )
        try:
            import threadpoolctl
        except ImportError as error:
            raise ArgumentError(
                f"threadpoolctl, which limits the threads to {threads}, cannot be imported "
                f"({error}): pip install threadpoolctl"
            ) from error
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
