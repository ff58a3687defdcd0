"""The binary version of CIFAR-10: six files of records with a label and the pixels of a 32x32 picture.

The format is described at https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import os
import tarfile
from gzip import GzipFile
from pathlib import Path
from typing import IO, cast

import numpy as np

from cnn.data.advice import BINARY, NEVER_OPENED, SAVE
from cnn.data.checked import Array
from cnn.data.dataset import Dataset
from cnn.data.published.downloads import Published, PublishedFile
from cnn.data.readers.common import CHUNK, is_gzip, open_file, read_up_to
from cnn.support.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

CIFAR10 = Published(
    name="cifar10",
    files=(
        PublishedFile(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
)

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"
FILES = (*TRAIN_FILES, TEST_FILE)

_FOLDER = "cifar-10-batches-bin"  # in the archive
_OTHER_VERSIONS = {
    "cifar-10-batches-py": f"the Python version of CIFAR-10: {NEVER_OPENED}; {BINARY}",
    "cifar-10-batches-mat": f"the MATLAB version of CIFAR-10: {BINARY}",
    "cifar-100-python": f"the Python version of CIFAR-100: {NEVER_OPENED}; {SAVE}",
    "cifar-100-binary": f"the binary version of CIFAR-100, which is not supported: {SAVE}",
}
_SHAPE = (3, 32, 32)  # red, green and blue planes
_RECORD = 1 + 3 * 32 * 32
_MOST_RECORDS = 10_000  # in a file
_MOST_UNPACKED = len(FILES) * _MOST_RECORDS * _RECORD + (1 << 20)  # with headers and a page of explanation


def load_cifar10() -> tuple[Dataset, Dataset]:
    """The 50,000 training and 10,000 test images of CIFAR-10, downloaded once."""
    (path,) = CIFAR10.fetch()
    return load_archive(path)


def load_archive(path: Path) -> tuple[Dataset, Dataset]:
    """Load both sets from the published archive of CIFAR-10; nothing is unpacked to the disk."""
    with open_file(path) as file:
        try:
            stream = cast(IO[bytes], GzipFile(fileobj=file)) if is_gzip(file) else file
            records = _read_archive(path, _Bounded(stream, path))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a damaged archive may raise nearly anything inside gzip and tarfile
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(
                f"{path}: not a .tar.gz archive, or damaged ({reason}): get a complete copy of the file"
            ) from error
    if not records:
        raise DataError(
            f"{path}: a tar archive that lacks {', '.join(FILES)}: expected the binary version of CIFAR-10; "
            "unpack another archive and give its folder"
        )
    missing = [name for name in FILES if name not in records]
    if missing:
        raise DataError(
            f"{path}: {_FOLDER} in it lacks {', '.join(missing)}: expected the binary version of CIFAR-10"
        )
    return _as_sets(records)


def load_folder(folder: Path) -> tuple[Dataset, Dataset]:
    """Load both sets from the folder of the unpacked archive."""
    missing = [name for name in FILES if not os.path.lexists(folder / name)]
    if missing:
        raise DataError(
            f"{folder}: lacks {', '.join(missing)}: expected the binary version of CIFAR-10, "
            f"{TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {TEST_FILE}; unpack {CIFAR10.files[0].name} again"
        )
    records = {}
    for name in FILES:
        with open_file(folder / name) as file:
            records[name] = _read_records(str(folder / name), file, os.fstat(file.fileno()).st_size)
    return _as_sets(records)


def is_folder(path: Path) -> bool:
    """Whether the folder has files with CIFAR-10's names."""
    return any(os.path.exists(path / name) for name in FILES)


def _read_archive(path: Path, stream: "_Bounded") -> dict[str, Array]:
    """The records of the expected files, by name; other files are skipped."""
    names = {f"{_FOLDER}/{name}": name for name in FILES}
    records: dict[str, Array] = {}
    # a stream is only read forwards, whatever sizes the archive claims
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", bufsize=CHUNK) as archive:
        for member in archive:
            name = names.get(member.name)
            if name is None:
                _refuse_other_version(path, member.name)
                continue
            place = f"{path}: {member.name}"
            if not member.isreg() or member.issparse():
                raise DataError(f"{place}: not a regular file in the archive: expected records")
            if name in records:
                raise DataError(f"{place}: occurs twice in the archive: expected it once")
            contents = cast(IO[bytes], archive.extractfile(member))
            records[name] = _read_records(place, contents, member.size)
    while stream.read(CHUNK):  # at the end gzip checks the CRC
        pass
    return records


def _refuse_other_version(path: Path, name: str) -> None:
    """Raise DataError if a file of this name belongs to an unsupported version of CIFAR."""
    for folder, what in _OTHER_VERSIONS.items():
        if name.split("/")[0] == folder:
            raise DataError(f"{path}: contains {what}")


def _read_records(name: str, stream: IO[bytes], size: int) -> Array:
    """Records (N, 1 + pixels), uint8, of a file of ``size`` bytes."""
    count, rest = divmod(size, _RECORD)
    if rest or not 1 <= count <= _MOST_RECORDS:
        raise DataError(
            f"{name}: {size:,} bytes: expected 1 to {_MOST_RECORDS:,} records of {_RECORD:,} bytes each"
        )
    data = bytearray()
    read_up_to(size, stream, data)
    if len(data) < size:
        raise DataError(f"{name}: {size:,} bytes promised, {len(data):,} found: it is incomplete")
    records = np.frombuffer(data, dtype=np.uint8).reshape(count, _RECORD)
    highest = records[:, 0].argmax()
    if records[highest, 0] >= len(CLASSES):
        raise DataError(
            f"{name}: label {records[highest, 0]} in record {highest}: expected 0 to {len(CLASSES) - 1}"
        )
    return records


def _as_sets(records: dict[str, Array]) -> tuple[Dataset, Dataset]:
    return _as_set([records[name] for name in TRAIN_FILES]), _as_set([records[TEST_FILE]])


def _as_set(batches: list[Array]) -> Dataset:
    images = np.concatenate([batch[:, 1:] for batch in batches]).reshape(-1, *_SHAPE)
    return Dataset(images, np.concatenate([batch[:, 0] for batch in batches]), CLASSES)


class _Bounded:
    """The contents of an archive as a stream; DataError if it is too long."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = _MOST_UNPACKED

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._path}: unpacks to more than the {_MOST_UNPACKED:,} bytes of CIFAR-10: "
                "it is another archive, or damaged"
            )
        return data
