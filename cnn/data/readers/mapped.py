"""Images in a memory-mapped file, which may be larger than memory."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn.support.errors import DataError


def mapping(array: Any) -> mmap.mmap | None:
    """The memory map that an array is in; None if it is not in a mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


@dataclass(frozen=True)
class Place:
    """The location of an array in a file. Arrays are pickled as this, so that no file is copied."""

    path: str
    dtype: Any
    shape: tuple[int, ...]
    offset: int

    def map(self) -> Any:
        """The array, mapped into this process's memory; DataError if the file does not exist here."""
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: this file contains the images of a data set, but cannot be mapped here "
                f"({error}): provide the file under the same path, or send images that are in memory"
            ) from error


def place(array: Any) -> Place | None:
    """The location of a contiguous array in a file; None if it is not in a file with a known path."""
    whole = array
    while isinstance(whole, np.ndarray) and not isinstance(whole.base, mmap.mmap):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.filename is None or not array.flags.c_contiguous:
        return None
    offset = whole.offset + array.ctypes.data - whole.ctypes.data
    return Place(os.path.abspath(whole.filename), array.dtype, array.shape, offset)


class ReadAhead:
    """Reads the images of a mapped file one batch ahead, if the file turns out not to fit in memory.

    The system reads far beyond each access, which soon loads a file that fits in memory. If it does not fit,
    most of this is dropped unused: a shuffled epoch then reads a thousand times as much as it needs. After
    more has been read than the size of the file, the system is asked to read only the next pages.
    """

    def __init__(self, images: Any) -> None:
        file = mapping(images)
        self._file = file if hasattr(file, "madvise") else None  # Windows has none
        if self._file is not None:
            self._start = images.ctypes.data - np.frombuffer(self._file, np.uint8).ctypes.data
            self._size = images[0].nbytes
            self._too_large = False
            self._first = self._latest = bytes_read()

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Use :meth:`expect` inside this block; after it, the file is read normally again."""
        if self._file is None:
            yield
            return
        if self._too_large:
            self._file.madvise(mmap.MADV_RANDOM)
        try:
            yield
        finally:
            self._file.madvise(mmap.MADV_NORMAL)

    def expect(self, chosen: Any) -> None:
        """Announce the images that are needed next, in any order."""
        if self._file is None:
            return
        latest, self._latest = self._latest, bytes_read()
        if not self._too_large and self._latest - self._first > len(self._file):
            self._too_large = True
            self._file.madvise(mmap.MADV_RANDOM)
        if self._too_large and self._latest > latest:
            for start, size in self._pages(chosen):
                self._file.madvise(mmap.MADV_WILLNEED, start, size)

    def _pages(self, chosen: Any) -> Iterator[tuple[int, int]]:
        """Yields (start, size) of the images in the file, aligned to pages; adjacent images are joined."""
        starts = self._start + np.sort(chosen) * self._size
        ends = starts + self._size
        starts -= starts % mmap.PAGESIZE
        apart = np.flatnonzero(starts[1:] > ends[:-1]) + 1
        for first, last in zip([0, *apart.tolist()], [*apart.tolist(), len(starts)], strict=True):
            if first < last:
                yield int(starts[first]), int(ends[last - 1] - starts[first])


def bytes_read() -> int:
    """The bytes that this process has read from disks; 0 if the system does not count them."""
    import resource  # not on Windows

    return 512 * resource.getrusage(resource.RUSAGE_SELF).ru_inblock
