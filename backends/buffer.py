"""Arrays made once and used again."""

from math import prod
from typing import TYPE_CHECKING, Any

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
