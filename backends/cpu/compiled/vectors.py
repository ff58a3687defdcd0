"""What this processor's vectors are, and the emission of operations on them with LLVM's builder."""

from collections.abc import Iterator
from contextlib import contextmanager
from platform import machine

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

if not all(feature[:1] in ("", "+", "-") for feature in (config.CPU_FEATURES or "").split(",")):
    raise ImportError("NUMBA_CPU_FEATURES has a feature without + or -")  # LLVM would abort the process

_FEATURES = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
_HAS_AVX512 = "+avx512f" in _FEATURES
VECTOR_BYTES = 64 if _HAS_AVX512 else 32 if "+avx2" in _FEATURES else 16
MANY_REGISTERS = _HAS_AVX512 or machine() in ("aarch64", "arm64")  # 32 of them, elsewhere 16

WORD, LANE = ir.IntType(64), ir.IntType(32)


class Vectors:
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
        alignment = ir.Constant(LANE, self._alignment)
        arguments = [pointer, alignment, mask, ir.Constant(self.type, None)]
        return self._call(f"llvm.masked.load.{self._suffix}.p0", self.type, arguments)

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None) -> None:
        """Write the vector to ``pointer``; nothing where the mask is off."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self._alignment)
            return
        alignment = ir.Constant(LANE, self._alignment)
        name = f"llvm.masked.store.{self._suffix}.p0"
        self._call(name, ir.VoidType(), [value, pointer, alignment, mask])

    def splat(self, scalar: ir.Value) -> ir.Value:
        """``scalar`` in every lane."""
        return splat(self.builder, scalar, self.lanes)

    def multiply_add(self, total: ir.Value, a: ir.Value, b: ir.Value) -> None:
        """``total += a * b`` for a variable."""
        old = self.builder.load(total)
        self.builder.store(self._call(f"llvm.fmuladd.{self._suffix}", self.type, [a, b, old]), total)

    def prefetch(self, pointer: ir.Value, to_write: bool = False) -> None:
        """Have the L1 cache load what is at ``pointer``; it need not be valid."""
        byte = ir.IntType(8).as_pointer()
        options = [ir.Constant(LANE, value) for value in (int(to_write), 3, 1)]  # near, data
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
                    ir.Constant(ir.VectorType(LANE, lanes), list(range(first, first + lanes))),
                )
                for first in (0, lanes)
            ]
            vector = self.builder.fadd(*halves)
        return self.builder.extract_element(vector, ir.Constant(LANE, 0))

    def exchange(self, a: ir.Value, b: ir.Value, step: int) -> tuple[ir.Value, ir.Value]:
        """Every second ``step`` numbers of ``a`` against those before them in ``b``."""
        lanes = range(self.lanes)
        kept = [lane if not lane & step else self.lanes + lane - step for lane in lanes]
        given = [lane + step if not lane & step else self.lanes + lane for lane in lanes]
        kind = ir.VectorType(LANE, self.lanes)
        first, second = (
            self.builder.shuffle_vector(a, b, ir.Constant(kind, order)) for order in (kept, given)
        )
        return first, second

    def mask(self, count: ir.Value) -> ir.Value:
        """On in the first ``count`` lanes."""
        lane = ir.Constant(ir.VectorType(WORD, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lane, splat(self.builder, count, self.lanes))

    def _call(self, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """``scalar`` in each of so many lanes."""
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(LANE, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(LANE, lanes), [0] * lanes))


def word(value: int) -> ir.Value:
    """A constant of 64 bits."""
    return ir.Constant(WORD, value)


def moved(builder: ir.IRBuilder, pointer: ir.Value, *terms: ir.Value | tuple[int, ir.Value]) -> ir.Value:
    """``pointer`` moved on by the sum of the terms; a pair is a product."""
    for term in terms:
        offset = builder.mul(word(term[0]), term[1]) if isinstance(term, tuple) else term
        pointer = builder.gep(pointer, [offset])
    return pointer


def _not_unrolled(module: ir.Module) -> ir.MDValue:
    """What a loop's last branch says of it; LLVM wants the node to name itself first."""
    wish = module.add_metadata(["llvm.loop.unroll.disable"])
    node = ir.MDValue(module, [], name=str(len(module.metadata)))
    node.operands = (node, wish)
    return node


@contextmanager
def loop(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """Count from 0 up to ``count``; not unrolled, which would gain nothing and take long to compile."""
    counter = cgutils.alloca_once_value(builder, word(0))
    check, body, end = (builder.append_basic_block(name) for name in ("check", "body", "end"))
    builder.branch(check)
    builder.position_at_end(check)
    value = builder.load(counter)
    builder.cbranch(builder.icmp_signed("<", value, count), body, end)
    builder.position_at_end(body)
    yield value
    builder.store(builder.add(value, word(1)), counter)
    builder.branch(check).set_metadata("llvm.loop", _not_unrolled(builder.module))
    builder.position_at_end(end)
