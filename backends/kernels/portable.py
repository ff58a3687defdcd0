"""The kernels in plain ``xp``: the same lines on every device.

A convolution is a matrix product with the columns of its input (Chellapilla et al. 2006, "High
performance convolutional neural networks for document processing"). The columns of a few output
rows at a time go through one small buffer that stays in fast memory. Since the batch is last, they are
copied along contiguous runs, and the product is the output itself.
"""

from collections.abc import Iterator
from math import prod

from backends.kernels.arithmetic import as_matrix
from backends.kernels.batches import PortableBatchKernels
from backends.kernels.contract import Kernels
from backends.kernels.losses import PortableLossKernels
from backends.kernels.normalization import PortableNormalizationKernels
from backends.kernels.sampling import Sampling
from backends.kernels.updates import PortableUpdateKernels
from backends.kernels.window import Window
from backends.memory import Array, Shape, temporaries


class PortableKernels(
    PortableBatchKernels,
    PortableNormalizationKernels,
    PortableLossKernels,
    PortableUpdateKernels,
    Kernels,
):
    """The kernel set for every array module (NumPy or CuPy); the other sets override parts of it."""

    name = "portable"

    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        border, columns = self._convolution_scratch(x, out, window, groups)
        x = with_border(x, window, 0, border)
        for x_g, w_g, y_g in split(groups, x, weight, out):
            w, y = as_matrix(w_g), as_matrix(y_g)
            for run, block in self._column_blocks(x_g, out, window, columns):
                self.matmul(w, block, out=y[:, run])

    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        border, columns = self._convolution_scratch(x, dy, window, groups)
        x = with_border(x, window, 0, border)
        for x_g, dy_g, dw_g in split(groups, x, dy, out):
            dy_matrix, dw = as_matrix(dy_g), as_matrix(dw_g)
            for run, block in self._column_blocks(x_g, dy, window, columns):
                self.matmul(dy_matrix[:, run], block.T, out=dw, accumulate=run.start > 0)

    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        xp = self.device.xp
        OW, N = dy.shape[2:]
        border, columns = self._convolution_scratch(out, dy, window, groups)
        dx = border if window.has_padding else out
        dx.fill(0)
        for dy_g, w_g, dx_g in split(groups, dy, weight, dx):
            dy_matrix, w = as_matrix(dy_g), as_matrix(w_g)
            for first, rows in self._row_blocks(w.shape[1], dy):
                run = slice(first * OW * N, (first + rows) * OW * N)
                block = columns[: w.shape[1] * rows * OW * N].reshape(w.shape[1], -1)
                self.matmul(w.T, dy_matrix[:, run], out=block)
                block = block.reshape(len(dx_g), *window.size, rows, OW, N)
                below = dx_g[:, first * window.stride[0] :]
                for i, j in window.tap_positions:
                    seen = window.tap(below, i, j, rows, OW)
                    xp.add(seen, block[:, i, j], out=seen)
        if dx is border:
            out[...] = without_border(dx, window, out.shape)

    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        xp = self.device.xp
        border, here, better, nan, candidate = temporaries(
            self.device,
            (border_shape(x, window), x.dtype),
            (out.shape, x.dtype),
            (out.shape, xp.bool_),
            (out.shape, xp.bool_),
            (out.shape, xp.uint8 if winner is None else winner.dtype),
        )
        height, width = x.shape[1:3]
        x = with_border(x, window, -xp.inf, border)
        if winner is not None:
            winner.fill(0)
        if winner is not None and window.has_padding:
            for tap, (i, j) in reversed(list(enumerate(window.tap_positions))):
                rows, columns = window.inside(0, i, height), window.inside(1, j, width)
                winner[:, rows, columns] = tap  # to begin with the first that sees no padding
        for tap, (i, j) in enumerate(window.tap_positions):
            seen = window.tap(x, i, j, *out.shape[1:3])
            if tap == 0:
                out[...] = seen
                continue
            here[...] = seen  # one slow walk over the strided view, then fast ones
            if winner is not None:
                xp.greater(here, out, out=better)
                xp.not_equal(here, here, out=nan)
                xp.logical_or(better, nan, out=better)
                xp.multiply(better.view(xp.uint8), winner.dtype.type(tap), out=candidate)
                xp.maximum(winner, candidate, out=winner)  # taps only rise: the last better one stays
            xp.maximum(out, here, out=out)

    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        xp = self.device.xp
        border, mask, share = temporaries(
            self.device, (border_shape(out, window), dy.dtype), (dy.shape, xp.bool_), (dy.shape, dy.dtype)
        )
        dx = border if window.has_padding else out
        dx.fill(0)
        for tap, (i, j) in enumerate(window.tap_positions):
            xp.equal(winner, tap, out=mask)
            seen = window.tap(dx, i, j, *dy.shape[1:3])
            if window.is_disjoint:
                xp.multiply(dy, mask, out=seen)
            else:
                xp.multiply(dy, mask, out=share)
                xp.add(seen, share, out=seen)
        if dx is border:
            out[...] = without_border(dx, window, out.shape)

    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        C, _, W, N = x.shape
        OH = out.shape[1]
        between, work = temporaries(
            self.device,
            ((C, OH, W, N), x.dtype),
            ((C * max(rows.longest * W, OH * columns.longest) * N,), x.dtype),
        )
        between.fill(0)
        for to, of, weight in rows.runs:
            self._add_scaled(x[:, of], weight, between[:, to], work)
        out.fill(0)
        for to, of, weight in columns.runs:
            self._add_scaled(between[:, :, of], weight, out[:, :, to], work)

    def _add_scaled(self, x: Array, weight: float, out: Array, work: Array) -> None:
        """``out += weight * x``; axes of ``x`` may have the length 1."""
        xp = self.device.xp
        if weight != 1:
            x = xp.multiply(x, weight, out=work[: x.size].reshape(x.shape))
        xp.add(out, x, out=out)

    def _convolution_scratch(self, x: Array, y: Array, window: Window, groups: int) -> list[Array]:
        """Room for ``x`` with its border, and for one block of columns."""
        depth = x.shape[0] // groups * window.taps
        rows = next(self._row_blocks(depth, y))[1]
        return temporaries(
            self.device,
            (border_shape(x, window), x.dtype),
            ((depth * rows * prod(y.shape[2:]),), x.dtype),
        )

    def _row_blocks(self, depth: int, y: Array) -> Iterator[tuple[int, int]]:
        """(first, count) of the output rows whose columns, ``depth`` deep, fit the buffer together."""
        _, OH, OW, N = y.shape
        most = max(1, self.device.column_bytes // (depth * OW * N * y.dtype.itemsize))
        for first in range(0, OH, most):
            yield first, min(most, OH - first)

    def _column_blocks(
        self, x: Array, y: Array, window: Window, columns: Array
    ) -> Iterator[tuple[slice, Array]]:
        """For each block of output rows: their run in ``y`` as a matrix, and their columns."""
        xp = self.device.xp
        C = len(x)
        _, OH, OW, N = y.shape
        (c, h, w, n), (down, right), (row, column) = x.strides, window.dilation, window.stride
        windows = xp.lib.stride_tricks.as_strided(
            x,
            (C, *window.size, OH, OW, N),
            (c, h * down, w * right, h * row, w * column, n),
        )
        for first, rows in self._row_blocks(C * window.taps, y):
            block = columns[: C * window.taps * rows * OW * N].reshape(C, *window.size, rows, OW, N)
            block[...] = windows[:, :, :, first : first + rows]
            yield slice(first * OW * N, (first + rows) * OW * N), block.reshape(C * window.taps, -1)


def border_shape(x: Array, window: Window) -> Shape:
    """The shape of ``x`` with its padding around it; nothing where there is no padding."""
    C, H, W, N = x.shape
    return (C, *window.padded(H, W), N) if window.has_padding else (0,)


def with_border(x: Array, window: Window, value: float, border: Array) -> Array:
    """``x`` with its padding around it, in ``border``; ``x`` itself where there is no padding."""
    if not window.has_padding:
        return x
    top, left = window.padding
    bottom, right = top + x.shape[1], left + x.shape[2]
    border[:, :top] = value
    border[:, bottom:] = value
    border[:, top:bottom, :left] = value
    border[:, top:bottom, right:] = value
    border[:, top:bottom, left:right] = x
    return border


def without_border(padded: Array, window: Window, shape: Shape) -> Array:
    """What lies inside the padding, an array of ``shape``."""
    top, left = window.padding
    return padded[:, top : top + shape[1], left : left + shape[2]]


def split(groups: int, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The arrays' first axes cut into ``groups``, one group at a time."""
    sizes = [len(array) // groups for array in arrays]
    for group in range(groups):
        yield tuple(
            array[group * size : (group + 1) * size] for array, size in zip(arrays, sizes, strict=True)
        )
