"""What a step needs to be recorded as a CUDA graph: a stream, memory and a cuBLAS of its own."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from backends.graph import CaptureError, Work
from backends.text import first_line

WARM_UPS = 2  # after the second, all temporary memory that a step takes is in the pool
WORKSPACE_BYTES = 32 << 20  # what NVIDIA recommends on Hopper; it must not move while a graph knows its place

GemmEx = Callable[..., None]


class Capture:
    """Records steps on one device; inside ``using(gemm_ex)`` products go through that, in place of CuPy's."""

    def __init__(self, cupy: ModuleType, using: Callable[[GemmEx], Any]) -> None:
        self._cupy = cupy
        self._using = using

    def __call__(self, step: Work) -> Work:
        """Run ``step`` to warm up, record it, and give what launches it on the current stream."""
        step()  # makes the buffers, in the memory that others share; what it raises is its own
        try:
            return self._record(step)
        except BaseException as error:
            with suppress(Exception):
                self._cupy.cuda.runtime.deviceSynchronize()  # the caller may change what a warm-up works with
            if not isinstance(error, Exception):
                raise
            raise CaptureError(f"{type(error).__name__}: {first_line(error)}") from error

    def _record(self, step: Work) -> "Launch":
        cuda = self._cupy.cuda
        self._cupy.get_default_memory_pool().free_all_blocks()  # a pool leaves nothing to another
        stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        workspace = pool.malloc(WORKSPACE_BYTES)
        cublas = Cublas(stream.ptr, workspace.ptr, WORKSPACE_BYTES)
        cuda.runtime.deviceSynchronize()
        with stream, cuda.using_allocator(pool.malloc), self._using(cublas.gemm_ex):
            for _ in range(WARM_UPS):
                step()
            stream.synchronize()
            with _recording(stream) as ended:
                step()
            graph = ended()
            graph.upload(stream)
            stream.synchronize()
        return Launch(graph, cublas, workspace, stream, pool)


class Launch:
    """Launches a graph on the current stream, and keeps what it knows the places of."""

    def __init__(self, graph: Any, cublas: "Cublas", workspace: Any, stream: Any, pool: Any) -> None:
        self._graph = graph
        self._kept = [cublas, workspace, stream]
        self._pool = pool

    def __call__(self) -> None:
        self._graph.launch()

    def __del__(self) -> None:
        """In this order: what CuPy's pool still holds when it goes, it never gives back."""
        self._graph = None
        while self._kept:
            del self._kept[0]
        with suppress(Exception):  # a lost device takes nothing back
            self._pool.free_all_blocks()


@contextmanager
def _recording(stream: Any) -> Iterator[Callable[[], Any]]:
    """Record what is queued inside the block; the yielded function gives the graph after it."""
    collecting = gc.isenabled()
    gc.disable()  # what it destroys may be of the device, which a recording forbids
    try:
        stream.begin_capture()
        yield stream.end_capture
    except BaseException:
        with suppress(Exception):  # a broken recording raises once more when it ends
            stream.end_capture()
        raise
    finally:
        if collecting:
            gc.enable()


class Cublas:
    """A cuBLAS handle on one stream, with a workspace of its own; CuPy's refuses to be recorded."""

    def __init__(self, stream: int, workspace: int, nbytes: int) -> None:
        self._library = _load()
        self._handle = ctypes.c_void_p()
        self._check("cublasCreate_v2", ctypes.byref(self._handle))
        self._check("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        # after the stream, which resets it
        self._check(
            "cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(workspace), ctypes.c_size_t(nbytes)
        )

    def gemm_ex(self, *arguments: int) -> None:
        """As CuPy's gemmEx, without the handle."""
        typed = (kind(value) for kind, value in zip(GEMM_TYPES, arguments, strict=True))
        self._check("cublasGemmEx", self._handle, *typed)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.cublasDestroy_v2(self._handle)

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"CUBLAS_STATUS_{STATUS.get(status, status)} from {name}")


STATUS = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED",
}  # fmt: skip
_I, _P = ctypes.c_int, ctypes.c_void_p
# transposed a, b; m, n, k; alpha; a, its type and leading size; b, ...; beta; c, ...; compute type, algorithm
GEMM_TYPES: tuple[Any, ...] = (_I, _I, _I, _I, _I, _P, _P, _I, _I, _P, _I, _I, _P, _P, _I, _I, _I, _I)


def _load() -> Any:
    from cuda import pathfinder  # CuPy brings it

    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
