"""What the compiled kernels of every concept need to launch loops: scratch vectors and stand-ins."""

from functools import lru_cache
from typing import Any

import numpy as np

from backends.cpu.compiled import functions, pooling
from backends.cpu.compiled.jit import Kernel
from backends.kernels.base import KernelSet
from backends.kernels.covering import FLOATS
from backends.kernels.functions import RELU, Function
from backends.kernels.window import Window
from backends.memory import Array, Shape

BYTES, INDICES, FLOAT64 = np.dtype(np.uint8), np.dtype(np.intp), np.dtype(np.float64)
NO_BYTES, NO_INDICES = np.zeros(1, dtype=BYTES), np.zeros(1, dtype=INDICES)
NOTHING = {dtype: np.zeros(1, dtype=dtype) for dtype in FLOATS}


class Launching(KernelSet):
    """Kernels that need scratch vectors."""

    def _vectors(self, dtype: Any, *sizes: int, name: str = "workspace") -> list[Array]:
        """Vectors of these sizes in the scratch ``name``, each on a 64-byte boundary."""
        unit = 64 // dtype.itemsize
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // unit) * unit)
        scratch = self.device.scratch(name, starts[-1] * dtype.itemsize).view(dtype)
        return [scratch[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def or_nothing(array: Array | None, like: Array) -> Array:
    """``array``, or something to point to if there is none."""
    return NOTHING[like.dtype] if array is None else array


@lru_cache(maxsize=256)
def floats(dtype: Any, *values: float) -> Array:
    """A vector of these numbers, which no kernel changes."""
    return np.array(values, dtype=dtype)


def function_of(
    formula: Function | None, dtype: Any, kernels: dict[str, Kernel] = functions.VALUES
) -> tuple[int, Array]:
    """The address of a kernel of a function, or what stands for it, and the function's constants."""
    if formula is None:
        return functions.NO_FUNCTION, NOTHING[dtype]
    if formula == RELU:
        return functions.RECTIFY, NOTHING[dtype]
    return kernels[formula.name].address(dtype), floats(dtype, formula.a, formula.b)


@lru_cache(maxsize=256)
def pool_sizes(window: Window, y_shape: Shape) -> Array:
    """The sizes of a pooling window and of its output, in the order of :class:`pooling.Pool`."""
    _, PH, PW, _ = y_shape
    sizes = pooling.Pool(PH, PW, *window.size, *window.stride, *window.padding, *window.dilation)
    return np.array(sizes, dtype=np.intp)
