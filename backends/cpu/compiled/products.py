"""Matrix products built from register tiles."""

from typing import Any

from backends.cpu.compiled.jit import Indices, Kernel, Numbers, inlined, share
from backends.cpu.compiled.registers import (
    INNER_TILES,
    OUTER_TILES,
    at,
    call,
    copy_lines,
    inner_tiles,
    outer_tiles,
    room,
    transpose_tile,
    zero,
)
from backends.cpu.compiled.vectors import VECTOR_BYTES

# what is kept where, for an L1 cache of 32 KB and an L2 cache of 512 KB
_PANEL_BYTES = 24 << 10
DEPTH = min(256, _PANEL_BYTES // (3 * VECTOR_BYTES))  # lines of x, three vectors wide: a panel, in L1
PACKED_ROWS = 32  # from so many rows on, copying x into panels pays off
SCATTERED_ROWS, NEAR = 16, 1024  # or from so many, if four lines of x lie further apart than so many numbers
PANELS = 8  # are copied at a time, in L2, so that x is read in long pieces
BLOCK = 64  # rows are combined with these panels at a time; their weights stay in L2
NARROW_BLOCK = 16  # the same if y is so narrow that x is not copied; their weights stay in L1
_PANELS_BYTES, _DEPTH_BYTES, _WEIGHTS_BYTES = PANELS * _PANEL_BYTES, DEPTH * 8, DEPTH * BLOCK * 8


def lanes(dtype: Any) -> int:
    """The number of elements of ``dtype`` in a vector register."""
    return VECTOR_BYTES // dtype.itemsize


@inlined
def _in_tiles(count, rows):
    """How many of ``count`` rows are computed in tiles of ``rows`` rows; lower tiles compute the others."""
    tiles, left = count // rows, count % rows
    if (rows > 4) & (tiles > 0) & ((left == 2) | (left == 3)):
        tiles -= 1  # for example, 10 rows are 6 and 4, not 8 and two single ones
    return tiles * rows


def _outer_strip(rows: int, vectors: int) -> Any:
    """The loops over y for tiles of ``rows`` rows; ``count`` is a multiple of it."""

    @inlined
    def strip(y, y_row, x, offsets, w, w_row, w_column, count, depth, width, add, lanes, panel, weights):
        whole = width - width % (vectors * lanes)
        for m in range(0, whole, vectors * lanes):
            outer_tiles(at(y, m), y_row, at(x, m), offsets, w, w_row, w_column, count, depth, 0, add,
                        rows, vectors, False)  # fmt: skip
        for m in range(whole, width, lanes):
            outer_tiles(at(y, m), y_row, at(x, m), offsets, w, w_row, w_column, count, depth, width - m, add,
                        rows, 1, True)  # fmt: skip

    return strip


def _packing_strip(rows: int) -> Any:
    """The same for tiles of three vectors, and of two if that leaves none over.

    If there are enough rows, the lines of x below a column of tiles are first copied next to each other, into
    ``panel``. Otherwise they may displace each other from the L1 cache, because a batch of 128 puts their
    beginnings on few of its sets. So are the weights if they are those of w.T.
    """

    @inlined
    def strip(y, y_row, x, offsets, w, w_row, w_column, count, depth, width, add, lanes, panel, weights):
        numbers, steps = panel
        packed = False
        if (width > 6 * lanes) & (depth >= 16):
            scattered = offsets[3] - offsets[0] > NEAR
            packed = (count >= PACKED_ROWS) | (count >= SCATTERED_ROWS) & scattered
        at_once = max(1, count)
        if packed:
            at_once = BLOCK
            for k in range(depth):
                steps[k] = k * 3 * lanes
        elif depth == 1:
            at_once = rows  # little but writing, which is fastest along the rows
        elif count > width:
            at_once = NARROW_BLOCK
        whole = width // lanes
        threes = whole // 3 - (1 if (whole % 3 == 1) & (whole > 3) else 0)  # 4 vectors are 2 and 2
        twos = (whole - 3 * threes) // 2
        for r in range(0, count, at_once):
            y_r, some = at(y, r * y_row), min(at_once, count - r)
            w_r, own_row, own_column = at(w, r * w_row), w_row, w_column
            if packed & (w_row == 1) & (w_column > 1):
                for k in range(depth):
                    source, target = at(w_r, k * w_column), at(weights, k * BLOCK)
                    for i in range(some):
                        target[i] = source[i]
                w_r, own_column = weights, BLOCK
            m = 0
            for column in range(threes):
                x_m, places = at(x, m), offsets
                if packed:
                    if column % PANELS == 0:
                        panels = min(PANELS, threes - column)
                        copy_lines(x_m, offsets, numbers, 3 * lanes, depth, panels, 3 * lanes * depth, 3)
                    x_m, places = at(numbers, column % PANELS * 3 * lanes * depth), steps
                outer_tiles(at(y_r, m), y_row, x_m, places, w_r, own_row, own_column, some, depth, 0, add,
                            rows, 3, False)  # fmt: skip
                m += 3 * lanes
            for _ in range(twos):
                x_m, places = at(x, m), offsets
                if packed:
                    copy_lines(x_m, offsets, numbers, 3 * lanes, depth, 1, 0, 2)
                    x_m, places = numbers, steps
                outer_tiles(at(y_r, m), y_row, x_m, places, w_r, own_row, own_column, some, depth, 0, add,
                            rows, 2, False)  # fmt: skip
                m += 2 * lanes
            for rest in range(m, width, lanes):
                outer_tiles(at(y_r, rest), y_row, at(x, rest), offsets, w_r, own_row, own_column,
                            some, depth, width - rest, add, rows, 1, True)  # fmt: skip

    return strip


def _outer_strips(tiles: dict[int, int]) -> Any:
    """The loops over y for tiles of all these sizes, the highest first."""
    (rows, vectors), *lower = tiles.items()
    strip = _packing_strip(rows) if vectors == 3 else _outer_strip(rows, vectors)
    if not lower:
        return strip
    others = _outer_strips(dict(lower))

    @inlined
    def strips(y, y_row, x, offsets, w, w_row, w_column, count, depth, width, add, lanes, panel, weights):
        done = _in_tiles(count, rows)
        strip(y, y_row, x, offsets, w, w_row, w_column, done, depth, width, add, lanes, panel, weights)
        others(at(y, done * y_row), y_row, x, offsets, at(w, done * w_row), w_row, w_column,
               count - done, depth, width, add, lanes, panel, weights)  # fmt: skip

    return strips


_all_outer_tiles = _outer_strips(OUTER_TILES)


@Kernel
def outer_product(
    y: Numbers, y_row: int, x: Numbers, offsets: Indices, w: Numbers, w_row: int, w_column: int,
    rows: int, depth: int, width: int, add: int, lanes: int,
) -> None:  # fmt: skip
    """``y (+)= w @ x``: (rows, depth) times (depth, width); ``outer_tiles`` explains the layout."""
    panel = room(y, _PANELS_BYTES), room(offsets, _DEPTH_BYTES)
    weights = room(y, _WEIGHTS_BYTES)
    for k in range(0, max(depth, 1), DEPTH):
        some, more = min(DEPTH, depth - k), add != 0 or k > 0
        _all_outer_tiles(y, y_row, x, at(offsets, k), at(w, k * w_column), w_row, w_column,
                     rows, some, width, more, lanes, panel, weights)  # fmt: skip


def _inner_strip(rows: int, wide: int) -> Any:
    """The loops over y for tiles of ``rows`` rows; ``count`` is a multiple of it."""

    @inlined
    def strip(y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, count, lines, length, columns):
        whole = columns - columns % wide
        inner_tiles(
            y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, count, whole, lines, length, rows, wide
        )
        inner_tiles(
            at(y, whole * y_column), y_row, y_column, a, a_row, a_line, b, b_line, at(offsets, whole),
            count, columns - whole, lines, length, rows, 1,
        )  # fmt: skip

    return strip


def _inner_strips(tiles: dict[int, int]) -> Any:
    """The loops over y for tiles of all these sizes, the highest first."""
    (rows, wide), *lower = tiles.items()
    strip = _inner_strip(rows, wide)
    if not lower:
        return strip
    others = _inner_strips(dict(lower))

    @inlined
    def strips(y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, count, lines, length, columns):
        done = _in_tiles(count, rows)
        strip(y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, done, lines, length, columns)
        others(at(y, done * y_row), y_row, y_column, at(a, done * a_row), a_row, a_line, b, b_line, offsets,
               count - done, lines, length, columns)  # fmt: skip

    return strips


_all_inner_tiles = _inner_strips(INNER_TILES)


@Kernel
def inner_product(
    y: Numbers, y_row: int, y_column: int, a: Numbers, a_row: int, a_line: int, b: Numbers, b_line: int,
    offsets: Indices, lines: int, length: int, rows: int, columns: int,
) -> None:  # fmt: skip
    """``y += a @ b.T`` for a (rows, lines * length), b (columns, lines * length); see ``inner_tiles``."""
    _all_inner_tiles(y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, rows, lines, length, columns)


@Kernel
def multiply(
    outer: int, y: Numbers, y_row: int, x: Numbers, offsets: Indices, w: Numbers, w_row: int, w_column: int,
    rows: int, depth: int, width: int, add: int, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y (+)= w @ x``; the parts are rows of y or, if it is wide, columns, as in transpose."""
    row_tiles, column_tiles = -(-rows // 4), -(-width // lanes)
    if row_tiles >= column_tiles or depth == 1:
        first, last = share(row_tiles, part, parts)
        row, rows = 4 * first, min(rows, 4 * last) - 4 * first
        call(outer, (at(y, row * y_row), y_row, x, offsets, at(w, row * w_row), w_row, w_column,
                     rows, depth, width, add, lanes))  # fmt: skip
    else:
        first, last = share(column_tiles, part, parts)
        column, width = lanes * first, min(width, lanes * last) - lanes * first
        call(outer, (at(y, column), y_row, at(x, column), offsets, w, w_row, w_column,
                     rows, depth, width, add, lanes))  # fmt: skip


@Kernel
def multiply_turned(
    outer: int, turned: Numbers, at_once: int, y: Numbers, y_row: int, x: Numbers, offsets: Indices,
    w: Numbers, w_row: int, w_column: int, rows: int, depth: int, width: int, add: int, lanes: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``y (+)= w @ x.T`` for x (width, depth); the parts are columns of y.

    ``at_once`` rows of x at a time are transposed into ``turned``, which has space for them for each part.
    """
    first, last = share(-(-width // lanes), part, parts)
    block = at(turned, part * depth * at_once)
    for column in range(first * lanes, min(width, last * lanes), at_once):
        count = min(at_once, min(width, last * lanes) - column)
        _transpose(at(x, column * depth), block, count, depth, at_once, lanes)
        call(outer, (at(y, column), y_row, block, offsets, w, w_row, w_column,
                     rows, depth, count, add, lanes))  # fmt: skip


@Kernel
def multiply_by_depth(
    outer: int, shares: Numbers, x: Numbers, offsets: Indices, w: Numbers, w_row: int, w_column: int,
    rows: int, depth: int, width: int, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """Each part's share of ``w @ x``, (parts, rows, width); the parts are lines of x.

    Each thread then reads only its own weights: at batch 1 the same that it uses in the other kernels.
    """
    first, last = share(-(-depth // 4), part, parts)
    k, depth = 4 * first, min(depth, 4 * last) - 4 * first
    call(outer, (at(shares, part * rows * width), width, x, at(offsets, k), at(w, k * w_column), w_row,
                 w_column, rows, depth, width, 0, lanes))  # fmt: skip


@Kernel
def add_shares(shares: Numbers, count: int, y: Numbers, size: int, part: int, parts: int) -> None:
    """``y`` (size,) = the sum over the first axis of ``shares`` (count, size)."""
    first, last = share(size, part, parts)
    for i in range(first, last):
        total = shares[i]
        for k in range(1, count):
            total += shares[k * size + i]
        y[i] = total


@Kernel
def multiply_transposed(
    inner: int, y: Numbers, y_row: int, y_column: int, a: Numbers, a_row: int, b: Numbers, offsets: Indices,
    rows: int, depth: int, columns: int, add: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y (+)= a @ b.T`` for a (rows, depth) and b (columns, depth); the parts are rows of y."""
    first, last = share(-(-rows // 4), part, parts)
    row, rows = 4 * first, min(rows, 4 * last) - 4 * first
    if add == 0:
        for r in range(row, row + rows):
            for c in range(columns):
                y[r * y_row + c * y_column] = zero(y)
    call(inner, (at(y, row * y_row), y_row, y_column, at(a, row * a_row), a_row, 0, b, 0, offsets,
                 1, depth, rows, columns))  # fmt: skip


@inlined
def _transpose(x, out, rows, columns, out_row, lanes):
    """``out`` = x.T: (rows, columns) -> (columns, out_row), as far as ``rows``."""
    for row in range(0, rows, lanes):
        for column in range(0, columns, lanes):
            if row + lanes <= rows and column + lanes <= columns:
                transpose_tile(
                    at(x, row * columns + column), columns, at(out, column * out_row + row), out_row
                )
            else:
                for r in range(row, min(row + lanes, rows)):
                    for c in range(column, min(column + lanes, columns)):
                        out[c * out_row + r] = x[r * columns + c]


@Kernel
def transpose(
    x: Numbers, out: Numbers, rows: int, columns: int, out_row: int, lanes: int, part: int, parts: int
) -> None:
    """``out`` = x.T: (rows, columns) -> (columns, out_row), as far as ``rows``; the parts are rows of x."""
    first, last = share(-(-rows // lanes), part, parts)
    row = first * lanes
    _transpose(at(x, row * columns), at(out, row), min(rows, last * lanes) - row, columns, out_row, lanes)
