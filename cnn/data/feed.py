"""Feed: a data set on the device, given out in batches, batch last."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from cnn.errors import DataError, ShapeError
from cnn.layers.arguments import whole
from cnn.layers.buffers import Array, Buffers
from cnn.network import Sequential


class Feed:
    """Images and labels that lie on the network's device and go into the same buffers batch after batch.

    Each item is ``x`` (C, H, W, n) in the network's dtype, bytes scaled to 0..1, and ``labels``
    (n,), both valid until the next. The last batch holds what is left.
    """

    def __init__(self, network: Sequential, images: Any, labels: Any, batch_size: int) -> None:
        network.require_built()
        self.batch_size = whole("fit", "batch_size", batch_size)
        if tuple(images.shape[1:]) != network.input_shape:
            raise ShapeError(
                f"the images are {tuple(images.shape[1:])}, the network was built for {network.input_shape} "
                "(channels, height, width)"
            )
        highest, classes = labels.max(initial=0), network.output_shape[0]
        if highest >= classes:
            raise DataError(
                f"the labels go up to {highest}, the network's output has {classes} classes; "
                f"give its last layer {highest + 1} outputs or take fewer classes"
            )
        self.backend = network.backend
        self._buffers = Buffers(network.backend, network.dtype)
        self._shape = network.input_shape
        self._images = self.backend.asarray(images, dtype=None if images.dtype == np.uint8 else network.dtype)
        self._labels = self.backend.asarray(labels)
        self._order = self.backend.asarray(np.arange(len(images)))

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
