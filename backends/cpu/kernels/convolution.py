"""Convolution and its gradients: which loops are called, with which sizes."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from backends.cpu import threads
from backends.cpu.compiled import (
    convolution,
    depthwise,
    pooling,
    steps,
)
from backends.cpu.compiled.jit import MULTIPLICATIONS, thread_count
from backends.cpu.compiled.products import inner_product, lanes, outer_product
from backends.cpu.kernels import layout
from backends.cpu.kernels.launching import (
    BYTES,
    NO_BYTES,
    NO_INDICES,
    NOTHING,
    function_of,
    pool_function,
    pool_grad_function,
    pool_sizes,
)
from backends.cpu.kernels.winograd import WinogradKernels
from backends.kernels.covering import covering
from backends.kernels.functions import RELU, Function
from backends.kernels.portable import PortableKernels
from backends.kernels.window import Pair, Window
from backends.memory import Array, Shape

AT_ONCE = 1024  # elements of a line of dy; with those of all channels they stay in the L2 cache
POOLED_BYTES = 1 << 19  # bytes per thread of a convolution that is pooled in the same pass; they stay in L2


class CompiledConvolutionKernels(WinogradKernels, PortableKernels, records_launches=True):
    """Convolution and its gradients: which loops are called, with which sizes."""

    @covering()
    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        self._convolve(x, weight, None, out, window, groups, None)

    @covering()
    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        if _is_depthwise(out, groups):
            sizes = (len(out), len(out) // groups, *x.shape[1:], pool_sizes(window, dy.shape))
            depthwise.grad_weight(out.dtype, (out, dy, x, *sizes), thread_count(_work(out, dy.shape)))
        elif self._uses_winograd_grad_weight(len(x), dy.shape, window, groups, dy.dtype):
            self._winograd_grad_weight(x, dy, out, window.padding)
        else:
            self._grad_weight(x, dy, dy.shape, out, window, groups)

    @covering()
    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        if _is_depthwise(weight, groups):
            sizes = (groups, len(weight) // groups, *out.shape[1:], pool_sizes(window, dy.shape))
            work = _work(weight, dy.shape)
            depthwise.grad_input(out.dtype, (out, dy, weight, *sizes), thread_count(work))
        elif self.uses_winograd(len(dy), out.shape, window, groups, dy.dtype):
            self._winograd(dy, weight, None, out, _around_gradient(window, window.padding), turned=True)
        else:
            plan = layout.input_gradient(out.shape, weight.shape, dy.shape, window, groups)
            self._grad_input(dy, dy.shape, weight, out, plan)

    @covering()
    def conv2d_activate(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        formula: Function | None,
    ) -> None:  # fmt: skip
        if formula not in (None, RELU) and _is_depthwise(weight, groups):
            super().conv2d_activate(x, weight, bias, out, window, groups, formula)
        else:
            self._convolve(x, weight, bias, out, window, groups, formula)

    @covering()
    def conv2d_moments(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        mean: Array, variance: Array,
    ) -> None:  # fmt: skip
        tied = bias is None or bias.ndim == 1
        if tied and self.uses_winograd(len(x), out.shape, window, groups, x.dtype):
            self._winograd(x, weight, bias, out, window.padding, moments=(mean, variance))
        else:
            super().conv2d_moments(x, weight, bias, out, window, groups, mean, variance)

    @covering(BYTES)
    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window, formula: Function | None, scale: Array | None = None,
    ) -> None:  # fmt: skip
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        apart = scale is not None or formula not in (None, RELU)  # the loops do this only without winners
        if self.uses_winograd(len(x), y_shape, window, groups, x.dtype):
            is_fused = _is_quads(pool, y_shape, out.shape) and (bias is None or bias.ndim == 1)
            if is_fused and not (apart and winner is not None):
                self._winograd(
                    x, weight, bias, out, window.padding, formula=formula, pool=True, winner=winner,
                    scale=scale,
                )  # fmt: skip
            else:
                super().conv2d_max_pool2d(x, weight, bias, out, winner, window, groups, pool, formula, scale)
            return
        if apart:
            before = bias if scale is None else None
            self.conv2d_max_pool2d(x, weight, before, out, winner, window, groups, pool, None)
            self.finish(out, scale, None if scale is None else bias, formula)
            return
        O, _, OW, N = y_shape
        work = _work(weight, y_shape)
        parts = thread_count(work)
        line = O * OW * N  # elements of a line of all channels
        step, extent = pool.stride[0], pool.extent[0]
        at_once = max(1, (POOLED_BYTES // (line * x.itemsize) - extent) // step + 1)
        rows = min(at_once, -(-out.shape[1] // parts))
        size = parts * line * ((rows - 1) * step + extent)
        columns = layout.columns(window, x.shape[2], y_shape[2])
        arranged, rows_first, scratch = self._vectors(x.dtype, columns.size(x.shape), weight.size, size)
        shape, offsets = layout.convolution(x.shape, weight.shape, y_shape, window, groups)
        x = _arranged(x, columns, window, arranged)
        weight = _by_rows(weight, rows_first)
        keep = winner is not None
        convolution.convolve_pool(
            out.dtype,
            (
                outer_product.address(out.dtype), pool_function(out.dtype, pool, y_shape, out.shape), out,
                winner if keep else NO_BYTES, int(keep), scratch, x, weight, offsets, shape,
                *_bias(bias, out), int(formula == RELU), pool_sizes(pool, out.shape), rows, lanes(out.dtype),
            ),
            parts,
        )  # fmt: skip

    @covering(BYTES)
    def conv2d_epilogue_grad(
        self, dy: Array, x: Array, y: Array | None, winner: Array | None, weight: Array, window: Window,
        groups: int, pool: Window | None, weight_grad: Array, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        by_winograd = self._uses_winograd_grad_weight(len(x), y_shape, window, groups, dy.dtype)
        if by_winograd or _is_depthwise(weight, groups):
            super().conv2d_epilogue_grad(
                dy, x, y, winner, weight, window, groups, pool, weight_grad, bias_grad, dx
            )
            return
        O, OH, OW, _ = y_shape
        direct = dx is not None and not self.uses_winograd(O, dx.shape, window, groups, dy.dtype)
        plan = layout.input_gradient(x.shape, weight.shape, y_shape, window, groups) if direct else None
        grad = self.scratch("gradient", _gradient_shape(y_shape, dx is not None, plan), dy.dtype)
        sums = None
        if bias_grad is not None:
            sums = (
                bias_grad if bias_grad.ndim == 3 else self._vectors(grad.dtype, O * OH * OW, name="sums")[0]
            )
        if pool is None:
            line_function, sizes = pooling.relu_grad_line_of_image.address(dy.dtype), NO_INDICES
        else:
            line_function = pool_grad_function(dy.dtype, pool, y_shape, dy.shape)
            sizes = pool_sizes(pool, dy.shape)
        z, rectified = (dy, 0) if y is None else (y, 1)
        made_from = line_function, dy, z, NO_BYTES if winner is None else winner, rectified
        self._grad_weight(x, grad, y_shape, weight_grad, window, groups, made_from, sums, sizes)
        if bias_grad is not None and bias_grad.ndim == 1:
            steps.sum_rows(grad.dtype, (sums, bias_grad, O, OH * OW))
        if plan is not None:
            self._grad_input(grad, y_shape, weight, dx, plan)
        elif dx is not None:
            self.conv2d_grad_input(grad, weight, dx, window, groups)

    def _convolve(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        formula: Function | None,
    ) -> None:  # fmt: skip
        work = _work(weight, out.shape)
        finish = bias is not None or formula == RELU
        if _is_depthwise(weight, groups):
            sizes = (len(out), len(out) // groups, *x.shape[1:], pool_sizes(window, out.shape))
            offsets = _tap_offsets(window, x.shape)
            how = *_bias(bias, out), int(finish), int(formula == RELU), lanes(out.dtype)
            arguments = (outer_product.address(out.dtype), out, x, weight, offsets, *sizes, *how)
            depthwise.convolve(out.dtype, arguments, thread_count(work))
            return
        if self.uses_winograd(len(x), out.shape, window, groups, x.dtype):
            if bias is None or bias.ndim == 1:
                self._winograd(x, weight, bias, out, window.padding, formula=formula)
            else:
                self._winograd(x, weight, None, out, window.padding)
                self.finish(out, None, bias, formula)
            return
        parts, columns = thread_count(work), layout.columns(window, x.shape[2], out.shape[2])
        sizes = columns.size(x.shape), weight.size, parts * convolution.BLOCK
        arranged, rows_first, scratch = self._vectors(x.dtype, *sizes)
        shape, offsets = layout.convolution(x.shape, weight.shape, out.shape, window, groups)
        x = _arranged(x, columns, window, arranged)
        weight = _by_rows(weight, rows_first)
        convolution.convolve(
            out.dtype,
            (
                outer_product.address(out.dtype), out, x, weight, offsets, shape, *_bias(bias, out),
                int(finish), *function_of(formula, out.dtype), scratch, lanes(out.dtype),
            ),
            parts,
        )  # fmt: skip

    def _grad_weight(
        self, x: Array, dy: Array, y_shape: Shape, out: Array, window: Window, groups: int,
        made_from: tuple[int, Array, Array, Array, int] | None = None, sums: Array | None = None,
        pool: Any = None,
    ) -> None:  # fmt: skip
        """The gradient of the weight; ``made_from`` is explained in convolution_grad_weight."""
        parts = thread_count(_work(out, y_shape))
        columns = layout.columns(window, x.shape[2], y_shape[2])
        arranged, shares = self._vectors(x.dtype, columns.size(x.shape), parts * out.size)
        shape, offsets = layout.convolution(x.shape, out.shape, y_shape, window, groups)
        x = _arranged(x, columns, window, arranged)
        nothing = NOTHING[out.dtype]
        made_from = made_from or (0, nothing, nothing, NO_BYTES, 0)
        sums, add_up = (nothing, 0) if sums is None else (sums, 1)
        dy_border, kept = (dy.shape[2] - y_shape[2]) // 2, dy.shape[1]
        arguments = (
            inner_product.address(out.dtype), shares, dy, dy_border, kept, x, offsets, shape, AT_ONCE,
            *made_from, sums, add_up, NO_INDICES if pool is None else pool,
        )  # fmt: skip
        convolution.convolution_grad_weight(out.dtype, arguments, parts)
        convolution.add_weight_shares(out.dtype, (shares, parts, out, *out.shape), thread_count(out.size))

    def _grad_input(
        self, dy: Array, dy_shape: Shape, weight: Array, out: Array, plan: layout.InputGradient
    ) -> None:
        """The gradient of the input; ``dy`` may have the border that the plan names."""
        O, OH, OW, N = dy_shape
        parts, width, border = thread_count(_work(weight, dy_shape)), OW + 2 * plan.border, plan.border
        is_bordered = dy.shape[2] == width
        sizes = 0 if is_bordered else O * OH * width * N, weight.size, parts * plan.scratch
        bordered, turned, scratch = self._vectors(out.dtype, *sizes)
        if is_bordered:
            bordered = dy
        else:
            how = O * OH, OW, N, 1, border, 1, width
            convolution.arrange_columns(out.dtype, (dy, bordered, *how), thread_count(dy.size))
        convolution.turn(out.dtype, (weight, turned, plan.tables, plan.sizes), thread_count(weight.size))
        arguments = (
            outer_product.address(out.dtype), out, scratch, plan.scratch, bordered, turned, plan.offsets,
            plan.tables, plan.sizes, lanes(out.dtype),
        )  # fmt: skip
        convolution.convolution_grad_input(out.dtype, arguments, parts)


def _arranged(x: Array, columns: layout.Columns, window: Window, out: Array) -> Array:
    """``x`` with its columns arranged, in ``out`` if that is not how they are."""
    if columns.as_they_are:
        return x
    C, H, W, N = x.shape
    how = window.stride[1], window.padding[1], columns.phases, columns.width
    convolution.arrange_columns(x.dtype, (x, out, C * H, W, N, *how), thread_count(out.size))
    return out


def _by_rows(weight: Array, out: Array) -> Array:
    """(O, C, KH, KW) -> (O, KH, C, KW), in ``out`` where that is another order."""
    if 1 in weight.shape[1:3]:
        return weight
    convolution.by_kernel_rows(weight.dtype, (weight, out, *weight.shape), thread_count(weight.size))
    return out.reshape(weight.shape)


def _is_depthwise(weight: Array, groups: int) -> bool:
    """Whether each output channel sees one of several input channels; the weight is (O, C/groups, KH, KW)."""
    return groups > 1 and bool(weight.shape[1] == 1)


def _work(weight: Array, y_shape: Shape) -> int:
    """The work of a convolution, in elements moved."""
    return int(weight.size) * prod(y_shape[1:]) // MULTIPLICATIONS


def _is_quads(pool: Window, y_shape: Shape, pooled_shape: Shape) -> bool:
    """Whether each window of a pool has 2x2 numbers of its own, all inside its input of ``y_shape``."""
    inside = 2 * pooled_shape[1] <= y_shape[1] and 2 * pooled_shape[2] <= y_shape[2]
    plain = pool.size == pool.stride == (2, 2) and pool.padding == (0, 0) and pool.dilation == (1, 1)
    return plain and inside


def _gradient_shape(y_shape: Shape, input_grad: bool, plan: layout.InputGradient | None) -> Shape:
    """The shape of a convolution's output gradient, with the border of a plan for the input's gradient.

    If the input gradient is not needed, a few lines per thread are enough.
    """
    O, OH, OW, N = y_shape
    if not input_grad:
        return O * threads.count(), min(OH, max(1, AT_ONCE // (OW * N))), OW, N
    return O, OH, OW + 2 * (plan.border if plan else 0), N


def _around_gradient(window: Window, padding: Pair) -> Pair:
    """The padding of the convolution that computes the input's gradient."""
    return window.extent[0] - 1 - padding[0], window.extent[1] - 1 - padding[1]


def _bias(bias: Array | None, out: Array) -> tuple[Array, int, int, int]:
    """The bias, and its strides between channels, rows and columns."""
    if bias is None:
        return NOTHING[out.dtype], 0, 0, 0
    if bias.ndim == 1:
        return bias, 1, 0, 0
    return bias, bias.shape[1] * bias.shape[2], bias.shape[2], 1


@lru_cache(maxsize=256)
def _tap_offsets(window: Window, x_shape: Shape) -> Array:
    """The offset of each tap from the first one, in one channel without a border."""
    _, _, W, N = x_shape
    i, j = np.ogrid[: window.size[0], : window.size[1]]
    return ((i * window.dilation[0] * W + j * window.dilation[1]) * N).astype(np.intp).ravel()
