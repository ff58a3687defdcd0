"""Winograd's transforms for 3x3 kernels and tiles of 4x4 results, and the product between them.

A tile's results are ``A^T [(G w G^T) * (B^T d B)] A`` (Lavin & Gray 2016, "Fast algorithms for convolutional
neural networks"): d is the 6x6 patch of the input that they see, w the kernel, and 36 products take the
place of 144. With the batch last, each number of d is a vector of neighbouring images, so a transform is
plain arithmetic on vectors, and the results of an input's transform are what the product loads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import nan
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from backends.cpu.compiled.vectors import VECTOR_BYTES, Vectors, loop, moved, word

POINTS = 36  # of a tile between the transforms
_PREFETCHES = VECTOR_BYTES == 64  # the tile then reads faster than the second cache answers

Vector = ir.Value
Load = Callable[[int, int], Vector]  # of the number in a row and column


class _Arithmetic(Vectors):
    """Sums and multiples of vectors."""

    def constant(self, value: float) -> Vector:
        """A vector of this number."""
        return ir.Constant(self.type, [value] * self.lanes)

    def add(self, a: Vector, b: Vector) -> Vector:
        """``a + b``."""
        return self.builder.fadd(a, b)

    def subtract(self, a: Vector, b: Vector) -> Vector:
        """``a - b``."""
        return self.builder.fsub(a, b)

    def scale(self, factor: float, a: Vector, b: Vector | None = None) -> Vector:
        """``factor * a + b``."""
        times = self.constant(factor)
        if b is None:
            return self.builder.fmul(times, a)
        return self._call(f"llvm.fmuladd.{self._suffix}", self.type, [times, a, b])

    def transform(self, line: Any, size: int, load: Load) -> Iterator[list[Vector]]:
        """``line`` applied to the columns and then to the rows of a square matrix; -> its rows, one by one.

        Each number is loaded just before it is needed, because the registers do not hold all of them.
        """
        columns = [line(self, [load(row, column) for row in range(size)]) for column in range(size)]
        return (line(self, row) for row in zip(*columns, strict=True))


def _input_line(v: _Arithmetic, d: Sequence[Vector]) -> list[Vector]:
    """``B^T d``."""
    even, odd = v.scale(-4, d[2], d[4]), v.scale(-4, d[1], d[3])
    more, most = v.subtract(d[4], d[2]), v.subtract(d[3], d[1])
    return [
        v.scale(4, d[0], v.scale(-5, d[2], d[4])),
        v.add(even, odd),
        v.subtract(even, odd),
        v.scale(2, most, more),
        v.scale(-2, most, more),
        v.scale(4, d[1], v.scale(-5, d[3], d[5])),
    ]


def _output_line(v: _Arithmetic, m: Sequence[Vector]) -> list[Vector]:
    """``A^T m``."""
    even, odd = v.add(m[1], m[2]), v.subtract(m[1], m[2])
    more, most = v.add(m[3], m[4]), v.subtract(m[3], m[4])
    return [
        v.add(v.add(m[0], even), more),
        v.scale(2, most, odd),
        v.scale(4, more, even),
        v.add(v.scale(8, most, odd), m[5]),
    ]


def _weight_line(v: _Arithmetic, g: Sequence[Vector]) -> list[Vector]:
    """``G g``."""
    outer, inner = v.scale(-1 / 6, v.add(g[0], g[2])), v.scale(1 / 6, g[1])
    more, half = v.scale(1 / 24, g[0], v.scale(1 / 6, g[2])), v.scale(1 / 12, g[1])
    return [
        v.scale(1 / 4, g[0]),
        v.subtract(outer, inner),
        v.add(outer, inner),
        v.add(more, half),
        v.subtract(more, half),
        g[2],
    ]


def _gradient_line(v: _Arithmetic, d: Sequence[Vector]) -> list[Vector]:
    """``A d``."""
    even, odd = v.add(d[0], d[2]), v.add(d[1], d[3])
    more, most = v.scale(4, d[2], d[0]), v.scale(2, v.scale(4, d[3], d[1]))
    return [d[0], v.add(even, odd), v.subtract(even, odd), v.add(more, most), v.subtract(more, most), d[3]]


def _weight_gradient_line(v: _Arithmetic, m: Sequence[Vector]) -> list[Vector]:
    """``G^T m``."""
    outer, more = v.add(m[1], m[2]), v.add(m[3], m[4])
    inner, half = v.subtract(m[2], m[1]), v.subtract(m[3], m[4])
    return [
        v.scale(1 / 4, m[0], v.scale(-1 / 6, outer, v.scale(1 / 24, more))),
        v.scale(1 / 6, inner, v.scale(1 / 12, half)),
        v.scale(1 / 6, v.subtract(more, outer), m[5]),
    ]


def _in_steps(v: _Arithmetic, pointer: ir.Value, step: ir.Value, size: int) -> Load:
    """The loads of a square matrix of vectors, each ``step`` numbers after the one before."""
    return lambda row, column: v.load(moved(v.builder, pointer, (row * size + column, step)))


def _in_places(v: _Arithmetic, pointer: ir.Value, places: ir.Value, size: int, ahead: ir.Value) -> Load:
    """The loads of a square matrix of vectors at ``places``; what lies ``ahead`` of each is prefetched."""
    behind = moved(v.builder, pointer, ahead)

    def load(row: int, column: int) -> Vector:
        place = v.builder.load(moved(v.builder, places, word(row * size + column)))
        v.prefetch(moved(v.builder, behind, place))
        return v.load(moved(v.builder, pointer, place))

    return load


def _store(v: _Arithmetic, matrix: Iterable[Sequence[Vector]], pointer: ir.Value, step: ir.Value) -> None:
    """Write the vectors of a matrix, each ``step`` numbers after the one before."""
    for place, vector in enumerate(vector for row in matrix for vector in row):
        v.store(vector, moved(v.builder, pointer, (place, step)))


def _place(v: _Arithmetic, pointer: ir.Value, places: ir.Value, number: int) -> ir.Value:
    """``pointer`` moved on by number ``number`` of the table ``places``."""
    return moved(v.builder, pointer, v.builder.load(moved(v.builder, places, word(number))))


@intrinsic
def input_tile(typing_context, x, taps, out, step, ahead):
    """``out[p * step] = (B^T d B)[p]`` for the 36 vectors d at ``x + taps[p]``.

    Unless ``ahead`` is 0, the numbers so far behind d are prefetched.
    """
    signature = types.void(x, taps, out, types.intp, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        x, taps, out, step, ahead = arguments
        v = _Arithmetic(builder, signature.args[0].dtype)
        _store(v, v.transform(_input_line, 6, _in_places(v, x, taps, 6, ahead)), out, step)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def weight_tile(typing_context, w, w_step, out, step):
    """``out[p * step] = (G w G^T)[p]`` for the 9 vectors at ``w + q * w_step``."""
    signature = types.void(w, types.intp, out, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        w, w_step, out, step = arguments
        v = _Arithmetic(builder, signature.args[0].dtype)
        _store(v, v.transform(_weight_line, 3, _in_steps(v, w, w_step, 3)), out, step)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def gradient_tile(typing_context, dy, places, factors, out, step, ahead):
    """``out[p * step] = (A D A^T)[p]`` for the 16 vectors D at ``dy + places[p]``, each times ``factors``.

    Unless ``ahead`` is 0, the numbers so far behind D are prefetched.
    """
    signature = types.void(dy, places, factors, out, types.intp, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        dy, places, factors, out, step, ahead = arguments
        v = _Arithmetic(builder, signature.args[0].dtype)
        own = v.load(factors)
        load = _in_places(v, dy, places, 4, ahead)

        def weighted(row: int, column: int) -> Vector:
            return builder.fmul(own, load(row, column))

        _store(v, v.transform(_gradient_line, 4, weighted), out, step)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def weight_gradient_tile(typing_context, m, step, out, out_step):
    """``out[q * out_step] = (G^T M G)[q]`` for the 36 vectors at ``m + p * step``."""
    signature = types.void(m, types.intp, out, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        m, step, out, out_step = arguments
        v = _Arithmetic(builder, signature.args[0].dtype)
        _store(v, v.transform(_weight_gradient_line, 6, _in_steps(v, m, step, 6)), out, out_step)
        return context.get_dummy_value()

    return signature, codegen


def _finished(v: _Arithmetic, result: Vector, bias: ir.Value, lowest: ir.Value) -> Vector:
    """``result + bias``, at least ``lowest``."""
    result, lowest = v.add(result, v.splat(bias)), v.splat(lowest)
    return v.builder.select(v.builder.fcmp_ordered("<", result, lowest), lowest, result)  # NaN stays


def _results(v: _Arithmetic, m: ir.Value, step: ir.Value) -> Iterator[list[Vector]]:
    """``A^T M A`` for the 36 vectors M at ``m + p * step``."""
    return v.transform(_output_line, 6, _in_steps(v, m, step, 6))


@intrinsic
def output_tile(typing_context, m, step, y, places, bias, lowest, ahead):
    """``y[places[p]]`` = a tile's 16 results, each a vector, plus ``bias`` and at least ``lowest``.

    Unless ``ahead`` is 0, the numbers of y so far behind these are prefetched.
    """
    number = y.dtype
    signature = types.void(m, types.intp, y, places, number, number, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        m, step, y, places, bias, lowest, ahead = arguments
        v = _Arithmetic(builder, signature.args[2].dtype)
        for row, results in enumerate(_results(v, m, step)):
            for column, result in enumerate(results):
                v.store(_finished(v, result, bias, lowest), _place(v, y, places, row * 4 + column))
        _prefetch_places(v, y, places, 16, ahead, to_write=True)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def sum_tile(typing_context, y, places, weights, shift, sums):
    """Add a tile's 16 results, vectors at ``y[places[p]]``, to the sums of a channel.

    ``sums`` are two vectors: of the differences d from ``shift``, and of their squares, each times
    ``weights[p]`` and times a vector that follows these 16 numbers.
    """
    signature = types.void(y, places, weights, y.dtype, sums)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        y, places, weights, shift, sums = arguments
        v = _Arithmetic(builder, signature.args[0].dtype)
        shift, total, squares = v.splat(shift), v.variable(), v.variable()
        for place in range(16):
            difference = v.subtract(v.load(_place(v, y, places, place)), shift)
            weight = v.splat(builder.load(moved(builder, weights, word(place))))
            v.multiply_add(total, weight, difference)
            v.multiply_add(squares, builder.fmul(weight, difference), difference)
        of_images = v.load(moved(builder, weights, word(16)))
        for number, variable in enumerate((total, squares)):
            there = moved(builder, sums, word(number * v.lanes))
            v.store(v.add(v.load(there), builder.fmul(of_images, builder.load(variable))), there)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def pooled_tile(typing_context, m, step, y, winner, places, bias, lowest):
    """The same followed by 2x2 max pooling: ``y[places[p]]`` for 4 windows, whose taps go to ``winner``.

    ``winner[places[4 + p]]`` = the tap of each maximum: the first of equal ones, and NaN wins over every
    number.
    """
    number = y.dtype
    signature = types.void(m, types.intp, y, winner, places, number, number)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        m, step, y, winner, places, bias, lowest = arguments
        v = _Arithmetic(builder, signature.args[2].dtype)
        results = [[_finished(v, one, bias, lowest) for one in row] for row in _results(v, m, step)]
        byte, lane = ir.VectorType(ir.IntType(8), v.lanes), ir.VectorType(ir.IntType(32), v.lanes)
        for window in range(4):
            row, column = window // 2 * 2, window % 2 * 2
            best, tap = results[row][column], ir.Constant(lane, [0] * v.lanes)
            for number in range(1, 4):
                other = results[row + number // 2][column + number % 2]
                larger = builder.fcmp_ordered(">", other, best)
                better = builder.or_(larger, builder.fcmp_unordered("uno", other, other))
                best = builder.select(better, other, best)
                tap = builder.select(better, ir.Constant(lane, [number] * v.lanes), tap)
            v.store(best, _place(v, y, places, window))
            place = builder.bitcast(_place(v, winner, places, 4 + window), byte.as_pointer())
            builder.store(builder.trunc(tap, byte), place, align=1)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def largest_tile(typing_context, m, step, y, places, scale, bias, lowest):
    """``y[places[p]]`` = the maximum of 2x2 results, times ``scale``, plus ``bias``, and at least ``lowest``.

    This is done for the 4 windows of a tile.
    """
    number = y.dtype
    signature = types.void(m, types.intp, y, places, number, number, number)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        m, step, y, places, scale, bias, lowest = arguments
        v = _Arithmetic(builder, signature.args[2].dtype)
        results = list(_results(v, m, step))
        for window in range(4):
            row, column = window // 2 * 2, window % 2 * 2
            seen = [*results[row][column : column + 2], *results[row + 1][column : column + 2]]
            best = seen[0]
            for other in seen[1:]:
                best = builder.select(builder.fcmp_ordered(">", other, best), other, best)
            is_nan = builder.or_(*(builder.fcmp_unordered("uno", *seen[i : i + 2]) for i in (0, 2)))
            best = builder.select(is_nan, v.constant(nan), builder.fmul(best, v.splat(scale)))
            v.store(_finished(v, best, bias, lowest), _place(v, y, places, window))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def place_tile(typing_context, source, y, places, count, ahead):
    """``y[places[p]]`` = vector p at ``source``, for so many of them.

    Unless ``ahead`` is 0, the numbers of y so far behind these are prefetched.
    """
    signature = types.void(source, y, places, count, types.intp)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        source, y, places, _, ahead = arguments
        v = _Arithmetic(builder, signature.args[0].dtype)
        for place in range(count.literal_value):
            vector = v.load(moved(builder, source, word(place * v.lanes)))
            v.store(vector, _place(v, y, places, place))
        _prefetch_places(v, y, places, count.literal_value, ahead, to_write=True)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def packed_tile(typing_context, y, y_row, x, x_row, w, depth, add, rows, vectors):
    """``y[r, m] (+)= sum_k w[k, r] * x[k, m]`` for ``rows`` rows and as many m as ``vectors`` vectors hold.

    Row r of y is at ``y + r * y_row``, row k of x at ``x + k * x_row``, and w has no gaps. Without ``add``, y
    is overwritten.
    """
    index = types.intp
    signature = types.void(y, index, x, index, w, index, types.boolean, rows, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        y, y_row, x, x_row, w, depth, add, *_ = arguments
        tile = Vectors(builder, signature.args[0].dtype)
        starts = [word(vector * tile.lanes) for vector in range(vectors.literal_value)]
        targets = [moved(builder, y, (row, y_row)) for row in range(rows.literal_value)]
        totals = [[tile.variable() for _ in starts] for _ in targets]
        with builder.if_then(add):
            for target, row in zip(targets, totals, strict=True):
                for start, total in zip(starts, row, strict=True):
                    builder.store(tile.load(moved(builder, target, start)), total)
        with loop(builder, depth) as k:
            x_k, w_k = moved(builder, x, builder.mul(x_row, k)), moved(builder, w, (rows.literal_value, k))
            if _PREFETCHES:
                for start in starts:
                    tile.prefetch(moved(builder, x_k, (8, x_row), start))
                tile.prefetch(moved(builder, w_k, word(16 * rows.literal_value)))
            xs = [tile.load(moved(builder, x_k, start)) for start in starts]
            for number, row in enumerate(totals):
                weight = tile.splat(builder.load(moved(builder, w_k, word(number))))
                for total, x_vector in zip(row, xs, strict=True):
                    tile.multiply_add(total, weight, x_vector)
        for target, row in zip(targets, totals, strict=True):
            for start, total in zip(starts, row, strict=True):
                tile.store(builder.load(total), moved(builder, target, start))
        return context.get_dummy_value()

    return signature, codegen


def _prefetch_places(
    v: _Arithmetic, pointer: ir.Value, places: ir.Value, count: int, ahead: ir.Value, to_write: bool = False
) -> None:
    """Prefetch what lies ``ahead`` of so many places, if that is not 0."""
    with v.builder.if_then(v.builder.icmp_signed("!=", ahead, word(0))):
        for place in range(count):
            v.prefetch(_place(v, moved(v.builder, pointer, ahead), places, place), to_write)


@intrinsic
def distance(typing_context, start, end):
    """How many numbers lie between two pointers of one type."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        places = [builder.ptrtoint(pointer, ir.IntType(64)) for pointer in arguments]
        nbytes = signature.args[0].dtype.bitwidth // 8
        return builder.sdiv(builder.sub(places[1], places[0]), word(nbytes))

    return types.intp(start, end), codegen
