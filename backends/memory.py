"""Arrays on a device: how they are made and filled, and how memory is allocated once and used again."""

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from backends.errors import ArgumentError

Array = Any  # numpy.ndarray, cupy.ndarray, or whatever a further backend computes with
Shape = tuple[int, ...]


class Device(ABC):
    """The arrays of one device, and its memory. A :class:`Backend` is a device with kernels.

    Arrays of different devices never mix. Data enters a device in :meth:`asarray` and leaves it in
    :meth:`to_host`; ``crossings`` counts both.
    """

    name: str
    xp: ModuleType
    """The array module: numpy or cupy."""
    column_bytes: int
    """The size of a block of convolution columns that stays in fast memory."""
    has_halves = False
    """Whether it computes with 16-bit numbers, bfloat16 and float16."""

    def __init__(self) -> None:
        self.crossings = 0
        self.allocations = 0  # in place of others; while it stays the same, views of buffers stay valid
        self._thread = threading.local()

    @property
    @abstractmethod
    def signal(self) -> ModuleType:
        """``scipy.signal`` or its counterpart, imported when it is first used."""

    @property
    @abstractmethod
    def special(self) -> ModuleType:
        """``scipy.special`` or its counterpart, imported when it is first used."""

    @abstractmethod
    def asarray(self, host: Any, dtype: Any = None, out: Array | None = None) -> Array:
        """Copy host data to the device, as ``dtype`` or into ``out``.

        An array that is on this device already is not copied unless its dtype changes, so the result may
        share its memory: an array of NumPy (CPU) or CuPy (GPU), or of a library with ``__dlpack__`` or
        ``__cuda_array_interface__``, such as PyTorch or JAX. Raises ArgumentError for a tensor that requires
        grad, for a dtype that NumPy does not have, such as bfloat16, and for a device that cannot be used.
        """

    @abstractmethod
    def to_host(self, array: Array) -> Any:
        """A numpy copy of a device array that the caller owns; waits for the device."""

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Whether ``array`` is on this device."""

    @abstractmethod
    def zeros(self, size: int, dtype: Any) -> Array:
        """A vector of zeros that starts on a 256-byte boundary."""

    def empty(self, size: int, dtype: Any) -> Array:
        """A vector with arbitrary contents that is aligned to the processor's vectors."""
        with self.active():
            return self.xp.empty(size, dtype=dtype)

    @abstractmethod
    def address(self, array: Array) -> int:
        """Where in memory ``array`` begins."""

    @abstractmethod
    def take(self, array: Array, indices: Array, out: Array) -> Array:
        """``out`` = the rows ``array[indices]``; the caller has checked the indices."""

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> Array:
        """``out = a @ b`` or ``out += a @ b`` by BLAS; transposed views are not copied.

        16-bit matrices are summed in float32, and ``out`` may be float32.
        """

    @abstractmethod
    def active(self) -> AbstractContextManager[object]:
        """``with device.active():`` makes this the device that ``xp`` computes on.

        An error that leaves the block becomes OutOfMemory if a GPU's memory is full, and DeviceLost if the
        GPU has failed.
        """

    def workspace(self, nbytes: int) -> Array:
        """Scratch bytes that all functions on this thread share; valid until the next call."""
        return self.scratch("workspace", nbytes)

    def scratch(self, name: str, nbytes: int) -> Array:
        """Bytes that this thread keeps under a name; they only grow."""
        buffer = getattr(self._thread, name, None)
        if buffer is None:
            buffer = Buffer(self, self.xp.uint8)
            setattr(self._thread, name, buffer)
        return buffer.view((nbytes,))

    def upload(self, *targets: Array) -> "Upload":
        """Host memory from which these arrays are filled, again and again."""
        return Upload(self, *targets)


class Buffer:
    """One allocation on a device that only grows, seen through front views of any smaller shape."""

    def __init__(self, device: Device, dtype: Any) -> None:
        self.device = device
        self.dtype = dtype
        self._storage: Array = None
        self._view: Array = None

    def view(self, shape: Shape) -> Array:
        """The first ``prod(shape)`` numbers in that shape, with whatever values were there."""
        if self._view is None or self._view.shape != shape:
            size = prod(shape)
            if self._storage is None or self._storage.size < size:
                self.release()  # before its successor is made
                self._storage = self.device.empty(size, self.dtype)
            self._view = self._storage[:size].reshape(shape)
        return self._view

    def release(self) -> None:
        """Free the memory; the next view allocates it again."""
        if self._storage is not None and self._storage.size:  # else nothing has moved
            self.device.allocations += 1
        self._storage = self._view = None


class Buffers:
    """Buffers by name and dtype."""

    def __init__(self, device: Device, dtype: Any) -> None:
        self.device = device
        self.dtype = dtype
        self._buffers: dict[tuple[str, Any], Buffer] = {}

    def view(self, name: str, shape: Shape, dtype: Any = None) -> Array:
        """A front view of the buffer ``name``, of the dtype of all if none is given."""
        buffer = self._buffers.get((name, dtype))
        if buffer is None:
            buffer = self._buffers[name, dtype] = Buffer(self.device, dtype or self.dtype)
        return buffer.view(shape)


def temporaries(device: Device, *parts: tuple[Shape, Any]) -> list[Array]:
    """Arrays of these (shape, dtype), next to each other in the device's workspace."""
    sizes = [prod(shape) * device.xp.dtype(dtype).itemsize for shape, dtype in parts]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 256) * 256)
    workspace = device.workspace(starts[-1])
    return [
        workspace[start : start + size].view(dtype).reshape(shape)
        for (shape, dtype), start, size in zip(parts, starts, sizes, strict=False)
    ]


class Upload:
    """``host`` has an array for each of ``targets`` on the device; :meth:`send` copies them.

    A device that can do so copies while it computes, so the order is: ``release`` once the work that still
    reads the targets has been queued, ``claim`` before the host's arrays are written, ``send``, and
    ``arrive`` before work that reads what was sent is queued. Here everything is done at once.
    """

    def __init__(self, device: Device, *targets: Array) -> None:
        self.device = device
        self.targets = targets
        self.host: list[Any] = [np.zeros(target.shape, target.dtype) for target in targets]

    def release(self) -> None:
        """Let the next copy begin when all that is queued by now is done."""

    def claim(self) -> None:
        """Wait until the host's arrays may be written again."""

    def send(self) -> None:
        """Copy the host's arrays to the targets."""
        for host, target in zip(self.host, self.targets, strict=True):
            self.device.asarray(host, out=target)

    def arrive(self) -> None:
        """Let work that is queued from now on find there what was sent."""


def require_product(a: Array, b: Array, out: Array) -> None:
    """Raise ArgumentError unless ``a @ b`` fits into ``out``."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or out.shape != (len(a), b.shape[1]):
        raise ArgumentError(
            f"matmul of {a.shape} and {b.shape} into {out.shape}: expected (m, k) and (k, n) into (m, n)"
        )
