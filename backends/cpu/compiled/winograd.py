"""Convolution with 3x3 kernels by Winograd's F(4x4, 3x3), batch last.

The work is done in blocks of vectors: a vector is a tile of 4x4 results for as many images as a register has
numbers. The patches of a block are transformed for all input channels, then multiplied with the transformed
weights at each of the 36 points, and the products are transformed back, while all of it lies in the caches.
If the batch is no multiple of a vector, its last vector begins earlier and repeats images, with the same
results.

``shape`` contains the sizes in the order of :class:`WinogradSizes`. The parts are blocks. Each number is
computed in an order that does not depend on the number of parts.
"""

from functools import partial
from math import inf
from typing import NamedTuple

from backends.cpu.compiled.functions import RECTIFY
from backends.cpu.compiled.jit import Bytes, Indices, Numbers, as_written, inlined, share
from backends.cpu.compiled.registers import as_number, at, call, one, zero
from backends.cpu.compiled.transforms import (
    POINTS,
    distance,
    gradient_tile,
    input_tile,
    largest_tile,
    output_tile,
    packed_tile,
    place_tile,
    pooled_tile,
    sum_tile,
    weight_gradient_tile,
    weight_tile,
)
from backends.cpu.compiled.vectors import MANY_REGISTERS

# the product's tiles have so many rows, and so many vectors of columns, which are a panel
TALL, SHORT, ACROSS = (8, 4, 3) if MANY_REGISTERS else (6, 4, 2)
LINE = 16  # numbers in a line of the caches
TABLES = 106  # indices for each vector of a block: two for each number of a patch, each result, and itself
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
    x_size: int  # numbers of all transformed patches of a block
    x_point: int  # from one of the 36 points to the next
    x_channel: int
    x_panel: int
    y_size: int  # the same for the products or, in the gradient of the weight, for the transformed dy
    y_point: int
    y_channel: int
    y_panel: int


in_float32 = partial(as_written, dtypes=("float32",))  # float64 is computed directly


@inlined
def _before(tile, tall, tall_size, short_size):
    """The sum of the sizes of the product's tiles of rows before one of them."""
    return min(tile, tall) * tall_size + max(0, tile - tall) * short_size


@in_float32
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


@in_float32
def convolve(
    y: Numbers, winner: Bytes, keep: int, x: Numbers, weights: Numbers, weights_point: int, tall_size: int,
    short_size: int, bias: Numbers, has_bias: int, scale: Numbers, has_scale: int, pool: int, function: int,
    constants: Numbers, in_order: Indices, sums: Numbers, add_up: int, shape: Indices, scratch: Numbers,
    size: int, tables: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = the function of x * w plus the bias, or with ``pool`` of its 2x2 max pooling.

    If no ``winner`` is kept, what is pooled is multiplied by ``scale`` before the bias is added. ``function``
    is the address of one of ``functions.VALUES``, NO_FUNCTION or RECTIFY; ``in_order`` contains where 16
    vectors lie that follow each other.

    ``weights`` are transformed. ``scratch`` has ``size`` numbers and ``tables`` TABLES for each vector of a
    block, for each part. With ``add_up``, ``sums`` get four numbers for each block and output channel: one of
    its results, the sum of the differences from it, that of their squares, and how many results there are.
    """
    C, N, O, OH, OW = shape[0], shape[3], shape[4], shape[5], shape[6]
    tall, short, at_once, depth, lanes = shape[11], shape[12], shape[14], shape[15], shape[16]
    x_point, x_channel, x_panel = shape[18], shape[19], shape[20]
    y_point, y_channel, y_panel = shape[22], shape[23], shape[24]
    nothing, dump, patches, products, counted = _divide(at(scratch, part * size), shape)
    totals = at(scratch, (part + 1) * size - 2 * lanes)
    taps, tap_steps, places, place_steps, tile_of, image_of = _divide_tables(tables, part, shape)
    each = 8 if pool != 0 else 16  # places for each tile
    made = 4 * lanes if pool != 0 else 16 * lanes  # numbers for each vector
    vectors = shape[13] * ACROSS
    values = at(counted, vectors * (16 + lanes))
    computed = at(values, vectors * 16 * lanes)
    lowest = zero(y) if function == RECTIFY else as_number(y, -inf)
    first, last = share(_count_blocks(shape), part, parts)
    for block in range(first, last):
        start, count = _vectors_of(block, shape)
        tiles = _find_vectors(tile_of, image_of, start, count, shape)
        _find_taps(taps, tap_steps, start, tiles, shape, distance(x, nothing))
        if pool != 0:
            _find_windows(places, place_steps, start, tiles, shape, distance(y, dump), distance(winner, dump))
        else:
            _find_places(places, place_steps, start, tiles, shape, distance(y, dump))
        results = _find_counted(counted, start, count, shape) if add_up != 0 else 0
        for c in range(C):
            _transform_inputs(x, taps, tile_of, image_of, count, at(patches, c * x_channel), shape)
            _step(taps, tap_steps, tiles * POINTS)
        for tile in range(0, tall + short, at_once):
            beyond = min(tall + short, tile + at_once)
            row, end = _before(tile, tall, TALL, SHORT), _before(beyond, tall, TALL, SHORT)
            for point in range(POINTS):
                target, source = at(products, point * y_point), at(patches, point * x_point)
                for c in range(0, C, depth):
                    some = min(depth, C - c)
                    for panel in range(-(-count // ACROSS)):
                        to, of = at(target, panel * y_panel), at(source, panel * x_panel + c * x_channel)
                        for t in range(tile, beyond):
                            w = at(weights, point * weights_point + _before(t, tall, tall_size, short_size))
                            line = at(to, (_before(t, tall, TALL, SHORT) - row) * y_channel)
                            if t < tall:
                                packed_tile(line, y_channel, of, x_channel, at(w, c * TALL), some, c > 0,
                                            TALL, ACROSS)  # fmt: skip
                            else:
                                packed_tile(line, y_channel, of, x_channel, at(w, c * SHORT), some, c > 0,
                                            SHORT, ACROSS)  # fmt: skip
            for o in range(row, min(end, O)):
                add, of = bias[o] if has_bias != 0 else zero(y), at(products, (o - row) * y_channel)
                times = scale[o] if has_scale != 0 else one(y)
                for v in range(count):
                    source = at(of, v // ACROSS * y_panel + v % ACROSS * lanes)
                    there, image = at(places, tile_of[v] * each), image_of[v]
                    to, ahead = at(y, image), 0 if image % LINE else OH * OW * N
                    if function > RECTIFY:
                        there, to, ahead = in_order, at(values, v * made), 0
                    if pool == 0:
                        output_tile(source, y_point, to, there, add, lowest, ahead)
                    elif keep != 0:
                        pooled_tile(source, y_point, to, at(winner, image), there, add, lowest)
                    else:
                        largest_tile(source, y_point, to, there, times, add, lowest)
                if function > RECTIFY:
                    call(function, (values, constants, computed, count * made, 0, 1))
                    for v in range(count):
                        there, image = at(places, tile_of[v] * each), image_of[v]
                        source, to = at(computed, v * made), at(y, image)
                        ahead = 0 if image % LINE else OH * OW * N
                        if pool != 0:
                            place_tile(source, to, there, 4, ahead)
                        else:
                            place_tile(source, to, there, 16, ahead)
                if add_up != 0:
                    own = at(sums, 4 * (block * O + o))
                    _add_up(own, y, places, tile_of, image_of, counted, totals, count, shape)
                    own[3] = results
                _step(places, place_steps, tiles * each)


@in_float32
def grad_weight(
    inner: int, shares: Numbers, dy: Numbers, x: Numbers, offsets: Indices, shape: Indices, scratch: Numbers,
    size: int, tables: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """Each part's share of the gradient of the transformed weights, ``shares`` (parts, 36, O, C).

    It is a product over all positions of the transformed patches of x and tiles of dy. ``offsets`` contain
    where the patches of each channel begin, ``size`` numbers and the tables are as in :func:`convolve`.
    """
    C, N, O, OH, OW, lanes = shape[0], shape[3], shape[4], shape[5], shape[6], shape[16]
    x_point, x_channel, y_point, y_channel = shape[18], shape[19], shape[22], shape[23]
    nothing, _, patches, transformed, counted = _divide(at(scratch, part * size), shape)
    taps, tap_steps, places, place_steps, tile_of, image_of = _divide_tables(tables, part, shape)
    own = at(shares, part * POINTS * O * C)
    for i in range(POINTS * O * C):
        own[i] = zero(x)
    first, last = share(_count_blocks(shape), part, parts)
    for block in range(first, last):
        start, count = _vectors_of(block, shape)
        tiles = _find_vectors(tile_of, image_of, start, count, shape)
        _find_taps(taps, tap_steps, start, tiles, shape, distance(x, nothing))
        _find_places(places, place_steps, start, tiles, shape, distance(dy, nothing))
        _find_counted(counted, start, count, shape)
        for c in range(C):
            _transform_inputs(x, taps, tile_of, image_of, count, at(patches, c * x_channel), shape)
            _step(taps, tap_steps, tiles * POINTS)
        for o in range(O):
            for v in range(count):
                image, new = image_of[v], at(counted, v * (16 + lanes) + 16)
                ahead = 0 if image % LINE else OH * OW * N
                to = at(transformed, o * y_channel + v * lanes)
                gradient_tile(at(dy, image), at(places, tile_of[v] * 16), new, to, y_point, ahead)
            _step(places, place_steps, tiles * 16)
        for point in range(POINTS):
            call(inner, (at(own, point * O * C), C, 1, at(transformed, point * y_point), y_channel, 0,
                         at(patches, point * x_point), 0, offsets, 1, count * lanes, O, C))  # fmt: skip


@in_float32
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


@in_float32
def finish_moments(
    sums: Numbers, mean: Numbers, variance: Numbers, O: int, blocks: int, part: int, parts: int
) -> None:
    """``mean`` and biased ``variance`` of each channel, from the sums of :func:`convolve`."""
    first, last = share(O, part, parts)
    for o in range(first, last):
        seen, middle, squares = 0.0, 0.0, 0.0
        for block in range(blocks):
            own = at(sums, 4 * (block * O + o))
            count = float(own[3])
            distance_to = own[0] + own[1] / count - middle
            middle += distance_to * count / (seen + count)
            squares += own[2] - own[1] * own[1] / count + distance_to**2 * seen * count / (seen + count)
            seen += count
        mean[o] = middle
        variance[o] = squares / seen


@inlined
def _divide(scratch, shape):
    """The areas of a part: zeros for all images, what nobody reads, patches, products, and what counts."""
    images = -(-shape[3] // LINE) * LINE
    for i in range(images):
        scratch[i] = zero(scratch)
    patches = at(scratch, 2 * images)
    products = at(patches, shape[17])
    return scratch, at(scratch, images), patches, products, at(products, shape[21])


@inlined
def _divide_tables(tables, part, shape):
    """The tables of a part.

    For each tile of a block they contain where each number of its patch lies in the current channel of x, the
    steps to where it lies in the next, and the same for its results. For each vector, they contain its tile
    and its first image.
    """
    vectors = shape[13] * ACROSS
    taps = at(tables, part * vectors * TABLES)
    places = at(taps, 2 * vectors * POINTS)
    tile_of = at(places, 2 * vectors * 16)
    tap_steps, place_steps = at(taps, vectors * POINTS), at(places, vectors * 16)
    return taps, tap_steps, places, place_steps, tile_of, at(tile_of, vectors)


@inlined
def _step(places, steps, count):
    """Move the places on to the next channel."""
    for i in range(count):
        places[i] += steps[i]


@inlined
def _transform_inputs(x, taps, tile_of, image_of, count, out, shape):
    """The transformed patches of a channel, for all vectors of a block."""
    lanes, x_point, x_panel = shape[16], shape[18], shape[20]
    for v in range(count):
        image = image_of[v]
        ahead = 0 if image % LINE else shape[1] * shape[2] * shape[3]  # the next channel
        to = at(out, v // ACROSS * x_panel + v % ACROSS * lanes)
        input_tile(at(x, image), at(taps, tile_of[v] * POINTS), to, x_point, ahead)


@inlined
def _add_up(sums, y, places, tile_of, image_of, counted, totals, count, shape):
    """The sums of a channel over the results of a block."""
    lanes = shape[16]
    shift = y[places[0] + image_of[0]]
    for i in range(2 * lanes):
        totals[i] = zero(y)
    for v in range(count):
        there = at(places, tile_of[v] * 16)
        sum_tile(at(y, image_of[v]), there, at(counted, v * (16 + lanes)), shift, totals)
    sums[0], sums[1], sums[2] = shift, totals[0], totals[lanes]
    for i in range(1, lanes):
        sums[1] += totals[i]
        sums[2] += totals[lanes + i]


@inlined
def _vectors_of_tile(shape):
    """How many vectors have the images of a batch."""
    return -(-shape[3] // shape[16])


@inlined
def _count_blocks(shape):
    """How many blocks there are."""
    return -(-shape[7] * shape[8] * _vectors_of_tile(shape) // (shape[13] * ACROSS))


@inlined
def _vectors_of(block, shape):
    """(the first vector of a block, how many it has)."""
    vectors, total = shape[13] * ACROSS, shape[7] * shape[8] * _vectors_of_tile(shape)
    return block * vectors, min(vectors, total - block * vectors)


@inlined
def _find_vectors(tile_of, image_of, start, count, shape):
    """Which of the block's tiles each vector belongs to, and its first image; -> the number of tiles."""
    each = _vectors_of_tile(shape)
    tile, number = 0, start % each
    for v in range(count):
        if number == each:
            tile, number = tile + 1, 0
        tile_of[v], image_of[v] = tile, min(number * shape[16], shape[3] - shape[16])
        number += 1
    return tile + 1


@inlined
def _find_counted(counted, start, count, shape):
    """Which of the 16 results of each vector and which of its images count in sums; -> how many do."""
    N, OH, OW, lanes = shape[3], shape[5], shape[6], shape[16]
    each, results = _vectors_of_tile(shape), 0
    for v in range(count):
        row, column = _position((start + v) // each, shape)
        own, new = at(counted, v * (16 + lanes)), min(lanes, N - (start + v) % each * lanes)
        for i in range(16):
            own[i] = one(counted) if row + i // 4 < OH and column + i % 4 < OW else zero(counted)
        for i in range(lanes):  # images that are not in the vector before
            own[16 + i] = one(counted) if i >= lanes - new else zero(counted)
        results += min(4, OH - row) * min(4, OW - column) * new
    return results


@inlined
def _position(tile, shape):
    """(the first row and column of a tile of results)."""
    return tile // shape[8] * 4, tile % shape[8] * 4


@inlined
def _find_taps(taps, steps, start, tiles, shape, nothing):
    """Where the 36 numbers of a tile's patch lie in the first image and channel; ``nothing`` is zeros."""
    H, W, N, top, left = shape[1], shape[2], shape[3], shape[9], shape[10]
    first = start // _vectors_of_tile(shape)
    for tile in range(tiles):
        row, column = _position(first + tile, shape)
        for i in range(6):
            for j in range(6):
                h, w, place = row + i - top, column + j - left, tile * POINTS + i * 6 + j
                inside = 0 <= h < H and 0 <= w < W
                taps[place] = (h * W + w) * N if inside else nothing
                steps[place] = H * W * N if inside else 0


@inlined
def _find_places(places, steps, start, tiles, shape, dump):
    """Where the 16 results of a tile lie in the first image and channel; others go to ``dump``."""
    N, OH, OW = shape[3], shape[5], shape[6]
    first = start // _vectors_of_tile(shape)
    for tile in range(tiles):
        row, column = _position(first + tile, shape)
        for i in range(4):
            for j in range(4):
                h, w, place = row + i, column + j, tile * 16 + i * 4 + j
                inside = h < OH and w < OW
                places[place] = (h * OW + w) * N if inside else dump
                steps[place] = OH * OW * N if inside else 0


@inlined
def _find_windows(places, steps, start, tiles, shape, dump, winner_dump):
    """Where the 4 pooled results of each tile lie in the first image and channel, and then their winners."""
    N, OH, OW = shape[3], shape[5], shape[6]
    first = start // _vectors_of_tile(shape)
    for tile in range(tiles):
        row, column = _position(first + tile, shape)
        for i in range(8):
            h, w, place = row // 2 + i % 4 // 2, column // 2 + i % 2, tile * 8 + i
            inside = h < OH and w < OW
            places[place] = dump if i < 4 else winner_dump
            if inside:
                places[place] = (h * OW + w) * N
            steps[place] = OH * OW * N if inside else 0
