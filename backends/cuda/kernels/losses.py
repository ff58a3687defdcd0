"""Losses with their gradients, and what a log counts.

A loss of few numbers is one launch of one block, which adds to the sums too. A large one is shared by many
blocks, whose sums a second launch adds, always in the same order.
"""

from typing import Any

import numpy as np

from backends.cuda.kernels.launching import INDICES, Launching
from backends.cuda.launch import THREADS, ceil_div
from backends.kernels.covering import covering, covers
from backends.kernels.losses import PortableLossKernels
from backends.memory import Array

ONE_BLOCK = 8192  # outputs that are no work for more blocks; a guess
MOST_LANES = 32  # threads that share the outputs of a sample
PART = 512  # outputs of a sample that one block takes; pictures have more
MOST_PARTS = 256


class CompiledLossKernels(Launching, PortableLossKernels):
    """Losses with their gradients, and what a log counts."""

    def cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if self._takes(y, targets, losses, dy):
            arguments = (y, *_split(targets), losses, dy, float(divisor))
            self._samples("cross_entropy", y, arguments, sums)
        else:
            super().cross_entropy(y, targets, losses, dy, divisor, sums)

    def focal(
        self, y: Array, targets: Array, gamma: float, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        if self._takes(y, targets, losses, dy):
            arguments = (y, *_split(targets), losses, dy, float(divisor), float(gamma))
            self._samples("focal", y, arguments, sums)
        else:
            super().focal(y, targets, gamma, losses, dy, divisor, sums)

    def binary_cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if self._takes(y, targets, losses, dy):
            margin = float(np.finfo(y.dtype).eps)
            self._means("binary_cross_entropy", y, targets, losses, dy, divisor, sums, margin)
        else:
            super().binary_cross_entropy(y, targets, losses, dy, divisor, sums)

    def logistic_loss(
        self, y: Array, targets: Array, positive: Array, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        if self._takes(y, targets, positive, losses, dy):
            inner = y.size // len(y) // y.shape[-1]
            self._means("logistic_loss", y, targets, losses, dy, divisor, sums, positive, inner)
        else:
            super().logistic_loss(y, targets, positive, losses, dy, divisor, sums)

    def squared_error(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if self._takes(y, targets, losses, dy):
            self._means("squared_error", y, targets, losses, dy, divisor, sums)
        else:
            super().squared_error(y, targets, losses, dy, divisor, sums)

    def absolute_error(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if self._takes(y, targets, losses, dy):
            self._means("absolute_error", y, targets, losses, dy, divisor, sums)
        else:
            super().absolute_error(y, targets, losses, dy, divisor, sums)

    def huber(
        self, y: Array, targets: Array, delta: float, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        if self._takes(y, targets, losses, dy):
            self._means("huber", y, targets, losses, dy, divisor, sums, float(delta))
        else:
            super().huber(y, targets, delta, losses, dy, divisor, sums)

    def class_targets(
        self, targets: Array, class_weights: Array, smoothing: float, ignored: int | None, out: Array,
        shares: Array,
    ) -> None:  # fmt: skip
        if self._takes(out, targets, class_weights, shares):
            label = (0, 0) if ignored is None else (1, int(ignored))
            settings = (class_weights, 1.0 - smoothing, smoothing / len(out), *label)
            arguments = (*_split(targets), *settings, out, shares, *out.shape)
            self._launch.threads("class_targets", out.dtype, out.size, arguments)
        else:
            super().class_targets(targets, class_weights, smoothing, ignored, out, shares)

    @covering()
    def weigh(self, losses: Array, dy: Array, weights: Array) -> None:
        self._launch.threads("weigh", dy.dtype, dy.size, (losses, dy, weights, len(losses), dy.size))

    @covering()
    def add_up(self, shares: Array, total: Array) -> None:
        self._launch.block("add_up", shares.dtype, (shares, total, len(shares)))

    @covering()
    def divide(self, x: Array, total: Array) -> None:
        self._launch.threads("divide", x.dtype, x.size, (x, total, x.size))

    def tally(
        self, losses: Array, y: Array, targets: Array, sums: Array, shares: Array | None = None
    ) -> None:
        if self._takes(y, targets, losses, shares):
            answers = y if y.ndim == 2 else None
            rows = sums[:3] if shares is None else sums  # the others are of the shares
            self._samples("tally", y, (losses, answers, *_split(targets), shares), rows)
        else:
            super().tally(losses, y, targets, sums, shares)

    def count_top(self, y: Array, targets: Array, k: int, sums: Array, shares: Array | None = None) -> None:
        if self._takes(y, targets, shares):
            self._samples("count_top", y, (y, *_split(targets), shares, int(k)), sums)
        else:
            super().count_top(y, targets, k, sums, shares)

    def count_pairs(self, y: Array, targets: Array, counts: Array, shares: Array | None = None) -> None:
        if self._takes(y, targets, shares):
            arguments = (*self._answers(y, targets, shares, None), counts, *y.shape)
            self._launch.threads("count_pairs", y.dtype, counts.size, arguments)
        else:
            super().count_pairs(y, targets, counts, shares)

    def count_confidence(self, p: Array, targets: Array, sums: Array, shares: Array | None = None) -> None:
        if self._takes(p, targets, shares):
            highest = self.scratch("highest", p.shape[1:], p.dtype)
            arguments = (*self._answers(p, targets, shares, highest), highest, sums, p.shape[1])
            bins = (sums.shape[1],)
            self._launch.grid("count_confidence", p.dtype, bins, (THREADS,), arguments, 8 * THREADS)
        else:
            super().count_confidence(p, targets, sums, shares)

    def _takes(self, y: Array, targets: Array, *arrays: Array | None) -> bool:
        """Whether the kernels support ``y``, labels or numbers in its shape, and the other arrays."""
        given = (y, targets, *(array for array in arrays if array is not None))
        return (targets.dtype == INDICES) == (targets.ndim == 1) and covers(self, given, INDICES)

    def _means(
        self, name: str, y: Array, targets: Array, losses: Array, dy: Array, divisor: int,
        sums: Array | None, *settings: Any,
    ) -> None:  # fmt: skip
        """Launch a loss that is a mean over the outputs of a sample, which several blocks may share."""
        outputs, N, _ = _sizes(y)
        parts = min(MOST_PARTS, ceil_div(outputs, PART))
        shares = losses if parts == 1 else self.scratch("shares of losses", (parts, N), y.dtype)
        added = sums if parts == 1 and y.ndim == 2 else None  # what the kernel can add to itself
        arguments = (y, *_split(targets), shares, dy, float(divisor), *settings)
        self._samples(name, y, arguments, added, parts)
        if parts > 1:
            self._launch.threads("add_parts", y.dtype, N, (shares, losses, parts, N))
        if sums is not added:
            self.tally(losses, y, targets, sums)

    def _samples(
        self, name: str, y: Array, arguments: tuple[Any, ...], sums: Array | None, parts: int = 1
    ) -> None:
        """Launch a kernel for all samples; its blocks add to ``sums``, ``parts`` of them share a sample."""
        _, N, columns = _sizes(y)
        blocks = 1 if parts == 1 and y.size <= ONE_BLOCK else ceil_div(N, columns)
        added = sums
        if sums is not None and blocks > 1:
            added = self.scratch("sums of blocks", (sums.size, blocks), np.float64)
        arguments = (*arguments, added, *_sizes(y))
        self._launch.grid(name, y.dtype, (blocks, parts), (THREADS,), arguments, 16 * THREADS)
        if sums is not None and blocks > 1:
            rows = (sums.size,)
            self._launch.grid("add_rows", y.dtype, rows, (THREADS,), (added, sums, blocks), 8 * THREADS)

    def _answers(
        self, y: Array, targets: Array, shares: Array | None, highest: Array | None
    ) -> tuple[Array, Array]:
        """The class of each sample, -1 if it does not count, and where ``y`` is ``highest``."""
        N, columns = _sizes(y)[1:]
        own, answered = (self.scratch(f"classes {name}", (N,), np.int32) for name in ("own", "answered"))
        arguments = (y, *_split(targets), shares, own, answered, highest, *_sizes(y))
        blocks = (ceil_div(N, columns),)
        self._launch.grid("answers", y.dtype, blocks, (THREADS,), arguments, 16 * THREADS)
        return own, answered


def _sizes(y: Array) -> tuple[int, int, int]:
    """The outputs of a sample, the samples, and how many of these a block has at a time."""
    N = y.shape[-1]
    return y.size // N, N, THREADS // lanes_of(y.size // N)


def _split(targets: Array) -> tuple[Array | None, Array | None]:
    """Targets as (labels, numbers), one of which is None."""
    return (targets, None) if targets.ndim == 1 else (None, targets)


def lanes_of(outputs: int) -> int:
    """How many threads share the outputs of a sample: a power of two, so that each has about four.

    It depends on nothing else, so that a sample's loss has the same bits in every batch.
    """
    return min(MOST_LANES, 1 << max(0, (outputs // 4).bit_length() - 1))
