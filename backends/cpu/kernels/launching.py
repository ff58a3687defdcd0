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


def pool_function(dtype: Any, window: Window, x_shape: Shape, y_shape: Shape) -> int:
    """The address of the C function for a line of max pooling.

    It is 0 if the windows have 2x2 neighbouring numbers inside the input: they need no such function.
    """
    (_, H, W, N), (_, PH, PW, _) = x_shape, y_shape
    (stride_h, stride_w), plain = window.stride, window.padding == (0, 0) and window.dilation == (1, 1)
    inside = (PH - 1) * stride_h + 2 <= H and (PW - 1) * stride_w + 2 <= W
    has_quads = window.size == (2, 2) and plain and inside and N > 1
    return 0 if has_quads else pooling.pool_line.address(dtype)


def pool_grad_function(dtype: Any, window: Window, x_shape: Shape, y_shape: Shape) -> int:
    """The address of the C function for a line of the gradient of max pooling."""
    (_, _, W, N), PW = x_shape, y_shape[2]
    pairs = window.size[1] == window.stride[1] == 2 and window.padding[1] == 0 and window.dilation[1] == 1
    apart = window.stride[0] >= window.extent[0] and 2 * PW <= W and N > 1
    function = pooling.pool_grad_line_of_pairs if pairs and apart else pooling.pool_grad_line
    return function.address(dtype)
