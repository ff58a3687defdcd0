"""IDX, the format of the MNIST files: a magic number, the sizes, and the bytes; plain or gzipped."""

import os
import struct
import zlib
from collections.abc import Iterable
from gzip import GzipFile
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np

from cnn.data.advice import SAVE
from cnn.data.checked import Array
from cnn.data.dataset import Dataset
from cnn.data.layouts import Named
from cnn.data.names import parts_among, role_of
from cnn.data.readers.common import as_sets, is_gzip, most_inflated, open_file, read_up_to
from cnn.support.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IMAGES, LABELS = 3, 1  # axes
AXES = (IMAGES, LABELS, IMAGES, LABELS)

TURNED = "EMNIST's images are stored transposed, and were turned upright"  # a note

_MAGIC = 0x0800  # two zero bytes, 08 for unsigned bytes, the number of axes
_CONTENTS = {1: "labels", 3: "images"}
_OTHER_TYPES = {  # by the third byte
    0x09: "signed bytes", 0x0B: "16-bit integers", 0x0C: "32-bit integers", 0x0D: "floats", 0x0E: "doubles",
}  # fmt: skip


def read_idx(path: str | os.PathLike[str], axes: int | None = None) -> Array:
    """The uint8 array in an IDX file, plain or gzipped, with any file name.

    ``axes`` is the expected number of axes: 3 for images, 1 for labels. The sizes in the header are
    checked against the length of the file before memory is allocated. Raises DataError.
    """
    return read_with_contents(Path(path), axes)[0]


def holds_idx(folder: Path) -> bool:
    """Whether ``folder`` has a file with one of MNIST's names."""
    return any(os.path.exists(folder / name) for name in _names())


def idx_names(names: Iterable[str]) -> list[str]:
    """The names that belong to IDX files of a data set, also if changed by archivers or browsers."""
    return [name for name in names if _is_idx(name) and (role := role_of(name)) and role.part]


def load_idx(folder: Path, names: Iterable[str]) -> tuple[Dataset, Dataset]:
    """Load both sets from a folder with MNIST's four file names; a plain file is preferred to its .gz.

    Other descriptive ``names``, such as train-images.idx3-ubyte, are accepted too.
    """
    there = {*idx_names(names), *(name for name in _names() if _is_no_folder(folder / name))}
    parts = parts_among(sorted(there), str(folder), FILES, "the four IDX files, plain or .gz")
    train, test = (
        (_read_named(folder / images, IMAGES), _read_named(folder / labels, LABELS))
        for images, labels in parts[:2]
    )
    notes = parts.notes
    if "emnist" in parts.train[0].lower():
        notes = (*notes, TURNED)
        train, test = (
            (Named(images.name, images.array.transpose(0, 2, 1)), labels) for images, labels in (train, test)
        )
    return as_sets(train, test, notes=notes)


def _is_no_folder(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isdir(path)


def _names() -> list[str]:
    return [name + suffix for name in FILES for suffix in ("", ".gz")]


def _is_idx(name: str) -> bool:
    """Whether the name may belong to an IDX file, or "name/" to a folder into which one was unpacked."""
    own = name.strip("/").rsplit("/", 1)[-1].lower().removesuffix(".gz")
    if "idx" in own and "ubyte" in own:
        return True
    suffix = Path(own).suffix
    return not name.endswith("/") and (not suffix or suffix.startswith((".idx", ".ubyte")))


def _read_named(path: Path, axes: int) -> Named:
    return Named(str(path), read_idx(path, axes))


def read_with_contents(path: Path, axes: int | None = None) -> tuple[Array, bytearray]:
    """The array in an IDX file, and the decompressed file of which it is a view."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            if is_gzip(file):
                return _read(path, cast(IO[bytes], GzipFile(fileobj=file)), most_inflated(size), axes)
            return _read(path, file, size, axes)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{path}: damaged or incomplete ({error}): get a complete copy of the file"
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
        raise DataError(f"{path}: the file ends within its header: get a complete copy of it")
    shape = struct.unpack_from(f">{magic - _MAGIC}I", contents, 4)
    promised = start + prod(shape)
    if 0 in shape:
        raise DataError(f"{path}: the sizes in its header are {shape}: expected sizes of at least 1")
    if promised <= most:
        read_up_to(promised, stream, contents)
    if len(contents) < promised:
        raise DataError(
            f"{path}: its header promises {promised:,} bytes, but the file holds fewer: "
            "it is incomplete or damaged; get a complete copy of it"
        )
    if stream.read(1):  # at the end of a .gz this also checks the CRC
        raise DataError(f"{path}: more data than the {promised:,} bytes that its header promises")
    return np.frombuffer(contents, dtype=np.uint8, offset=start).reshape(shape), contents


def _check_magic(path: Path, magic: int, axes: int | None) -> None:
    kind = _OTHER_TYPES.get(magic >> 8)
    if kind:
        raise DataError(f"{path}: an IDX file of {kind}, expected one of unsigned bytes: {SAVE}")
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
