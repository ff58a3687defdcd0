"""Images in a file that is mapped into memory, and may be larger than that: how it is read."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn.support.errors import DataError


def mapping(array: Any) -> mmap.mmap | None:
    """The file that an array lies in, as it is mapped into memory; None where it lies in none."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file: what it is pickled as, so that no file is copied into memory."""

    path: str
    dtype: Any
    shape: tuple[int, ...]
    offset: int

    def map(self) -> Any:
        """The array, mapped into this process's memory; DataError if the file is not here."""
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: the images of a data set lie in this file, which cannot be mapped here "
                f"({error}): give this process the same file at the same place, or send images in memory"
            ) from error


def place(array: Any) -> Place | None:
    """Where a contiguous array lies in a file; None if it lies in none that is known by its path."""
    whole = array
    while isinstance(whole, np.ndarray) and not isinstance(whole.base, mmap.mmap):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.filename is None or not array.flags.c_contiguous:
        return None
    offset = whole.offset + array.ctypes.data - whole.ctypes.data
    return Place(os.path.abspath(whole.filename), array.dtype, array.shape, offset)


class ReadAhead:
    """Has the images of a mapped file read a batch ahead, once it turns out that it does not stay in memory.

    The system reads far around what is asked for, which soon brings a file into memory that fits there. Of
    one that does not, most is dropped again unused: a shuffled epoch reads a thousand times what it needs. So
    where more has been read than the file holds, the system is told what comes next, and to read no more.
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
        """Around :meth:`expect`; afterwards the file is read as any other."""
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
        """These images come next, in any order."""
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
        """(start, size) of the images in the file, from a page's start; of those side by side together."""
        starts = self._start + np.sort(chosen) * self._size
        ends = starts + self._size
        starts -= starts % mmap.PAGESIZE
        apart = np.flatnonzero(starts[1:] > ends[:-1]) + 1
        for first, last in zip([0, *apart.tolist()], [*apart.tolist(), len(starts)], strict=True):
            if first < last:
                yield int(starts[first]), int(ends[last - 1] - starts[first])


def bytes_read() -> int:
    """What this process has had read from disks; 0 where the system does not count that."""
    import resource  # not on Windows

    return 512 * resource.getrusage(resource.RUSAGE_SELF).ru_inblock
