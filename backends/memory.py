"""Memory of a device: arrays that are made once and used again."""

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from backends.backend import Backend

Array = Any  # numpy.ndarray, cupy.ndarray, or whatever a further backend computes with
Shape = tuple[int, ...]


class Buffer:
    """One allocation on a device that only grows, seen through front views of any smaller shape."""

    allocations = 0  # of all buffers: while it stays the same, every view of them stays what it is

    def __init__(self, backend: "Backend", dtype: Any) -> None:
        self.backend = backend
        self.dtype = dtype
        self._storage: Array = None
        self._owner: Array = None  # of its memory: the base of all views
        self._view: Array = None

    def view(self, shape: Shape) -> Array:
        """The first ``prod(shape)`` numbers in that shape, with whatever values were there."""
        if self._view is None or self._view.shape != shape:
            size = prod(shape)
            if self._storage is None or self._storage.size < size:
                self._storage = self._view = None  # freed before its successor is made
                Buffer.allocations += 1
                self._storage = self.backend.empty(size, self.dtype)
                self._owner = self._storage if self._storage.base is None else self._storage.base
            self._view = self._storage[:size].reshape(shape)
        return self._view

    def holds(self, array: Array) -> bool:
        """Whether ``array`` is a view of this buffer."""
        return self._storage is not None and array.base is self._owner


class Buffers:
    """Buffers by name; each keeps the dtype it was first asked for."""

    def __init__(self, backend: "Backend", dtype: Any) -> None:
        self.backend = backend
        self.dtype = dtype
        self._buffers: dict[str, Buffer] = {}

    def view(self, name: str, shape: Shape, dtype: Any = None) -> Array:
        """A front view of the buffer ``name``."""
        buffer = self._buffers.get(name)
        if buffer is None:
            buffer = self._buffers[name] = Buffer(self.backend, dtype or self.dtype)
        return buffer.view(shape)


class Scratch:
    """Two buffers that a network's layers pass between them, for what nobody needs to keep."""

    def __init__(self, backend: "Backend", dtype: Any) -> None:
        self._pair = Buffer(backend, dtype), Buffer(backend, dtype)

    def beside(self, array: Array, shape: Shape) -> Array:
        """Room for ``shape`` in the buffer that ``array`` does not lie in."""
        first, second = self._pair
        return second.view(shape) if first.holds(array) else first.view(shape)


def carve(backend: "Backend", *parts: tuple[Shape, Any]) -> list[Array]:
    """Arrays of these (shape, dtype), side by side in the backend's workspace."""
    sizes = [prod(shape) * backend.xp.dtype(dtype).itemsize for shape, dtype in parts]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 256) * 256)
    workspace = backend.workspace(starts[-1])
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

    def __init__(self, backend: "Backend", *targets: Array) -> None:
        self.backend = backend
        self.targets = targets
        self.host: list[Any] = [np.zeros(target.shape, target.dtype) for target in targets]

    def release(self) -> None:
        """Let the next copy begin when all that is queued by now is done."""

    def claim(self) -> None:
        """Wait until the host's arrays may be written again."""

    def send(self) -> None:
        """Copy the host's arrays to the targets."""
        for host, target in zip(self.host, self.targets, strict=True):
            self.backend.asarray(host, out=target)

    def arrive(self) -> None:
        """Let work that is queued from now on find there what was sent."""
