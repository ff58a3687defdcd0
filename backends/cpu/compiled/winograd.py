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
from backends.cpu.compiled.registers import at, call, one, zero
from backends.cpu.compiled.transforms import (
    POINTS,
    distance,
    gradient_tile,
    input_tile,
    output_tile,
    packed_tile,
    pooled_tile,
    sum_tile,
    weight_gradient_tile,
    weight_tile,
)
from backends.cpu.compiled.vectors import MANY_REGISTERS

# the product's tiles have so many rows, and so many vectors of columns, which are a panel
TALL, SHORT, ACROSS = (8, 4, 3) if MANY_REGISTERS else (6, 4, 2)
LINE = 16  # numbers in a line of the caches
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
    at_once: int  # tiles of rows that are multiplied before they are transformed back
    depth: int  # input channels that are multiplied at a time
    lanes: int


@inlined
def _before(tile, tall, tall_size, short_size):
    """The sum of the sizes of the product's tiles of rows before one of them."""
    return min(tile, tall) * tall_size + max(0, tile - tall) * short_size


@as_written
def transform_weights(
    w: Numbers, out: Numbers, scratch: Numbers, O: int, C: int, w_row: int, w_column: int, turned: int,
    tall: int, short: int, tall_size: int, short_size: int, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``out`` = the transformed kernels: for each point, panels of TALL and then SHORT rows, (C, rows).

    Kernel (o, c) is at ``w + o * w_row + c * w_column``; with ``turned`` it is turned by half a turn. A panel
    takes up ``tall_size`` or ``short_size`` numbers, a multiple of ``lanes``.
    """
    point = _before(tall + short, tall, tall_size, short_size)
    kernels = at(scratch, part * 9 * tall_size)
    first, last = share(tall + short, part, parts)
    for panel in range(first, last):
        rows, size = (TALL, tall_size) if panel < tall else (SHORT, short_size)
        row, start = _before(panel, tall, TALL, SHORT), _before(panel, tall, tall_size, short_size)
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
    short_size: int, bias: Numbers, has_bias: int, lowest: Numbers, pool: int, sums: Numbers, add_up: int,
    shape: Indices, scratch: Numbers, size: int, tables: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = x * w plus the bias, at least ``lowest``; with ``pool`` its 2x2 max pooling.

    ``weights`` are transformed. ``scratch`` has ``size`` numbers and ``tables`` 104 for each vector of a
    block, for each part. The tables contain where each number of a tile lies in the current channel, and the
    steps to where it lies in the next. With ``add_up``, ``sums`` get three numbers for each block and output
    channel: one of its results, the sum of the differences from it, and that of their squares.
    """
    C, O, tall, short, panels, at_once = shape[0], shape[4], shape[11], shape[12], shape[13], shape[14]
    depth, lanes = shape[15], shape[16]
    vectors, width = panels * ACROSS, ACROSS * lanes
    total = shape[7] * shape[8] * -(-shape[3] // lanes)
    x_point, y_row = panels * C * width + ROOM, panels * width
    y_point = at_once * TALL * y_row + ROOM
    nothing = at(scratch, part * size)
    dump, patches = at(nothing, lanes), at(nothing, 3 * lanes)
    products = at(patches, POINTS * x_point)
    counted, totals = at(products, POINTS * y_point), at(nothing, size - 2 * lanes)
    for i in range(lanes):
        nothing[i] = zero(x)
    taps = at(tables, part * vectors * 104)
    tap_steps, places = at(taps, vectors * POINTS), at(taps, 2 * vectors * POINTS)
    place_steps = at(places, vectors * 16)
    each = 8 if pool != 0 else 16  # places for each vector
    first, last = share(-(-total // vectors), part, parts)
    for block in range(first, last):
        start = block * vectors
        count = min(vectors, total - start)
        _find_taps(taps, tap_steps, start, count, shape, distance(x, nothing))
        if pool != 0:
            _find_windows(places, place_steps, start, count, shape, distance(y, dump), distance(winner, dump))
        else:
            _find_places(places, place_steps, start, count, shape, distance(y, dump))
        if add_up != 0:
            _find_counted(counted, start, count, shape)
        for c in range(C):
            for v in range(count):
                to = at(patches, (v // ACROSS * C + c) * width + v % ACROSS * lanes)
                ahead = 0 if v * lanes % LINE else shape[1] * shape[2] * shape[3]  # the next channel
                input_tile(x, at(taps, v * POINTS), to, x_point, ahead)
            for i in range(count * POINTS):
                taps[i] += tap_steps[i]
        for tile in range(0, tall + short, at_once):
            beyond = min(tall + short, tile + at_once)
            row, end = _before(tile, tall, TALL, SHORT), _before(beyond, tall, TALL, SHORT)
            for point in range(POINTS):
                target, source = at(products, point * y_point), at(patches, point * x_point)
                for c in range(0, C, depth):
                    some = min(depth, C - c)
                    for panel in range(-(-count // ACROSS)):
                        to, of = at(target, panel * width), at(source, (panel * C + c) * width)
                        for t in range(tile, beyond):
                            w = at(weights, point * weights_point + _before(t, tall, tall_size, short_size))
                            line = at(to, (_before(t, tall, TALL, SHORT) - row) * y_row)
                            if t < tall:
                                packed_tile(line, y_row, of, at(w, c * TALL), some, c > 0, TALL, ACROSS)
                            else:
                                packed_tile(line, y_row, of, at(w, c * SHORT), some, c > 0, SHORT, ACROSS)
            for o in range(row, min(end, O)):
                add = bias[o] if has_bias != 0 else zero(y)
                for v in range(count):
                    source, there = at(products, (o - row) * y_row + v * lanes), at(places, v * each)
                    if pool != 0:
                        pooled_tile(source, y_point, y, winner, keep != 0, there, add, lowest[0])
                    else:
                        ahead = 0 if v * lanes % LINE else shape[5] * shape[6] * shape[3]
                        output_tile(source, y_point, y, there, add, lowest[0], ahead)
                if add_up != 0:
                    _add_up(at(sums, 3 * (block * O + o)), y, places, counted, totals, count, lanes)
                for i in range(count * each):
                    places[i] += place_steps[i]


@as_written
def grad_weight(
    inner: int, shares: Numbers, dy: Numbers, x: Numbers, offsets: Indices, shape: Indices, scratch: Numbers,
    size: int, tables: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """Each part's share of the gradient of the transformed weights, ``shares`` (parts, 36, O, C).

    It is a product over all positions of the transformed patches of x and tiles of dy. ``offsets`` contain
    where the patches of each channel begin, ``size`` numbers and the tables are as in :func:`convolve`.
    """
    C, O, lanes = shape[0], shape[4], shape[16]
    vectors = shape[13] * ACROSS
    width, total = vectors * lanes, shape[7] * shape[8] * -(-shape[3] // lanes)
    x_point, dy_point = C * width + ROOM, O * width + ROOM
    nothing = at(scratch, part * size)
    patches = at(nothing, lanes)
    tiles = at(patches, POINTS * x_point)
    counted = at(tiles, POINTS * dy_point)
    taps = at(tables, part * vectors * 104)
    tap_steps, places = at(taps, vectors * POINTS), at(taps, 2 * vectors * POINTS)
    place_steps = at(places, vectors * 16)
    own = at(shares, part * POINTS * O * C)
    for i in range(lanes):
        nothing[i] = zero(x)
    for i in range(POINTS * O * C):
        own[i] = zero(x)
    first, last = share(-(-total // vectors), part, parts)
    for block in range(first, last):
        start = block * vectors
        count = min(vectors, total - start)
        _find_taps(taps, tap_steps, start, count, shape, distance(x, nothing))
        _find_places(places, place_steps, start, count, shape, distance(dy, nothing))
        _find_counted(counted, start, count, shape)
        for c in range(C):
            for v in range(count):
                ahead = 0 if v * lanes % LINE else shape[1] * shape[2] * shape[3]
                input_tile(x, at(taps, v * POINTS), at(patches, c * width + v * lanes), x_point, ahead)
            for i in range(count * POINTS):
                taps[i] += tap_steps[i]
        for o in range(O):
            for v in range(count):
                ahead = 0 if v * lanes % LINE else shape[5] * shape[6] * shape[3]
                new = at(counted, v * (16 + lanes) + 16)
                gradient_tile(dy, at(places, v * 16), new, at(tiles, o * width + v * lanes), dy_point, ahead)
            for i in range(count * 16):
                places[i] += place_steps[i]
        for point in range(POINTS):
            call(inner, (at(own, point * O * C), C, 1, at(tiles, point * dy_point), width, 0,
                         at(patches, point * x_point), 0, offsets, 1, count * lanes, O, C))  # fmt: skip


@as_written
def finish_grad_weight(
    shares: Numbers, count: int, dw: Numbers, scratch: Numbers, O: int, C: int, lanes: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``dw`` (O, C, 3, 3) = the sum over the first axis of ``shares``, transformed back.

    The sum is left in the first share. C is at least ``lanes``. ``scratch`` has 9 vectors for each part.
    """
    first, last = share(O, part, parts)
    taps = at(scratch, part * 9 * lanes)
    for o in range(first, last):
        for point in range(POINTS):
            row = at(shares, (point * O + o) * C)
            for k in range(1, count):
                other = at(row, k * POINTS * O * C)
                for c in range(C):
                    row[c] += other[c]
        for c in range(0, C, lanes):
            start = min(c, C - lanes)
            weight_gradient_tile(at(shares, o * C + start), O * C, taps, lanes)
            for i in range(lanes):
                for tap in range(9):
                    dw[(o * C + start + i) * 9 + tap] = taps[tap * lanes + i]


@inlined
def _add_up(sums, y, places, counted, totals, count, lanes):
    """The sums of a channel over the results of a block."""
    shift = y[places[0]]
    for i in range(2 * lanes):
        totals[i] = zero(y)
    for v in range(count):
        sum_tile(y, at(places, v * 16), at(counted, v * (16 + lanes)), shift, totals)
    sums[0], sums[1], sums[2] = shift, totals[0], totals[lanes]
    for i in range(1, lanes):
        sums[1] += totals[i]
        sums[2] += totals[lanes + i]


@as_written
def finish_moments(
    sums: Numbers, mean: Numbers, variance: Numbers, shape: Indices, blocks: int, part: int, parts: int
) -> None:
    """``mean`` and biased ``variance`` of each channel, from the sums of :func:`convolve`."""
    O, total = shape[4], shape[7] * shape[8] * -(-shape[3] // shape[16])
    vectors = shape[13] * ACROSS
    first, last = share(O, part, parts)
    for o in range(first, last):
        seen, middle, squares = 0.0, 0.0, 0.0
        for block in range(blocks):
            own, start = at(sums, 3 * (block * O + o)), block * vectors
            count = float(_count_results(start, min(vectors, total - start), shape))
            distance_to = own[0] + own[1] / count - middle
            middle += distance_to * count / (seen + count)
            squares += own[2] - own[1] * own[1] / count + distance_to**2 * seen * count / (seen + count)
            seen += count
        mean[o] = middle
        variance[o] = squares / seen


@inlined
def _new_images(vector, shape):
    """How many images of a vector are not in the one before it."""
    N, lanes = shape[3], shape[16]
    each = -(-N // lanes)
    return min(lanes, N - vector % each * lanes)


@inlined
def _count_results(start, count, shape):
    """How many results the vectors from ``start`` on have."""
    results = 0
    for vector in range(start, start + count):
        row, column, _ = _position(vector, shape)
        results += min(4, shape[5] - row) * min(4, shape[6] - column) * _new_images(vector, shape)
    return results


@inlined
def _find_counted(counted, start, count, shape):
    """Which of the 16 results of each vector, and then which of its images, count in sums: 1 or 0."""
    OH, OW, lanes = shape[5], shape[6], shape[16]
    for v in range(count):
        row, column, _ = _position(start + v, shape)
        own, new = at(counted, v * (16 + lanes)), _new_images(start + v, shape)
        for i in range(16):
            own[i] = one(counted) if row + i // 4 < OH and column + i % 4 < OW else zero(counted)
        for i in range(lanes):
            own[16 + i] = one(counted) if i >= lanes - new else zero(counted)


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
