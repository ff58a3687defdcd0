"""Compiles and launches the kernels in backends/cuda/kernels."""

import re
import time
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any

from backends.errors import ArgumentError, DeviceUnavailable
from backends.memory import Device, Shape
from backends.text import first_line

FOLDER = files("backends.cuda") / "kernels"
HEADERS = ("common.cuh", "functions.cuh")
NUMBERS = {"float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16"}
"""The types of numbers in the sources, by the name of the dtype."""
THREADS = 256  # in a block

# Limits of all GPUs from compute capability 7.5 on.
GRID_LENGTH = 2**31 - 1  # blocks along x
GRID_ROWS = 65535  # and along y and z
BLOCK_THREADS = 1024
SHARED_BYTES = 48 << 10  # of a block
COUNTABLE = 2**31 - THREADS  # elements that a kernel can index with 32 bits


class Launcher:
    """Launches kernels on a device, by name and by the dtype of activations and operands of products.

    Arguments are arrays, None for no array, integers, floats, and sizes as arrays of one record, which are
    passed by value. ``shared`` is in bytes.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.compile_seconds = 0.0
        self._functions: dict[tuple[Any, str], Any] = {}

    def threads(
        self, name: str, dtype: Any, size: int, arguments: tuple[Any, ...], rows: int = 1, shared: int = 0
    ) -> None:
        """Launch one thread for each of ``size`` elements in each of ``rows`` rows of blocks."""
        self._require(name, "numbers", size, COUNTABLE)
        self.grid(name, dtype, (ceil_div(size, THREADS), rows), (THREADS,), arguments, shared)

    def block(self, name: str, dtype: Any, arguments: tuple[Any, ...]) -> None:
        """Launch one block with a double in shared memory for each thread."""
        self.grid(name, dtype, (1,), (THREADS,), arguments, 8 * THREADS)

    def grid(
        self,
        name: str,
        dtype: Any,
        blocks: Shape,
        threads: Shape,
        arguments: tuple[Any, ...],
        shared: int = 0,
    ) -> None:
        """Launch a grid (blocks in a row, rows) of blocks of ``threads``; ArgumentError beyond the limits.

        Nothing is launched for a grid without blocks, as for a network without parameters.
        """
        length, rows = (*blocks, 1)[:2]
        if 0 in (length, rows):
            return
        self._require(name, "blocks", length, GRID_LENGTH)
        self._require(name, "rows of blocks", rows, GRID_ROWS**2)
        self._require(name, "threads in a block", prod(threads), BLOCK_THREADS)
        self._require(name, "bytes of shared memory", shared, SHARED_BYTES)
        layers = ceil_div(rows, GRID_ROWS)
        blocks = length, ceil_div(rows, layers), layers
        self.function(name, dtype)(blocks, threads, arguments, shared_mem=shared)

    def _require(self, name: str, what: str, count: int, most: int) -> None:
        if count > most:
            raise ArgumentError(
                f"the kernel {name} would need {count:,} {what} on {self.device.name}, which takes at most "
                f'{most:,}: use kernels="portable"'
            )

    def function(self, name: str, dtype: Any) -> Any:
        """The kernel for a dtype; the first call compiles all kernels of its source or loads them."""
        function = self._functions.get((dtype, name))
        if function is None:
            start = time.perf_counter()
            options = "-std=c++17", *definitions(dtype.name)
            module = self.device.xp.RawModule(code=source_of(name), options=options)
            try:
                function = module.get_function(name)
            except Exception as error:
                if type(error).__name__ not in ("CompileException", "NVRTCError"):  # of CuPy
                    raise
                raise DeviceUnavailable(
                    f"{self.device.name} cannot use the compiled kernels ({first_line(error)}): "
                    'use kernels="portable"'
                ) from error
            self._functions[dtype, name] = function
            self.compile_seconds += time.perf_counter() - start
        return function


def definitions(dtype: str) -> tuple[str, str]:
    """The compiler's options for a dtype; common.cuh says what they define."""
    number = NUMBERS[dtype]
    return f"-DNUMBER={number}", f"-DREAL={number if number == 'double' else 'float'}"


@cache
def sources() -> dict[str, str]:
    """The sources by the name of their concept, each complete."""
    shared = "".join((FOLDER / header).read_text(encoding="utf-8") for header in HEADERS)
    names = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".cu"))
    return {name.removesuffix(".cu"): shared + (FOLDER / name).read_text(encoding="utf-8") for name in names}


@cache
def source_of(name: str) -> str:
    """The source that has this kernel; a kernel with a size in its name is made by a macro."""
    declared = re.compile(rf"__global__ void {name.rstrip('0123456789')}(##TILE)?\(")
    return next(source for source in sources().values() if declared.search(source))


def ceil_div(a: int, b: int) -> int:
    """``a / b``, rounded up."""
    return -(-a // b)
