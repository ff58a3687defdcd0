"""Arrays on the stand-in device, ``xp`` and ``signal``: NumPy and SciPy with the manners of CuPy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import scipy.signal
import scipy.special

from helpers.host_cuda import RawModule
from helpers.standin.work import Tape, counters, do, refuse_while_recording

Number = bool | int | float | complex | np.generic


@dataclass(frozen=True)
class Flags:
    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


@dataclass(frozen=True)
class Pointer:
    ptr: int


class Array:
    """An array on the stand-in device: memory of its own, or (with ``base``) a view of its owner's.

    ``base`` is the array that owns the memory, however many views lie between; None for the owner.
    """

    __slots__ = ("__weakref__", "_host", "base")
    __array_priority__ = 100
    __array_ufunc__ = None  # NumPy leaves operators to us and refuses its own functions
    __hash__ = None  # type: ignore[assignment]  # as NumPy's and CuPy's

    def __init__(self, host: np.ndarray, base: "Array | None" = None) -> None:
        if host.dtype.kind not in "biufc":
            raise TypeError(f"Unsupported dtype {host.dtype}: a device has booleans and numbers only")
        self._host = host
        if base is None:
            counters.allocate(host.nbytes)
            counters.live_bytes += host.nbytes
        self.base = base

    def __del__(self) -> None:
        if hasattr(self, "base") and self.base is None:
            counters.live_bytes -= self._host.nbytes

    # what is known without asking the device

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @property
    def dtype(self) -> np.dtype:
        return self._host.dtype

    @property
    def ndim(self) -> int:
        return self._host.ndim

    @property
    def size(self) -> int:
        return self._host.size

    @property
    def nbytes(self) -> int:
        return self._host.nbytes

    @property
    def itemsize(self) -> int:
        return self._host.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        return self._host.strides

    @property
    def flags(self) -> Flags:
        flags = self._host.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, self.base is None)

    @property
    def data(self) -> Pointer:
        return Pointer(self._host.ctypes.data)

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"Array(shape={self.shape}, dtype={self.dtype})"  # without data: a repr must not wait

    # views and copies

    @property
    def T(self) -> "Array":  # noqa: N802
        return self.transpose()

    def reshape(self, *shape: Any) -> "Array":
        return _derived(lambda: self._host.reshape(*shape), self)

    def transpose(self, *axes: Any) -> "Array":
        return _derived(lambda: self._host.transpose(*axes), self)

    def view(self, dtype: Any = None) -> "Array":
        return _derived(lambda: self._host.view(self.dtype if dtype is None else dtype), self)

    def ravel(self) -> "Array":
        return _derived(lambda: self._host.ravel(), self)

    def astype(self, dtype: Any, copy: bool = True) -> "Array":
        return _derived(lambda: self._host.astype(dtype, copy=copy), self)

    def copy(self) -> "Array":
        return make(lambda: self._host.copy())

    def __copy__(self) -> "Array":
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Array":
        return self.copy()

    # indexing

    def __getitem__(self, index: Any) -> "Array":
        parts, gathers = self._index(index)
        if gathers:
            return make(lambda: np.array(self._host[self._index(index)[0]]))
        return _derived(lambda: self._host[parts], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        parts, gathers = self._index(index)
        source = _operand(value)
        if isinstance(value, Array) and not gathers:
            target = self._host[parts]
            same_place = target.ctypes.data == source.ctypes.data
            if same_place and (target.shape, target.strides) == (source.shape, source.strides):
                return  # CuPy does nothing either
            _count_hidden_copy(value, target)
        do(lambda: self._host.__setitem__(self._index(index)[0], source))

    def _index(self, index: Any) -> tuple[tuple[Any, ...], bool]:
        """The index for NumPy, and whether it gathers elements instead of viewing them."""
        parts = index if isinstance(index, tuple) else (index,)
        axis, gathers, hosts = 0, False, []
        for position, part in enumerate(parts):
            if part is Ellipsis:
                axis = self.ndim - sum(p is not None for p in parts[position + 1 :])
            elif isinstance(part, Array):
                part, gathers = _wrapped(part, self.shape[axis]), True
                axis += 1
            elif isinstance(part, int | np.integer | slice) and not isinstance(part, bool):
                axis += 1
            elif part is not None:
                raise TypeError(
                    f"Unsupported index of type {type(part)}: expected integers, slices, None, ... "
                    "or integer arrays of this device"
                )
            hosts.append(part)
        if not any(part is Ellipsis for part in parts):
            hosts.append(Ellipsis)  # NumPy would give a scalar for a full index; CuPy gives a view
        return tuple(hosts), gathers

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def fill(self, value: Any) -> None:
        source = _operand(value)
        if np.ndim(source) > 0:
            raise ValueError("non-scalar array cannot be used for fill")
        do(lambda: self._host.fill(source))

    # reductions

    def sum(
        self, axis: Any = None, dtype: Any = None, out: "Array | None" = None, keepdims: bool = False
    ) -> "Array":
        return xp.sum(self, axis, dtype, out, keepdims)

    def mean(
        self, axis: Any = None, dtype: Any = None, out: "Array | None" = None, keepdims: bool = False
    ) -> "Array":
        return xp.mean(self, axis, dtype, out, keepdims)

    def max(self, axis: Any = None, out: "Array | None" = None, keepdims: bool = False) -> "Array":
        return xp.max(self, axis, out, keepdims)

    def min(self, axis: Any = None, out: "Array | None" = None, keepdims: bool = False) -> "Array":
        return xp.min(self, axis, out, keepdims)

    def all(self, axis: Any = None, out: "Array | None" = None, keepdims: bool = False) -> "Array":
        return xp.all(self, axis, out, keepdims)

    def any(self, axis: Any = None, out: "Array | None" = None, keepdims: bool = False) -> "Array":
        return xp.any(self, axis, out, keepdims)

    def argmax(self, axis: Any = None, *, out: "Array | None" = None, keepdims: bool = False) -> "Array":
        return xp.argmax(self, axis, out=out, keepdims=keepdims)

    # conversions that are asked for: each waits for the device, and is counted

    def get(self) -> np.ndarray:
        refuse_while_recording("waiting for the device")
        counters.synchronizations += 1
        return self._host.copy()

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, specification: str) -> str:
        return format(self.get(), specification)

    # conversions by accident, and what has a place of its own: refused

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use backend.to_host")

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with a device array: use the backend's xp")

    def __matmul__(self, other: Any) -> Any:
        raise AssertionError("products go through backend.matmul, never @, which would allocate")

    __rmatmul__ = __imatmul__ = __matmul__

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a device array is never pickled: use backend.to_host")


def _host(array: Any) -> np.ndarray:
    """What a device array wraps; everything else is refused."""
    if not isinstance(array, Array):
        raise TypeError(f"Unsupported type {type(array)}: expected an array of the stand-in device")
    return array._host


def _operand(value: Any) -> Any:
    """An operand for NumPy: what a device array wraps, or the scalar as it is."""
    if isinstance(value, Number):
        return value
    if isinstance(value, Array):
        return value._host
    raise TypeError(f"Unsupported type {type(value)}: device arrays mix with each other and with scalars")


def make(compute: Callable[[], Any]) -> "Array":
    """Ask the device for something that gives a new array."""
    result = np.asarray(compute())
    if Tape.current is not None:
        Tape.current.add(lambda: np.copyto(result, compute()))
    return Array(result)


def _derived(compute: Callable[[], np.ndarray], source: Array) -> Array:
    """A result that may be the source itself, a view of it, or new."""
    result = compute()
    if result is source._host:
        return source
    is_view = np.may_share_memory(result, source._host) if result.size else result.base is not None
    return _view(result, source) if is_view else make(compute)


def _view(result: np.ndarray, source: Array) -> Array:
    return Array(result, source if source.base is None else source.base)


def _wrapped(indices: Array, length: int) -> np.ndarray:
    """Integer indices as CuPy takes them: those out of range start again at the other end."""
    host = _host(indices)
    if host.dtype.kind == "b":
        raise TypeError("a boolean mask as an index waits for the device: use xp.where, or copyto(where=)")
    if host.dtype.kind not in "iu":
        raise IndexError(f"arrays used as indices must be of integer type, not {host.dtype}")
    return host % length if length else host


# the array module


class Listed(ModuleType):
    """A module that has what was put on its list and nothing else."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.__name__}.{name} is not in CuPy, or not on the stand-in's list")


xp = Listed("xp")
xp.lib = Listed("xp.lib")
xp.lib.stride_tricks = Listed("xp.lib.stride_tricks")
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
    hosts = [_operand(operand) for operand in operands]

    def compute(**out: Any) -> Any:
        with np.errstate(all="ignore"):  # a device does not warn
            return function(*hosts, **out, **keywords)

    if out is None:
        return make(compute)
    shape = np.broadcast_shapes(*(np.shape(host) for host in hosts))
    if _host(out).shape != shape:
        raise ValueError(f"Out shape is mismatched: out has {out.shape}, the result {shape}")
    for operand in operands:
        if operand is not out:
            _count_hidden_copy(operand, out._host)
    do(lambda: compute(out=out._host))
    return out


def _count_hidden_copy(operand: Any, target: np.ndarray) -> None:
    """CuPy copies an operand that reaches into the memory that is written."""
    if isinstance(operand, Array) and np.may_share_memory(operand._host, target):
        counters.allocate(operand.nbytes)


def _ufunc(function: np.ufunc) -> Callable[..., Array]:
    def call(*operands: Any, out: Array | None = None, dtype: Any = None) -> Array:
        if len(operands) != function.nin:
            raise TypeError(f"{function.__name__} takes {function.nin} operands, not {len(operands)}")
        return _elementwise(function, operands, out, dtype=dtype)

    call.__name__ = function.__name__
    return call


for _name in UFUNCS:
    setattr(xp, _name, _ufunc(getattr(np, _name)))


def _reduce(function: Callable[..., Any], a: Array, out: Array | None, **keywords: Any) -> Array:
    if out is None:
        return make(lambda: function(_host(a), **keywords))
    do(lambda: function(_host(a), out=_host(out), **keywords))
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
    return make(lambda: np.full(shape, _operand(fill_value), dtype=dtype))


@_listed
def empty_like(prototype: Array, dtype: Any = None, *, shape: Any = None) -> Array:
    host = np.empty_like(_host(prototype), dtype=dtype, shape=shape)
    host.ravel("K").view(np.uint8).fill(0xFF)
    return Array(host)


@_listed
def zeros_like(a: Array, dtype: Any = None, *, shape: Any = None) -> Array:
    return make(lambda: np.zeros_like(_host(a), dtype=dtype, shape=shape))


@_listed
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Array:
    for number in (start, stop, step):
        if number is not None and not isinstance(number, Number):
            raise TypeError(f"xp.arange takes numbers of the host, not {type(number)}")
    begin, end = (0, start) if stop is None else (start, stop)
    return make(lambda: np.arange(begin, end, step, dtype=dtype))


@_listed
def asarray(a: Array, dtype: Any = None) -> Array:
    if not isinstance(a, Array):
        raise TypeError(
            f"xp.asarray of {type(a)} is a transfer: use backend.asarray, or xp.full for a number"
        )
    return _derived(lambda: np.asarray(a._host, dtype=dtype), a)


@_listed
def ascontiguousarray(a: Array, dtype: Any = None) -> Array:
    return _derived(lambda: np.ascontiguousarray(_host(a), dtype=dtype), a)


@_listed
def copyto(dst: Array, src: Any, *, where: Any = None) -> None:
    source, mask = _operand(src), True if where is None else _operand(where)
    _count_hidden_copy(src, _host(dst))
    do(lambda: np.copyto(dst._host, source, where=mask))


@_listed
def where(condition: Array, x: Any, y: Any) -> Array:
    hosts = _host(condition), _operand(x), _operand(y)
    return make(lambda: np.where(*hosts))


@_listed
def take(a: Array, indices: Any, axis: int | None = None, out: Array | None = None) -> Array:
    host = _host(a)
    on_device = not isinstance(indices, int | np.integer)
    if on_device:
        _wrapped(indices, 1)  # refuses what are no indices

    def compute() -> np.ndarray:
        length = host.size if axis is None else host.shape[axis]
        return np.take(host, _wrapped(indices, length) if on_device else indices, axis=axis, mode="wrap")

    if out is None:
        return make(compute)
    if _host(out).dtype != host.dtype:
        raise TypeError(f"Output dtype mismatch: out is {out.dtype}, the array {host.dtype}")
    shape = compute().shape
    if out.shape != shape:
        raise ValueError(f"Output shape mismatch: out has {out.shape}, the result {shape}")
    do(lambda: np.copyto(out._host, compute()))
    return out


@_listed
def take_along_axis(a: Array, indices: Array, axis: int) -> Array:
    host = _host(a)
    return make(lambda: np.take_along_axis(host, _wrapped(indices, host.shape[axis]), axis))


@_listed
def stack(tup: Sequence[Array], axis: int = 0, out: Array | None = None) -> Array:
    return _join(np.stack, tup, axis, out)


@_listed
def concatenate(tup: Sequence[Array], axis: int = 0, out: Array | None = None) -> Array:
    return _join(np.concatenate, tup, axis, out)


def _join(function: Callable[..., Any], tup: Sequence[Array], axis: int, out: Array | None) -> Array:
    hosts = [_host(array) for array in tup]
    if out is None:
        return make(lambda: function(hosts, axis=axis))
    do(lambda: function(hosts, axis=axis, out=_host(out)))
    return out


@_listed
def broadcast_to(array: Array, shape: Any) -> Array:
    return _derived(lambda: np.broadcast_to(_host(array), shape), array)


@_listed
def moveaxis(a: Array, source: Any, destination: Any) -> Array:
    return _derived(lambda: np.moveaxis(_host(a), source, destination), a)


@_listed
def transpose(a: Array, axes: Any = None) -> Array:
    return _derived(lambda: np.transpose(_host(a), axes), a)


def as_strided(x: Array, shape: Any = None, strides: Any = None) -> Array:
    # CuPy's view keeps the memory alive but has no base; here the owner is its base
    return _view(np.lib.stride_tricks.as_strided(_host(x), shape, strides), x)


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
    function = getattr(scipy.signal, name)

    def call(in1: Array, in2: Array, mode: str = "full", method: str = "auto") -> Array:
        hosts = [_host(in1), _host(in2)]
        if in1.ndim > 1 and method not in ("direct", "fft"):
            raise NotImplementedError(f"signal.{name} beyond one dimension: name the method, direct or fft")
        if any(stride < 0 for host in hosts for stride in host.strides):
            raise ValueError(f"signal.{name} of a view that runs backwards: use xp.ascontiguousarray")
        return make(lambda: np.array(function(*hosts, mode=mode, method=method)))

    return call


signal = Listed("signal")
signal.correlate = _filter("correlate")
signal.convolve = _filter("convolve")


# cupyx.scipy.special

special = Listed("special")
special.erf = _ufunc(scipy.special.erf)
