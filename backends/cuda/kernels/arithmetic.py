"""Sums, and numbers times a factor. ``copy`` and ``clear`` are one launch of CuPy's each."""

from backends.cuda.kernels.launching import Launching, parts_of_rows, threads_for
from backends.cuda.launch import ceil_div
from backends.kernels.arithmetic import PortableArithmeticKernels
from backends.kernels.covering import covering
from backends.memory import Array


class CompiledArithmeticKernels(Launching, PortableArithmeticKernels):
    """Sums, and numbers times a factor; products are cuBLAS's."""

    @covering(masters=())
    def add(self, x: Array, y: Array, out: Array) -> None:
        self._launch.threads("add", x.dtype, x.size, (x, y, out, x.size))

    @covering(masters=())
    def scale(self, x: Array, factor: float, out: Array) -> None:
        self._launch.threads("scale", x.dtype, x.size, (x, out, float(factor), x.size))

    @covering(masters=("out",))
    def sum_rows(self, x: Array, out: Array) -> None:
        rows, length = out.size, x.size // out.size
        parts, _ = parts_of_rows(rows, length)
        if parts == 1:
            self._sum_parts(x, out, rows, length, 1)
        else:
            sums = self.scratch("sums", (rows, parts), out.dtype)
            self._sum_parts(x, sums, rows, length, parts)
            self._sum_parts(sums, out, rows, parts, 1)

    def _sum_parts(self, x: Array, out: Array, rows: int, length: int, parts: int) -> None:
        threads = threads_for(ceil_div(length, parts))
        self._launch.grid("sum_rows", x.dtype, (parts, rows), (threads,), (x, out, rows, length), 8 * threads)
