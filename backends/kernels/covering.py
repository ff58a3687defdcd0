"""What a compiled kernel takes; the rest goes the portable way."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import numpy as np

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def covers(kernels: Any, arrays: Iterable[Any], integers: Any = None) -> bool:
    """Whether the arrays are what a compiled kernel takes.

    That is contiguous ones of one dtype, float32 or float64, no larger than the set's ``largest``;
    ``integers`` is the dtype of those that hold no floats: bytes or indices.
    """
    arrays = list(arrays)
    floats = {array.dtype for array in arrays if array.dtype.kind == "f"}
    others = {array.dtype for array in arrays if array.dtype.kind != "f"}
    plain = all(array.flags.c_contiguous and array.size <= kernels.largest for array in arrays)
    return plain and len(floats) == 1 and floats <= FLOATS and others <= {integers}


def covering(integers: Any = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a kernel set's method take the portable way for arrays that its kernel does not cover."""

    def decorate(method: Callable[..., None]) -> Callable[..., None]:
        @wraps(method)
        def covered(self: Any, *arguments: Any, **named: Any) -> None:
            kind = self.backend.xp.ndarray
            arrays = (value for value in (*arguments, *named.values()) if isinstance(value, kind))
            if covers(self, arrays, integers):
                method(self, *arguments, **named)
            else:
                getattr(self.portable(), method.__name__)(*arguments, **named)

        return covered

    return decorate
