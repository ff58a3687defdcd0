"""The CPU backend: NumPy and scipy.signal."""

import os
import platform
import sys
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from threading import get_ident
from types import ModuleType
from typing import Any

import numpy as np

from backends import interoperability
from backends.backend import Backend, Timer
from backends.cpu import threads
from backends.errors import DeviceUnavailable
from backends.kernels import Kernels
from backends.libraries import LibraryError, needing, require, version
from backends.memory import Array, require_product
from backends.registry import Kind


class CpuBackend(Backend):
    """The CPU, with the number of threads that the linear algebra library is set to."""

    xp = np
    column_bytes = 4 << 20  # slightly the fastest of 1/4 to 16 MB if each core has 1 MB of L2 cache

    def __init__(self, kernels: str = "auto") -> None:
        super().__init__("cpu", kernels)
        threads.limit_blas_to_quota()

    @property
    def signal(self) -> ModuleType:
        return require("scipy.signal", "for the kernels called signal")

    @property
    def special(self) -> ModuleType:
        return require("scipy.special", "for GELU with the portable kernels")

    def asarray(self, host: Any, dtype: Any = None, out: Array | None = None) -> Array:
        self.crossings += 1
        host = interoperability.host_array(host)
        if out is None:
            return np.asarray(host, dtype=dtype)
        out[...] = host
        return out

    def to_host(self, array: Array) -> Any:
        self.crossings += 1
        return np.array(array)

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def zeros(self, size: int, dtype: Any) -> Array:
        return _aligned(np.zeros, size, dtype)

    def empty(self, size: int, dtype: Any) -> Array:
        return _aligned(np.empty, size, dtype)

    def address(self, array: Array) -> int:
        return int(array.__array_interface__["data"][0])

    def compiled_kernels(self) -> type[Kernels]:
        try:
            with needing("numba", "for the compiled kernels"):
                from backends.cpu.compiled.jit import try_out
                from backends.cpu.kernels import CompiledKernels

                try_out()
        except LibraryError as error:
            raise DeviceUnavailable(str(error)) from error
        return CompiledKernels

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> Array:
        require_product(a, b, out)
        if 4 < len(a) < 16 and len(a) != 8 and a.shape[1] >= 1024:
            # OpenBLAS is twice as fast with 8 rows as with 6 if the inner dimension is long
            product = np.matmul(self._with_whole_rows(a), b)[: len(a)]
        elif accumulate:
            product = np.matmul(a, b)
        else:
            return np.matmul(a, b, out=out)
        if accumulate:
            return np.add(out, product, out=out)
        np.copyto(out, product)
        return out

    def _with_whole_rows(self, a: Array) -> Array:
        """The matrix padded with rows of zeros to a multiple of 8 rows."""
        shape = (-(-len(a) // 8) * 8, a.shape[1])
        padded = self.scratch("rows", shape[0] * shape[1] * a.itemsize).view(a.dtype).reshape(shape)
        padded[: len(a)] = a
        padded[len(a) :] = 0
        return padded

    def take(self, array: Array, indices: Array, out: Array) -> Array:
        return np.take(array, indices, axis=0, out=out, mode="clip")  # "raise" would make a copy

    def stamp(self) -> Hashable:
        return self.allocations, threads.count(), get_ident(), os.getpid()

    def active(self) -> AbstractContextManager[object]:
        return _ACTIVE

    def synchronize(self) -> None:
        """Does nothing, because no work is queued."""

    def timer(self) -> Timer:
        return CpuTimer()

    def memory(self) -> dict[str, int]:
        return {"used": _resident_bytes(), "total": _total_bytes()}

    def describe(self) -> dict[str, Any]:
        libraries = threads.blas_libraries()
        limit = self.kernels.thread_limit or threads.blas_limit()
        return {
            "device": self.name,
            "processor": _processor(),
            "cores": threads.available_cores(),
            "threads": limit.threads,
            "thread_limit": limit.reason,
            "blas": ", ".join(sorted({f"{pool['internal_api']} {pool['version']}" for pool in libraries}))
            or "unknown",
            "kernels": self.kernels.name,
            **({"slower_than_it_could": self.slower} if self.slower else {}),
            "numpy": np.__version__,
            "scipy": version("scipy"),
        }


CPU = Kind(
    names=lambda: ["cpu"],
    make=lambda name, kernels, tf32: CpuBackend(kernels),
    holder=lambda array: "cpu" if isinstance(array, np.ndarray) else None,
)


def _aligned(make: Callable[..., Array], size: int, dtype: Any) -> Array:
    """A vector allocated by ``make`` that starts on a 256-byte boundary."""
    itemsize = np.dtype(dtype).itemsize
    raw = make(size + 256 // itemsize, dtype=dtype)
    start = -raw.ctypes.data % 256 // itemsize
    return raw[start : start + size]


class CpuTimer(Timer):
    """Wall-clock time, because work on the CPU is done when its call returns."""

    def __enter__(self) -> "CpuTimer":
        self._start = self._end = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._end - self._start


_ACTIVE: AbstractContextManager[object] = nullcontext()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="utf-8") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _total_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
