"""NumPy's .npy files: a header and an array. Folders of them are memory-mapped and may exceed memory."""

import os
from collections.abc import Callable, Iterable
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cnn.data.checked import as_names, as_texts
from cnn.data.dataset import Dataset
from cnn.data.layouts import Named
from cnn.data.names import parts_among, role_of
from cnn.data.readers.common import as_sets, open_file, read_up_to, unreadable
from cnn.support.errors import DataError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CLASSES = ("classes", "class_names", "label_names", "target_names")  # the first is the documented one
LONGEST_HEADER = 1 << 14  # longer than the header of any array of numbers or names
_PARSERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """The header of a .npy file, and the position of the array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    start: int


def parse_header(data: bytearray, size: int, name: str) -> Header:
    """Parse the header of a .npy file of ``size`` bytes; if it is not a header, numpy raises any exception.

    Raises DataError if the header promises more than the file contains, or Python objects.
    """
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _PARSERS:
        raise DataError(f"{name}: .npy format {version}: expected (1, 0) or (2, 0)")
    shape, fortran_order, dtype = _PARSERS[version](stream)
    start = stream.tell()
    if dtype.hasobject:
        raise DataError(
            f"{name}: holds Python objects, which are never unpickled: save plain numbers, or text "
            "converted by astype(str)"
        )
    if len(shape) > 4 or any(n < 0 for n in shape):
        raise DataError(f"{name}: shape {shape}: expected at most 4 axes, none of them negative")
    if prod(shape) * dtype.itemsize != size - start:
        raise DataError(
            f"{name}: its header promises {prod(shape) * dtype.itemsize:,} bytes for {dtype} {shape}, "
            f"but the file holds {size - start:,}: it is damaged"
        )
    return Header(shape, dtype, "F" if fortran_order else "C", start)


def class_names(
    there: Iterable[str], read: Callable[[str], Named]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The class names from one of the arrays in ``there``, and a note if it is not the documented one.

    Raises DataError if the array is not one-dimensional text.
    """
    found = next((name for name in CLASSES if name in there), None)
    if found is None:
        return None, ()
    name, names = read(found)
    if names.dtype.kind not in "US" or names.ndim != 1:
        raise DataError(f"{name}: {names.dtype} {names.shape}: expected a one-dimensional array of text")
    notes = () if found == CLASSES[0] else (f"class names from {found}",)
    return as_names(as_texts(names, name), name), notes


def holds_npy(folder: Path) -> bool:
    """Whether ``folder`` has a file with a name that :func:`load_npy` documents."""
    return any(os.path.exists(folder / f"{name}.npy") for name in ARRAYS)


def npy_names(names: Iterable[str]) -> list[str]:
    """The names that belong to .npy files of a data set."""
    files = [name for name in names if name.lower().endswith(".npy")]
    return [name for name in files if (role := role_of(name)) and role.part]


def load_npy(folder: Path, names: Iterable[str]) -> tuple[Dataset, Dataset]:
    """Load both sets from x_train.npy, y_train.npy, x_test.npy, y_test.npy and, optionally, classes.npy.

    Other descriptive ``names``, such as train_images.npy, are accepted too. Images whose dtype and order
    suit a Dataset stay in their files, which must not be truncated while in use.
    """
    usual = [f"{name}.npy" for name in ARRAYS]
    there = {*npy_names(names), *(name for name in usual if os.path.exists(folder / name))}
    parts = parts_among(sorted(there), str(folder), usual, ", ".join(usual))
    train, test = ((_map(folder / images), _map(folder / labels)) for images, labels in parts[:2])
    named = [name for name in CLASSES if (folder / f"{name}.npy").exists()]
    classes, notes = class_names(named, lambda name: _map(folder / f"{name}.npy"))
    return as_sets(train, test, classes, (*parts.notes, *notes))


def _map(path: Path) -> Named:
    """The array in a file as a memory map."""
    name = str(path)
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = bytearray()
        try:
            read_up_to(min(LONGEST_HEADER, size), file, data)
            shape, dtype, order, start = parse_header(data, size, name)
            if not size - start:
                return Named(name, np.empty(shape, dtype))  # there is nothing to map
            return Named(name, np.memmap(file, dtype, "r", start, shape, order))
        except DataError:
            raise
        except OSError as error:  # some file systems cannot map files
            raise unreadable(path, error) from error
        except Exception as error:  # numpy may raise nearly any exception for an invalid header
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{name}: not a .npy file, or damaged ({reason}): expected what numpy.save writes"
            ) from error
