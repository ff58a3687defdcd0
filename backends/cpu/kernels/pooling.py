"""Pooling and resampling."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from backends.cpu.compiled import (
    pooling,
    resampling,
)
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import (
    BYTES,
    INDICES,
    NO_BYTES,
    NOTHING,
    Launching,
    pool_function,
    pool_grad_function,
    pool_sizes,
)
from backends.kernels.covering import covering
from backends.kernels.portable import PortableKernels
from backends.kernels.sampling import Sampling
from backends.kernels.window import Window
from backends.memory import Array


class CompiledPoolingKernels(Launching, PortableKernels, records_launches=True):
    """Pooling and resampling."""

    @covering(BYTES)
    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        keep = winner is not None
        arrays = out, winner if keep else NO_BYTES, int(keep), x, NOTHING[x.dtype]
        arguments = (
            pool_function(x.dtype, window, x.shape, out.shape),
            *arrays,
            *x.shape,
            pool_sizes(window, out.shape),
        )
        pooling.max_pool(x.dtype, arguments, thread_count(x.size))

    @covering(BYTES)
    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        line_function = pool_grad_function(dy.dtype, window, out.shape, dy.shape)
        arguments = (line_function, out, dy, winner, *out.shape, pool_sizes(window, dy.shape))
        pooling.max_pool_grad(dy.dtype, arguments, thread_count(out.size))

    @covering()
    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        parts = thread_count(x.size + out.size)
        (lines,) = self._vectors(x.dtype, parts * prod(x.shape[2:]))
        samplings = *_sampling(rows, x.dtype), *_sampling(columns, x.dtype)
        resampling.resample(x.dtype, (out, x, lines, *samplings, *x.shape, *out.shape[1:3]), parts)


@lru_cache(maxsize=256)
def _sampling(sampling: Sampling, dtype: Any) -> tuple[Array, Array]:
    positions, weights = sampling.lists
    return np.array(positions, dtype=INDICES), np.array(weights, dtype=dtype)
