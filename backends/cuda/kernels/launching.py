"""What the kernels of every concept need: a launcher, and constants that their sources share."""

from math import prod
from typing import Any

import numpy as np

from backends.cuda.launch import COUNTABLE, THREADS, Launcher, ceil_div
from backends.kernels.base import KernelSet
from backends.kernels.functions import FUNCTIONS, Function
from backends.kernels.window import Window
from backends.memory import Array, Device, Shape

BYTES, INDICES = np.dtype(np.uint8), np.dtype(np.int64)

WARPS = 2048  # enough to keep a large GPU busy; fixed, so that sums are split the same way on every GPU
WARP, GATHER_SIDE = 32, 32  # as in common.cuh

WINDOW = [(name, np.int32) for name in ("KH", "KW", "SH", "SW", "PH", "PW", "DH", "DW")]


class Launching(KernelSet):
    """Kernels that are launched on a GPU."""

    largest = COUNTABLE

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._launch = Launcher(device)

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        """Seconds for compiling the kernels or loading them from CuPy's cache."""
        return self._launch.compile_seconds


def real_of(dtype: Any) -> Any:
    """The dtype that kernels for numbers of ``dtype`` compute in: float32 for 16 bits."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def gather_tiles(out: Array) -> tuple[Shape, Shape, int]:
    """The blocks of a gather into ``out`` (..., N), the threads of a block, and its shared bytes."""
    blocks = ceil_div(out.shape[-1], GATHER_SIDE), ceil_div(prod(out.shape[:-1]), GATHER_SIDE)
    return blocks, (GATHER_SIDE, 8), GATHER_SIDE * (GATHER_SIDE + 1) * out.itemsize


def window_sizes(window: Window) -> tuple[int, ...]:
    """The sizes of a window, as common.cuh defines them."""
    return *window.size, *window.stride, *window.padding, *window.dilation


def function_arguments(formula: Function | None) -> tuple[int, float, float]:
    """The number of a function in functions.cuh, which has one for None too, and its constants."""
    if formula is None:
        return -1, 0.0, 0.0
    return FUNCTIONS.index(formula.name), float(formula.a), float(formula.b)


def parts_of_rows(rows: int, length: int) -> tuple[int, int]:
    """The number of parts that each row is reduced in, and the threads of each part.

    A few long rows are split, into the same parts on every GPU.
    """
    parts = max(1, min(WARPS // 4 // rows, length // 1024))
    return parts, threads_for(ceil_div(length, parts))


def threads_for(length: int) -> int:
    """The threads of a block that reduces so many numbers: whole warps, and a power of two."""
    return min(THREADS, max(WARP, 1 << (length - 1).bit_length()))
