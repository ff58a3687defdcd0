"""Matrix products built from register tiles."""

from typing import Any

from backends.cpu.compiled.jit import Indices, Kernel, Numbers, inlined, share
from backends.cpu.compiled.registers import (
    INNER_TILES,
    OUTER_TILES,
    VECTOR_BYTES,
    at,
    call,
    inner_tile,
    outer_tile,
    transpose_tile,
    zero,
)

DEPTH = 192  # this many lines of x, a tile wide, stay in the L1 cache while all rows are combined with them
_TALL = 8 in OUTER_TILES


def lanes(dtype: Any) -> int:
    """The number of elements of ``dtype`` in a vector register."""
    return VECTOR_BYTES // dtype.itemsize


def _outer_strip(rows: int) -> Any:
    """The loops over y for tiles of ``rows`` rows; ``count`` is a multiple of it."""
    vectors = OUTER_TILES.get(rows, 1)

    @inlined
    def strip(y, y_row, x, offsets, w, w_row, w_column, count, depth, width, add, lanes):
        span = vectors * lanes
        whole = width - width % span
        across, down = whole // span, count // rows
        for tile in range(across * down):
            # the larger of w and x is read once, the other stays in a cache
            m, r = (tile % across, tile // across) if count > width else (tile // down, tile % down)
            m, r = m * span, r * rows
            outer_tile(
                at(y, r * y_row + m), y_row, at(x, m), offsets, at(w, r * w_row), w_row, w_column,
                depth, span, add, rows, vectors, False,
            )  # fmt: skip
        for m in range(whole, width, lanes):
            for r in range(0, count, rows):
                outer_tile(
                    at(y, r * y_row + m), y_row, at(x, m), offsets, at(w, r * w_row), w_row, w_column,
                    depth, width - m, add, rows, 1, True,
                )  # fmt: skip

    return strip


_outer_8, _outer_6, _outer_4, _outer_1 = (_outer_strip(rows) for rows in (8, 6, 4, 1))


@Kernel
def outer_product(
    y: Numbers, y_row: int, x: Numbers, offsets: Indices, w: Numbers, w_row: int, w_column: int,
    rows: int, depth: int, width: int, add: int, lanes: int,
) -> None:  # fmt: skip
    """``y (+)= w @ x``: (rows, depth) times (depth, width); ``outer_tile`` explains the layout."""
    for k in range(0, max(depth, 1), DEPTH):
        some, more = min(DEPTH, depth - k), add != 0 or k > 0
        o, w_k = at(offsets, k), at(w, k * w_column)
        done = 0
        if _TALL:
            done = rows - rows % 8
            _outer_8(y, y_row, x, o, w_k, w_row, w_column, done, some, width, more, lanes)
            six = (rows - done) // 6 * 6
            _outer_6(at(y, done * y_row), y_row, x, o, at(w_k, done * w_row), w_row, w_column,
                     six, some, width, more, lanes)  # fmt: skip
            done += six
        four = (rows - done) // 4 * 4
        _outer_4(at(y, done * y_row), y_row, x, o, at(w_k, done * w_row), w_row, w_column,
                 four, some, width, more, lanes)  # fmt: skip
        done += four
        _outer_1(at(y, done * y_row), y_row, x, o, at(w_k, done * w_row), w_row, w_column,
                 rows - done, some, width, more, lanes)  # fmt: skip


def _inner_strip(rows: int) -> Any:
    """The loops over y for tiles of ``rows`` rows; ``count`` is a multiple of it."""
    wide = INNER_TILES.get(rows, 1)

    @inlined
    def strip(y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, count, lines, length, columns):
        whole = columns - columns % wide
        for r in range(0, count, rows):
            for c in range(0, whole, wide):
                inner_tile(
                    at(y, r * y_row + c * y_column), y_row, y_column, at(a, r * a_row), a_row, a_line,
                    b, b_line, at(offsets, c), lines, length, rows, wide,
                )  # fmt: skip
            for c in range(whole, columns):
                inner_tile(
                    at(y, r * y_row + c * y_column), y_row, y_column, at(a, r * a_row), a_row, a_line,
                    b, b_line, at(offsets, c), lines, length, rows, 1,
                )  # fmt: skip

    return strip


_inner_8, _inner_6, _inner_4, _inner_1 = (_inner_strip(rows) for rows in (8, 6, 4, 1))


@Kernel
def inner_product(
    y: Numbers, y_row: int, y_column: int, a: Numbers, a_row: int, a_line: int, b: Numbers, b_line: int,
    offsets: Indices, lines: int, length: int, rows: int, columns: int,
) -> None:  # fmt: skip
    """``y += a @ b.T`` for a (rows, lines * length), b (columns, lines * length); see ``inner_tile``."""
    done = 0
    if _TALL:
        done = rows - rows % 8
        _inner_8(y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, done, lines, length, columns)
        six = (rows - done) // 6 * 6
        _inner_6(at(y, done * y_row), y_row, y_column, at(a, done * a_row), a_row, a_line,
                 b, b_line, offsets, six, lines, length, columns)  # fmt: skip
        done += six
    four = (rows - done) // 4 * 4
    _inner_4(at(y, done * y_row), y_row, y_column, at(a, done * a_row), a_row, a_line,
             b, b_line, offsets, four, lines, length, columns)  # fmt: skip
    done += four
    _inner_1(at(y, done * y_row), y_row, y_column, at(a, done * a_row), a_row, a_line,
             b, b_line, offsets, rows - done, lines, length, columns)  # fmt: skip


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


@Kernel
def transpose(
    x: Numbers, out: Numbers, rows: int, columns: int, out_row: int, lanes: int, part: int, parts: int
) -> None:
    """``out`` = x.T: (rows, columns) -> (columns, out_row), as far as ``rows``; the parts are rows of x."""
    first, last = share(-(-rows // lanes), part, parts)
    for row in range(first * lanes, min(rows, last * lanes), lanes):
        for column in range(0, columns, lanes):
            if row + lanes <= rows and column + lanes <= columns:
                transpose_tile(
                    at(x, row * columns + column), columns, at(out, column * out_row + row), out_row
                )
            else:
                for r in range(row, min(row + lanes, rows)):
                    for c in range(column, min(column + lanes, columns)):
                        out[c * out_row + r] = x[r * columns + c]
