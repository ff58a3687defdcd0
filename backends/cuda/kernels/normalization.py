"""Normalization and dropout."""

from math import prod
from typing import Any

import numpy as np

from backends.cuda.kernels.launching import (
    INDICES,
    WARPS,
    Launching,
    function_arguments,
    parts_of_rows,
    threads_for,
)
from backends.cuda.launch import ceil_div
from backends.kernels.covering import covering, covers
from backends.kernels.functions import Function
from backends.kernels.hashing import hash_limit
from backends.kernels.normalization import PortableNormalizationKernels
from backends.memory import Array, Shape

COLUMN_THREADS = 32, 8  # of a block that reduces 32 columns
STATISTICS = "mean", "variance", "weight", "bias"  # what rows are normalized with


class CompiledNormalizationKernels(Launching, PortableNormalizationKernels):
    """Normalization and dropout."""

    @covering(masters=("mean", "variance"))
    def moments(self, x: Array, mean: Array, variance: Array) -> None:
        rows, length = len(x), x.size // len(x)
        parts, threads = parts_of_rows(rows, length)
        found = self.scratch("moments", (rows, parts, 2), np.float64)
        self._launch.grid(
            "row_moments", x.dtype, (parts, rows), (threads,), (x, found, rows, length), 8 * threads
        )
        self._merge(found, x.dtype, mean, variance, length)

    def _merge(
        self, found: Array, dtype: Any, mean: Array, spread: Array, length: int, epsilon: float | None = None
    ) -> None:
        """The moments of ``length`` numbers from those of parts, (statistics, parts, 2).

        ``spread`` is the variance, or with ``epsilon`` 1 / sqrt(variance + epsilon).
        """
        parts = found.shape[1]
        threads = threads_for(parts)
        arguments = (found, mean, spread, parts, length, int(epsilon is not None), epsilon or 0.0)
        self._launch.grid("merge_moments", dtype, (mean.size,), (threads,), arguments, 8 * threads)

    @covering(INDICES)
    def track(
        self, running_mean: Array, running_variance: Array, batches: Array, mean: Array, variance: Array,
        momentum: float | None, unbiased: float,
    ) -> None:  # fmt: skip
        settings = -1.0 if momentum is None else float(momentum), float(unbiased), len(mean)
        arguments = (mean, variance, running_mean, running_variance, batches, *settings)
        self._launch.block("track", mean.dtype, arguments)

    @covering(masters=STATISTICS)
    def normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array, formula: Function | None = None, addend: Array | None = None,
    ) -> None:  # fmt: skip
        self._normalize(x, mean, variance, weight, bias, epsilon, out, formula, addend)

    @covering(INDICES, masters=(*STATISTICS, "running_mean", "running_variance"))
    def normalize_and_track(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array, formula: Function | None, addend: Array | None, running_mean: Array,
        running_variance: Array, batches: Array, momentum: float | None, unbiased: float,
    ) -> None:  # fmt: skip
        given = x, mean, variance, weight, bias, epsilon, out, formula, addend
        running = running_mean, running_variance, batches
        if momentum is None:  # all rows need the number of batches, which one of them counts
            self.normalize(*given)
            self.track(*running, mean, variance, momentum, unbiased)
        else:
            self._normalize(*given, (*running, float(momentum), float(unbiased)))

    def _normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array, formula: Function | None, addend: Array | None,
        running: tuple[Array | float | None, ...] = (None, None, None, 0.0, 0.0),
    ) -> None:  # fmt: skip
        rows, length = len(x), x.size // len(x)
        arrays = x, mean, variance, weight, bias, addend, out
        arguments = (*arrays, float(epsilon), *function_arguments(formula), *running, rows, length)
        self._launch.threads("normalize", x.dtype, length, arguments, rows)

    @covering(masters=(*STATISTICS, "weight_grad", "bias_grad"))
    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
        formula: Function | None = None, addend: Array | None = None, addend_grad: Array | None = None,
    ) -> None:  # fmt: skip
        rows, length = len(x), x.size // len(x)
        parts, threads = parts_of_rows(rows, length)
        sums = self.scratch("gradient sums", (rows, parts, 2), np.float64)
        given = dy, x, mean, variance, weight, bias, addend, addend_grad, sums
        settings = float(epsilon), *function_arguments(formula), rows, length
        grid = (parts, rows), (threads,)
        self._launch.grid("normalize_grad_sums", x.dtype, *grid, (*given, *settings), 8 * threads)
        if any(wanted is not None for wanted in (weight_grad, bias_grad, dx)):
            arguments = (*given, weight_grad, bias_grad, dx, *settings)
            self._launch.grid("normalize_grad", x.dtype, *grid, arguments, 8 * threads)

    @covering(masters=("weight", "bias", "mean", "variance", "scale", "shift", "out_bias"))
    def fold(
        self, weight: Array, bias: Array | None, mean: Array, variance: Array, scale: Array | None,
        shift: Array | None, epsilon: float, out_weight: Array, out_bias: Array,
    ) -> None:  # fmt: skip
        rows = len(weight)
        columns, places = weight.size // rows, out_bias.size // rows
        arrays = weight, bias, mean, variance, scale, shift, out_weight, out_bias
        arguments = (*arrays, float(epsilon), rows, columns, places)
        self._launch.threads("fold", out_weight.dtype, columns + places, arguments, rows)

    @covering(masters=("weight", "bias", "mean", "scale"))
    def normalize_groups(
        self, x: Array, weight: Array | None, bias: Array | None, epsilon: float, mean: Array, scale: Array,
        out: Array,
    ) -> None:  # fmt: skip
        groups, depth, N = _columns(x, mean)
        parts, blocks = _parts_of_columns(groups, depth, N)
        found = self.scratch("moments", (groups * N, parts, 2), np.float64)
        self._reduce_columns("group_moments", x.dtype, blocks, (x, found, groups, depth, N, parts))
        self._merge(found, x.dtype, mean, scale, depth, float(epsilon))
        arguments = (x, mean, scale, weight, bias, out, depth, N, _rows_of(x, weight, bias), x.size)
        self._launch.threads("normalize_groups", x.dtype, x.size, arguments)

    @covering(masters=("weight", "mean", "scale", "weight_grad", "bias_grad"))
    def normalize_groups_grad(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        groups, depth, N = _columns(x, mean)
        given, each = (dy, x, mean, scale), _rows_of(x, weight, weight_grad, bias_grad)
        if weight_grad is not None or bias_grad is not None:
            self._sum_for_weights(given, weight_grad, bias_grad, (depth, N, each))
        if dx is None:
            return
        statistics, (parts, blocks) = mean.size, _parts_of_columns(groups, depth, N)
        sums = self.scratch("gradient sums", (2 * statistics, parts), mean.dtype)
        arguments = (*given, weight, sums, groups, depth, N, each, parts)
        self._reduce_columns("group_grad_sums", x.dtype, blocks, arguments)
        if parts > 1:
            merged = self.scratch("merged sums", (2 * statistics,), mean.dtype)
            self.sum_rows(sums, merged)
            sums = merged
        sizes = depth, N, each, statistics, x.size
        self._launch.threads("normalize_groups_grad", x.dtype, x.size, (*given, weight, sums, dx, *sizes))

    def _sum_for_weights(
        self, given: tuple[Array, ...], weight_grad: Array | None, bias_grad: Array | None, sizes: Shape
    ) -> None:
        """The gradients of the weight and the bias of groups; ``sizes``: depth, N, rows of a weight."""
        (_, x, mean, _), (_, N, each) = given, sizes
        weights, length = x.size // (N * each), N * each
        parts, threads = parts_of_rows(weights, length)
        grads = weight_grad, bias_grad
        sums = grads if parts == 1 else tuple(self.scratch("gradient sums", (2, weights, parts), mean.dtype))
        arguments = (*given, *sums, *sizes, weights)
        self._launch.grid("group_weight_sums", x.dtype, (parts, weights), (threads,), arguments, 8 * threads)
        for those, grad in zip(sums, grads, strict=True):
            if parts > 1 and grad is not None:
                self.sum_rows(those, grad)

    def _reduce_columns(self, name: str, dtype: Any, blocks: Shape, arguments: tuple[Any, ...]) -> None:
        self._launch.grid(name, dtype, blocks, COLUMN_THREADS, arguments, 8 * prod(COLUMN_THREADS))

    def dropout(
        self, x: Array, p: float, stream: int, counters: Array, out: Array, channels: bool = False
    ) -> None:
        if not covers(self, (x, out, counters), INDICES, masters=()):
            super().dropout(x, p, stream, counters, out, channels)
            return
        rows = prod(x.shape[:-1])
        each = rows // len(x) if channels else 1
        settings = 1 / (1 - p), stream, hash_limit(p), each, x.shape[-1], x.size
        self._launch.threads("dropout", x.dtype, x.size, (x, counters, out, *settings))


def _columns(x: Array, mean: Array) -> tuple[int, int, int]:
    """The groups of ``x``, the rows of each, and the number of samples."""
    groups, N = mean.shape
    return groups, x.size // mean.size, N


def _parts_of_columns(groups: int, depth: int, N: int) -> tuple[int, Shape]:
    """The number of parts that each column is reduced in, and the blocks that do it."""
    width, height = COLUMN_THREADS
    tiles = ceil_div(N, width)
    parts = max(1, min(WARPS // height // (groups * tiles), depth // 64))
    return parts, (tiles, groups * parts)


def _rows_of(x: Array, *weights: Array | None) -> int:
    """The rows of ``x`` for each number of a weight: the first of ``weights`` that there is."""
    sizes = [weight.size for weight in weights if weight is not None]
    return x.size // (x.shape[-1] * sizes[0]) if sizes else 1
