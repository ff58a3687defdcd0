"""Arrays of other libraries, used in place: by DLPack, or by ``__cuda_array_interface__``.

Nothing is needed in the other direction: the arrays of a backend are NumPy's or CuPy's, which have the
protocols themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from backends.backend import Backend
from backends.errors import ArgumentError, DeviceLost, DeviceUnavailable, OutOfMemory
from backends.memory import Array
from backends.registry import named, owner
from backends.text import first_line

_HOST, _CUDA = (1, 3, 11), (2, 13)  # DLPack's numbers for memory: CPU, pinned by CUDA, by ROCm; GPU, managed
_ADDED_TO_NUMPY = 2  # ``isbuiltin`` of dtypes such as bfloat16 of the package ml_dtypes
_DTYPES = {
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
}


def of(array: Array) -> Backend:
    """The backend that ``array`` is on.

    It is an array of NumPy, CuPy, or a library with ``__dlpack__`` or ``__cuda_array_interface__``.
    Raises ArgumentError for anything else, and for an array on a device that cannot be used.
    """
    found = shared(array)
    backend = None if found is None else owner(found)
    if backend is None:
        raise ArgumentError(
            f"no backend owns a {type(array).__name__}: expected an array, as of NumPy, CuPy, PyTorch or JAX"
        )
    return backend


def as_array(values: Any, name: str = "array") -> Array:
    """``values`` as an array of NumPy, or of the device that they are on.

    An array of any library shares its memory with the result; everything else is converted as by
    ``numpy.asarray``. ArgumentError as :func:`shared`.
    """
    found = shared(values, name)
    return np.asarray(values) if found is None else found


def host_array(values: Any, name: str = "array") -> Any:
    """:func:`as_array` of values on the host; ArgumentError for an array on another device."""
    array = as_array(values, name)
    if on_host(array):
        return array
    raise ArgumentError(
        f"{name}: it is on {of(array).name}, expected an array on the host: give "
        f"backends.of({name}).to_host({name})"
    )


def on_host(array: object) -> bool:
    """Whether this is an array of NumPy."""
    return isinstance(array, np.ndarray)


def to_host(array: Array) -> Any:
    """A NumPy array as it is, or a copy of an array on a device."""
    return array if on_host(array) else of(array).to_host(array)


def shared(values: Any, name: str = "array") -> Array | None:
    """An array of any library as one of NumPy or CuPy in the same memory; None if ``values`` is no array.

    An array on the host is copied if its library can convert it to NumPy, but not share it.
    Raises ArgumentError, whose message begins with ``name``, for numbers that NumPy does not have, such as
    bfloat16, for a tensor that requires grad, and for memory that cannot be used here.
    """
    if on_host(values) or owner(values) is not None:
        return values
    has_dlpack = hasattr(values, "__dlpack_device__")
    if not has_dlpack and not hasattr(values, "__cuda_array_interface__"):
        return None
    _require_detached(values, name)
    with _refusals(values, name):
        kind, index = _place(values) if has_dlpack else (_CUDA[0], 0)
        if kind in _HOST and hasattr(values, "__array__"):  # first: by DLPack, arrays may be read-only
            return _converted(values, name)
        _require_dtype(values, name)
        if kind in _HOST:
            return np.from_dlpack(values)
        if kind not in _CUDA:
            device = getattr(values, "device", f"a device that DLPack numbers {int(kind)}")
            raise ArgumentError(
                f"{name}: it is on {device}, expected the host or a CUDA GPU: copy it to the host first"
            )
        return _by_dlpack(values, index, name) if has_dlpack else _by_interface(values, name)


def _place(values: Any) -> tuple[int, int]:
    """DLPack's numbers for the memory of an array.

    A library refuses to say so if DLPack has no such numbers, as strings; NumPy may have them.
    """
    try:
        return values.__dlpack_device__()
    except Exception:  # each library raises others
        if not hasattr(values, "__array__"):
            raise
        return _HOST[0], 0


def _converted(values: Any, name: str) -> Any:
    """An array on the host as its own library converts it to NumPy."""
    try:
        array = np.asarray(values)
    except Exception:
        _require_dtype(values, name)
        raise
    if array.dtype.isbuiltin == _ADDED_TO_NUMPY:
        _require_dtype(values, name)
    return array


def _by_dlpack(values: Any, index: int, name: str) -> Array:
    """An array on a GPU as one of CuPy; the work that was queued before on its stream comes first."""
    backend = _gpu(index, name)
    with backend.active():
        return backend.xp.from_dlpack(values)


def _by_interface(values: Any, name: str) -> Array:
    """The same by ``__cuda_array_interface__``, which does not tell the GPU, and bfloat16 only as bytes."""
    index = _gpu(0, name).index_of(values.__cuda_array_interface__["data"][0])
    backend = _gpu(index, name)
    with backend.active():
        array = backend.xp.asarray(values)
    _require_dtype(array, name)
    return array


def _gpu(index: int, name: str) -> Any:
    """The backend of the GPU that an array is on; ArgumentError if it cannot be used."""
    device = f"cuda:{index}"
    try:
        return named(device)
    except DeviceUnavailable as error:
        raise ArgumentError(
            f"{name}: it is on {device}, which cannot be used here ({error.cause}): copy it to the host first"
        ) from error


def _require_detached(values: Any, name: str) -> None:
    """Raise ArgumentError for a tensor that requires grad."""
    if getattr(values, "requires_grad", False):
        raise ArgumentError(
            f"{name}: this tensor requires grad, but no gradient would reach it: give {name}.detach()"
        )


def _require_dtype(values: Any, name: str) -> None:
    """Raise ArgumentError for an array whose dtype NumPy does not have."""
    dtype = getattr(values, "dtype", None)
    known = getattr(dtype, "name", None) or str(dtype).rpartition(".")[2]  # "torch.uint8" and the like
    if dtype is not None and known not in _DTYPES:
        raise ArgumentError(
            f"{name}: dtype {known}, which NumPy does not have: give {name}.float() in PyTorch, or "
            f'{name}.astype("float32") in JAX'
        )


@contextmanager
def _refusals(values: Any, name: str) -> Iterator[None]:
    """Convert an exception of the library that ``values`` is from to a sentence."""
    try:
        yield
    except (ArgumentError, DeviceLost, OutOfMemory, MemoryError):
        raise
    except Exception as error:  # each library raises others
        raise ArgumentError(
            f"{name}: this {type(values).__name__} cannot be shared ({first_line(error)}): expected a dense "
            "array on the host or on a CUDA GPU"
        ) from error
