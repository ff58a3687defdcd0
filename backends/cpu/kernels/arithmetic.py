"""Matrix products and sums."""

from functools import partial

from backends.cpu.compiled import steps
from backends.cpu.compiled.jit import thread_count
from backends.cpu.compiled.matmul import matmul
from backends.cpu.kernels.launching import Launching
from backends.kernels.arithmetic import PortableArithmeticKernels
from backends.kernels.covering import covering
from backends.memory import Array


class CompiledArithmeticKernels(Launching, PortableArithmeticKernels):
    """Matrix products and sums."""

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        scratch = partial(
            self._vectors, name="product"
        )  # portable kernels use the workspace for their operands
        if not matmul(a, b, out, accumulate, scratch):
            super().matmul(a, b, out, accumulate)

    @covering()
    def sum_rows(self, x: Array, out: Array) -> None:
        steps.sum_rows(x.dtype, (x, out, out.size, x.size // out.size), thread_count(x.size))
