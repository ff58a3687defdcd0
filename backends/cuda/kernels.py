"""Kernels in CUDA C++ (kernels.cu); unsupported inputs fall back to the portable kernels.

This module decides which kernel is launched with which sizes. Convolutions with few channels are direct,
with bias, ReLU and pooling in the same pass. Those with many channels are products with blocks of columns,
which can use the tensor cores.
"""

from functools import lru_cache
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from backends.cuda.launch import COUNTABLE, SHARED_BYTES, THREADS, Launcher, ceil_div
from backends.kernels.arithmetic import as_matrix
from backends.kernels.covering import covering, covers
from backends.kernels.functions import FUNCTIONS, RELU, Function
from backends.kernels.portable import PortableKernels, split
from backends.kernels.sampling import Sampling
from backends.kernels.updates import TINY
from backends.kernels.window import Window
from backends.memory import Array, Device, Shape

BYTES, INDICES = np.dtype(np.uint8), np.dtype(np.int64)

TILES = (1, 4, 8)  # channels computed by a thread of a direct convolution
NARROW = 32  # with more channels on both sides a product should be faster; not measured yet
OVERLAP = 4  # times that a position may be computed for overlapping pooling windows
WARPS = 2048  # enough to keep a large GPU busy; fixed, so that sums are split the same way on every GPU
WARP, O_TILE, TAP_TILE = 32, 4, 8  # as in kernels.cu
GATHER_SIDE = 32

WINDOW = [(name, np.int32) for name in ("KH", "KW", "SH", "SW", "PH", "PW", "DH", "DW")]
CONVOLUTION = np.dtype([*((n, np.int32) for n in ("groups", "C", "H", "W", "O", "OH", "OW", "N")), *WINDOW])
POOLING = np.dtype([*((name, np.int32) for name in ("C", "H", "W", "OH", "OW", "N")), *WINDOW])


class CompiledKernels(PortableKernels, records_launches=True):
    """Few kernels per step, each in a single pass; products by cuBLAS."""

    name = "compiled"
    largest = COUNTABLE

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._launch = Launcher(device)
        self._samplings: WeakKeyDictionary[Sampling, dict[Any, tuple[Array, Array]]] = WeakKeyDictionary()

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        """Seconds for compiling the kernels or loading them from CuPy's cache."""
        return self._launch.compile_seconds

    @covering()
    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        self._convolve(x, weight, None, out, window, groups, rectify=False)

    @covering()
    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        self._grad_weight(x, dy, out, None, window, groups)

    @covering()
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

    @covering()
    def conv2d_activate(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        formula: Function | None,
    ) -> None:  # fmt: skip
        if formula in (None, RELU):
            self._convolve(x, weight, bias, out, window, groups, rectify=formula == RELU)
        else:
            super().conv2d_activate(x, weight, bias, out, window, groups, formula)

    @covering(BYTES)
    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window, formula: Function | None, scale: Array | None = None,
    ) -> None:  # fmt: skip
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        computed = pool.taps * prod(out.shape[1:3])
        overlapping = computed > OVERLAP * prod(y_shape[1:3])
        rectify = formula == RELU and scale is None
        if rectify and self._is_direct(x, out, weight, groups) and not overlapping:
            sizes = _convolution(x.shape, y_shape, window, groups), _pooling(y_shape, out.shape, pool)
            arguments = (x, weight, *_bias(bias), out, winner, *sizes)
            self._launch_tiles("convolve_pool", out, groups, weight[0].size, arguments)
        else:
            super().conv2d_max_pool2d(x, weight, bias, out, winner, window, groups, pool, formula, scale)

    @covering(BYTES)
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
            arguments = (dy, winner, y, grad, _pooling(grad.shape, dy.shape, pool))
            self._launch.threads("max_pool_grad", dy.dtype, grad.size, arguments)
        tied = bias_grad is not None and bias_grad.ndim == 1
        self._grad_weight(x, grad, weight_grad, bias_grad if tied else None, window, groups)
        if bias_grad is not None and not tied:
            self.sum_rows(grad, bias_grad)
        if dx is not None:
            self.conv2d_grad_input(grad, weight, dx, window, groups)

    @covering(BYTES)
    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        self._launch.threads(
            "max_pool", x.dtype, out.size, (x, out, winner, _pooling(x.shape, out.shape, window))
        )

    @covering(BYTES)
    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        arguments = (dy, winner, None, out, _pooling(out.shape, dy.shape, window))
        self._launch.threads("max_pool_grad", dy.dtype, out.size, arguments)

    @covering()
    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        samplings = *self._on_device(rows, x.dtype), *self._on_device(columns, x.dtype)
        sizes = (*x.shape[1:3], *out.shape[1:], out.size)
        self._launch.threads("resample", x.dtype, out.size, (x, out, *samplings, *sizes))

    @covering()
    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        self._launch.threads(
            "add_bias", y.dtype, y.size, (y, bias, int(rectify), y.size // bias.size, y.size)
        )

    @covering()
    def sum_rows(self, x: Array, out: Array) -> None:
        rows, length = out.size, x.size // out.size
        parts = max(1, min(WARPS // 4 // rows, length // 1024))  # a few long rows are split
        if parts == 1:
            self._sum_parts(x, out, rows, length, 1)
        else:
            sums = self.scratch("sums", (rows, parts), x.dtype)
            self._sum_parts(x, sums, rows, length, parts)
            self._sum_parts(sums, out, rows, parts, 1)

    @covering()
    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        if sums is None:
            self._launch.threads("relu_grad", dy.dtype, out.size, (dy, y, out, out.size))
        else:
            arguments = (dy, y, out, sums, out.size // len(out))
            self._launch.grid("relu_grad_rows", dy.dtype, (len(out),), (THREADS,), arguments, 8 * THREADS)

    @covering()
    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        self._launch.threads("tanh_grad", dy.dtype, out.size, (dy, y, out, out.size))

    @covering()
    def activate(self, x: Array, formula: Function, out: Array) -> None:
        self._launch.threads("activate", x.dtype, x.size, (x, out, *_numbered(formula), x.size))

    @covering()
    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        arguments = (dy, x, out, *_numbered(formula), x.size)
        self._launch.threads("activate_grad", x.dtype, x.size, arguments)

    @covering()
    def softmax(self, x: Array, out: Array) -> None:
        F, N = len(x), x.size // len(x)
        self._launch.threads("softmax", x.dtype, N, (x, out, F, N))

    @covering()
    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        F, N = len(y), y.size // len(y)
        self._launch.threads("softmax_grad", y.dtype, N, (dy, y, out, F, N))

    @covering()
    def log_softmax(self, x: Array, out: Array) -> None:
        F, N = len(x), x.size // len(x)
        self._launch.threads("log_softmax", x.dtype, N, (x, out, F, N))

    @covering()
    def log_softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        F, N = len(y), y.size // len(y)
        self._launch.threads("log_softmax_grad", y.dtype, N, (dy, y, out, F, N))

    def cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if not covers(self, (y, targets, losses, dy), INDICES):
            super().cross_entropy(y, targets, losses, dy, divisor, sums)
            return
        name = "cross_entropy" if targets.ndim == 1 else "soft_cross_entropy"
        arguments = (y, targets, losses, dy, sums, float(divisor), *y.shape)
        self._launch.block(name, y.dtype, arguments)

    def binary_cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if targets.ndim == 1 and covers(self, (y, targets, losses, dy), INDICES):
            margin = float(np.finfo(y.dtype).eps)
            arguments = (y, targets, losses, dy, sums, float(divisor), margin, *y.shape)
            self._launch.block("binary_cross_entropy", y.dtype, arguments)
        else:
            super().binary_cross_entropy(y, targets, losses, dy, divisor, sums)

    def class_targets(
        self, targets: Array, class_weights: Array, smoothing: float, ignored: int | None, out: Array,
        shares: Array,
    ) -> None:  # fmt: skip
        if targets.ndim == 1 and covers(self, (targets, class_weights, out, shares), INDICES):
            label = (0, 0) if ignored is None else (1, int(ignored))
            settings = (1.0 - smoothing, smoothing / len(out), *label)
            arguments = (targets, class_weights, *settings, out, shares, *out.shape)
            self._launch.threads("class_targets", out.dtype, out.shape[1], arguments)
        else:
            super().class_targets(targets, class_weights, smoothing, ignored, out, shares)

    def tally(
        self, losses: Array, y: Array, targets: Array, sums: Array, shares: Array | None = None
    ) -> None:
        plain = shares is None and targets.ndim == 1 and y.ndim == 2
        if plain and covers(self, (losses, y, targets), INDICES):
            self._launch.block("tally", y.dtype, (losses, y, targets, sums, *y.shape))
        else:
            super().tally(losses, y, targets, sums, shares)

    @covering()
    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        settings = (momentum, float(weight_decay), TINY, int(nesterov))
        self._launch.threads(
            "sgd", value.dtype, value.size, (value, grad, velocity, rate, *settings, value.size)
        )

    @covering()
    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        self._launch.grid("next_powers", powers.dtype, (1,), (1,), (powers, *map(float, factors)))

    @covering()
    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        betas = float(betas[0]), float(betas[1])
        settings = (*betas, float(epsilon), float(weight_decay), TINY, int(decoupled))
        arguments = (value, grad, mean, square, powers, rate, *settings, value.size)
        self._launch.threads("adam", value.dtype, value.size, arguments)

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        arguments = (cursor, order, labels, rates, chosen, chosen_labels, rate)
        if covers(self, (array for array in arguments if array is not None), INDICES):
            sizes = len(chosen), len(order), len(rates), rate.size
            self._launch.block("next_batch", rate.dtype, (*arguments, *sizes))
        else:
            super().next_batch(*arguments)

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        pixels, N = prod(images.shape[1:]), len(indices)
        blocks = ceil_div(N, GATHER_SIDE), ceil_div(pixels, GATHER_SIDE)
        taken = covers(self, (out, indices), INDICES) and images.flags.c_contiguous
        if not taken or images.dtype not in (BYTES, out.dtype):
            super().gather_batch(images, indices, out, shift, scale)
            return
        has_bytes = images.dtype == BYTES
        name = "gather_bytes" if has_bytes else "gather_numbers"
        factor = 1 / 255 if has_bytes else 1.0
        arguments = (images, indices, out, shift, scale, factor, prod(images.shape[2:]), pixels, N)
        shared = GATHER_SIDE * (GATHER_SIDE + 1) * out.itemsize
        self._launch.grid(name, out.dtype, blocks, (GATHER_SIDE, 8), arguments, shared)

    def _on_device(self, sampling: Sampling, dtype: Any) -> tuple[Array, Array]:
        """The arrays of a sampling, copied to the device when they are first used."""
        arrays = self._samplings.setdefault(sampling, {})
        if dtype not in arrays:
            positions, weights = sampling.lists
            arrays[dtype] = self.device.asarray(positions, INDICES), self.device.asarray(weights, dtype)
        return arrays[dtype]

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
        if bias is not None:
            self.add_bias(out, bias, rectify)
        elif rectify:
            self.relu(out, out)

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
        parts = self.scratch("parts", (shares, tasks, WARP), dy.dtype)
        self._launch.threads(
            "grad_weight_parts", dy.dtype, parts.size, (x, dy, parts, shares, with_bias, sizes)
        )
        self._launch.threads(
            "grad_weight_sum", dy.dtype, len(dy) * taps, (parts, out, bias_grad, shares, sizes)
        )

    def _convolve_by_columns(self, x: Array, weight: Array, out: Array, window: Window, groups: int) -> None:
        for x_g, w_g, y_g in split(groups, x, weight, out):
            for first, rows, run, columns in self._blocks(x_g, y_g, window):
                self._to_columns(x_g, columns, y_g.shape, first, rows, window)
                self.matmul(as_matrix(w_g), columns, out=as_matrix(y_g)[:, run])

    def _grad_weight_by_columns(self, x: Array, dy: Array, out: Array, window: Window, groups: int) -> None:
        for x_g, dy_g, dw_g in split(groups, x, dy, out):
            for first, rows, run, columns in self._blocks(x_g, dy_g, window):
                self._to_columns(x_g, columns, dy_g.shape, first, rows, window)
                dy_run = as_matrix(dy_g)[:, run]
                self.matmul(dy_run, columns.T, out=as_matrix(dw_g), accumulate=first > 0)

    def _grad_input_by_columns(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int
    ) -> None:
        for dy_g, w_g, dx_g in split(groups, dy, weight, out):
            sizes = _convolution(dx_g.shape, dy_g.shape, window, 1)
            for first, rows, run, columns in self._blocks(dx_g, dy_g, window):
                self.matmul(as_matrix(w_g).T, as_matrix(dy_g)[:, run], out=columns)
                arguments = (columns, dx_g, first, rows, int(first > 0), sizes)
                self._launch.threads("from_columns", dy.dtype, prod(dx_g.shape[1:]), arguments, len(dx_g))

    def _blocks(self, x: Array, y: Array, window: Window) -> Any:
        """For each block of output rows: (first, count, these rows as a matrix, scratch for columns)."""
        depth, line = len(x) * window.taps, prod(y.shape[2:])
        for first, rows in self._row_blocks(depth, y):
            run = slice(first * line, (first + rows) * line)
            yield first, rows, run, self.scratch("columns", (depth, rows * line), x.dtype)

    def _to_columns(
        self, x: Array, columns: Array, y_shape: Shape, first: int, rows: int, window: Window
    ) -> None:
        sizes = _convolution(x.shape, y_shape, window, 1)
        depth, length = columns.shape
        self._launch.threads("to_columns", x.dtype, length, (x, columns, first, rows, sizes), depth)

    def _sum_parts(self, x: Array, out: Array, rows: int, length: int, parts: int) -> None:
        threads = min(THREADS, max(WARP, 1 << (length // parts - 1).bit_length()))
        self._launch.grid("sum_rows", x.dtype, (parts, rows), (threads,), (x, out, rows, length), 8 * threads)


def _tile(channels: int) -> int:
    """The number of channels per thread: the smallest tile that is enough, otherwise the largest."""
    return next((tile for tile in TILES if tile >= channels), TILES[-1])


def _staged_bytes(depth: int, channels: int, dtype: Any) -> int:
    """Bytes of shared memory for the weights of a tile of ``channels`` channels."""
    return int(depth * _tile(channels) * dtype.itemsize)


def _numbered(formula: Function) -> tuple[int, float, float]:
    """The number of a function in kernels.cu, and its constants."""
    return FUNCTIONS.index(formula.name), float(formula.a), float(formula.b)


def _bias(bias: Array | None) -> tuple[Array | None, int, int]:
    """The bias, and its strides between channels and between positions."""
    if bias is None:
        return None, 0, 0
    return bias, bias[0].size, int(bias.ndim > 1)


@lru_cache(maxsize=256)
def _convolution(x_shape: Shape, y_shape: Shape, window: Window, groups: int) -> Any:
    """The sizes of a convolution, as kernels.cu defines them."""
    (C, H, W, N), (O, OH, OW, _) = x_shape, y_shape
    sizes = (groups, C // groups, H, W, O // groups, OH, OW, N, *_window(window))
    return np.array([sizes], dtype=CONVOLUTION)


@lru_cache(maxsize=256)
def _pooling(x_shape: Shape, y_shape: Shape, window: Window) -> Any:
    """The sizes of a pooling, as kernels.cu defines them."""
    (C, H, W, N), (_, OH, OW, _) = x_shape, y_shape
    return np.array([(C, H, W, OH, OW, N, *_window(window))], dtype=POOLING)


def _window(window: Window) -> tuple[int, ...]:
    return *window.size, *window.stride, *window.padding, *window.dilation
