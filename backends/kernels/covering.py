"""Which arrays a compiled kernel supports; others fall back to the portable kernel."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from backends.dtypes import is_half
from backends.kernels.portable import PortableKernels

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def covers(
    kernels: Any, arrays: Iterable[Any], integers: Any = None, masters: Iterable[Any] | None = None
) -> bool:
    """Whether a compiled kernel supports the arrays.

    They must be contiguous, of one dtype, float32 or float64, and no larger than the set's ``largest``.
    Arrays that hold no floats must have the dtype ``integers``: bytes or indices.

    A kernel with ``masters`` also supports 16-bit arrays. These further arrays must then be float32, and
    otherwise of the same dtype as the others. None: the kernel does not support 16 bits.
    """
    arrays, more = list(arrays), list(masters or ())
    floats = {array.dtype for array in arrays if array.dtype.kind == "f" or is_half(array)}
    others = {array.dtype for array in arrays} - floats
    if masters is not None and any(map(is_half, arrays)):
        known = len(floats) == 1 and all(array.dtype == np.float32 for array in more)
    else:
        floats |= {array.dtype for array in more}
        known = len(floats) == 1 and floats <= FLOATS
    plain = all(array.flags.c_contiguous and array.size <= kernels.largest for array in arrays + more)
    return plain and known and others <= {integers}


def covering(
    integers: Any = None, masters: Sequence[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a kernel fall back to the portable one for arrays that it does not support.

    ``masters`` are the names of the arguments that are float32 in a mixed-precision network; None: the kernel
    does not support 16 bits.
    """

    def decorate(method: Callable[..., None]) -> Callable[..., None]:
        _, *names = inspect.signature(method).parameters

        @wraps(method)
        def covered(self: Any, *arguments: Any, **named: Any) -> None:
            kind = self.device.xp.ndarray
            given = (*zip(names, arguments, strict=False), *named.items())
            arrays = {name: value for name, value in given if isinstance(value, kind)}
            more = None if masters is None else [arrays.pop(name) for name in masters if name in arrays]
            if covers(self, arrays.values(), integers, more):
                method(self, *arguments, **named)
            else:
                getattr(PortableKernels, method.__name__)(self, *arguments, **named)

        return covered

    return decorate
