"""The stand-in device behind the contract of a backend."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from backends import interoperability
from backends.backend import Backend, Timer
from backends.cpu.backend import CpuTimer
from backends.errors import DeviceLost
from backends.graph import CapturedStep, CaptureError, Work
from backends.kernels import Kernels
from helpers.standin.arrays import Array, host_of
from helpers.standin.modules import signal, special, xp
from helpers.standin.work import Tape, counters, do, refuse_while_recording


class StandInBackend(Backend):
    """The stand-in device. Counts are of the device: all its backend objects share them but ``crossings``."""

    xp = xp
    has_halves = True

    def __init__(self, kernels: str = "portable", column_bytes: int = 1 << 20) -> None:
        self.column_bytes = column_bytes
        self.room = 1 << 34  # for a data set
        self.crossed: list[int] = []  # the bytes of each crossing
        super().__init__("standin:0", kernels)

    @property
    def synchronizations(self) -> int:
        """How often the host waited for the device outside of ``to_host``."""
        return counters.synchronizations

    @property
    def allocated_bytes(self) -> int:
        """Bytes of every array that got memory of its own, hidden copies included."""
        return counters.allocated_bytes

    @property
    def largest_allocation(self) -> int:
        """The largest of them."""
        return counters.largest_allocation

    @property
    def elsewhere(self) -> int:
        """How often it was asked for something when it was not the active device."""
        return counters.elsewhere

    def reset_counters(self) -> None:
        counters.reset()
        self.crossings = 0
        self.crossed.clear()

    @property
    def signal(self) -> ModuleType:
        return signal

    @property
    def special(self) -> ModuleType:
        return special

    def asarray(self, host: Any, dtype: Any = None, out: Array | None = None) -> Array:
        host = host if isinstance(host, Array) else interoperability.as_array(host)
        if isinstance(host, Array):
            with self.active():
                if out is None:
                    return xp.asarray(host, dtype=dtype)
                xp.copyto(out, host)
                return out
        refuse_while_recording("a copy from the host")
        data = np.array(host, dtype=dtype, order="C")
        self._count_crossing(data)
        if out is None:
            with self.active():
                return Array(data)
        if host_of(out).shape != data.shape:
            raise ValueError(f"Shape mismatch: out has {out.shape}, the host data {data.shape}")
        out._host[...] = data
        return out

    def to_host(self, array: Array) -> np.ndarray:
        refuse_while_recording("a copy to the host")
        self._count_crossing(host_of(array))
        return np.array(host_of(array), order="C")

    def _count_crossing(self, data: np.ndarray) -> None:
        self.crossings += 1
        self.crossed.append(data.nbytes)

    def owns(self, array: object) -> bool:
        return isinstance(array, Array)

    def zeros(self, size: int, dtype: Any) -> Array:
        itemsize = np.dtype(dtype).itemsize
        room = np.zeros(size + 256 // itemsize, dtype=dtype)
        start = -room.ctypes.data % 256 // itemsize
        with self.active():
            return Array(room[start : start + size])

    def address(self, array: Array) -> int:
        return array.data.ptr

    def compiled_kernels(self) -> type[Kernels]:
        from backends.cuda.kernels import CompiledKernels

        return CompiledKernels

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> Array:
        matrices = host_of(a), host_of(b), host_of(out)
        if any(matrix.ndim != 2 for matrix in matrices):
            raise ValueError(f"matmul of shapes {a.shape}, {b.shape}, {out.shape}: expected matrices")
        halved = a.dtype.name in ("bfloat16", "float16")
        kinds = (a.dtype, np.float32) if halved else (a.dtype,)
        if (a.dtype.kind != "f" and not halved) or a.dtype != b.dtype or out.dtype not in kinds:
            raise TypeError(f"matmul of {a.dtype}, {b.dtype}, {out.dtype}: cuBLAS does not take these types")
        if out.shape != (a.shape[0], b.shape[1]):
            raise ValueError(f"Out shape is mismatched: out has {out.shape}, {a.shape} @ {b.shape} does not")
        if not all(_is_cublas_matrix(matrix) for matrix in matrices):
            raise ValueError("cuBLAS takes rows or columns that are contiguous and run forwards")
        if any(np.may_share_memory(out._host, matrix) for matrix in matrices[:2]):
            raise ValueError("cuBLAS cannot write into the memory that it reads")
        if halved:
            do(lambda: _multiply_halves(*matrices, accumulate))
        elif accumulate:
            do(lambda: np.add(out._host, np.matmul(a._host, b._host), out=out._host))
        else:
            do(lambda: np.matmul(a._host, b._host, out=out._host))
        return out

    def graph(self, step: Work, state: Sequence[Array] = ()) -> Work:
        return CapturedStep(self, self._capture, step, state)

    def _capture(self, step: Work) -> Work:
        step()
        step()
        tape = Tape()
        try:
            with tape.recording():
                step()
        except DeviceLost:
            raise
        except Exception as error:
            raise CaptureError(str(error)) from error
        return tape.launch

    def has_room(self, nbytes: int) -> bool:
        return nbytes <= self.room

    def take(self, array: Array, indices: Array, out: Array) -> Array:
        return xp.take(array, indices, axis=0, out=out)

    @contextmanager
    def active(self) -> Iterator[None]:
        counters.active += 1
        try:
            yield
        finally:
            counters.active -= 1

    def synchronize(self) -> None:
        refuse_while_recording("synchronizing")
        counters.synchronizations += 1

    def timer(self) -> Timer:
        return CpuTimer()

    def memory(self) -> dict[str, int]:
        return {"used": counters.live_bytes, "total": 1 << 34}

    def describe(self) -> dict[str, Any]:
        return {"device": self.name, "kernels": self.kernels.name, "numpy": np.__version__}


def _multiply_halves(a: np.ndarray, b: np.ndarray, out: np.ndarray, accumulate: bool) -> None:
    """The product of 16-bit matrices, which is summed in float32 and rounded once."""
    with np.errstate(all="ignore"):  # a device does not warn
        product = np.matmul(a.astype(np.float32), b.astype(np.float32))
        out[...] = product + out.astype(np.float32) if accumulate else product


def _is_cublas_matrix(matrix: np.ndarray) -> bool:
    """Whether a product can take the matrix as it lies, or transposed, without a copy."""
    steps = list(zip(matrix.shape, matrix.strides, strict=True))
    unit = any(length == 1 or stride == matrix.itemsize for length, stride in steps)
    return unit and all(length == 1 or stride > 0 for length, stride in steps)
