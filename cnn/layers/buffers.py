"""Arrays made once and used again: what keeps a steady step free of allocation."""

from math import prod
from typing import Any

from backends import Backend

Array = Any
Shape = tuple[int, ...]


class Buffer:
    """One allocation that only grows, seen through front views of any smaller shape."""

    def __init__(self, backend: Backend, dtype: Any) -> None:
        self.backend = backend
        self.dtype = dtype
        self._storage: Array = None
        self._view: Array = None

    def view(self, shape: Shape) -> Array:
        """The first ``prod(shape)`` numbers as an array of that shape."""
        if self._view is None or self._view.shape != shape:
            size = prod(shape)
            if self._storage is None or self._storage.size < size:
                self._storage = self._view = None  # freed before its successor is made
                with self.backend.active():
                    self._storage = self.backend.xp.empty(size, dtype=self.dtype)
            self._view = self._storage[:size].reshape(shape)
        return self._view

    def holds(self, array: Array) -> bool:
        """Whether ``array`` is a view of this buffer."""
        return self._storage is not None and array.base is self._storage


class Buffers:
    """Buffers by name; each keeps the dtype it was first asked for."""

    def __init__(self, backend: Backend, dtype: Any) -> None:
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

    def __init__(self, backend: Backend, dtype: Any) -> None:
        self._pair = Buffer(backend, dtype), Buffer(backend, dtype)

    def beside(self, array: Array, shape: Shape) -> Array:
        """Room for ``shape`` in the buffer that ``array`` does not lie in."""
        first, second = self._pair
        return second.view(shape) if first.holds(array) else first.view(shape)
