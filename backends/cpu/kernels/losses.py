"""Losses and their gradients."""

import numpy as np

from backends.cpu.compiled import steps
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import INDICES, floats
from backends.kernels.covering import covers
from backends.kernels.losses import PortableLossKernels
from backends.memory import Array


class CompiledLossKernels(PortableLossKernels):
    """Losses and their gradients."""

    def cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if not covers(self, (y, targets, losses, dy), INDICES):
            super().cross_entropy(y, targets, losses, dy, divisor, sums)
            return
        kernel = steps.cross_entropy if targets.ndim == 1 else steps.soft_cross_entropy
        arguments = (y, targets, losses, dy, floats(y.dtype, divisor), *y.shape)
        kernel(y.dtype, arguments, thread_count(20 * y.size))
        self._tally_if(losses, y, targets, sums)

    def binary_cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if targets.ndim > 1 or not covers(self, (y, targets, losses, dy), INDICES):
            super().binary_cross_entropy(y, targets, losses, dy, divisor, sums)
            return
        margin = float(np.finfo(y.dtype).eps)
        arguments = (y, targets, losses, dy, floats(y.dtype, margin, 1 - margin, divisor), *y.shape)
        steps.binary_cross_entropy(y.dtype, arguments, thread_count(20 * y.size))
        self._tally_if(losses, y, targets, sums)

    def class_targets(
        self, targets: Array, class_weights: Array, smoothing: float, ignored: int | None, out: Array,
        shares: Array,
    ) -> None:  # fmt: skip
        arguments = (targets, class_weights, smoothing, ignored, out, shares)
        if targets.ndim > 1 or not covers(self, (targets, class_weights, out, shares), INDICES):
            super().class_targets(*arguments)
            return
        settings = floats(out.dtype, 1 - smoothing, smoothing / len(out))
        label = (0, 0) if ignored is None else (1, ignored)
        arguments = (targets, class_weights, settings, *label, out, shares, *out.shape)
        steps.class_targets(out.dtype, arguments, thread_count(out.size))

    def tally(
        self, losses: Array, y: Array, targets: Array, sums: Array, shares: Array | None = None
    ) -> None:
        plain = shares is None and targets.ndim == 1 and y.ndim == 2
        if plain and covers(self, (losses, y, targets), INDICES):
            steps.tally(y.dtype, (losses, y, targets, sums, *y.shape))
        else:
            super().tally(losses, y, targets, sums, shares)
