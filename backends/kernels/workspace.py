"""Arrays for the length of a call."""

from math import prod
from typing import TYPE_CHECKING, Any

from backends.buffer import Array, Shape

if TYPE_CHECKING:
    from backends.backend import Backend


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
