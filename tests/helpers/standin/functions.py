"""The functions of ``xp``, ``signal`` and ``special``: NumPy's and SciPy's, with the manners of CuPy's."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special

from helpers.foreign_arrays import memory_by_dlpack, memory_by_interface
from helpers.host_cuda import RawModule
from helpers.standin.arrays import (
    CUDA,
    Array,
    Number,
    count_hidden_copy,
    derived,
    foreign,
    host_of,
    make,
    operand_of,
    view_of,
    wrapped,
)
from helpers.standin.modules import signal, special, xp
from helpers.standin.work import do

xp.ndarray = Array


class DeviceModule(RawModule):
    """Kernels that are launched like all other work."""

    def get_function(self, name: str) -> Callable[..., None]:
        run = super().get_function(name)
        return lambda grid, block, args, *, shared_mem=0: do(
            lambda: run(grid, block, args, shared_mem=shared_mem)
        )


xp.RawModule = DeviceModule
xp.dtype, xp.finfo, xp.iinfo = np.dtype, np.finfo, np.iinfo
xp.bool_, xp.uint8, xp.uint32, xp.uint64 = np.bool_, np.uint8, np.uint32, np.uint64
xp.int8, xp.int32, xp.int64, xp.float32, xp.float64 = np.int8, np.int32, np.int64, np.float32, np.float64
xp.inf, xp.nan, xp.pi, xp.newaxis = math.inf, math.nan, math.pi, None

UFUNCS = (
    *("add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "remainder", "power"),
    *("negative", "absolute", "abs", "sign", "reciprocal", "square", "sqrt", "ceil"),
    *("exp", "expm1", "log", "log1p", "sin", "cos", "tanh"),
    *("maximum", "minimum", "fmin", "greater", "greater_equal", "less", "less_equal", "equal", "not_equal"),
    "floor",
    *("logical_and", "logical_or", "logical_xor", "logical_not", "isfinite", "isinf", "isnan"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "invert", "left_shift", "right_shift"),
)


def _elementwise(
    function: Callable[..., Any], operands: Sequence[Any], out: Array | None, **keywords: Any
) -> Array:
    hosts = [operand_of(operand) for operand in operands]

    def compute(**out: Any) -> Any:
        with np.errstate(all="ignore"):  # a device does not warn
            return function(*hosts, **out, **keywords)

    if out is None:
        return make(compute)
    shape = np.broadcast_shapes(*(np.shape(host) for host in hosts))
    if host_of(out).shape != shape:
        raise ValueError(f"Out shape is mismatched: out has {out.shape}, the result {shape}")
    for operand in operands:
        if operand is not out:
            count_hidden_copy(operand, out._host)
    do(lambda: compute(out=out._host))
    return out


def _ufunc(function: np.ufunc) -> Callable[..., Array]:
    def call(
        *operands: Any, out: Array | None = None, dtype: Any = None, casting: str = "same_kind"
    ) -> Array:
        if len(operands) != function.nin:
            raise TypeError(f"{function.__name__} takes {function.nin} operands, not {len(operands)}")
        return _elementwise(function, operands, out, dtype=dtype, casting=casting)

    call.__name__ = function.__name__
    return call


for _name in UFUNCS:
    setattr(xp, _name, _ufunc(getattr(np, _name)))


def _reduce(function: Callable[..., Any], a: Array, out: Array | None, **keywords: Any) -> Array:
    if out is None:
        return make(lambda: function(host_of(a), **keywords))
    do(lambda: function(host_of(a), out=host_of(out), **keywords))
    return out


def _typed_reduction(name: str) -> Callable[..., Array]:
    def call(
        a: Array, axis: Any = None, dtype: Any = None, out: Array | None = None, keepdims: bool = False
    ) -> Array:
        return _reduce(getattr(np, name), a, out, axis=axis, dtype=dtype, keepdims=keepdims)

    return call


def _reduction(name: str) -> Callable[..., Array]:
    def call(a: Array, axis: Any = None, out: Array | None = None, keepdims: bool = False) -> Array:
        return _reduce(getattr(np, name), a, out, axis=axis, keepdims=keepdims)

    return call


for _name in ("sum", "mean"):
    setattr(xp, _name, _typed_reduction(_name))
for _name in ("max", "min", "amax", "amin", "all", "any"):
    setattr(xp, _name, _reduction(_name))


def _listed(function: Callable[..., Any]) -> Callable[..., Any]:
    setattr(xp, function.__name__, function)
    return function


@_listed
def std(a: Array, axis: Any = None, dtype: Any = None, out: Array | None = None) -> Array:
    return _reduce(np.std, a, out, axis=axis, dtype=dtype)


@_listed
def argmax(a: Array, axis: int | None = None, *, out: Array | None = None, keepdims: bool = False) -> Array:
    # out by name only: its position is another one in CuPy
    return _reduce(np.argmax, a, out, axis=axis, keepdims=keepdims)


@_listed
def clip(a: Array, a_min: Any, a_max: Any, out: Array | None = None) -> Array:
    if a_min is None:
        return xp.minimum(a, a_max, out=out)
    if a_max is None:
        return xp.maximum(a, a_min, out=out)
    return _elementwise(np.clip, (a, a_min, a_max), out)


@_listed
def empty(shape: Any, dtype: Any = float) -> Array:
    host = np.empty(shape, dtype=dtype)
    host.reshape(-1).view(np.uint8).fill(0xFF)  # NaN, -1, 255: what nobody wrote must not look like zeros
    return Array(host)


@_listed
def zeros(shape: Any, dtype: Any = float) -> Array:
    return make(lambda: np.zeros(shape, dtype=dtype))


@_listed
def ones(shape: Any, dtype: Any = float) -> Array:
    return make(lambda: np.ones(shape, dtype=dtype))


@_listed
def full(shape: Any, fill_value: Any, dtype: Any = None) -> Array:
    return make(lambda: np.full(shape, operand_of(fill_value), dtype=dtype))


@_listed
def empty_like(prototype: Array, dtype: Any = None, *, shape: Any = None) -> Array:
    host = np.empty_like(host_of(prototype), dtype=dtype, shape=shape)
    host.ravel("K").view(np.uint8).fill(0xFF)
    return Array(host)


@_listed
def zeros_like(a: Array, dtype: Any = None, *, shape: Any = None) -> Array:
    return make(lambda: np.zeros_like(host_of(a), dtype=dtype, shape=shape))


@_listed
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Array:
    for number in (start, stop, step):
        if number is not None and not isinstance(number, Number):
            raise TypeError(f"xp.arange takes numbers of the host, not {type(number)}")
    begin, end = (0, start) if stop is None else (start, stop)
    return make(lambda: np.arange(begin, end, step, dtype=dtype))


@_listed
def asarray(a: Array, dtype: Any = None) -> Array:
    if not isinstance(a, Array) and hasattr(a, "__cuda_array_interface__"):
        a = foreign(memory_by_interface(a))
    if not isinstance(a, Array):
        raise TypeError(
            f"xp.asarray of {type(a)} is a transfer: use backend.asarray, or xp.full for a number"
        )
    return derived(lambda: np.asarray(a._host, dtype=dtype), a)


@_listed
def from_dlpack(array: Any) -> Array:
    if array.__dlpack_device__() != CUDA:
        raise TypeError(f"CuPy takes memory of a GPU, not of {array.__dlpack_device__()}")
    return foreign(memory_by_dlpack(array))


@_listed
def ascontiguousarray(a: Array, dtype: Any = None) -> Array:
    return derived(lambda: np.ascontiguousarray(host_of(a), dtype=dtype), a)


@_listed
def copyto(dst: Array, src: Any, *, where: Any = None) -> None:
    source, mask = operand_of(src), True if where is None else operand_of(where)
    count_hidden_copy(src, host_of(dst))
    do(lambda: np.copyto(dst._host, source, where=mask))


@_listed
def where(condition: Array, x: Any, y: Any) -> Array:
    hosts = host_of(condition), operand_of(x), operand_of(y)
    return make(lambda: np.where(*hosts))


@_listed
def take(a: Array, indices: Any, axis: int | None = None, out: Array | None = None) -> Array:
    host = host_of(a)
    on_device = not isinstance(indices, int | np.integer)
    if on_device:
        wrapped(indices, 1)  # refuses what are no indices

    def compute() -> np.ndarray:
        length = host.size if axis is None else host.shape[axis]
        return np.take(host, wrapped(indices, length) if on_device else indices, axis=axis, mode="wrap")

    if out is None:
        return make(compute)
    if host_of(out).dtype != host.dtype:
        raise TypeError(f"Output dtype mismatch: out is {out.dtype}, the array {host.dtype}")
    shape = compute().shape
    if out.shape != shape:
        raise ValueError(f"Output shape mismatch: out has {out.shape}, the result {shape}")
    do(lambda: np.copyto(out._host, compute()))
    return out


@_listed
def take_along_axis(a: Array, indices: Array, axis: int) -> Array:
    host = host_of(a)
    return make(lambda: np.take_along_axis(host, wrapped(indices, host.shape[axis]), axis))


@_listed
def stack(tup: Sequence[Array], axis: int = 0, out: Array | None = None) -> Array:
    return _join(np.stack, tup, axis, out)


@_listed
def concatenate(tup: Sequence[Array], axis: int = 0, out: Array | None = None) -> Array:
    return _join(np.concatenate, tup, axis, out)


def _join(function: Callable[..., Any], tup: Sequence[Array], axis: int, out: Array | None) -> Array:
    hosts = [host_of(array) for array in tup]
    if out is None:
        return make(lambda: function(hosts, axis=axis))
    do(lambda: function(hosts, axis=axis, out=host_of(out)))
    return out


@_listed
def broadcast_to(array: Array, shape: Any) -> Array:
    return derived(lambda: np.broadcast_to(host_of(array), shape), array)


@_listed
def moveaxis(a: Array, source: Any, destination: Any) -> Array:
    return derived(lambda: np.moveaxis(host_of(a), source, destination), a)


@_listed
def transpose(a: Array, axes: Any = None) -> Array:
    return derived(lambda: np.transpose(host_of(a), axes), a)


def as_strided(x: Array, shape: Any = None, strides: Any = None) -> Array:
    # CuPy's view keeps the memory alive but has no base; here the owner is its base
    return view_of(np.lib.stride_tricks.as_strided(host_of(x), shape, strides), x)


xp.lib.stride_tricks.as_strided = as_strided


# the operators of Array are functions of xp


def _binary(name: str, reflected: bool = False) -> Callable[[Array, Any], Array]:
    def call(self: Array, other: Any) -> Array:
        operands = (other, self) if reflected else (self, other)
        return getattr(xp, name)(*operands)

    return call


def _in_place(name: str) -> Callable[[Array, Any], Array]:
    return lambda self, other: getattr(xp, name)(self, other, out=self)


def _unary(name: str) -> Callable[[Array], Array]:
    return lambda self: getattr(xp, name)(self)


ARITHMETIC = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}
COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
for _operator, _name in ARITHMETIC.items():
    setattr(Array, f"__{_operator}__", _binary(_name))
    setattr(Array, f"__r{_operator}__", _binary(_name, reflected=True))
    setattr(Array, f"__i{_operator}__", _in_place(_name))
for _operator, _name in COMPARISONS.items():
    setattr(Array, f"__{_operator}__", _binary(_name))
for _operator, _name in {"neg": "negative", "abs": "absolute", "invert": "invert"}.items():
    setattr(Array, f"__{_operator}__", _unary(_name))


# cupyx.scipy.signal


def _filter(name: str) -> Callable[..., Array]:
    def call(in1: Array, in2: Array, mode: str = "full", method: str = "auto") -> Array:
        from scipy import signal as of_scipy  # takes longer than all else that a process imports

        function = getattr(of_scipy, name)
        hosts = [host_of(in1), host_of(in2)]
        if in1.ndim > 1 and method not in ("direct", "fft"):
            raise NotImplementedError(f"signal.{name} beyond one dimension: name the method, direct or fft")
        if any(stride < 0 for host in hosts for stride in host.strides):
            raise ValueError(f"signal.{name} of a view that runs backwards: use xp.ascontiguousarray")
        return make(lambda: np.array(function(*hosts, mode=mode, method=method)))

    return call


signal.correlate = _filter("correlate")
signal.convolve = _filter("convolve")


# cupyx.scipy.special

special.erf = _ufunc(scipy.special.erf)
