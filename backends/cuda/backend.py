"""CuPy and cupyx.scipy.signal on an NVIDIA GPU.

CuPy is imported when a backend is created; diagnosis.py explains why that fails.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from backends import interoperability
from backends.backend import Backend, Timer
from backends.cuda.capture import Capture, pools, recording_alone
from backends.cuda.diagnosis import (
    count_devices,
    failure,
    import_cupy,
    listed,
    readable_capability,
    readable_version,
    require_capability,
    trouble,
)
from backends.cuda.upload import PinnedUpload
from backends.dtypes import is_half
from backends.errors import DeviceUnavailable
from backends.graph import CapturedStep, Work
from backends.kernels import Kernels
from backends.memory import Array, Upload, require_product
from backends.registry import Kind


class CudaBackend(Backend):
    """The GPU number ``index`` in CUDA's order; work is queued on the current CuPy stream.

    Raises DeviceUnavailable unless a small kernel and a small product give the right results on it.
    """

    column_bytes = 256 << 20  # few, large products: there is no cache to fit into
    has_halves = True

    def __init__(self, index: int = 0, kernels: str = "auto", tf32: bool = False) -> None:
        name = f"cuda:{index}"
        self.xp = cupy = import_cupy()
        devices = _start(cupy)
        if index >= devices:
            raise DeviceUnavailable(f"{name} does not exist: this machine has {listed(devices)}")
        self.index = index
        self._device = cupy.cuda.Device(index)
        self._active = _Active(name, self._device)
        try:
            self._cublas = cupy.cuda.cublas
            # the second is CuPy's own setting for its products
            self._tf32 = tf32 or int(os.environ.get("CUPY_TF32", "0")) > 0
            self._products = threading.local()
            self._gemm_types = _gemm_types(self._cublas, self._tf32, int(self._device.compute_capability))
            product = self._probe()
        except Exception as error:
            raise DeviceUnavailable(failure(name, error)) from error
        if product != _PROBED:
            raise DeviceUnavailable(
                f"{name} computes wrong results (a small product gave {product} instead of {_PROBED}): "
                "check the GPU with nvidia-smi"
            )
        super().__init__(name, kernels)
        self.asked = name, kernels, tf32

    def _probe(self) -> list[list[float]]:
        with self.active():
            x = self.xp.arange(6, dtype=np.float32).reshape(2, 3)
            x = x + x
            return self.xp.asnumpy(self.matmul(x, x.T, self.xp.empty((2, 2), np.float32))).tolist()

    @cached_property
    def signal(self) -> ModuleType:
        return self._import("cupyx.scipy.signal")

    @cached_property
    def special(self) -> ModuleType:
        return self._import("cupyx.scipy.special")

    def _import(self, name: str) -> ModuleType:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # about features that are not used here
                return import_module(name)
        except Exception as error:
            raise DeviceUnavailable(failure(self.name, error)) from error

    def asarray(self, host: Any, dtype: Any = None, out: Array | None = None) -> Array:
        """See the contract; a copy from pinned memory may still be in progress on return."""
        with self.active():
            host = interoperability.as_array(host)
            if isinstance(host, self.xp.ndarray):  # already on a GPU; copied if it is another one
                if out is None:
                    return self.xp.asarray(host, dtype=dtype)
                out[...] = self.xp.asarray(host)
                return out
            self.crossings += 1
            if out is None:
                return self.xp.asarray(host, dtype=dtype)
            host = np.broadcast_to(np.asarray(host, dtype=out.dtype), out.shape)
            if out.flags.forc:
                out.set(host)
            else:
                out[...] = self.xp.asarray(host)
            return out

    def to_host(self, array: Array) -> Any:
        self.crossings += 1
        with self.active():
            return self.xp.asnumpy(array, out=np.empty(array.shape, array.dtype))

    def owns(self, array: object) -> bool:
        return isinstance(array, self.xp.ndarray) and array.device.id == self.index

    def index_of(self, address: int) -> int:
        """See the contract; this GPU's number for an address in no GPU's memory, as of an empty array."""
        with self.active():
            index = int(self.xp.cuda.runtime.pointerGetAttributes(address).device) if address else -1
        return index if index >= 0 else self.index

    def zeros(self, size: int, dtype: Any) -> Array:
        with self.active():
            return self.xp.zeros(size, dtype=dtype)  # CuPy's allocations are aligned to 512 bytes

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> Array:
        """One cuBLAS call without copies, for matrices of floats with a contiguous axis."""
        require_product(a, b, out)
        with self.active():
            layouts = [blas_layout(array.shape, array.strides, array.itemsize) for array in (a, b, out)]
            if 0 in (out.size, a.size):  # cuBLAS does not accept empty matrices
                if not accumulate:
                    out.fill(0)
            elif self._is_gemm(a, b, out) and None not in layouts:
                self._gemm(a, b, out, layouts, accumulate)
            elif is_half(a):
                wide = out.astype(np.float32)
                self.matmul(a.astype(np.float32), b.astype(np.float32), wide, accumulate)
                out[...] = wide
            elif accumulate:
                self.xp.add(out, self.xp.matmul(a, b), out=out)
            else:
                self.xp.matmul(a, b, out=out)
        return out

    def _is_gemm(self, a: Array, b: Array, out: Array) -> bool:
        """Whether cuBLAS multiplies matrices of these dtypes; 16-bit products may be float32."""
        known = a.dtype == b.dtype and a.dtype.name in self._gemm_types
        return known and (out.dtype == a.dtype or (is_half(a) and out.dtype == np.float32))

    def _gemm(self, a: Array, b: Array, out: Array, layouts: list[Any], accumulate: bool) -> None:
        """``out`` = a @ b + accumulate * out; BLAS reads contiguous rows as columns of the transpose."""
        (a_by_columns, lda), (b_by_columns, ldb), (out_by_columns, ldc) = layouts
        kind, out_kind = (self._gemm_types[array.dtype.name] for array in (a, out))
        (m, k), n = a.shape, b.shape[1]
        operands = [
            (int(a_by_columns != out_by_columns), (a.data.ptr, kind.data, lda)),
            (int(b_by_columns != out_by_columns), (b.data.ptr, kind.data, ldb)),
        ]
        if not out_by_columns:  # out.T = b.T @ a.T
            operands.reverse()
            m, n = n, m
        (left_op, left), (right_op, right) = operands
        beta = kind.one if accumulate else kind.zero
        result = (out.data.ptr, out_kind.data, ldc, kind.compute, self._cublas.CUBLAS_GEMM_DEFAULT)
        self._gemm_ex(left_op, right_op, m, n, k, kind.one, *left, *right, beta, *result)

    @property
    def _gemm_ex(self) -> Callable[..., None]:
        """CuBLAS's product for this thread; CuPy's cannot be recorded."""
        own = getattr(self._products, "gemm_ex", None)
        return own or partial(self._cublas.gemmEx, self.xp.cuda.get_cublas_handle())

    @contextmanager
    def _multiply_by(self, gemm_ex: Callable[..., None]) -> Iterator[None]:
        self._products.gemm_ex = gemm_ex
        try:
            yield
        finally:
            self._products.gemm_ex = None

    def compiled_kernels(self) -> type[Kernels]:
        require_capability(self.name, self._device.compute_capability)
        from backends.cuda.kernels import CompiledKernels

        return CompiledKernels

    def graph(self, step: Work, state: Sequence[Array] = ()) -> Work:
        """A CUDA graph of ``step``; see :class:`backends.graph.CapturedStep`."""
        return CapturedStep(self, Capture(self, self._multiply_by), step, state)

    def upload(self, *targets: Array) -> Upload:
        return PinnedUpload(self, *targets)

    def has_room(self, nbytes: int) -> bool:
        """True for up to half of the free memory; activations and CuPy's temporary arrays need the rest."""
        with self.active():
            pool = self.xp.get_default_memory_pool()
            free = self._device.mem_info[0] + pool.free_bytes()
            if limit := pool.get_limit():  # CUPY_GPU_MEMORY_LIMIT
                free = min(free, limit - pool.used_bytes())
        return nbytes <= free // 2

    def take(self, array: Array, indices: Array, out: Array) -> Array:
        with self.active():
            return self.xp.take(array, indices, axis=0, out=out)

    def workspace(self, nbytes: int) -> Array:
        with self.active():
            return super().workspace(nbytes)

    def active(self) -> AbstractContextManager[object]:
        return self._active

    def synchronize(self) -> None:
        with self.active(), recording_alone:
            self._device.synchronize()

    def timer(self) -> Timer:
        return CudaTimer(self)

    def memory(self) -> dict[str, int]:
        """Bytes ``used`` by all memory pools of this process, ``free`` for all processes, and ``total``."""
        with self.active():
            used = sum(pool.total_bytes() for pool in (self.xp.get_default_memory_pool(), *pools()))
            free, total = self._device.mem_info
            return {"used": used, "free": free, "total": total}

    def describe(self) -> dict[str, Any]:
        runtime = self.xp.cuda.runtime
        with self.active():
            cublas = self._cublas.getVersion(self.xp.cuda.get_cublas_handle())
        return {
            "device": self.name,
            "gpu": runtime.getDeviceProperties(self.index)["name"].decode(),
            "compute_capability": readable_capability(self._device.compute_capability),
            "driver": f"CUDA {readable_version(runtime.driverGetVersion())}",
            "runtime": f"CUDA {readable_version(runtime.runtimeGetVersion())}",
            "cublas": f"{cublas // 10000}.{cublas // 100 % 100}.{cublas % 100}",
            "tf32": self._tf32,
            "kernels": self.kernels.name,
            **({"slower_than_it_could": self.slower} if self.slower else {}),
            "cupy": self.xp.__version__,
            "numpy": np.__version__,
        }


class _Active:
    """Makes a device current, and converts CuPy's errors to those of the contract.

    It is reentrant and can be used by several threads; CuPy stores the previous device of each.
    """

    def __init__(self, name: str, device: Any) -> None:
        self._name = name
        self._device = device

    def __enter__(self) -> None:
        _require_own_process(self._name)
        try:
            self._device.__enter__()
        except Exception as error:
            self._tell(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._device.__exit__(kind, error, traceback)
        except Exception as later:  # leaving a lost device fails too; the first error is raised
            if error is None:
                self._tell(later)
                raise
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        told = trouble(self._name, error, self._free)
        if told is not None:
            raise told from error

    def _free(self) -> int | None:
        try:
            return int(self._device.mem_info[0])
        except Exception:  # it may be lost too
            return None


class CudaTimer(Timer):
    """The time between two events, each on its current stream."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend

    def __enter__(self) -> "CudaTimer":
        self._start = self._end = self._event()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end = self._event()

    @property
    def seconds(self) -> float:
        with self._backend.active():
            self._end.synchronize()
            return self._backend.xp.cuda.get_elapsed_time(self._start, self._end) / 1000

    def _event(self) -> Any:
        with self._backend.active():
            event = self._backend.xp.cuda.Event()
            event.record()
        return event


def count() -> int:
    """The number of CUDA devices; raises DeviceUnavailable if there are none."""
    return _start(import_cupy())


def _holder(array: Any) -> str | None:
    """The GPU that an array is on; CuPy is not imported for it."""
    return f"cuda:{array.device.id}" if type(array).__module__.split(".")[0] == "cupy" else None


CUDA = Kind(
    names=lambda: [f"cuda:{index}" for index in range(count())],
    make=lambda name, kernels, tf32: CudaBackend(int(name.split(":")[1]), kernels, tf32),
    holder=_holder,
)


_process: int | None = None  # the process in which CUDA was started


def _start(cupy: ModuleType) -> int:
    """The number of CUDA devices; from now on forked processes cannot use CUDA."""
    global _process
    _require_own_process("CUDA")
    devices = count_devices(cupy)
    _process = os.getpid()
    return devices


def _require_own_process(name: str) -> None:
    """Raise DeviceUnavailable if this process was forked after CUDA had been started."""
    if _process not in (None, os.getpid()):
        raise DeviceUnavailable(
            f"{name} was in use when this process was forked, and CUDA does not work after a fork: start it "
            'with multiprocessing.get_context("spawn"), or use CUDA only after the fork'
        )


def blas_layout(shape: tuple[int, int], strides: tuple[int, int], itemsize: int) -> tuple[bool, int] | None:
    """How BLAS can read a matrix in place, or None if it cannot.

    (False, leading) means contiguous rows with a stride of ``leading``; (True, leading) means contiguous
    columns. The stride of an axis of length 1 is ignored.
    """
    for by_columns in (False, True):
        lines, length = shape[::-1] if by_columns else shape
        line_stride, stride = strides[::-1] if by_columns else strides
        leading, rest = (max(1, length), 0) if lines == 1 else divmod(line_stride, itemsize)
        if (length == 1 or stride == itemsize) and rest == 0 and leading >= max(1, length):
            return by_columns, leading
    return None


class _GemmType(NamedTuple):
    """CuBLAS's parameters for a dtype: CUDA's numbers for it, and the addresses of 0 and 1 on the host."""

    data: int
    compute: int
    zero: int
    one: int


_CONSTANTS = (np.array([0, 1], np.float32), np.array([0, 1], np.float64))  # cuBLAS reads them here
BFLOAT16_CAPABILITY = 80  # from Ampere on; earlier GPUs multiply copies in float32
_PROBED = [[20.0, 56.0], [56.0, 200.0]]


def _gemm_types(cublas: Any, tf32: bool, capability: int) -> dict[str, _GemmType]:
    """CuBLAS's parameters by the names of dtypes; 16-bit products are summed in float32."""
    single, double = ((array.ctypes.data, array.ctypes.data + array.itemsize) for array in _CONSTANTS)
    full = cublas.CUBLAS_COMPUTE_32F
    types = {
        "float32": _GemmType(0, cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else full, *single),  # CUDA_R_32F
        "float64": _GemmType(1, cublas.CUBLAS_COMPUTE_64F, *double),  # CUDA_R_64F
        "float16": _GemmType(2, full, *single),  # CUDA_R_16F
    }
    if capability >= BFLOAT16_CAPABILITY:
        types["bfloat16"] = _GemmType(14, full, *single)  # CUDA_R_16BF
    return types
