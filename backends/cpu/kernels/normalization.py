"""Normalization and dropout."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from backends.cpu.compiled import functions, normalization
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import INDICES, Launching, floats, function_of, or_nothing
from backends.kernels.covering import covering, covers
from backends.kernels.functions import Function
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
        epsilon: float, out: Array, formula: Function | None = None, addend: Array | None = None,
    ) -> None:  # fmt: skip
        rows, optional = len(x), (weight, bias, addend)
        parts = thread_count(x.size)
        (scratch,) = self._vectors(x.dtype, parts * normalization.BLOCK)
        by, shift, added = (or_nothing(array, x) for array in optional)
        arguments = (
            x, mean, variance, by, shift, floats(x.dtype, epsilon), added,
            *function_of(formula, x.dtype), scratch, out, rows, x.size // rows,
            *(int(array is not None) for array in optional),
        )  # fmt: skip
        normalization.normalize(x.dtype, arguments, parts)

    @covering()
    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
        formula: Function | None = None, addend: Array | None = None, addend_grad: Array | None = None,
    ) -> None:  # fmt: skip
        rows, given, wanted = len(x), (weight, bias, addend), (weight_grad, bias_grad, dx)
        parts = thread_count(2 * x.size)
        (scratch,) = self._vectors(x.dtype, 2 * parts * normalization.BLOCK)
        inner = addend_grad
        if inner is None and formula is not None and formula.name != "relu":
            inner = dx  # ReLU is computed again faster than it is written and read
        by, shift, added = (or_nothing(array, x) for array in given)
        flags = (array is not None for array in (*given, inner, *wanted))
        arguments = (
            dy, x, mean, variance, by, shift, floats(x.dtype, epsilon), added,
            *function_of(formula, x.dtype, functions.GRADIENTS), scratch, or_nothing(inner, x),
            *(or_nothing(array, x) for array in wanted), rows, x.size // rows, *map(int, flags),
        )  # fmt: skip
        normalization.normalize_grad(x.dtype, arguments, parts)
        if addend_grad is not None and formula is None:
            self.copy(dy, addend_grad)

    @covering()
    def add_activate(self, x: Array, addend: Array, formula: Function | None, out: Array) -> None:
        if formula is None:
            self.add(x, addend, out)
        else:
            self.normalize(x, *_standard(len(x), x.dtype), None, None, 0.0, out, formula, addend)

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


@lru_cache(maxsize=256)
def _standard(rows: int, dtype: Any) -> tuple[Array, Array]:
    """A mean and a variance of each row with which a normalization changes nothing."""
    return np.zeros(rows, dtype), np.ones(rows, dtype)


def _groups(x: Array, mean: Array) -> tuple[int, int, int]:
    """The groups of ``x``, the rows of each, and the number of samples."""
    groups, N = mean.shape
    return groups, x.size // (groups * N), N


def _rows_of(weight: Array | None, x: Array) -> int:
    """The rows of ``x`` for each number of ``weight``."""
    return 1 if weight is None else x.size // (x.shape[-1] * weight.size)
