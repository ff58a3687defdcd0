"""Two inner loops that keep a tile of their results in the processor's vector registers.

Both read memory as vectors along its contiguous axis and multiply and add once per number read:

    outer:  y[r, :] += sum_k w[r, k] * x[k, :]     rows of y share what is loaded of x
    inner:  y[r, c] += sum_m a[r, m] * b[c, m]     rows and columns share what is loaded of a and b

Left to itself, LLVM vectorises the innermost loop only and carries the sums through memory. So these are
written in its own language, as Numba intrinsics, for vectors as wide as this processor's (Goto & van de
Geijn 2008, "Anatomy of high-performance matrix multiplication", section 6, has the idea of the tile).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from platform import machine
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

if not all(feature[:1] in ("", "+", "-") for feature in (config.CPU_FEATURES or "").split(",")):
    raise ImportError("NUMBA_CPU_FEATURES has a feature without + or -")  # LLVM would abort the process

_FEATURES = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
_HAS_AVX512 = "+avx512f" in _FEATURES
VECTOR_BYTES = 64 if _HAS_AVX512 else 32 if "+avx2" in _FEATURES else 16
_MANY_REGISTERS = _HAS_AVX512 or machine() in ("aarch64", "arm64")  # 32 of them, elsewhere 16


# for each number of rows of a tile: its vectors (outer) or columns (inner), so that sums and operands fit the
# registers
OUTER_TILES = {8: 3, 6: 4, 4: 4, 1: 8} if _MANY_REGISTERS else {4: 3, 2: 4, 1: 8}
INNER_TILES = {8: 3, 6: 4, 4: 5, 1: 8} if _MANY_REGISTERS else {4: 3, 2: 4, 1: 8}

_AHEAD = 8  # the steps by which vectors of 64 bytes are prefetched; with shorter ones this gains nothing

_INDEX = ir.IntType(64)
_LANE = ir.IntType(32)


class _Vectors:
    """Emits operations on whole vectors of one element type into a function that is being compiled."""

    def __init__(self, builder: ir.IRBuilder, element: types.Float) -> None:
        self.builder = builder
        self.lanes = VECTOR_BYTES * 8 // element.bitwidth
        self._scalar = ir.FloatType() if element == types.float32 else ir.DoubleType()
        self.type = ir.VectorType(self._scalar, self.lanes)
        self._alignment = element.bitwidth // 8
        self._suffix = f"v{self.lanes}f{element.bitwidth}"

    def variable(self) -> ir.Value:
        """A vector of zeros that changes; LLVM keeps it in a register."""
        place = cgutils.alloca_once(self.builder, self.type)
        self.builder.store(ir.Constant(self.type, None), place)
        return place

    def load(self, pointer: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """The vector at ``pointer``; zeros where the mask is off, and nothing is read there."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self._alignment)
        alignment = ir.Constant(_LANE, self._alignment)
        arguments = [pointer, alignment, mask, ir.Constant(self.type, None)]
        return self._call(f"llvm.masked.load.{self._suffix}.p0", self.type, arguments)

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None) -> None:
        """Write the vector to ``pointer``; nothing where the mask is off."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self._alignment)
            return
        alignment = ir.Constant(_LANE, self._alignment)
        name = f"llvm.masked.store.{self._suffix}.p0"
        self._call(name, ir.VoidType(), [value, pointer, alignment, mask])

    def splat(self, scalar: ir.Value) -> ir.Value:
        """``scalar`` in every lane."""
        return _splat(self.builder, scalar, self.lanes)

    def multiply_add(self, total: ir.Value, a: ir.Value, b: ir.Value) -> None:
        """``total += a * b`` for a variable."""
        old = self.builder.load(total)
        self.builder.store(self._call(f"llvm.fmuladd.{self._suffix}", self.type, [a, b, old]), total)

    def prefetch(self, pointer: ir.Value, to_write: bool = False) -> None:
        """Have the L1 cache load what is at ``pointer``; it need not be valid."""
        byte = ir.IntType(8).as_pointer()
        options = [ir.Constant(_LANE, value) for value in (int(to_write), 3, 1)]  # near, data
        self._call("llvm.prefetch.p0", ir.VoidType(), [self.builder.bitcast(pointer, byte), *options])

    def sum(self, vector: ir.Value) -> ir.Value:
        """All lanes added up, halves first: a scalar."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            halves = [
                self.builder.shuffle_vector(
                    vector,
                    vector,
                    ir.Constant(ir.VectorType(_LANE, lanes), list(range(first, first + lanes))),
                )
                for first in (0, lanes)
            ]
            vector = self.builder.fadd(*halves)
        return self.builder.extract_element(vector, ir.Constant(_LANE, 0))

    def exchange(self, a: ir.Value, b: ir.Value, step: int) -> tuple[ir.Value, ir.Value]:
        """Every second ``step`` numbers of ``a`` against those before them in ``b``."""
        lanes = range(self.lanes)
        kept = [lane if not lane & step else self.lanes + lane - step for lane in lanes]
        given = [lane + step if not lane & step else self.lanes + lane for lane in lanes]
        kind = ir.VectorType(_LANE, self.lanes)
        first, second = (
            self.builder.shuffle_vector(a, b, ir.Constant(kind, order)) for order in (kept, given)
        )
        return first, second

    def mask(self, count: ir.Value) -> ir.Value:
        """On in the first ``count`` lanes."""
        lane = ir.Constant(ir.VectorType(_INDEX, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lane, _splat(self.builder, count, self.lanes))

    def _call(self, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_LANE, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_LANE, lanes), [0] * lanes))


def _index(value: int) -> ir.Value:
    return ir.Constant(_INDEX, value)


def _at(builder: ir.IRBuilder, pointer: ir.Value, *terms: ir.Value | tuple[int, ir.Value]) -> ir.Value:
    """``pointer`` moved on by the sum of the terms; a pair is a product."""
    for term in terms:
        offset = builder.mul(_index(term[0]), term[1]) if isinstance(term, tuple) else term
        pointer = builder.gep(pointer, [offset])
    return pointer


def _not_unrolled(module: ir.Module) -> ir.MDValue:
    """What a loop's last branch says of it; LLVM wants the node to name itself first."""
    wish = module.add_metadata(["llvm.loop.unroll.disable"])
    node = ir.MDValue(module, [], name=str(len(module.metadata)))
    node.operands = (node, wish)
    return node


@contextmanager
def _loop(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """Count from 0 up to ``count``; not unrolled, which would gain nothing and take long to compile."""
    counter = cgutils.alloca_once_value(builder, _index(0))
    check, body, end = (builder.append_basic_block(name) for name in ("check", "body", "end"))
    builder.branch(check)
    builder.position_at_end(check)
    value = builder.load(counter)
    builder.cbranch(builder.icmp_signed("<", value, count), body, end)
    builder.position_at_end(body)
    yield value
    builder.store(builder.add(value, _index(1)), counter)
    builder.branch(check).set_metadata("llvm.loop", _not_unrolled(builder.module))
    builder.position_at_end(end)


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
def outer_tile(
    typing_context, y, y_row, x, offsets, w, w_row, w_column, depth, width, add, rows, vectors, masked
):
    """``y[r, m] (+)= sum_k w[r, k] * x[k, m]`` for ``rows`` rows and as many m as ``vectors`` vectors hold.

    ``y``, ``x``, ``w`` and ``offsets`` are pointers: ``y[r, m]`` is number ``r * y_row + m`` from there,
    ``x[k, m]`` is ``offsets[k] + m``, ``w[r, k]`` is ``r * w_row + k * w_column``. Without ``add`` what was
    in y is overwritten. ``masked``: only the m below ``width`` are read and written.
    """
    index = types.intp
    signature = types.void(
        y, index, x, offsets, w, index, index, index, index, types.boolean, rows, vectors, masked
    )

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        y, y_row, x, offsets, w, w_row, w_column, depth, width, add, *_ = arguments
        tile = _Vectors(builder, signature.args[0].dtype)
        starts = [_index(vector * tile.lanes) for vector in range(vectors.literal_value)]
        masks = [tile.mask(builder.sub(width, start)) if masked.literal_value else None for start in starts]
        targets = [_at(builder, y, (row, y_row)) for row in range(rows.literal_value)]
        totals = [[tile.variable() for _ in starts] for _ in targets]
        with builder.if_then(add):
            for target, row in zip(targets, totals, strict=True):
                for start, mask, total in zip(starts, masks, row, strict=True):
                    builder.store(tile.load(_at(builder, target, start), mask), total)
        with _loop(builder, depth) as k:
            x_k = _at(builder, x, builder.load(_at(builder, offsets, k)))
            w_k = _at(builder, w, builder.mul(k, w_column))
            if VECTOR_BYTES == 64:
                later = builder.add(k, _index(_AHEAD))
                later = builder.select(builder.icmp_signed("<", later, depth), later, k)
                x_later = _at(builder, x, builder.load(_at(builder, offsets, later)))
                for start in starts:
                    tile.prefetch(_at(builder, x_later, start))
            xs = [
                tile.load(_at(builder, x_k, start), mask) for start, mask in zip(starts, masks, strict=True)
            ]
            for number, row in enumerate(totals):
                weight = tile.splat(builder.load(_at(builder, w_k, (number, w_row))))
                for total, x_vector in zip(row, xs, strict=True):
                    tile.multiply_add(total, weight, x_vector)
        for target, row in zip(targets, totals, strict=True):
            for start, mask, total in zip(starts, masks, row, strict=True):
                tile.store(builder.load(total), _at(builder, target, start), mask)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def inner_tile(
    typing_context, y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, lines, length, rows, columns
):
    """``y[r, c] += sum_m a[r, m] * b[c, m]`` for ``rows`` rows and ``columns`` columns.

    The sum runs over ``lines`` lines of ``length`` neighbours each. All arrays are pointers: ``y[r, c]`` is
    number ``r * y_row + c * y_column`` from there, ``a[r, (line, i)]`` is ``r * a_row + line * a_line + i``,
    ``b[c, (line, i)]`` is ``offsets[c] + line * b_line + i``.
    """
    index = types.intp
    signature = types.void(y, index, index, a, index, index, b, index, offsets, index, index, rows, columns)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        y, y_row, y_column, a, a_row, a_line, b, b_line, offsets, lines, length, *_ = arguments
        tile = _Vectors(builder, signature.args[0].dtype)
        a_rows = [_at(builder, a, (row, a_row)) for row in range(rows.literal_value)]
        b_columns = [
            _at(builder, b, builder.load(_at(builder, offsets, _index(column))))
            for column in range(columns.literal_value)
        ]
        totals = [[tile.variable() for _ in b_columns] for _ in a_rows]

        def accumulate(a_at: ir.Value, b_at: ir.Value, mask: ir.Value | None) -> None:
            bs = [tile.load(_at(builder, column, b_at), mask) for column in b_columns]
            for a_start, row in zip(a_rows, totals, strict=True):
                a_vector = tile.load(_at(builder, a_start, a_at), mask)
                for total, b_vector in zip(row, bs, strict=True):
                    tile.multiply_add(total, a_vector, b_vector)

        lanes = _index(tile.lanes)
        whole, rest = builder.sdiv(length, lanes), builder.srem(length, lanes)
        mask = tile.mask(rest)
        with _loop(builder, lines) as line:
            a_begin, b_begin = builder.mul(line, a_line), builder.mul(line, b_line)
            with _loop(builder, whole) as vector:
                m = builder.mul(vector, lanes)
                accumulate(builder.add(a_begin, m), builder.add(b_begin, m), None)
            with builder.if_then(builder.icmp_signed(">", rest, _index(0))):
                m = builder.mul(whole, lanes)
                accumulate(builder.add(a_begin, m), builder.add(b_begin, m), mask)
        for row_number, row in enumerate(totals):
            for column_number, total in enumerate(row):
                target = _at(builder, y, (row_number, y_row), (column_number, y_column))
                value = tile.sum(builder.load(total))
                builder.store(builder.fadd(builder.load(target), value), target)
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
    """Copy the beginnings of ``depth`` lines of x, which lie as in ``outer_tile``, into ``panels`` panels.

    ``out[p * panel + k * out_row + m]`` = x[k, m] after p times as many m as ``vectors`` vectors hold.
    """
    index = types.intp
    signature = types.void(x, offsets, out, index, index, index, index, vectors)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        x, offsets, out, out_row, depth, panels, panel, _ = arguments
        tile = _Vectors(builder, signature.args[0].dtype)
        starts = [_index(vector * tile.lanes) for vector in range(vectors.literal_value)]
        with _loop(builder, depth) as k:
            source = _at(builder, x, builder.load(_at(builder, offsets, k)))
            target = _at(builder, out, builder.mul(out_row, k))
            with _loop(builder, panels) as p:
                given = _at(builder, source, (len(starts) * tile.lanes, p))
                made = _at(builder, target, builder.mul(panel, p))
                for start in starts:
                    tile.store(tile.load(_at(builder, given, start)), _at(builder, made, start))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def transpose_tile(typing_context, x, x_row, y, y_row):
    """``y[c, r] = x[r, c]`` for as many rows and columns as a vector has numbers; both are pointers."""
    index = types.intp
    signature = types.void(x, index, y, index)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        x, x_row, y, y_row = arguments
        tile = _Vectors(builder, signature.args[0].dtype)
        rows = [tile.load(_at(builder, x, (row, x_row))) for row in range(tile.lanes)]
        step = 1
        while step < tile.lanes:  # swap blocks of step x step numbers across the diagonal, ever larger ones
            for row in range(tile.lanes):
                if not row & step:
                    rows[row], rows[row + step] = tile.exchange(rows[row], rows[row + step], step)
            step *= 2
        for column, vector in enumerate(rows):
            tile.store(vector, _at(builder, y, (column, y_row)))
        return context.get_dummy_value()

    return signature, codegen
