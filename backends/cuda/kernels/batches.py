"""The samples of a step: their indices, and their images."""

from math import prod

from backends.cuda.kernels.launching import BYTES, INDICES, Launching, gather_tiles, real_of
from backends.kernels.batches import PortableBatchKernels
from backends.kernels.covering import covers
from backends.memory import Array


class CompiledBatchKernels(Launching, PortableBatchKernels):
    """The samples of a step: their indices, and their images."""

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        arguments = (cursor, order, labels, rates, chosen, chosen_labels, rate)
        if covers(self, (array for array in arguments if array is not None), INDICES):
            sizes = *chosen.shape, order.shape[1], len(rates), rate.size
            self._launch.block("next_batch", rate.dtype, (*arguments, *sizes))
        else:
            super().next_batch(*arguments)

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        pixels, N = prod(images.shape[1:]), len(indices)
        factors = [array for array in (shift, scale) if array is not None]
        taken = covers(self, (out, indices), INDICES, masters=factors) and images.flags.c_contiguous
        if not taken or images.dtype not in (BYTES, real_of(out.dtype)):
            super().gather_batch(images, indices, out, shift, scale)
            return
        has_bytes = images.dtype == BYTES
        name = "gather_bytes" if has_bytes else "gather_numbers"
        factor = 1 / 255 if has_bytes else 1.0
        arguments = (images, indices, out, shift, scale, factor, prod(images.shape[2:]), pixels, N)
        blocks, threads, shared = gather_tiles(out)
        self._launch.grid(name, out.dtype, blocks, threads, arguments, shared)
