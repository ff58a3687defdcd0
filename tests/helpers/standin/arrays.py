"""Arrays on the stand-in device: NumPy's, with the manners of CuPy's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.standin.modules import xp
from helpers.standin.work import Tape, counters, do, refuse_while_recording

Number = bool | int | float | complex | np.generic
CUDA = 2, 0  # DLPack's numbers for the device


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
        if host.dtype.kind not in "biufc" and host.dtype.name != "bfloat16":
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
        return derived(lambda: self._host.reshape(*shape), self)

    def transpose(self, *axes: Any) -> "Array":
        return derived(lambda: self._host.transpose(*axes), self)

    def view(self, dtype: Any = None) -> "Array":
        return derived(lambda: self._host.view(self.dtype if dtype is None else dtype), self)

    def ravel(self) -> "Array":
        return derived(lambda: self._host.ravel(), self)

    def astype(self, dtype: Any, copy: bool = True) -> "Array":
        return derived(lambda: self._host.astype(dtype, copy=copy), self)

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
        return derived(lambda: self._host[parts], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        parts, gathers = self._index(index)
        source = operand_of(value)
        if isinstance(value, Array) and not gathers:
            target = self._host[parts]
            same_place = target.ctypes.data == source.ctypes.data
            if same_place and (target.shape, target.strides) == (source.shape, source.strides):
                return  # CuPy does nothing either
            count_hidden_copy(value, target)
        do(lambda: self._set(index, source))

    def _set(self, index: Any, source: Any) -> None:
        with np.errstate(all="ignore"):  # a device does not warn
            self._host[self._index(index)[0]] = source

    def _index(self, index: Any) -> tuple[tuple[Any, ...], bool]:
        """The index for NumPy, and whether it gathers elements instead of viewing them."""
        parts = index if isinstance(index, tuple) else (index,)
        axis, gathers, hosts = 0, False, []
        for position, part in enumerate(parts):
            if part is Ellipsis:
                axis = self.ndim - sum(p is not None for p in parts[position + 1 :])
            elif isinstance(part, Array):
                part, gathers = wrapped(part, self.shape[axis]), True
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
        source = operand_of(value)
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

    def std(self, axis: Any = None, dtype: Any = None, out: "Array | None" = None) -> "Array":
        return xp.std(self, axis, dtype, out)

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

    # shared with other libraries, which find a GPU's memory

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        if stream is None:  # as NumPy asks
            raise BufferError("a device's memory is for consumers that name the stream they compute on")
        return self._host.__dlpack__(max_version=max_version, copy=copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self._host.__array_interface__ | {"version": 3, "stream": 1}

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


def foreign(host: np.ndarray) -> Array:
    """An array in memory that another library allocated."""
    return view_of(host, Array(np.empty(0)))


def host_of(array: Any) -> np.ndarray:
    """What a device array wraps; everything else is refused."""
    if not isinstance(array, Array):
        raise TypeError(f"Unsupported type {type(array)}: expected an array of the stand-in device")
    return array._host


def operand_of(value: Any) -> Any:
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


def derived(compute: Callable[[], np.ndarray], source: Array) -> Array:
    """A result that may be the source itself, a view of it, or new."""
    result = compute()
    if result is source._host:
        return source
    is_view = np.may_share_memory(result, source._host) if result.size else result.base is not None
    return view_of(result, source) if is_view else make(compute)


def view_of(result: np.ndarray, source: Array) -> Array:
    return Array(result, source if source.base is None else source.base)


def wrapped(indices: Array, length: int) -> np.ndarray:
    """Integer indices as CuPy takes them: those out of range start again at the other end."""
    host = host_of(indices)
    if host.dtype.kind == "b":
        raise TypeError("a boolean mask as an index waits for the device: use xp.where, or copyto(where=)")
    if host.dtype.kind not in "iu":
        raise IndexError(f"arrays used as indices must be of integer type, not {host.dtype}")
    return host % length if length else host


def count_hidden_copy(operand: Any, target: np.ndarray) -> None:
    """CuPy copies an operand that reaches into the memory that is written."""
    if isinstance(operand, Array) and np.may_share_memory(operand._host, target):
        counters.allocate(operand.nbytes)
