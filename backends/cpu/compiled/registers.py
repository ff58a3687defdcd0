"""Two inner loops that keep a tile of their results in the processor's vector registers.

Both read memory as vectors along its contiguous axis and multiply and add once per number read:

    outer:  y[r, :] += sum_k w[r, k] * x[k, :]     rows of y share what is loaded of x
    inner:  y[r, c] += sum_m a[r, m] * b[c, m]     rows and columns share what is loaded of a and b

Left to itself, LLVM vectorizes the innermost loop only and carries the sums through memory. So these are
written in its own language, as Numba intrinsics, for vectors as wide as this processor's (Goto & van de
Geijn 2008, "Anatomy of high-performance matrix multiplication", section 6, has the idea of the tile).
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from backends.cpu.compiled.vectors import (
    MANY_REGISTERS,
    VECTOR_BYTES,
    Vectors,
    loop,
    moved,
    word,
)

# for each number of rows of a tile: its vectors (outer) or columns (inner), so that sums and operands fit the
# registers
OUTER_TILES = {8: 3, 6: 4, 4: 4, 1: 8} if MANY_REGISTERS else {4: 3, 2: 4, 1: 8}
INNER_TILES = {8: 3, 6: 4, 4: 5, 1: 8} if MANY_REGISTERS else {4: 3, 2: 4, 1: 8}

_AHEAD = 8  # the steps by which vectors of 64 bytes are prefetched; with shorter ones this gains nothing


@intrinsic
def at(typing_context, base, index):
    """A pointer to number ``index`` of the memory behind an array, or after another pointer."""
    if not isinstance(base, types.Array | types.CPointer):
        return None
    result = types.CPointer(base.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        start, index = arguments
        if isinstance(base, types.Array):
            start = context.make_array(base)(context, builder, start).data
        return builder.gep(start, [index])

    return result(base, types.intp), codegen


def _constant(value: int) -> Any:
    @intrinsic
    def constant(typing_context, pointer):
        """A constant of the type that ``pointer`` points to: a plain one would make wider numbers of them."""

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            return context.get_constant(pointer.dtype, value)

        return pointer.dtype(pointer), codegen

    return constant


zero, one = _constant(0), _constant(1)


@intrinsic
def as_number(typing_context, pointer, value):
    """``value`` as a number of the type that ``pointer`` points to."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], value, pointer.dtype)

    return pointer.dtype(pointer, value), codegen


@intrinsic
def call(typing_context, address, arguments):
    """Call the C function at an address, which returns nothing, with a tuple of pointers and integers."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        _call(builder, values[0], cgutils.unpack_tuple(builder, values[1]))
        return context.get_dummy_value()

    return types.void(types.intp, arguments), codegen


def _call(builder: ir.IRBuilder, address: ir.Value, arguments: list[ir.Value]) -> None:
    function = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(builder.inttoptr(address, function.as_pointer()), arguments)


@intrinsic(prefer_literal=True)
def outer_tiles(
    typing_context, y, y_row, x, offsets, w, w_row, w_column, count, depth, width, add, rows, vectors, masked
):
    """``y[r, m] (+)= sum_k w[r, k] * x[k, m]`` for ``count`` rows and as many m as ``vectors`` vectors hold.

    ``y``, ``x``, ``w`` and ``offsets`` are pointers: ``y[r, m]`` is number ``r * y_row + m`` from there,
    ``x[k, m]`` is ``offsets[k] + m``, ``w[r, k]`` is ``r * w_row + k * w_column``. Without ``add`` what was
    in y is overwritten. ``masked``: only the m below ``width`` are read and written. A tile has ``rows``
    rows, of which ``count`` is a multiple.
    """
    index = types.intp
    signature = types.void(
        y, index, x, offsets, w, index, index, index, index, index, types.boolean, rows, vectors, masked
    )

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        y, y_row, x, offsets, w, w_row, w_column, count, depth, width, add, *_ = arguments
        tile = Vectors(builder, signature.args[0].dtype)
        starts = [word(vector * tile.lanes) for vector in range(vectors.literal_value)]
        masks = [tile.mask(builder.sub(width, start)) if masked.literal_value else None for start in starts]
        height = word(rows.literal_value)
        with loop(builder, builder.sdiv(count, height)) as number:
            row = builder.mul(number, height)
            y_0, w_0 = moved(builder, y, builder.mul(row, y_row)), moved(builder, w, builder.mul(row, w_row))
            targets = [moved(builder, y_0, (row, y_row)) for row in range(rows.literal_value)]
            totals = [[tile.variable() for _ in starts] for _ in targets]
            with builder.if_then(add):
                for target, row_totals in zip(targets, totals, strict=True):
                    for start, mask, total in zip(starts, masks, row_totals, strict=True):
                        builder.store(tile.load(moved(builder, target, start), mask), total)
            with loop(builder, depth) as k:
                x_k = moved(builder, x, builder.load(moved(builder, offsets, k)))
                w_k = moved(builder, w_0, builder.mul(k, w_column))
                if VECTOR_BYTES == 64:
                    later = builder.add(k, word(_AHEAD))
                    later = builder.select(builder.icmp_signed("<", later, depth), later, k)
                    x_later = moved(builder, x, builder.load(moved(builder, offsets, later)))
                    for start in starts:
                        tile.prefetch(moved(builder, x_later, start))
                places = [moved(builder, x_k, start) for start in starts]
                xs = [tile.load(place, mask) for place, mask in zip(places, masks, strict=True)]
                for number, row_totals in enumerate(totals):
                    weight = tile.splat(builder.load(moved(builder, w_k, (number, w_row))))
                    for total, x_vector in zip(row_totals, xs, strict=True):
                        tile.multiply_add(total, weight, x_vector)
            for target, row_totals in zip(targets, totals, strict=True):
                for start, mask, total in zip(starts, masks, row_totals, strict=True):
                    tile.store(builder.load(total), moved(builder, target, start), mask)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def inner_tiles(
    typing_context, y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, height, width, lines, length,
    rows, columns,
):  # fmt: skip
    """``y[r, c] += sum_m a[r, m] * b[c, m]`` for ``height`` rows and ``width`` columns.

    The sum runs over ``lines`` lines of ``length`` neighbours each. All arrays are pointers: ``y[r, c]`` is
    number ``r * y_row + c * y_column`` from there, ``a[r, (line, i)]`` is ``r * a_row + line * a_line + i``,
    ``b[c, (line, i)]`` is ``offsets[c] + line * b_line + i``. A tile has ``rows`` rows and ``columns``
    columns, of which the height and the width are multiples.
    """
    index = types.intp
    signature = types.void(
        y, index, index, a, index, index, b, index, offsets, index, index, index, index, rows, columns
    )

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, height, width, lines, length, *_ = arguments
        tile = Vectors(builder, signature.args[0].dtype)
        lanes = word(tile.lanes)
        whole, rest = builder.sdiv(length, lanes), builder.srem(length, lanes)
        mask = tile.mask(rest)
        tile_rows, tile_columns = word(rows.literal_value), word(columns.literal_value)

        def one_tile(row: ir.Value, column: ir.Value) -> None:
            y_0 = moved(builder, y, builder.mul(row, y_row), builder.mul(column, y_column))
            a_0, offsets_0 = moved(builder, a, builder.mul(row, a_row)), moved(builder, offsets, column)
            a_rows = [moved(builder, a_0, (number, a_row)) for number in range(rows.literal_value)]
            b_columns = [
                moved(builder, b, builder.load(moved(builder, offsets_0, word(number))))
                for number in range(columns.literal_value)
            ]
            totals = [[tile.variable() for _ in b_columns] for _ in a_rows]

            def accumulate(a_at: ir.Value, b_at: ir.Value, mask: ir.Value | None) -> None:
                bs = [tile.load(moved(builder, column, b_at), mask) for column in b_columns]
                for a_start, row in zip(a_rows, totals, strict=True):
                    a_vector = tile.load(moved(builder, a_start, a_at), mask)
                    for total, b_vector in zip(row, bs, strict=True):
                        tile.multiply_add(total, a_vector, b_vector)

            with loop(builder, lines) as line:
                a_begin, b_begin = builder.mul(line, a_line), builder.mul(line, b_line)
                with loop(builder, whole) as vector:
                    m = builder.mul(vector, lanes)
                    accumulate(builder.add(a_begin, m), builder.add(b_begin, m), None)
                with builder.if_then(builder.icmp_signed(">", rest, word(0))):
                    m = builder.mul(whole, lanes)
                    accumulate(builder.add(a_begin, m), builder.add(b_begin, m), mask)
            for row_number, row in enumerate(totals):
                for column_number, total in enumerate(row):
                    target = moved(builder, y_0, (row_number, y_row), (column_number, y_column))
                    value = tile.sum(builder.load(total))
                    builder.store(builder.fadd(builder.load(target), value), target)

        across = builder.sdiv(width, tile_columns)
        with loop(builder, builder.sdiv(height, tile_rows)) as row, loop(builder, across) as column:
            one_tile(builder.mul(row, tile_rows), builder.mul(column, tile_columns))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def room(typing_context, like, size):
    """A pointer of the type of ``like`` to ``size`` bytes on the stack, on a 64-byte boundary."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        with builder.goto_entry_block():  # alloca_once would fill it with zeros
            place = builder.alloca(ir.ArrayType(ir.IntType(8), size.literal_value))
        place.align = 64
        return builder.bitcast(place, context.get_value_type(like))

    return like(like, size), codegen


@intrinsic(prefer_literal=True)
def copy_lines(typing_context, x, offsets, out, out_row, depth, panels, panel, vectors):
    """Copy the beginnings of ``depth`` lines of x, which lie as in ``outer_tiles``, into ``panels`` panels.

    ``out[p * panel + k * out_row + m]`` = x[k, m] after p times as many m as ``vectors`` vectors hold.
    """
    index = types.intp
    signature = types.void(x, offsets, out, index, index, index, index, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        x, offsets, out, out_row, depth, panels, panel, _ = arguments
        tile = Vectors(builder, signature.args[0].dtype)
        starts = [word(vector * tile.lanes) for vector in range(vectors.literal_value)]
        with loop(builder, depth) as k:
            source = moved(builder, x, builder.load(moved(builder, offsets, k)))
            target = moved(builder, out, builder.mul(out_row, k))
            with loop(builder, panels) as p:
                given = moved(builder, source, (len(starts) * tile.lanes, p))
                made = moved(builder, target, builder.mul(panel, p))
                for start in starts:
                    tile.store(tile.load(moved(builder, given, start)), moved(builder, made, start))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def transpose_tile(typing_context, x, x_row, y, y_row):
    """``y[c, r] = x[r, c]`` for as many rows and columns as a vector has numbers; both are pointers."""
    index = types.intp
    signature = types.void(x, index, y, index)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        x, x_row, y, y_row = arguments
        tile = Vectors(builder, signature.args[0].dtype)
        rows = [tile.load(moved(builder, x, (row, x_row))) for row in range(tile.lanes)]
        step = 1
        while step < tile.lanes:  # swap blocks of step x step numbers across the diagonal, ever larger ones
            for row in range(tile.lanes):
                if not row & step:
                    rows[row], rows[row + step] = tile.exchange(rows[row], rows[row + step], step)
            step *= 2
        for column, vector in enumerate(rows):
            tile.store(vector, moved(builder, y, (column, y_row)))
        return context.get_dummy_value()

    return signature, codegen
