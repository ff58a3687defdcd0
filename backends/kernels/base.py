"""What every kernel set has besides its kernels."""

from collections.abc import Callable
from math import prod
from typing import Any

from backends.kernels.window import Window
from backends.memory import Array, Device, Shape


class KernelSet:
    """The kernels of one device, of one concept or of all."""

    name: str
    thread_limit: Any = None  # how many threads the kernels use and why; None: as many as BLAS
    compile_seconds = 0.0  # that this process has spent compiling kernels
    takes_halves = False  # whether 16-bit arrays are read and written without copies in float32

    def __init__(self, device: Device) -> None:
        self.device = device

    def when_compiling(
        self, say: Callable[[str], None] | None = None, show: Callable[[str], None] | None = None
    ) -> None:
        """Let ``say`` tell the user, once, that kernels are being compiled and whether they are kept.

        ``show`` gets the progress: each text replaces the one before, and an empty text ends it.
        """

    def prepare(self, step: Callable[[], None]) -> None:
        """Compile what a recordable ``step`` needs before its first run, if that saves time."""

    def uses_winograd(self, channels: int, y_shape: Shape, window: Window, groups: int, dtype: Any) -> bool:
        """Whether the convolution of so many channels into ``y_shape`` (O, OH, OW, N) is Winograd's.

        Its results are within 5e-5 of the largest number, about ten times as far from exact ones as others.
        """
        return False

    def scratch(self, name: str, shape: Shape, dtype: Any) -> Array:
        """Scratch memory of this name as an array with arbitrary contents."""
        dtype = self.device.xp.dtype(dtype)
        return self.device.scratch(name, prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
