"""Arrays made once and used again: what keeps a steady step free of allocation."""

from typing import Any

from backends import Backend
from backends.buffer import Array, Buffer, Shape

__all__ = ["Array", "Buffers", "Scratch", "Shape"]


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
