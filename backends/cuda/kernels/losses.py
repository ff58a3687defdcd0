"""Losses with their gradients, and what a log counts."""

import numpy as np

from backends.cuda.kernels.launching import INDICES, Launching
from backends.kernels.covering import covers
from backends.kernels.losses import PortableLossKernels
from backends.memory import Array


class CompiledLossKernels(Launching, PortableLossKernels):
    """Losses with their gradients, and what a log counts."""

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
