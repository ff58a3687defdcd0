"""16-bit arrays in kernels that compute in float32.

The kernels in plain ``xp`` get copies in float32 of such arrays, and what they write is rounded once, when it
is copied back.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from backends import graph
from backends.dtypes import is_half
from backends.memory import Array

NATIVE = ("clear", "copy", "matmul")
"""Kernels that take 16-bit arrays as they are."""


def in_float32(kernel: Callable[..., None]) -> Callable[..., None]:
    """Let a kernel, a method of a kernel set, take 16-bit arrays."""

    @wraps(kernel)
    def called(self: Any, *arguments: Any, **named: Any) -> None:
        kind = self.device.xp.ndarray
        if any(isinstance(value, kind) and is_half(value) for value in (*arguments, *named.values())):
            graph.launch(_compute, kernel, self, arguments, named)
        else:
            kernel(self, *arguments, **named)

    return called


def _compute(
    kernel: Callable[..., None], kernels: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Call ``kernel`` with copies of 16-bit arrays; an array that is given twice has one copy."""
    xp = kernels.device.xp
    copies: dict[int, tuple[Array, Array]] = {}

    def copied(value: Any) -> Any:
        if not (isinstance(value, xp.ndarray) and is_half(value)):
            return value
        if id(value) not in copies:
            copy = kernels.scratch(f"float32 copy {len(copies)}", value.shape, xp.float32)
            copy[...] = value
            copies[id(value)] = value, copy
        return copies[id(value)][1]

    kernel(kernels, *map(copied, arguments), **{name: copied(value) for name, value in named.items()})
    for value, copy in copies.values():  # those that were only read keep their numbers
        value[...] = copy
