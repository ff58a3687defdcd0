"""CPU kernels compiled by Numba; unsupported inputs fall back to the portable kernels.

They accept contiguous arrays of one dtype, float32 or float64, which is what the layers use. The loops are
in ``backends/cpu/compiled``. The files here say which loops a kernel calls, with which sizes and threads.
"""

from collections.abc import Callable
from math import inf

from backends.cpu import threads
from backends.cpu.compiled import kept
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

    def when_compiling(self, say: Callable[[str], None]) -> None:
        kept.folder.say = say
        clock.begun = lambda: say(
            f"compiling kernels for this processor, which takes up to a minute; {kept.folder.outlook}"
        )
