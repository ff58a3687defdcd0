"""CuPy and cupyx.scipy.signal on an NVIDIA GPU.

Nothing here imports CuPy before a backend is made; what keeps one from being made is told apart at
the end of this file.
"""

import ctypes
import os
import re
import sys
from contextlib import AbstractContextManager
from importlib import metadata
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from backends.backend import Array, Backend, Timer
from backends.errors import ArgumentError, DeviceUnavailable


class CudaBackend(Backend):
    """The GPU number ``index``, as CUDA counts them; work goes to the current CuPy stream.

    Raises DeviceUnavailable unless a small kernel and a small product come out right on it.
    """

    column_bytes = 256 << 20  # few, large products: there is no cache to stay in

    def __init__(self, index: int = 0, kernels: str = "auto") -> None:
        name = f"cuda:{index}"
        self.xp = cupy = _import_cupy()
        devices = _count(cupy)
        if index >= devices:
            raise DeviceUnavailable(f"{name} does not exist: this machine has {_listed(devices)}")
        self.index = index
        self._device = cupy.cuda.Device(index)
        try:
            self._cublas = cupy.cuda.cublas
            self._tf32 = int(os.environ.get("CUPY_TF32", "0")) > 0  # CuPy's own switch, for its products
            self._gemm_types = _gemm_types(self._cublas, self._tf32)
            product = self._probe()
        except Exception as error:
            raise DeviceUnavailable(_failure(name, error)) from error
        if product != _PROBED:
            raise DeviceUnavailable(
                f"{name} computes wrongly, a small product gave {product} and not {_PROBED}: "
                "check the GPU with nvidia-smi"
            )
        super().__init__(name, kernels)

    def _probe(self) -> list[list[float]]:
        with self.active():
            x = self.xp.arange(6, dtype=np.float32).reshape(2, 3)
            x = x + x
            return self.xp.asnumpy(self.matmul(x, x.T, self.xp.empty((2, 2), np.float32))).tolist()

    @property
    def signal(self) -> ModuleType:
        try:
            import cupyx.scipy.signal
        except Exception as error:
            raise DeviceUnavailable(_failure(self.name, error)) from error
        return cupyx.scipy.signal

    def asarray(self, host: Any, dtype: Any = None, out: Array | None = None) -> Array:
        """As the contract says; a copy from pinned memory may still be under way on return."""
        with self.active():
            if isinstance(host, self.xp.ndarray):  # already on a GPU; comes over from another one
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
            return self.xp.asnumpy(array)

    def owns(self, array: object) -> bool:
        return isinstance(array, self.xp.ndarray) and array.device.id == self.index

    def zeros(self, size: int, dtype: Any) -> Array:
        with self.active():
            return self.xp.zeros(size, dtype=dtype)  # CuPy's allocations are aligned to 512 bytes

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> Array:
        """One cuBLAS call, without copies, for float32 and float64 matrices with one contiguous axis."""
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or out.shape != (len(a), b.shape[1]):
            raise ArgumentError(
                f"matmul of {a.shape} and {b.shape} into {out.shape}: expected (m, k) and (k, n) into (m, n)"
            )
        with self.active():
            layouts = [blas_layout(array.shape, array.strides, array.itemsize) for array in (a, b, out)]
            if 0 in (out.size, a.size):  # cuBLAS takes no empty matrices
                if not accumulate:
                    out.fill(0)
            elif a.dtype == b.dtype == out.dtype and out.dtype in self._gemm_types and None not in layouts:
                self._gemm(a, b, out, layouts, accumulate)
            elif accumulate:
                self.xp.add(out, self.xp.matmul(a, b), out=out)
            else:
                self.xp.matmul(a, b, out=out)
        return out

    def _gemm(self, a: Array, b: Array, out: Array, layouts: list[Any], accumulate: bool) -> None:
        """``out`` = a @ b + accumulate * out; BLAS reads contiguous rows as columns of the transpose."""
        (a_by_columns, lda), (b_by_columns, ldb), (out_by_columns, ldc) = layouts
        kind = self._gemm_types[out.dtype]
        (m, k), n = a.shape, b.shape[1]
        operands = [
            (int(a_by_columns != out_by_columns), (a.data.ptr, kind.data, lda)),
            (int(b_by_columns != out_by_columns), (b.data.ptr, kind.data, ldb)),
        ]
        if not out_by_columns:  # out.T = b.T @ a.T
            operands.reverse()
            m, n = n, m
        (left_op, left), (right_op, right) = operands
        handle = self.xp.cuda.get_cublas_handle()  # this thread's, on the current device
        beta = kind.one if accumulate else kind.zero
        result = (out.data.ptr, kind.data, ldc, kind.compute, self._cublas.CUBLAS_GEMM_DEFAULT)
        self._cublas.gemmEx(handle, left_op, right_op, m, n, k, kind.one, *left, *right, beta, *result)

    def take(self, array: Array, indices: Array, out: Array) -> Array:
        with self.active():
            return self.xp.take(array, indices, axis=0, out=out)

    def workspace(self, nbytes: int) -> Array:
        with self.active():
            return super().workspace(nbytes)

    def active(self) -> AbstractContextManager[object]:
        return self._device  # it may be entered again, and from several threads

    def synchronize(self) -> None:
        self._device.synchronize()

    def timer(self) -> Timer:
        return CudaTimer(self)

    def memory(self) -> dict[str, int]:
        """Bytes ``used`` by CuPy's memory pool, ``free`` for everyone, and ``total`` on the device."""
        with self.active():
            free, total = self._device.mem_info
            return {"used": self.xp.get_default_memory_pool().total_bytes(), "free": free, "total": total}

    def describe(self) -> dict[str, Any]:
        runtime = self.xp.cuda.runtime
        capability = self._device.compute_capability
        with self.active():
            cublas = self._cublas.getVersion(self.xp.cuda.get_cublas_handle())
        return {
            "device": self.name,
            "gpu": runtime.getDeviceProperties(self.index)["name"].decode(),
            "compute_capability": f"{capability[:-1]}.{capability[-1]}",
            "driver": f"CUDA {_version(runtime.driverGetVersion())}",
            "runtime": f"CUDA {_version(runtime.runtimeGetVersion())}",
            "cublas": f"{cublas // 10000}.{cublas // 100 % 100}.{cublas % 100}",
            "tf32": self._tf32,
            "kernels": self.kernels.name,
            "cupy": self.xp.__version__,
            "numpy": np.__version__,
        }


class CudaTimer(Timer):
    """The time between two events on the stream that is current at each."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend

    def __enter__(self) -> "CudaTimer":
        self._start = self._end = self._event()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end = self._event()

    @property
    def seconds(self) -> float:
        self._end.synchronize()
        return self._backend.xp.cuda.get_elapsed_time(self._start, self._end) / 1000

    def _event(self) -> Any:
        with self._backend.active():
            event = self._backend.xp.cuda.Event()
            event.record()
        return event


def count() -> int:
    """How many CUDA devices there are, at least one; raises DeviceUnavailable where there is none."""
    return _count(_import_cupy())


def blas_layout(shape: tuple[int, int], strides: tuple[int, int], itemsize: int) -> tuple[bool, int] | None:
    """How BLAS can read a matrix where it lies, or None where it cannot.

    (False, leading) means contiguous rows, one every ``leading`` numbers; (True, leading) contiguous
    columns. An axis of length 1 is never stepped along, so its stride may be anything.
    """
    for by_columns in (False, True):
        lines, length = shape[::-1] if by_columns else shape
        line_stride, stride = strides[::-1] if by_columns else strides
        leading, rest = (max(1, length), 0) if lines == 1 else divmod(line_stride, itemsize)
        if (length == 1 or stride == itemsize) and rest == 0 and leading >= max(1, length):
            return by_columns, leading
    return None


class _GemmType(NamedTuple):
    """What cuBLAS is told of a dtype: CUDA's numbers for it, and where 0 and 1 lie on the host."""

    data: int
    compute: int
    zero: int
    one: int


_CONSTANTS = (np.array([0, 1], np.float32), np.array([0, 1], np.float64))  # cuBLAS reads them here
_PROBED = [[20.0, 56.0], [56.0, 200.0]]


def _gemm_types(cublas: Any, tf32: bool) -> dict[Any, _GemmType]:
    single = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else cublas.CUBLAS_COMPUTE_32F
    numbers = {np.float32: (0, single), np.float64: (1, cublas.CUBLAS_COMPUTE_64F)}  # CUDA_R_32F, CUDA_R_64F
    return {
        constants.dtype: _GemmType(*numbers[constants.dtype.type], address, address + constants.itemsize)
        for constants, address in ((array, array.ctypes.data) for array in _CONSTANTS)
    }


def _version(number: int) -> str:
    """12090 -> "12.9"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _import_cupy() -> ModuleType:
    packages = _cupy_packages()
    if len(packages) > 1:  # asked before the import: their files lie on top of each other
        raise DeviceUnavailable(
            f"several CuPy packages are installed, {' and '.join(packages)}, and overwrite each other: "
            f"run pip uninstall -y {' '.join(packages)}, then {_install_command()}"
        )
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy" or packages:
            raise DeviceUnavailable(_broken(packages, error)) from error
        if _driver_version():
            raise DeviceUnavailable(f"CuPy is not installed: run {_install_command()}") from error
        raise DeviceUnavailable(
            "CuPy is not installed, and no NVIDIA driver was found: where there is an NVIDIA GPU, "
            f"install its driver, then run {_install_command()}"
        ) from error
    except Exception as error:
        raise DeviceUnavailable(_broken(packages, error)) from error
    return cupy


def _count(cupy: ModuleType) -> int:
    try:
        devices = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        if "cudaErrorInsufficientDriver" in str(error):
            raise DeviceUnavailable(_driver_trouble(cupy)) from error
        if "cudaErrorNoDevice" not in str(error):
            raise DeviceUnavailable(
                f"CUDA does not start ({_summary(error)}): check the NVIDIA driver with nvidia-smi"
            ) from error
        devices = 0
    if devices == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            raise DeviceUnavailable(
                f"no CUDA device is visible, CUDA_VISIBLE_DEVICES is {visible!r}: "
                "run unset CUDA_VISIBLE_DEVICES, and check with nvidia-smi"
            )
        raise DeviceUnavailable("the NVIDIA driver finds no GPU: check with nvidia-smi")
    return devices


def _listed(devices: int) -> str:
    names = [f"cuda:{index}" for index in range(devices)]
    if devices == 1:
        return "1 CUDA device, cuda:0"
    return f"{devices} CUDA devices, {', '.join(names[:-1])} and {names[-1]}"


def _driver_trouble(cupy: ModuleType) -> str:
    driver = _driver_version()
    if not driver:
        return "no NVIDIA driver was found: install it, and check with nvidia-smi"
    needed = cupy.cuda.runtime.runtimeGetVersion() // 1000
    message = (
        f"the NVIDIA driver is too old, it supports CUDA {_version(driver)} and CuPy needs CUDA {needed}: "
        "update the driver, and check with nvidia-smi"
    )
    packages = _cupy_packages()
    if driver >= 12000 and packages:
        message += f"; or run pip uninstall -y {' '.join(packages)}, then {_install_command()}"
    return message


def _failure(name: str, error: Exception) -> str:
    """What went wrong at the first kernel, the first product or a late import, and what mends it."""
    text = str(error)
    unloaded = any(kind.__name__ == "DynamicLibNotFoundError" for kind in type(error).__mro__)
    if unloaded or isinstance(error, ImportError) or "CUDA headers" in text:
        missing = re.split(r": |\. |\n", text)[0]  # the name; the rest is a list of places
        return f"{name} lacks a part of the CUDA toolkit ({missing}): {_toolkit_mend()}"
    return f"{name} failed a small computation ({_summary(error)}): check the GPU with nvidia-smi"


def _broken(packages: list[str], error: Exception) -> str:
    package = packages[0] if packages else "cupy"
    wanted = package if package == "cupy" else f'"{package}[ctk]"'
    return (
        f"{package} is installed but cannot be imported ({_summary(error)}): "
        f"run pip install --force-reinstall {wanted}"
    )


def _toolkit_mend() -> str:
    for package in _cupy_packages():
        if package != "cupy":
            return f'run pip install "{package}[ctk]"'
    return "install the CUDA toolkit that this CuPy was built with"  # from conda or from source


def _summary(error: BaseException) -> str:
    """The error in one line; CuPy's import wraps the one that it met in a long notice."""
    if isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    first, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first}"


def _install_command() -> str:
    """The pip command that brings the CuPy for this machine's driver."""
    driver = _driver_version()
    if driver:
        return f'pip install "xpcnn[cuda{13 if driver >= 13000 else 12}]"'
    return 'pip install "xpcnn[cuda12]", or pip install "xpcnn[cuda13]" where nvidia-smi shows CUDA 13'


def _cupy_packages() -> list[str]:
    """The installed distributions that bring a package called cupy."""
    names = {str(found.name).lower().replace("_", "-") for found in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(r"cupy(-(cuda|rocm)[\w-]+)?", name))


def _driver_version() -> int:
    """The CUDA version that the NVIDIA driver supports, as 12090 for 12.9; 0 where there is no driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value
