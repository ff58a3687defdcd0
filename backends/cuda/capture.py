"""Records a step as a CUDA graph, with its own stream, memory pool and cuBLAS handle."""

import ctypes
import gc
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from backends.errors import DeviceLost
from backends.graph import CaptureError, Work
from backends.memory import Device
from backends.text import first_line

WARM_UPS = 2  # after the second, the pool contains all temporary memory of a step
WORKSPACE_BYTES = 32 << 20  # NVIDIA's recommendation for Hopper; it must not move while a graph uses it

GemmEx = Callable[..., None]

recording_alone = threading.RLock()
"""Held while recording: CUDA ends a recording if another thread waits for the whole device."""


class Capture:
    """Records steps on one device; inside ``using(gemm_ex)`` products use ``gemm_ex`` instead of CuPy's."""

    def __init__(self, device: Device, using: Callable[[GemmEx], Any]) -> None:
        self._device = device
        self._using = using

    def __call__(self, step: Work) -> Work:
        """Warm up and record ``step``; -> a callable that launches the graph on the current stream."""
        step()  # allocates the buffers in the shared pool; its errors are the step's own
        with recording_alone:
            _give_back()
            own = Belongings(self._device)
            try:
                with self._device.active():
                    self._record(step, own)
            except BaseException as error:
                _clear_frames(error)
                own.retire()
                self._raise_if_lost(error)
                if not isinstance(error, Exception):
                    raise
                raise CaptureError(f"{type(error).__name__}: {first_line(error)}") from error
        return Launch(own)

    def _record(self, step: Work, own: "Belongings") -> None:
        cupy = self._device.xp
        cuda = cupy.cuda
        cupy.get_default_memory_pool().free_all_blocks()  # pools do not share free memory
        own.stream = cuda.Stream(non_blocking=True)
        own.workspace = own.pool.malloc(WORKSPACE_BYTES)
        own.cublas = Cublas(own.stream.ptr, own.workspace.ptr, WORKSPACE_BYTES)
        cuda.runtime.deviceSynchronize()
        with own.stream, cuda.using_allocator(own.pool.malloc), self._using(own.cublas.gemm_ex):
            for _ in range(WARM_UPS):
                step()
            own.stream.synchronize()
            with _recording(own.stream):
                step()
                own.graph = own.stream.end_capture()
            own.graph.upload(own.stream)
            own.stream.synchronize()

    def _raise_if_lost(self, error: BaseException) -> None:
        """Raise DeviceLost if the device has failed, otherwise wait until it is idle."""
        if isinstance(error, DeviceLost) and not isinstance(error.__cause__, CublasError):
            raise error
        try:
            with self._device.active():
                self._device.xp.cuda.runtime.deviceSynchronize()  # the caller may change its arrays
        except Exception as later:
            if isinstance(later, DeviceLost):
                raise


class Belongings:
    """The resources of a recording. Memory in its pool is in use until it is returned to the device."""

    stream: Any = None
    workspace: Any = None
    cublas: Any = None
    graph: Any = None

    def __init__(self, device: Device) -> None:
        self._device = device
        self.pool = device.xp.cuda.MemoryPool()
        with recording_alone:
            _belongings.add(self)

    def retire(self) -> None:
        """Release everything, now or when no recording is in progress."""
        _retired.append(self)
        _give_back()

    def give_back(self) -> bool:
        """Release the resources in this order; -> whether the pool is empty.

        On a lost device nothing can be released, and CuPy would print an error for each object.
        """
        with suppress(Exception), self._device.active():
            self._device.xp.cuda.runtime.deviceSynchronize()
            self.graph = None
            self.cublas = None
            self.workspace = None
            self.stream = None
            self.pool.free_all_blocks()
            return not self.pool.total_bytes()
        return False


class Launch:
    """Launches a graph on the current stream, and keeps its resources alive."""

    def __init__(self, own: Belongings) -> None:
        self._own = own

    def __call__(self) -> None:
        self._own.graph.launch()

    def __del__(self) -> None:
        self._own.retire()


_belongings: "WeakSet[Belongings]" = WeakSet()
# A pool that still contains arrays stays here, because CuPy leaks the memory of a destroyed pool.
_retired: deque[Belongings] = deque()
_under_way = False


def pools() -> list[Any]:
    """The memory pools of all recordings, and of released recordings whose pools are not empty."""
    with recording_alone:
        _give_back()
        return [own.pool for own in _belongings]


def _give_back() -> None:
    """Release retired resources, unless a recording is in progress, which that would end."""
    if not recording_alone.acquire(blocking=False):  # the recording thread does it later
        return
    try:
        with suppress(IndexError):  # destructors may empty the queue
            for _ in range(0 if _under_way else len(_retired)):
                own = _retired.popleft()
                if not own.give_back():
                    _retired.append(own)
    finally:
        recording_alone.release()


def _clear_frames(error: BaseException) -> None:
    """Release the temporary arrays that are referenced by the frames of a failed step's traceback."""
    cleared: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        found = left.pop()
        if found is not None and not any(found is other for other in cleared):
            cleared.append(found)
            traceback.clear_frames(found.__traceback__)
            left += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]
    gc.collect()  # a frame and its error may reference each other


@contextmanager
def _recording(stream: Any) -> Iterator[None]:
    """Record the work queued inside the block. The block ends the recording; if it fails, this does."""
    global _under_way
    collecting = gc.isenabled()
    gc.disable()  # destroying device objects is forbidden while recording
    _under_way = True
    try:
        stream.begin_capture()
        yield
    except BaseException:
        with suppress(Exception):  # a broken recording raises again when it ends
            stream.end_capture()
        raise
    finally:
        _under_way = False
        if collecting:
            gc.enable()


class CublasError(RuntimeError):
    """CuBLAS refused a call; while recording, this does not mean that the device has failed."""


class Cublas:
    """A cuBLAS handle for one stream with its own workspace; CuPy's handle cannot be recorded."""

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
        """Like CuPy's gemmEx, without the handle."""
        typed = (kind(value) for kind, value in zip(GEMM_TYPES, arguments, strict=True))
        self._check("cublasGemmEx", self._handle, *typed)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.cublasDestroy_v2(self._handle)

    def _check(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CublasError(f"CUBLAS_STATUS_{STATUS.get(status, status)} from {name}")


STATUS = {
    1: "NOT_INITIALIZED", 3: "ALLOC_FAILED", 7: "INVALID_VALUE", 8: "ARCH_MISMATCH", 11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED", 14: "INTERNAL_ERROR", 15: "NOT_SUPPORTED",
}  # fmt: skip
_I, _P = ctypes.c_int, ctypes.c_void_p
# transposed a, b; m, n, k; alpha; a, its type and leading size; b, ...; beta; c, ...; compute type, algorithm
GEMM_TYPES: tuple[Any, ...] = (_I, _I, _I, _I, _I, _P, _P, _I, _I, _P, _I, _I, _P, _P, _I, _I, _I, _I)


def _load() -> Any:
    from cuda import pathfinder  # a dependency of CuPy

    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
