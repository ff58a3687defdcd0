"""Where the numbers of a convolution lie: what its kernels read, in which order and from which offsets."""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np

from backends.cpu.compiled.convolution import ConvolutionSizes, GradientSizes
from backends.kernels.window import Window
from backends.memory import Array, Shape


class Columns(NamedTuple):
    """How the columns of a convolution's input are arranged: (phases, width), or as they are."""

    phases: int
    width: int
    as_they_are: bool

    def size(self, x_shape: Shape) -> int:
        """The elements of the arranged copy; 0 if there is none."""
        C, H, _, N = x_shape
        return 0 if self.as_they_are else C * H * self.phases * self.width * N


def columns(window: Window, W: int, OW: int) -> Columns:
    """The arrangement of an input of width ``W``, in which the taps of an output line read neighbours.

    Every stride-th column is next to the one before: tap j reads phase ``j * dilation % stride``.
    """
    stride, dilation = window.stride[1], window.dilation[1]
    phases = 1 + max(j * dilation % stride for j in range(window.size[1]))
    width = OW + (window.extent[1] - 1) // stride
    if stride == 1 and window.padding[1] == 0 and width <= W:
        return Columns(1, W, True)
    return Columns(phases, width, False)


@lru_cache(maxsize=256)
def convolution(
    x_shape: Shape, weight_shape: Shape, y_shape: Shape, window: Window, groups: int
) -> tuple[Array, Array]:
    """The sizes of a convolution, and the offset of each tap of each channel from the start of a line.

    The input is arranged as :func:`columns` says; taps are in the order (KH, C, KW) of the kernels' weights.
    """
    C, H, W, N = x_shape
    O, OH, OW, _ = y_shape
    KH, KW = window.size
    phases, width, _ = columns(window, W, OW)
    sizes = ConvolutionSizes(
        groups, C // groups, H, phases * width, N, O // groups, OH, OW, KH, KW, window.stride[0],
        window.dilation[0], window.padding[0],
    )  # fmt: skip
    i, c, j = np.ogrid[:KH, : C // groups, :KW]
    across, stride = j * window.dilation[1], window.stride[1]
    offsets = ((c * H + i * window.dilation[0]) * phases + across % stride) * width + across // stride
    return np.array(sizes, dtype=np.intp), (offsets * N).astype(np.intp).ravel()


class _Phase(NamedTuple):
    """What the numbers of an axis of the input see that have the same remainder modulo the stride.

    ``begin`` is the first of them, ``length`` how many there are. They see ``taps``, the last one first; the
    first of them sees it at ``position`` of the output.
    """

    taps: list[int]
    position: int
    begin: int
    length: int


def _phases(window: Window, axis: int, length: int) -> tuple[list[_Phase], int]:
    """The phases of an axis of an input of this length, and the steps between their taps."""
    size, stride = window.size[axis], window.stride[axis]
    dilation, padding = window.dilation[axis], window.padding[axis]
    phases = []
    for phase in range(stride):
        taps = [tap for tap in reversed(range(size)) if tap * dilation % stride == phase]
        begin = (phase - padding) % stride
        position = (begin + padding) // stride - (taps[0] * dilation // stride if taps else 0)
        phases.append(_Phase(taps, position, begin, max(0, -(-(length - begin) // stride))))
    return phases, dilation // gcd(dilation, stride)


class InputGradient(NamedTuple):
    """What the kernels of the input's gradient are called with."""

    border: int  # columns of zeros that dy needs on both sides
    sizes: Array
    tables: Array
    offsets: Array
    scratch: int  # elements for each part


@lru_cache(maxsize=256)
def input_gradient(
    x_shape: Shape, weight_shape: Shape, y_shape: Shape, window: Window, groups: int
) -> InputGradient:
    """The input's gradient in phases.

    ``tables`` contains (taps, rows from the first tap to a line's position) of each phase of rows; (taps,
    the first column of dy, the first column of dx, columns) of each phase of columns; for each pair of them,
    where its weights begin in those of one channel; for each row and column of the kernel (phase, place).
    """
    C, H, W, N = x_shape
    O, OH, OW, _ = y_shape
    C, O = C // groups, O // groups
    KH, KW = window.size
    rows, step_h = _phases(window, 0, H)
    across, step_w = _phases(window, 1, W)
    seen = [phase for phase in across if phase.taps and phase.length]
    lowest = min((phase.position for phase in seen), default=0)
    highest = max(
        (phase.position + (len(phase.taps) - 1) * step_w + phase.length for phase in seen), default=0
    )
    border = max(0, -lowest, highest - OW)
    width = OW + 2 * border
    starts, offsets = [], []
    start = 0
    for below in rows:
        for phase in across:
            starts.append(start)
            t, o, j = np.ogrid[: len(below.taps), :O, : len(phase.taps)]
            offsets.append((((o * OH + t * step_h) * width + j * step_w) * N).ravel())
            start += len(below.taps) * O * len(phase.taps)
    tables = [
        *((len(p.taps), (p.taps[0] * window.dilation[0] // window.stride[0]) if p.taps else 0) for p in rows),
        *((len(p.taps), p.position + border if p.taps else 0, p.begin, p.length) for p in across),
        starts,
        *_places(rows, KH),
        *_places(across, KW),
    ]  # fmt: skip
    sizes = GradientSizes(groups, C, H, W, N, O, OH, width, KH, KW, *window.stride, step_h, window.padding[0])
    scratch = C * max(phase.length for phase in across) * N if window.stride[1] > 1 else 0
    return InputGradient(
        border,
        np.array(sizes, dtype=np.intp),
        np.concatenate(tables).astype(np.intp),
        np.concatenate(offsets).astype(np.intp),
        scratch,
    )


def _places(phases: list[_Phase], size: int) -> list[tuple[int, int]]:
    """(phase, place among its taps) of each tap of an axis."""
    places = {
        tap: (number, phase.taps.index(tap)) for number, phase in enumerate(phases) for tap in phase.taps
    }
    return [places[tap] for tap in range(size)]
