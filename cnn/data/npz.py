"""NumPy's .npz: a zip archive with an array a member, read here without ever unpickling."""

import os
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from cnn.data.dataset import Array, Dataset, as_names, some_of
from cnn.data.files import Named, as_sets, most_inflated, open_file, read_up_to
from cnn.errors import DataError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_HEADER = 1 << 14  # longer than any header of an array of numbers or names
_PARSERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(path: Path) -> tuple[Dataset, Dataset]:
    """The two sets in a .npz file with x_train, y_train, x_test, y_test and perhaps ``classes``, names."""
    with open_file(path) as file:
        try:
            arrays, names = _read(path, ZipFile(file), os.fstat(file.fileno()).st_size)
        except DataError:
            raise
        except Exception as error:  # a damaged archive may raise nearly anything inside zipfile and numpy
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{path}: not a .npz file, or damaged ({reason}): expected what numpy.savez writes"
            ) from error
    x_train, y_train, x_test, y_test = (Named(f"{path}: {name}", arrays[name]) for name in ARRAYS)
    return as_sets((x_train, y_train), (x_test, y_test), as_names(names, f"{path}: classes"))


def _read(path: Path, archive: ZipFile, size: int) -> tuple[dict[str, Array], list[str] | None]:
    suffix = ".npy"
    members = {
        info.filename.removesuffix(suffix): info
        for info in archive.infolist()
        if info.filename.endswith(suffix)
    }
    missing = [name for name in ARRAYS if name not in members]
    if missing:
        found = some_of(members) or "none"
        raise DataError(f"{path}: missing {', '.join(missing)}; expected {', '.join(ARRAYS)}, found {found}")
    arrays = {name: _read_array(archive, members[name], size, f"{path}: {name}") for name in ARRAYS}
    if "classes" not in members:
        return arrays, None
    names = _read_array(archive, members["classes"], size, f"{path}: classes")
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: classes: {names.dtype} {names.shape}: expected a row of names, as text")
    return arrays, names.tolist()


def _read_array(archive: ZipFile, info: ZipInfo, size: int, name: str) -> Array:
    """One member; its sizes are checked from the outside in before memory is taken for them."""
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise DataError(f"{name}: compressed by method {info.compress_type}: expected stored or deflated")
    if info.compress_size > size or info.file_size > most_inflated(info.compress_size):
        raise DataError(
            f"{name}: {info.file_size:,} bytes promised, more than the file can hold: it is damaged"
        )
    with archive.open(info) as stream:
        data = bytearray()
        read_up_to(min(_HEADER, info.file_size), stream, data)
        shape, fortran_order, dtype, start = _parse_header(data, name)
        if dtype.hasobject:
            raise DataError(f"{name}: holds Python objects, which are never unpickled: save plain numbers")
        if len(shape) > 4 or any(n < 0 for n in shape):
            raise DataError(f"{name}: shape {shape}: expected at most 4 axes, none of them negative")
        if prod(shape) * dtype.itemsize != info.file_size - start:
            raise DataError(
                f"{name}: its header promises {prod(shape) * dtype.itemsize:,} bytes for {dtype} {shape}, "
                f"but the file holds {info.file_size - start:,}: it is damaged"
            )
        read_up_to(info.file_size, stream, data)
        if len(data) != info.file_size or stream.read(1):  # at the end this also checks the CRC
            raise DataError(f"{name}: {info.file_size:,} bytes promised, {len(data):,} found: it is damaged")
    return np.ndarray(shape, dtype, buffer=data, offset=start, order="F" if fortran_order else "C")


def _parse_header(data: bytearray, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _PARSERS:
        raise DataError(f"{name}: .npy format {version}: expected (1, 0) or (2, 0)")
    shape, fortran_order, dtype = _PARSERS[version](stream)
    return shape, fortran_order, dtype, stream.tell()
