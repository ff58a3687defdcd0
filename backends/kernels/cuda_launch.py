"""How the kernels in kernels.cu are compiled and started."""

import time
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.buffer import Shape
from backends.errors import DeviceUnavailable
from backends.text import first_line

if TYPE_CHECKING:
    from backends.backend import Backend

SOURCE = files("backends.kernels") / "kernels.cu"
REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
THREADS = 256  # in a block


class Launcher:
    """Starts kernels by name, for a dtype, on the backend's device.

    Arguments are arrays, whole numbers and floats, None for no array, and sizes as arrays of one record,
    which are passed by value. ``shared`` is in bytes.
    """

    def __init__(self, backend: "Backend") -> None:
        self.backend = backend
        self.compile_seconds = 0.0
        self._functions: dict[tuple[Any, str], Any] = {}

    def threads(
        self, name: str, dtype: Any, size: int, arguments: tuple[Any, ...], rows: int = 1, shared: int = 0
    ) -> None:
        """On ``rows`` times enough blocks to have a thread for each of ``size`` numbers."""
        self.grid(name, dtype, (ceil_div(size, THREADS), rows), (THREADS,), arguments, shared)

    def block(self, name: str, dtype: Any, arguments: tuple[Any, ...]) -> None:
        """On one block, with a double in shared memory for each thread."""
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
        """On so many blocks of so many threads."""
        self.function(name, dtype)(blocks, threads, arguments, shared_mem=shared)

    def function(self, name: str, dtype: Any) -> Any:
        """The kernel for a dtype; the first one of each has them all compiled, or found in CuPy's cache."""
        function = self._functions.get((dtype, name))
        if function is None:
            start = time.perf_counter()
            options = ("-std=c++17", f"-DREAL={REALS[dtype]}")
            module = self.backend.xp.RawModule(code=_source(), options=options)
            try:
                function = module.get_function(name)
            except Exception as error:
                if type(error).__name__ not in ("CompileException", "NVRTCError"):  # CuPy's
                    raise
                raise DeviceUnavailable(
                    f"{self.backend.name} cannot have the compiled kernels ({first_line(error)}): "
                    "take the portable ones"
                ) from error
            self._functions[dtype, name] = function
            self.compile_seconds += time.perf_counter() - start
        return function


@cache
def _source() -> str:
    return SOURCE.read_text(encoding="utf-8")


def ceil_div(a: int, b: int) -> int:
    """How many pieces of ``b`` make up ``a``, the last one perhaps in part."""
    return -(-a // b)
