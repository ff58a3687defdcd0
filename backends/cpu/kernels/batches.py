"""The batch that a step trains on: gathered, augmented and mixed."""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from backends.cpu.compiled import (
    augmentation,
    steps,
)
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import BYTES, FLOAT64, INDICES, NO_INDICES
from backends.kernels.augmentation import Program
from backends.kernels.batches import PortableBatchKernels
from backends.kernels.covering import covers
from backends.memory import Array


class CompiledBatchKernels(PortableBatchKernels):
    """The batch that a step trains on: gathered, augmented and mixed."""

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        plain = images.flags.c_contiguous and out.flags.c_contiguous and indices.flags.c_contiguous
        if not plain or indices.dtype != INDICES or images.dtype not in (BYTES, out.dtype):
            super().gather_batch(images, indices, out, shift, scale)
            return
        has_bytes = images.dtype == BYTES
        if shift is None:
            shift, scale = _unnormalized(len(out), has_bytes, out.dtype)
        parts = thread_count(out.size)
        at_once = steps.BYTES_AT_ONCE if has_bytes else steps.NUMBERS_AT_ONCE
        block = self.scratch("block", (parts, at_once * steps.IMAGES), images.dtype)
        sizes = prod(out.shape[1:3]), prod(images.shape[1:]), len(indices)
        gather = steps.gather_bytes if has_bytes else steps.gather_numbers
        gather(out.dtype, (images, indices, shift, scale, block, out, *sizes), parts)

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        _, rows, N = drawn.shape
        sizes = rows, *size, samples.size, N
        arguments = (samples, keys, _program(program), len(program), table, drawn, *sizes)
        augmentation.draw(FLOAT64, arguments, thread_count(32 * samples.size * len(program)))

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        plain = images.flags.c_contiguous and out.flags.c_contiguous and indices.flags.c_contiguous
        if not plain or indices.dtype != INDICES or images.dtype not in (BYTES, out.dtype):
            super().augment_batch(images, indices, drawn, reflect, smooth, shift, scale, out)
            return
        augment = augmentation.augment_bytes if images.dtype == BYTES else augmentation.augment_numbers
        parts = thread_count(4 * out.size)
        lines = self.scratch("block", (parts, out.shape[2] * steps.IMAGES), images.dtype)
        arguments = (images, indices, drawn, len(drawn), int(reflect), int(smooth), shift, scale, lines, out)
        augment(out.dtype, (*arguments, *out.shape), parts)

    def mix_batch(self, x: Array, others: Array, drawn: Array) -> None:
        augmentation.mix(x.dtype, (x, others, drawn, *x.shape), thread_count(x.size))

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        has_labels = labels is not None
        pair = (labels, chosen_labels) if has_labels else (NO_INDICES, NO_INDICES)
        arguments = (cursor, order, pair[0], rates, chosen, pair[1], rate)
        if covers(self, arguments, INDICES):
            sizes = *chosen.shape, order.shape[1], len(rates), rate.size
            arrays = (*arguments[:3], rates.reshape(-1), *arguments[4:])
            steps.next_batch(rate.dtype, (*arrays, int(has_labels), *sizes))
        else:
            super().next_batch(cursor, order, labels, rates, chosen, chosen_labels, rate)


@lru_cache(maxsize=256)
def _unnormalized(channels: int, has_bytes: bool, dtype: Any) -> tuple[Array, Array]:
    """The shift and the scale of each channel that bring bytes to 0..1 and leave floats as they are."""
    return np.zeros(channels, dtype), np.full(channels, 1 / 255 if has_bytes else 1, dtype)


@lru_cache(maxsize=256)
def _program(program: Program) -> Array:
    return np.array(program, dtype=INDICES)
