"""NumPy's .npz files: zip archives with one array per member. Nothing is ever unpickled."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from cnn.data.checked import Array
from cnn.data.dataset import Dataset
from cnn.data.layouts import Named, Pair
from cnn.data.names import parts_among
from cnn.data.readers.common import as_sets, is_hidden, most_inflated, open_file, read_up_to
from cnn.data.readers.npy import ARRAYS, LONGEST_HEADER, class_names, parse_header
from cnn.support.errors import DataError
from cnn.support.text import short, some_of


def holds_arrays(path: Path) -> bool:
    """Whether the file is an archive that contains arrays; its name does not matter."""
    with open_file(path) as file:
        try:
            return any(name.endswith(".npy") for name in ZipFile(file).namelist())
        except Exception:  # a damaged archive may raise nearly anything inside zipfile
            return False


def load_npz(path: Path) -> tuple[Dataset, Dataset]:
    """Load both sets from a .npz file: x_train, y_train, x_test, y_test and, optionally, ``classes``.

    Other descriptive names, such as train_images, are accepted too.
    """
    with open_file(path) as file, _answering(path):
        read = _read(path, ZipFile(file), os.fstat(file.fileno()).st_size)
    return as_sets(*read)


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays in a .npz file by name; DataError if it is damaged."""
    with open_file(path) as file, _answering(path):
        archive, size = ZipFile(file), os.fstat(file.fileno()).st_size
        return {
            (name := info.filename.removesuffix(".npy")): _read_array(archive, info, size, f"{path}: {name}")
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }


@contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Convert every exception that a damaged archive causes in zipfile and numpy to DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # may be nearly any exception
        reason = short((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise DataError(
            f"{path}: not a .npz file, or damaged ({reason}): expected what numpy.savez writes"
        ) from error


def _read(
    path: Path, archive: ZipFile, size: int
) -> tuple[Pair, Pair, tuple[str, ...] | None, tuple[str, ...]]:
    """The arguments of :func:`as_sets`."""
    suffix = ".npy"
    members: dict[str, ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(suffix)
        if is_hidden(info.filename):
            continue
        if name != info.filename and members.setdefault(name, info) is not info:
            raise DataError(f"{path}: {short(name, 100)} occurs twice: expected each array once")
    found = some_of(short(name, 100) for name in members) or "none"
    unnamed = ", the name that savez gives to unnamed arrays" if "arr_0" in members else ""
    parts = parts_among(members, str(path), ARRAYS, f"{', '.join(ARRAYS)}, found {found}{unnamed}")

    def read(name: str) -> Named:
        place = f"{path}: {name}"
        return Named(place, _read_array(archive, members[name], size, place))

    train, test = ((read(images), read(labels)) for images, labels in parts[:2])
    names, notes = class_names(members, read)
    return train, test, names, (*parts.notes, *notes)


def _read_array(archive: ZipFile, info: ZipInfo, size: int, name: str) -> Array:
    """One array; all sizes are checked before memory is allocated."""
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise DataError(f"{name}: compressed by method {info.compress_type}: expected stored or deflated")
    if info.compress_size > size or info.file_size > most_inflated(info.compress_size):
        raise DataError(
            f"{name}: {info.file_size:,} bytes promised, more than the file can contain: it is damaged"
        )
    with archive.open(info) as stream:
        data = bytearray()
        read_up_to(min(LONGEST_HEADER, info.file_size), stream, data)
        shape, dtype, order, start = parse_header(data, info.file_size, name)
        read_up_to(info.file_size, stream, data)
        if len(data) != info.file_size or stream.read(1):  # at the end this also checks the CRC
            raise DataError(f"{name}: {info.file_size:,} bytes promised, {len(data):,} found: it is damaged")
    return np.ndarray(shape, dtype, buffer=data, offset=start, order=order)
