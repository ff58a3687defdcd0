"""Where the samples of a feed are: on the device, or on the host with a double buffer on the device."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from backends import Backend
from backends.interoperability import on_host
from backends.memory import Array, Upload
from cnn.data.readers.mapped import mapping
from cnn.data.samples import Samples
from cnn.support.dtypes import master_of
from cnn.support.errors import ArgumentError


def stored_dtype(array: Any, dtype: str) -> Any:
    """The dtype of an array on the device: bytes and labels stay, floats get that of parameters."""
    return np.dtype(master_of(dtype)) if array.dtype.kind == "f" else array.dtype


def is_too_large(backend: Backend, data: Samples, dtype: str) -> bool:
    """Whether a data set should stay on the host, because it does not fit on the device.

    This also holds for arrays in a mapped file that would have to be converted in memory. A data set that
    is on the device already stays there.
    """
    if not all(map(on_host, data.arrays)):
        return False
    size = 0
    for array in data.arrays:
        stored = stored_dtype(array, dtype)
        if mapping(array) is not None and array.dtype != stored:
            return True
        size += array.size * stored.itemsize if array.ndim > 1 else 0
    return not backend.has_room(size)


class Resident:
    """A data set that is stored on the device."""

    def __init__(self, backend: Backend, data: Samples, dtype: str) -> None:
        self.stored = data.map(lambda array: backend.asarray(array, dtype=stored_dtype(array, dtype)))

    def cut(self, sizes: Sequence[int]) -> None:
        """Prepare for batches of these sizes."""

    def place(self, order: Any) -> Any:
        """The positions on the device of the samples in this order."""
        return order

    def begin(self, first: int) -> None:
        """Start an epoch at batch ``first``."""

    def arrive(self, number: int) -> None:
        """Make sure that batch ``number`` is on the device."""

    def send(self, number: int) -> None:
        """Start to copy batch ``number``."""

    def finish(self) -> None:
        """Wait for copies in progress."""


class Streamed:
    """A data set that stays on the host, with a double buffer of two batches on the device.

    While the device works on one half, the next batch is copied to the other half.
    """

    def __init__(self, backend: Backend, data: Samples, dtype: str) -> None:
        if not all(map(on_host, data.arrays)):
            raise ArgumentError(
                f"stream is True, but the data are on {backend.name} already: leave stream out, or give "
                "arrays on the host"
            )
        self._backend, self._data, self._dtype = backend, data, dtype
        self.stored = Samples(None, None)

    def cut(self, sizes: Sequence[int]) -> None:
        """Allocate a double buffer for batches of these sizes, after the previous one has been freed."""
        batch_size = self._slots = int(max(sizes))
        self._starts = np.cumsum([0, *sizes])
        self._uploads: list[Upload] = []
        self.stored = Samples(None, None)
        backend, slots = self._backend, 2 * batch_size

        def make(array: Any) -> Array:
            shape = slots, *array.shape[1:]
            return backend.zeros(prod(shape), stored_dtype(array, self._dtype)).reshape(shape)

        with backend.active():
            self.stored = self._data.map(make)
        halves = slice(0, batch_size), slice(batch_size, slots)
        self._uploads = [backend.upload(*(array[half] for array in self.stored.arrays)) for half in halves]

    def place(self, order: Any) -> Any:
        """The positions in the double buffer of the samples in this order."""
        self._order = np.asarray(order)
        sizes, numbers = np.diff(self._starts), np.arange(len(self._starts) - 1)
        return np.arange(len(order)) + np.repeat(numbers % 2 * self._slots - self._starts[:-1], sizes)

    def begin(self, first: int) -> None:
        """Start an epoch at batch ``first``, also after an interrupted epoch."""
        self._sent = first  # the number of batches already sent or skipped
        self._uploads[first % 2].release()

    def arrive(self, number: int) -> None:
        """Make sure that batch ``number`` is on the device; earlier steps may still read the other half."""
        self.send(number)
        self._uploads[number % 2].arrive()
        self._uploads[(number + 1) % 2].release()

    def send(self, number: int) -> None:
        """Start to copy batch ``number``, unless it has been sent or does not exist."""
        if self._sent > number or number + 1 >= len(self._starts):
            return
        chosen = self._order[slice(*self._starts[number : number + 2])]
        upload = self._uploads[number % 2]
        upload.claim()
        for source, host in zip(self._data.arrays, upload.host, strict=True):
            if source.dtype == host.dtype:
                np.take(
                    source, chosen, axis=0, out=host[: len(chosen)], mode="clip"
                )  # "raise" would copy twice
            else:
                host[: len(chosen)] = source[chosen]
        upload.send()
        self._sent = number + 1

    def finish(self) -> None:
        """Wait for copies in progress."""
        for upload in self._uploads:
            upload.claim()
