"""Max pooling and resampling."""

from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from backends.cuda.kernels.launching import BYTES, INDICES, WINDOW, Launching, real_of, window_sizes
from backends.kernels.covering import covering
from backends.kernels.portable import PortableKernels
from backends.kernels.sampling import Sampling
from backends.kernels.window import Window
from backends.memory import Array, Device, Shape

POOLING = np.dtype([*((name, np.int32) for name in ("C", "H", "W", "OH", "OW", "N")), *WINDOW])


class CompiledPoolingKernels(Launching, PortableKernels, records_launches=True):
    """Max pooling, and resampling, which average pooling is made of."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._samplings: WeakKeyDictionary[Sampling, dict[Any, tuple[Array, Array]]] = WeakKeyDictionary()

    @covering(BYTES, masters=())
    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        self._launch.threads(
            "max_pool", x.dtype, out.size, (x, out, winner, pooling_sizes(x.shape, out.shape, window))
        )

    @covering(BYTES, masters=())
    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        arguments = (dy, winner, None, out, pooling_sizes(out.shape, dy.shape, window))
        self._launch.threads("max_pool_grad", dy.dtype, out.size, arguments)

    @covering(masters=())
    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        real = real_of(x.dtype)
        samplings = *self._on_device(rows, real), *self._on_device(columns, real)
        sizes = (*x.shape[1:3], *out.shape[1:], out.size)
        self._launch.threads("resample", x.dtype, out.size, (x, out, *samplings, *sizes))

    def _on_device(self, sampling: Sampling, dtype: Any) -> tuple[Array, Array]:
        """The arrays of a sampling, copied to the device when they are first used."""
        arrays = self._samplings.setdefault(sampling, {})
        if dtype not in arrays:
            positions, weights = sampling.lists
            arrays[dtype] = self.device.asarray(positions, INDICES), self.device.asarray(weights, dtype)
        return arrays[dtype]


@lru_cache(maxsize=256)
def pooling_sizes(x_shape: Shape, y_shape: Shape, window: Window) -> Any:
    """The sizes of a pooling, as common.cuh defines them."""
    (C, H, W, N), (_, OH, OW, _) = x_shape, y_shape
    return np.array([(C, H, W, OH, OW, N, *window_sizes(window))], dtype=POOLING)
