"""Convolution with 3x3 kernels by Winograd's F(4x4, 3x3), batch last.

The work is done in blocks of vectors: a vector is a tile of 4x4 results for as many images as a register has
numbers. The patches of a block are transformed for all input channels, then multiplied with the transformed
weights at each of the 36 points, and the products are transformed back, while all of it lies in the caches.
If the batch is no multiple of a vector, its last vector begins earlier and repeats images, with the same
results.

``shape`` contains the sizes in the order of :class:`WinogradSizes`. The parts are blocks. Each number is
computed in an order that does not depend on the number of parts.
"""

from typing import NamedTuple

from backends.cpu.compiled.jit import Bytes, Indices, Numbers, as_written, inlined, share
from backends.cpu.compiled.registers import _MANY_REGISTERS, at, zero
from backends.cpu.compiled.transforms import (
    POINTS,
    distance,
    input_tile,
    output_tile,
    packed_tile,
    pooled_tile,
    weight_tile,
)

# the product's tiles have so many rows, and so many vectors of columns, which are a panel
TALL, SHORT, ACROSS = (8, 4, 3) if _MANY_REGISTERS else (6, 4, 2)
ROOM = 16  # numbers between points, so that they do not fall on the same lines of a cache


class WinogradSizes(NamedTuple):
    """The sizes of a convolution and of its blocks."""

    C: int
    H: int
    W: int
    N: int
    O: int
    OH: int  # rows and columns of the output
    OW: int
    tiles_h: int  # tiles, down and across
    tiles_w: int
    top: int  # padding
    left: int
    tall: int  # tiles of rows with TALL, followed by those with SHORT
    short: int
    panels: int  # in a block
    at_once: int  # rows that are multiplied before they are transformed back: a multiple of TALL
    depth: int  # input channels that are multiplied at a time
    lanes: int


@as_written
def transform_weights(
    w: Numbers, out: Numbers, scratch: Numbers, O: int, C: int, w_row: int, w_column: int, turned: int,
    tall: int, short: int, tall_size: int, short_size: int, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``out`` = the transformed kernels: for each point, panels of TALL and then SHORT rows, (C, rows).

    Kernel (o, c) is at ``w + o * w_row + c * w_column``; with ``turned`` it is turned by half a turn. A panel
    takes up ``tall_size`` or ``short_size`` numbers, a multiple of ``lanes``.
    """
    point = tall * tall_size + short * short_size
    kernels = at(scratch, part * 9 * tall_size)
    first, last = share(tall + short, part, parts)
    for panel in range(first, last):
        rows, size, row, start = TALL, tall_size, panel * TALL, panel * tall_size
        if panel >= tall:
            rows, size = SHORT, short_size
            row, start = tall * TALL + (panel - tall) * SHORT, tall * tall_size + (panel - tall) * short_size
        for i in range(9 * size):
            kernels[i] = zero(w)
        for r in range(min(rows, O - row)):
            for c in range(C):
                kernel = at(w, (row + r) * w_row + c * w_column)
                for tap in range(9):
                    kernels[tap * size + c * rows + r] = kernel[8 - tap if turned != 0 else tap]
        for i in range(0, size, lanes):
            weight_tile(at(kernels, i), size, at(out, start + i), point)


@as_written
def convolve(
    y: Numbers, winner: Bytes, keep: int, x: Numbers, weights: Numbers, weights_point: int, tall_size: int,
    short_size: int, bias: Numbers, has_bias: int, lowest: Numbers, pool: int, shape: Indices,
    scratch: Numbers, size: int, tables: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = x * w plus the bias, at least ``lowest``; with ``pool`` its 2x2 max pooling.

    ``weights`` are transformed. ``scratch`` has ``size`` numbers and ``tables`` 104 for each vector of a
    block, for each part. The tables contain where each number of a tile lies in the current channel, and the
    steps to where it lies in the next.
    """
    C, O, tall, panels, at_once = shape[0], shape[4], shape[11], shape[13], shape[14]
    depth, lanes = shape[15], shape[16]
    vectors, width = panels * ACROSS, ACROSS * lanes
    total = shape[7] * shape[8] * -(-shape[3] // lanes)
    x_point, y_row = panels * C * width + ROOM, panels * width
    y_point = at_once * y_row + ROOM
    nothing = at(scratch, part * size)
    dump, patches = at(nothing, lanes), at(nothing, 3 * lanes)
    products = at(patches, POINTS * x_point)
    for i in range(lanes):
        nothing[i] = zero(x)
    taps = at(tables, part * vectors * 104)
    tap_steps, places = at(taps, vectors * POINTS), at(taps, 2 * vectors * POINTS)
    place_steps = at(places, vectors * 16)
    each = 8 if pool != 0 else 16  # places for each vector
    rows = tall * TALL + shape[12] * SHORT
    first, last = share(-(-total // vectors), part, parts)
    for block in range(first, last):
        start = block * vectors
        count = min(vectors, total - start)
        _find_taps(taps, tap_steps, start, count, shape, distance(x, nothing))
        if pool != 0:
            _find_windows(places, place_steps, start, count, shape, distance(y, dump), distance(winner, dump))
        else:
            _find_places(places, place_steps, start, count, shape, distance(y, dump))
        for c in range(C):
            for v in range(count):
                to = at(patches, (v // ACROSS * C + c) * width + v % ACROSS * lanes)
                input_tile(x, at(taps, v * POINTS), to, x_point)
            for i in range(count * POINTS):
                taps[i] += tap_steps[i]
        for row in range(0, rows, at_once):
            beyond = min(rows, row + at_once)
            for point in range(POINTS):
                target, source = at(products, point * y_point), at(patches, point * x_point)
                for c in range(0, C, depth):
                    some = min(depth, C - c)
                    for panel in range(-(-count // ACROSS)):
                        to, of = at(target, panel * width), at(source, (panel * C + c) * width)
                        r = row
                        while r < min(beyond, tall * TALL):
                            w = at(weights, point * weights_point + r // TALL * tall_size + c * TALL)
                            packed_tile(at(to, (r - row) * y_row), y_row, of, w, some, c > 0, TALL, ACROSS)
                            r += TALL
                        while r < beyond:
                            before = tall * tall_size + (r - tall * TALL) // SHORT * short_size
                            w = at(weights, point * weights_point + before + c * SHORT)
                            packed_tile(at(to, (r - row) * y_row), y_row, of, w, some, c > 0, SHORT, ACROSS)
                            r += SHORT
            for o in range(row, min(beyond, O)):
                add = bias[o] if has_bias != 0 else zero(y)
                for v in range(count):
                    source, there = at(products, (o - row) * y_row + v * lanes), at(places, v * each)
                    if pool != 0:
                        pooled_tile(source, y_point, y, winner, keep != 0, there, add, lowest[0])
                    else:
                        output_tile(source, y_point, y, there, add, lowest[0])
                for i in range(count * each):
                    places[i] += place_steps[i]


@inlined
def _position(vector, shape):
    """(the first row, column and image of a vector's tile of results)."""
    N, tiles_w, lanes = shape[3], shape[8], shape[16]
    each = -(-N // lanes)
    tile, image = vector // each, vector % each * lanes
    return tile // tiles_w * 4, tile % tiles_w * 4, min(image, N - lanes)


@inlined
def _find_taps(taps, steps, start, count, shape, nothing):
    """Where the 36 numbers of each vector's patch lie in the first channel; zeros are at ``nothing``."""
    H, W, N, top, left = shape[1], shape[2], shape[3], shape[9], shape[10]
    for v in range(count):
        row, column, image = _position(start + v, shape)
        for i in range(6):
            for j in range(6):
                h, w, place = row + i - top, column + j - left, v * POINTS + i * 6 + j
                inside = 0 <= h < H and 0 <= w < W
                taps[place] = (h * W + w) * N + image if inside else nothing
                steps[place] = H * W * N if inside else 0


@inlined
def _find_places(places, steps, start, count, shape, dump):
    """Where the 16 results of each vector lie in the first channel; those beyond it go to ``dump``."""
    N, OH, OW = shape[3], shape[5], shape[6]
    for v in range(count):
        row, column, image = _position(start + v, shape)
        for i in range(4):
            for j in range(4):
                h, w, place = row + i, column + j, v * 16 + i * 4 + j
                inside = h < OH and w < OW
                places[place] = (h * OW + w) * N + image if inside else dump
                steps[place] = OH * OW * N if inside else 0


@inlined
def _find_windows(places, steps, start, count, shape, dump, winner_dump):
    """Where the 4 pooled results of each vector lie in the first channel, and then their winners."""
    N, OH, OW = shape[3], shape[5], shape[6]
    for v in range(count):
        row, column, image = _position(start + v, shape)
        for i in range(8):
            h, w, place = row // 2 + i % 4 // 2, column // 2 + i % 2, v * 8 + i
            inside = h < OH and w < OW
            places[place] = dump if i < 4 else winner_dump
            if inside:
                places[place] = (h * OW + w) * N + image
            steps[place] = OH * OW * N if inside else 0
