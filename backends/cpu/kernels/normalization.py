"""Normalization and dropout."""

from math import prod

import numpy as np

from backends.cpu.compiled import normalization
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import INDICES, Launching, floats, or_nothing
from backends.kernels.covering import covering, covers
from backends.kernels.hashing import hash_limit
from backends.kernels.normalization import PortableNormalizationKernels
from backends.memory import Array


class CompiledNormalizationKernels(Launching, PortableNormalizationKernels):
    """Normalization and dropout."""

    @covering()
    def moments(self, x: Array, mean: Array, variance: Array) -> None:
        rows = len(x)
        normalization.moments(x.dtype, (x, mean, variance, rows, x.size // rows), thread_count(x.size))

    @covering()
    def normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        self._normalize(x, mean, variance, weight, bias, epsilon, out, rectify=False)

    @covering()
    def normalize_relu(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        self._normalize(x, mean, variance, weight, bias, epsilon, out, rectify=True)

    @covering()
    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, epsilon: float,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        self._normalize_grad(dy, x, None, mean, variance, weight, epsilon, weight_grad, bias_grad, dx)

    @covering()
    def normalize_relu_grad(
        self, dy: Array, x: Array, y: Array, mean: Array, variance: Array, weight: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        self._normalize_grad(dy, x, y, mean, variance, weight, epsilon, weight_grad, bias_grad, dx)

    @covering()
    def fold(
        self, weight: Array, bias: Array | None, mean: Array, variance: Array, scale: Array | None,
        shift: Array | None, epsilon: float, out_weight: Array, out_bias: Array,
    ) -> None:  # fmt: skip
        rows, optional = len(weight), (bias, scale, shift)
        before, by, add = (or_nothing(array, weight) for array in optional)
        arguments = (
            weight, before, mean, variance, by, add, floats(weight.dtype, epsilon), out_weight, out_bias,
            rows, weight.size // rows, out_bias.size // rows, *(int(array is not None) for array in optional),
        )  # fmt: skip
        normalization.fold(weight.dtype, arguments, thread_count(weight.size))

    @covering()
    def normalize_groups(
        self, x: Array, weight: Array | None, bias: Array | None, epsilon: float, mean: Array, scale: Array,
        out: Array,
    ) -> None:  # fmt: skip
        (sums,) = self._vectors(np.dtype(np.float64), x.shape[-1])
        arguments = (
            x, or_nothing(weight, x), or_nothing(bias, x), floats(x.dtype, epsilon), mean, scale, sums,
            out, *_groups(x, mean), _rows_of(weight, x), int(weight is not None), int(bias is not None),
        )  # fmt: skip
        normalization.normalize_groups(x.dtype, arguments, thread_count(x.size))

    @covering()
    def normalize_groups_grad(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        groups, rows, N = _groups(x, mean)
        given, each = (dy, x, mean, scale), _rows_of(weight, x)
        if weight_grad is not None:
            grads = weight_grad, or_nothing(bias_grad, x)
            sizes = weight_grad.size, rows, N, each, int(bias_grad is not None)
            kernel = normalization.normalize_groups_grad_weight
            kernel(x.dtype, (*given, *grads, *sizes), thread_count(x.size))
        if dx is not None:
            (sums,) = self._vectors(np.dtype(np.float64), 2 * N)
            arrays = or_nothing(weight, x), sums, dx
            arguments = (*given, *arrays, groups, rows, N, each, int(weight is not None))
            normalization.normalize_groups_grad(x.dtype, arguments, thread_count(x.size))

    def dropout(
        self, x: Array, p: float, stream: int, counters: Array, out: Array, channels: bool = False
    ) -> None:
        if not covers(self, (x, out, counters), INDICES):
            super().dropout(x, p, stream, counters, out, channels)
            return
        rows = prod(x.shape[:-1])
        positions = len(x) if channels else rows
        scale = floats(x.dtype, 1 / (1 - p))
        sizes = positions, rows // positions, x.shape[-1]
        arguments = (x, counters, scale, out, stream, hash_limit(p), *sizes)
        normalization.dropout(x.dtype, arguments, thread_count(2 * x.size))

    def _normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array, rectify: bool,
    ) -> None:  # fmt: skip
        rows = len(x)
        arguments = (
            x, mean, variance, or_nothing(weight, x), or_nothing(bias, x), floats(x.dtype, epsilon), out,
            rows, x.size // rows, int(weight is not None), int(bias is not None), int(rectify),
        )  # fmt: skip
        normalization.normalize(x.dtype, arguments, thread_count(x.size))

    def _normalize_grad(
        self, dy: Array, x: Array, y: Array | None, mean: Array, variance: Array, weight: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`normalize`, followed by ReLU with the output ``y`` if that is given."""
        rows, optional = len(x), (weight, weight_grad, bias_grad, dx)
        scratch = dx
        if dx is None and y is not None:
            scratch = self.scratch("gradient", dy.shape, dy.dtype)
        arguments = (
            dy, x, or_nothing(y, x), mean, variance, or_nothing(weight, x), floats(x.dtype, epsilon),
            or_nothing(weight_grad, x), or_nothing(bias_grad, x), or_nothing(scratch, x), rows,
            x.size // rows, int(y is not None), *(int(array is not None) for array in optional),
        )  # fmt: skip
        normalization.normalize_grad(x.dtype, arguments, thread_count(2 * x.size))


def _groups(x: Array, mean: Array) -> tuple[int, int, int]:
    """The groups of ``x``, the rows of each, and the number of samples."""
    groups, N = mean.shape
    return groups, x.size // (groups * N), N


def _rows_of(weight: Array | None, x: Array) -> int:
    """The rows of ``x`` for each number of ``weight``."""
    return 1 if weight is None else x.size // (x.shape[-1] * weight.size)
