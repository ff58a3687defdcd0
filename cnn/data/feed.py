"""Feed: a data set on the device, given out in batches, batch last."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from backends import Backend
from cnn.layers.buffers import Array, Buffers


class Feed:
    """Images and labels that lie on a device and go into the same buffers batch after batch.

    Each item is ``x`` (C, H, W, n) in ``dtype``, bytes scaled to 0..1, and ``labels`` (n,), both
    valid until the next. The last batch holds what is left.
    """

    def __init__(self, backend: Backend, dtype: str, images: Any, labels: Any, batch_size: int) -> None:
        self.backend = backend
        self.batch_size = batch_size
        self._shape = images.shape[1:]
        self._buffers = Buffers(backend, dtype)
        self._images = backend.asarray(images, dtype=None if images.dtype == np.uint8 else dtype)
        self._labels = backend.asarray(labels)
        self._order = backend.asarray(np.arange(len(images)))

    def reorder(self, order: Any) -> None:
        """Give the samples out in another order from now on."""
        self._order = self.backend.asarray(order)

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self._order) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(self._order), self.batch_size):
            chosen = self._order[start : start + self.batch_size]
            x = self._buffers.view("x", (*self._shape, len(chosen)))
            labels = self._buffers.view("labels", (len(chosen),), self._labels.dtype)
            self.backend.kernels.gather_batch(self._images, chosen, x)
            self.backend.take(self._labels, chosen, labels)
            yield x, labels
