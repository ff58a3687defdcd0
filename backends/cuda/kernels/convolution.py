"""Convolution and its gradients: which kernels are launched with which sizes.

Convolutions with few channels are direct, with bias, ReLU and pooling in the same pass. Those with many
channels are products with blocks of columns, which can use the tensor cores.
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from backends.cuda.kernels.launching import BYTES, WARP, WARPS, WINDOW, Launching, real_of, window_sizes
from backends.cuda.kernels.pooling import pooling_sizes
from backends.cuda.launch import SHARED_BYTES, ceil_div
from backends.kernels.arithmetic import as_matrix
from backends.kernels.covering import covering
from backends.kernels.functions import RELU, Function
from backends.kernels.fused import FusedKernels
from backends.kernels.portable import PortableKernels, split
from backends.kernels.window import Window
from backends.memory import Array, Shape

TILES = (1, 4, 8)  # channels computed by a thread of a direct convolution
NARROW = 32  # with more channels on both sides a product should be faster; not measured yet
OVERLAP = 4  # times that a position may be computed for overlapping pooling windows
O_TILE, TAP_TILE = 4, 8  # as in convolution.cu

CONVOLUTION = np.dtype([*((n, np.int32) for n in ("groups", "C", "H", "W", "O", "OH", "OW", "N")), *WINDOW])


class CompiledConvolutionKernels(Launching, PortableKernels, records_launches=True):
    """Convolution and its gradients, and what follows it in the same pass."""

    @covering(masters=())
    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        self._convolve(x, weight, None, out, window, groups, rectify=False)

    @covering(masters=("out",))
    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        self._grad_weight(x, dy, out, None, window, groups)

    @covering(masters=())
    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        O, C = len(weight) // groups, weight.shape[1]
        depth = O * window.taps
        if not self._in_reach(out, dy, weight):
            super().conv2d_grad_input(dy, weight, out, window, groups)
        elif min(O, C) <= NARROW and _staged_bytes(depth, C, dy.dtype) <= SHARED_BYTES:
            sizes = _convolution(out.shape, dy.shape, window, groups)
            self._launch_tiles("convolve_back", out, groups, depth, (dy, weight, out, sizes))
        else:
            self._grad_input_by_columns(dy, weight, out, window, groups)

    @covering(masters=("bias",))
    def conv2d_activate(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        formula: Function | None,
    ) -> None:  # fmt: skip
        if formula in (None, RELU):
            self._convolve(x, weight, bias, out, window, groups, rectify=formula == RELU)
        else:
            FusedKernels.conv2d_activate(self, x, weight, bias, out, window, groups, formula)

    @covering(BYTES, masters=("bias", "scale"))
    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window, formula: Function | None, scale: Array | None = None,
    ) -> None:  # fmt: skip
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        computed = pool.taps * prod(out.shape[1:3])
        overlapping = computed > OVERLAP * prod(y_shape[1:3])
        rectify = formula == RELU and scale is None
        if rectify and self._is_direct(x, out, weight, groups) and not overlapping:
            sizes = _convolution(x.shape, y_shape, window, groups), pooling_sizes(y_shape, out.shape, pool)
            arguments = (x, weight, *_bias(bias), out, winner, *sizes)
            self._launch_tiles("convolve_pool", out, groups, weight[0].size, arguments)
        else:
            given = x, weight, bias, out, winner, window, groups, pool, formula, scale
            FusedKernels.conv2d_max_pool2d(self, *given)

    @covering(masters=("bias", "mean", "variance"))
    def conv2d_moments(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        mean: Array, variance: Array,
    ) -> None:  # fmt: skip
        FusedKernels.conv2d_moments(self, x, weight, bias, out, window, groups, mean, variance)

    @covering(BYTES, masters=("weight_grad", "bias_grad"))
    def conv2d_epilogue_grad(
        self, dy: Array, x: Array, y: Array | None, winner: Array | None, weight: Array, window: Window,
        groups: int, pool: Window | None, weight_grad: Array, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        grad = self.scratch("gradient", y_shape, dy.dtype)
        if pool is None:
            self.relu_grad(dy, y, grad)
        elif grad.size > self.largest:
            if y is not None:
                rectified = self.scratch("rectified", dy.shape, dy.dtype)
                self.relu_grad(dy, y, rectified)
                dy = rectified
            self.max_pool2d_grad(dy, winner, grad, pool)
        else:
            arguments = (dy, winner, y, grad, pooling_sizes(grad.shape, dy.shape, pool))
            self._launch.threads("max_pool_grad", dy.dtype, grad.size, arguments)
        tied = bias_grad is not None and bias_grad.ndim == 1
        self._grad_weight(x, grad, weight_grad, bias_grad if tied else None, window, groups)
        if bias_grad is not None and not tied:
            self.sum_rows(grad, bias_grad)
        if dx is not None:
            self.conv2d_grad_input(grad, weight, dx, window, groups)

    def _convolve(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        rectify: bool,
    ) -> None:  # fmt: skip
        if self._is_direct(x, out, weight, groups):
            sizes = _convolution(x.shape, out.shape, window, groups)
            arguments = (x, weight, *_bias(bias), out, int(rectify), sizes)
            self._launch_tiles("convolve", out, groups, weight[0].size, arguments)
            return
        if self._in_reach(x, out, weight):
            self._convolve_by_columns(x, weight, out, window, groups)
        else:
            super().conv2d(x, weight, out, window, groups)
        self.finish(out, None, bias, RELU if rectify else None)

    def _in_reach(self, x: Array, y: Array, weight: Array) -> bool:
        """Whether the kernels can index ``x``, ``y`` and the columns of an output row."""
        return max(x.size, y.size, weight[0].size * prod(y.shape[2:])) <= self.largest

    def _is_direct(self, x: Array, y: Array, weight: Array, groups: int) -> bool:
        O, C = len(weight) // groups, weight.shape[1]
        fits = _staged_bytes(weight[0].size, O, x.dtype) <= SHARED_BYTES
        return self._in_reach(x, y, weight) and min(O, C) <= NARROW and fits

    def _launch_tiles(
        self, name: str, out: Array, groups: int, depth: int, arguments: tuple[Any, ...]
    ) -> None:
        """Run a direct convolution that sums ``depth`` products for each value of ``out``."""
        channels = len(out) // groups
        tile, shared = _tile(channels), _staged_bytes(depth, channels, out.dtype)
        rows, size = groups * ceil_div(channels, tile), prod(out.shape[1:])
        self._launch.threads(f"{name}_{tile}", out.dtype, size, arguments, rows, shared)

    def _grad_weight(
        self, x: Array, dy: Array, out: Array, bias_grad: Array | None, window: Window, groups: int
    ) -> None:
        """Write the gradient of the weight to ``out``, and that of the bias to ``bias_grad`` (O,)."""
        O, C = len(dy) // groups, len(x) // groups
        in_reach = self._in_reach(x, dy, out)
        if in_reach and min(O, C) <= NARROW:
            self._grad_weight_directly(x, dy, out, bias_grad, window, groups)
            return
        if in_reach:
            self._grad_weight_by_columns(x, dy, out, window, groups)
        else:
            super().conv2d_grad_weight(x, dy, out, window, groups)
        if bias_grad is not None:
            self.sum_rows(dy, bias_grad)

    def _grad_weight_directly(
        self, x: Array, dy: Array, out: Array, bias_grad: Array | None, window: Window, groups: int
    ) -> None:
        O, C = len(dy) // groups, len(x) // groups
        with_bias = int(bias_grad is not None)
        taps = C * window.taps + with_bias
        tasks = groups * ceil_div(O, O_TILE) * ceil_div(taps, TAP_TILE)
        steps = dy.shape[1] * ceil_div(prod(dy.shape[2:]), WARP)
        shares = max(1, min(WARPS // tasks, steps // 8))
        sizes = _convolution(x.shape, dy.shape, window, groups)
        parts = self.scratch("parts", (shares, tasks, WARP), out.dtype)
        self._launch.threads(
            "grad_weight_parts", dy.dtype, parts.size, (x, dy, parts, shares, with_bias, sizes)
        )
        self._launch.threads(
            "grad_weight_sum", dy.dtype, len(dy) * taps, (parts, out, bias_grad, shares, sizes)
        )

    def _convolve_by_columns(self, x: Array, weight: Array, out: Array, window: Window, groups: int) -> None:
        for x_g, w_g, y_g in split(groups, x, weight, out):
            for first, rows, run, columns in self._blocks(x_g, y_g, window, x.dtype):
                self._to_columns(x_g, columns, y_g.shape, first, rows, window)
                self.matmul(as_matrix(w_g), columns, out=as_matrix(y_g)[:, run])

    def _grad_weight_by_columns(self, x: Array, dy: Array, out: Array, window: Window, groups: int) -> None:
        for x_g, dy_g, dw_g in split(groups, x, dy, out):
            for first, rows, run, columns in self._blocks(x_g, dy_g, window, x.dtype):
                self._to_columns(x_g, columns, dy_g.shape, first, rows, window)
                dy_run = as_matrix(dy_g)[:, run]
                self.matmul(dy_run, columns.T, out=as_matrix(dw_g), accumulate=first > 0)

    def _grad_input_by_columns(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int
    ) -> None:
        for dy_g, w_g, dx_g in split(groups, dy, weight, out):
            sizes = _convolution(dx_g.shape, dy_g.shape, window, 1)
            for first, rows, run, columns in self._blocks(dx_g, dy_g, window, real_of(dy.dtype)):
                self.matmul(as_matrix(w_g).T, as_matrix(dy_g)[:, run], out=columns)
                arguments = (columns, dx_g, first, rows, int(first > 0), sizes)
                self._launch.threads("from_columns", dy.dtype, prod(dx_g.shape[1:]), arguments, len(dx_g))

    def _blocks(self, x: Array, y: Array, window: Window, dtype: Any) -> Any:
        """For each block of output rows: (first, count, these rows as a matrix, scratch for columns)."""
        depth, line = len(x) * window.taps, prod(y.shape[2:])
        for first, rows in self._row_blocks(depth * dtype.itemsize // y.dtype.itemsize, y):
            run = slice(first * line, (first + rows) * line)
            yield first, rows, run, self.scratch("columns", (depth, rows * line), dtype)

    def _to_columns(
        self, x: Array, columns: Array, y_shape: Shape, first: int, rows: int, window: Window
    ) -> None:
        sizes = _convolution(x.shape, y_shape, window, 1)
        depth, length = columns.shape
        self._launch.threads("to_columns", x.dtype, length, (x, columns, first, rows, sizes), depth)


def _tile(channels: int) -> int:
    """The number of channels per thread: the smallest tile that is enough, otherwise the largest."""
    return next((tile for tile in TILES if tile >= channels), TILES[-1])


def _staged_bytes(depth: int, channels: int, dtype: Any) -> int:
    """Bytes of shared memory for the weights of a tile of ``channels`` channels."""
    return int(depth * _tile(channels) * real_of(dtype).itemsize)


def _bias(bias: Array | None) -> tuple[Array | None, int, int]:
    """The bias, and its strides between channels and between positions."""
    if bias is None:
        return None, 0, 0
    return bias, bias[0].size, int(bias.ndim > 1)


@lru_cache(maxsize=256)
def _convolution(x_shape: Shape, y_shape: Shape, window: Window, groups: int) -> Any:
    """The sizes of a convolution, as common.cuh defines them."""
    (C, H, W, N), (O, OH, OW, _) = x_shape, y_shape
    sizes = (groups, C // groups, H, W, O // groups, OH, OW, N, *window_sizes(window))
    return np.array([sizes], dtype=CONVOLUTION)
