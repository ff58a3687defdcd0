"""IDX, the format of the MNIST files: a magic number, the sizes, the bytes; plain or gzip-compressed."""

import os
import struct
import zlib
from gzip import GzipFile
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np

from cnn.data.dataset import Array, Dataset
from cnn.data.files import Named, as_sets, most_inflated, open_file, read_up_to, unreadable
from cnn.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
AXES = (3, 1, 3, 1)

_MAGIC = 0x0800  # two zero bytes, 08 for unsigned bytes, the number of axes
_CONTENTS = {1: "labels", 3: "images"}


def read_idx(path: str | os.PathLike[str], axes: int | None = None) -> Array:
    """The uint8 array in an IDX file; one whose name ends in .gz is decompressed.

    ``axes`` says what is expected: 3 for images, 1 for labels. The sizes in the header are checked
    against the file's length before memory is taken for them. Raises DataError.
    """
    return read_with_contents(Path(path), axes)[0]


def load_folder(folder: Path) -> tuple[Dataset, Dataset]:
    """The two sets in a folder with MNIST's four file names; a plain file goes before its .gz."""
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from error
    found = [next((file for file in (name, name + ".gz") if file in present), None) for name in FILES]
    missing = [name for name, file in zip(FILES, found, strict=True) if file is None]
    if missing:
        raise DataError(f"{folder}: missing {', '.join(missing)}; expected the four IDX files, plain or .gz")
    paths = [folder / str(file) for file in found]
    x_train, y_train, x_test, y_test = (
        Named(str(path), read_idx(path, axes)) for path, axes in zip(paths, AXES, strict=True)
    )
    return as_sets((x_train, y_train), (x_test, y_test))


def read_with_contents(path: Path, axes: int | None = None) -> tuple[Array, bytearray]:
    """The array in an IDX file, and the decompressed file that it is a view of."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if path.suffix == ".gz":
                return _read(path, cast(IO[bytes], GzipFile(fileobj=file)), most_inflated(size), axes)
            return _read(path, file, size, axes)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{path}: damaged or cut short ({error}): get a whole copy of the file"
            ) from error


def _read(path: Path, stream: IO[bytes], most: int, axes: int | None) -> tuple[Array, bytearray]:
    contents = bytearray()
    read_up_to(4, stream, contents)
    if len(contents) < 4:
        raise DataError(f"{path}: {len(contents)} bytes are too few for an IDX file")
    (magic,) = struct.unpack(">I", contents)
    _check_magic(path, magic, axes)
    start = 4 + 4 * (magic - _MAGIC)
    read_up_to(start, stream, contents)
    if len(contents) < start:
        raise DataError(f"{path}: the file ends within its header: get a whole copy of it")
    shape = struct.unpack_from(f">{magic - _MAGIC}I", contents, 4)
    promised = start + prod(shape)
    if 0 in shape:
        raise DataError(f"{path}: the sizes in its header are {shape}: expected none to be 0")
    if promised <= most:
        read_up_to(promised, stream, contents)
    if len(contents) < promised:
        raise DataError(
            f"{path}: its header promises {promised:,} bytes, but the file holds fewer: "
            "it is cut short or damaged; get a whole copy of it"
        )
    if stream.read(1):  # at the end of a .gz this also checks the CRC
        raise DataError(f"{path}: more data than the {promised:,} bytes that its header promises")
    return np.frombuffer(contents, dtype=np.uint8, offset=start).reshape(shape), contents


def _check_magic(path: Path, magic: int, axes: int | None) -> None:
    if not _MAGIC < magic <= _MAGIC + 4:
        raise DataError(
            f"{path}: magic number {magic:#010x} is not that of an IDX file of unsigned bytes: "
            "expected 0x00000803 for images or 0x00000801 for labels"
        )
    if axes is not None and magic != _MAGIC + axes:
        held = _CONTENTS.get(magic - _MAGIC, f"{magic - _MAGIC} axes")
        raise DataError(
            f"{path}: holds {held} (magic number {magic}): expected {_CONTENTS[axes]} ({_MAGIC + axes})"
        )
