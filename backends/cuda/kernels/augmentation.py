"""Augmentation: what is drawn for each sample, the gather of its pixels, and mixed targets."""

from functools import lru_cache
from typing import Any

import numpy as np

from backends.cuda.kernels.launching import BYTES, GATHER_SIDE, INDICES, Launching, gather_tiles, real_of
from backends.cuda.launch import SHARED_BYTES
from backends.kernels.augmentation import Program, Step
from backends.kernels.batches import PortableBatchKernels
from backends.kernels.covering import covers
from backends.memory import Array

FLOAT64 = np.dtype(np.float64)
MOST_STEPS = 64
PROGRAM = np.dtype([("size", np.int64), ("steps", np.int64, (MOST_STEPS, len(Step._fields)))])
AUGMENTATION = np.dtype([(name, np.int32) for name in ("rows", "reflect", "smooth", "C", "H", "W", "N")])


class CompiledAugmentationKernels(Launching, PortableBatchKernels):
    """What is drawn for each sample, the gather of its pixels in one pass, and mixed targets."""

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        exact = drawn.dtype == FLOAT64 and covers(self, (samples, keys, table, drawn), INDICES)
        if exact and len(program) <= MOST_STEPS:
            sizes = drawn.shape[1], *size, drawn.shape[2], samples.size
            arguments = (samples, keys, _by_value(program), table, drawn, *sizes)
            self._launch.threads("draw", drawn.dtype, samples.size, arguments)
        else:
            super().draw(samples, keys, program, table, size, drawn)

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        if not self._augment(images, indices, drawn, reflect, smooth, shift, scale, out):
            super().augment_batch(images, indices, drawn, reflect, smooth, shift, scale, out)

    def augment_pairs(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        if not self._augment(images, indices, drawn, reflect, smooth, shift, scale, out):
            super().augment_pairs(images, indices, drawn, reflect, smooth, shift, scale, out)

    def _augment(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> bool:  # fmt: skip
        """One launch, which also mixes images if there are two rows; -> whether it supports the arguments."""
        plain = covers(self, (out, indices), INDICES, masters=(shift, scale)) and covers(self, (drawn,))
        blocks, threads, shared = gather_tiles(out)
        shared += GATHER_SIDE * drawn.size // out.shape[-1] * drawn.itemsize
        if not plain or drawn.dtype != FLOAT64 or shared > SHARED_BYTES:
            return False
        if not images.flags.c_contiguous or images.dtype not in (BYTES, real_of(out.dtype)):
            return False
        name = "augment_bytes" if images.dtype == BYTES else "augment_numbers"
        how = np.array([(drawn.shape[-2], reflect, smooth, *out.shape)], AUGMENTATION)
        arguments = (images, indices, drawn, shift, scale, out, how, int(indices.ndim == 2))
        self._launch.grid(name, out.dtype, blocks, threads, arguments, shared)
        return True

    def mix_targets(self, own: Array, others: Array, drawn: Array, out: Array) -> None:
        alike = own.dtype == others.dtype and drawn.dtype == FLOAT64
        if alike and covers(self, (own, others, out), INDICES) and covers(self, (drawn,)):
            name = "mix_labels" if own.dtype == INDICES else "mix_numbers"
            self._launch.threads(name, out.dtype, out.size, (own, others, drawn, out, *out.shape))
        else:
            super().mix_targets(own, others, drawn, out)


@lru_cache(maxsize=256)
def _by_value(program: Program) -> Any:
    """A program as augmentation.cu defines it."""
    record = np.zeros(1, PROGRAM)
    record["size"], record["steps"][0, : len(program)] = len(program), program
    return record
