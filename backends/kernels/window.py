"""The geometry that convolution and pooling share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A window that slides over height and width: each field is a pair (vertical, horizontal).

    ``padding`` is at the top and on the left, ``end`` at the bottom and on the right (None: the same). With a
    negative ``end``, windows stay away from the last rows or columns. ``direct``: a convolution must not be
    computed by an algorithm that rounds more, such as Winograd's.
    """

    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    end: Pair = None  # type: ignore[assignment]  # filled in below
    direct: bool = False

    def __post_init__(self) -> None:
        if self.end is None:
            object.__setattr__(self, "end", self.padding)

    @property
    def taps(self) -> int:
        """How many numbers of one channel lie under the window."""
        return self.size[0] * self.size[1]

    @property
    def tap_positions(self) -> Iterator[Pair]:
        """(row, column) of every tap, in row-major order."""
        return product(range(self.size[0]), range(self.size[1]))

    @property
    def has_padding(self) -> bool:
        """Whether there is anything around the input."""
        return any(width > 0 for width in self.padding + self.end)

    @property
    def is_disjoint(self) -> bool:
        """Whether no number lies under two positions of the window."""
        return all(stride >= extent for stride, extent in zip(self.stride, self.extent, strict=True))

    @property
    def extent(self) -> Pair:
        """The height and width that the window covers, gaps included."""
        return (
            self.dilation[0] * (self.size[0] - 1) + 1,
            self.dilation[1] * (self.size[1] - 1) + 1,
        )

    def padded(self, height: int, width: int) -> Pair:
        """The input's height and width with its padding."""
        (top, left), (bottom, right) = self.padding, self.end
        return height + top + max(bottom, 0), width + left + max(right, 0)

    def output_size(self, height: int, width: int) -> Pair:
        """How often the window fits, down and across; below 1 where it does not fit at all."""
        return self.positions(0, height), self.positions(1, width)

    def positions(self, axis: int, size: int) -> int:
        """How often the window fits along an axis of an input."""
        return (size + self.padding[axis] + self.end[axis] - self.extent[axis]) // self.stride[axis] + 1

    def rounded_up(self, height: int, width: int) -> "Window":
        """The window for an input of this size with as much more at its end as the last position needs.

        The number of positions is then rounded up instead of down, as by PyTorch's ``ceil_mode``: a position
        that would begin beyond the input is left out.
        """
        ends = []
        for axis, size in enumerate((height, width)):
            start, extent, stride = self.padding[axis], self.extent[axis], self.stride[axis]
            last = -(-(size + start + self.end[axis] - extent) // stride)
            if last * stride >= size + start:
                last -= 1
            ends.append(max(self.end[axis], last * stride + extent - size - start))
        return replace(self, end=(ends[0], ends[1]))

    def inside(self, axis: int, tap: int, size: int) -> slice:
        """The positions along an axis at which a tap sees the input, not its padding."""
        offset = tap * self.dilation[axis] - self.padding[axis]
        first = max(0, -(offset // self.stride[axis]))
        last = min(self.positions(axis, size) - 1, (size - 1 - offset) // self.stride[axis])
        return slice(first, max(first, last + 1))

    def always_sees(self, axis: int, size: int) -> bool:
        """Whether at every position along an axis some tap sees the input, for a pool's window.

        Its padding is at most half of the kernel, and it begins before the input's end. So only a dilation
        greater than the input can step over it, from a position that begins in the padding.
        """
        dilation, stride = self.dilation[axis], self.stride[axis]
        if self.size[axis] == 1 or dilation <= size:
            return True
        first = -self.padding[axis]
        starts = range(first, min(0, first + stride * self.positions(axis, size)), stride)
        taps = ((-(start // dilation), start % dilation) for start in starts)  # the first at 0 or beyond
        return all(tap < self.size[axis] and place < size for tap, place in taps)

    def tap(self, padded: Any, row: int, column: int, rows: int, columns: int) -> Any:
        """What the tap (row, column) sees of a padded (C, H, W, N) array: a view, (C, rows, columns, N)."""
        top, left = row * self.dilation[0], column * self.dilation[1]
        return padded[
            :,
            top : top + self.stride[0] * (rows - 1) + 1 : self.stride[0],
            left : left + self.stride[1] * (columns - 1) + 1 : self.stride[1],
        ]
