"""Which arrays a compiled kernel supports; others fall back to the portable kernel."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import numpy as np

from backends.kernels.portable import PortableKernels

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def covers(kernels: Any, arrays: Iterable[Any], integers: Any = None) -> bool:
    """Whether a compiled kernel supports the arrays.

    They must be contiguous, of one dtype, float32 or float64, and no larger than the set's ``largest``.
    Arrays that hold no floats must have the dtype ``integers``: bytes or indices.
    """
    arrays = list(arrays)
    floats = {array.dtype for array in arrays if array.dtype.kind == "f"}
    others = {array.dtype for array in arrays if array.dtype.kind != "f"}
    plain = all(array.flags.c_contiguous and array.size <= kernels.largest for array in arrays)
    return plain and len(floats) == 1 and floats <= FLOATS and others <= {integers}


def covering(integers: Any = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a kernel fall back to the portable one for arrays that it does not support."""

    def decorate(method: Callable[..., None]) -> Callable[..., None]:
        @wraps(method)
        def covered(self: Any, *arguments: Any, **named: Any) -> None:
            kind = self.device.xp.ndarray
            arrays = (value for value in (*arguments, *named.values()) if isinstance(value, kind))
            if covers(self, arrays, integers):
                method(self, *arguments, **named)
            else:
                getattr(PortableKernels, method.__name__)(self, *arguments, **named)

        return covered

    return decorate
