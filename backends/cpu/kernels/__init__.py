"""CPU kernels compiled by Numba; unsupported inputs fall back to the portable kernels.

They accept contiguous arrays of one dtype, float32 or float64, which is what the layers use. The loops are
in ``backends/cpu/compiled``. The files here say which loops a kernel calls, with which sizes and threads.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from backends import graph
from backends.cpu import threads
from backends.cpu.compiled import ahead, kernel_cache
from backends.cpu.compiled.jit import clock
from backends.cpu.kernels.activations import CompiledActivationKernels
from backends.cpu.kernels.arithmetic import CompiledArithmeticKernels
from backends.cpu.kernels.batches import CompiledBatchKernels
from backends.cpu.kernels.convolution import CompiledConvolutionKernels
from backends.cpu.kernels.losses import CompiledLossKernels
from backends.cpu.kernels.normalization import CompiledNormalizationKernels
from backends.cpu.kernels.pooling import CompiledPoolingKernels
from backends.cpu.kernels.updates import CompiledUpdateKernels


class CompiledKernels(
    CompiledArithmeticKernels,
    CompiledBatchKernels,
    CompiledActivationKernels,
    CompiledNormalizationKernels,
    CompiledLossKernels,
    CompiledUpdateKernels,
    CompiledPoolingKernels,
    CompiledConvolutionKernels,
    records_launches=True,
):
    """Direct convolution, pooling line by line, products from tiles, everything else in single passes."""

    name = "compiled"
    largest = inf

    @property
    def thread_limit(self) -> threads.Limit:
        return threads.limit()

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        """Seconds that this process has spent on compiling kernels; loading them from disk takes none."""
        return clock.seconds

    def when_compiling(
        self, say: Callable[[str], None] | None = None, show: Callable[[str], None] | None = None
    ) -> None:
        if say:
            kernel_cache.folder.say = tell = say
            clock.begun = lambda: tell(
                "compiling kernels for this processor, which takes up to a minute; "
                + kernel_cache.folder.status
            )
        ahead.progress.show = show or ahead.progress.show

    def compile_all(self, dtypes: Sequence[str]) -> dict[str, Any]:
        """Compile every kernel for these dtypes; -> how many, how many were there, the folder and its bytes.

        Raises DeviceUnavailable if they cannot be cached.
        """
        return ahead.compile_all(dtypes)

    def compile_used_by(self, uses: Sequence[Callable[[], None]]) -> dict[str, Any]:
        """Compile the kernels that ``uses`` call, and call them; -> as :meth:`compile_all`."""
        return ahead.compile_used_by(uses)

    def prepare(self, step: Callable[[], None]) -> None:
        ahead.compile_missing(graph.rehearse(step))
