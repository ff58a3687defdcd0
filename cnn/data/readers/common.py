"""Functions that the readers share: opening, bounded reading, and making the two sets."""

import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from cnn.data.checked import as_pair, numbered
from cnn.data.dataset import Dataset
from cnn.data.layouts import Named, Pair, arranged_images, arranged_labels
from cnn.support.errors import DataError
from cnn.support.random import SPLIT, generator
from cnn.support.reading import open_regular
from cnn.support.text import printable, short

CHUNK = 1 << 20
MOST_NAMES = 2000  # read from a folder, which may contain a million
TEST_SHARE = 0.2  # of each class, if there is no test set
MOST_FOLDERS = 20  # searched in a folder: more folders are classes
_COUNT = (
    "count the classes from 0 (numpy.unique(labels, return_inverse=True) does), or name all of them in "
    "`classes` of a .npz, or classes.npy"
)
_NOT_THE_DATA = {  # by the first bytes of files that are not the data
    b"<!doctype html": "this is a web page, the download failed: download the file again",
    b"<html": "this is a web page, the download failed: download the file again",
    b"version https://git-lfs": "this is a Git LFS pointer: run `git lfs pull` to get the file itself",
}
_HIDDEN = ("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found")


def open_file(path: Path) -> IO[bytes]:
    """Open ``path`` for reading; DataError if that fails or if it is not a regular file."""
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    beginning = _beginning(file, 64).lstrip().lower()
    for sign, what in _NOT_THE_DATA.items():
        if beginning.startswith(sign):
            file.close()
            raise DataError(f"{path}: {what}")
    return file


def unreadable(path: str | os.PathLike[str], error: Exception) -> DataError:
    """The error that says why ``path`` cannot be read."""
    reason = getattr(error, "strerror", None) or error
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
        reason = f"this is a link to {os.readlink(path)}, which does not exist"
    return DataError(f"{os.fspath(path)}: cannot be read ({reason})")


def is_gzip(file: IO[bytes]) -> bool:
    """Whether an open file is compressed by gzip; its position is reset to the beginning."""
    return _beginning(file, 2) == b"\x1f\x8b"


def _beginning(file: IO[bytes], size: int) -> bytes:
    try:
        beginning = file.read(size)
        file.seek(0)
        return beginning
    except OSError:  # the reader will get and report the same error
        return b""


def names_in(folder: Path) -> list[str]:
    """The first names in ``folder``, sorted, without hidden files; names of folders end in "/"."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name + "/" * is_folder(entry) for entry in islice(entries, MOST_NAMES)]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(name for name in names if not is_hidden(name))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder or a link to one; a link that leads to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_hidden(path: str) -> bool:
    """Whether a path in a folder or archive is a hidden or system file, or is in a hidden folder."""
    names = [name for name in path.lower().split("/") if name.strip(".")]
    return any(name.startswith(".") or name in _HIDDEN for name in names)


def names_below(folder: Path) -> list[str]:
    """The names in ``folder`` and in its subfolders, such as "train/images.npy"."""
    names = names_in(folder)
    folders = [name for name in names if name.endswith("/")]
    if len(folders) > MOST_FOLDERS:
        return names
    below = []
    for inner in folders:
        with suppress(DataError):  # the folder may not be readable
            below += [inner + name for name in names_in(folder / inner)]
    return names + below


def read_up_to(size: int, stream: IO[bytes], data: bytearray) -> None:
    """Read until ``data`` has ``size`` bytes or the stream ends; memory grows only with the bytes read."""
    while len(data) < size and (chunk := stream.read(min(CHUNK, size - len(data)))):
        data += chunk


def most_inflated(compressed: int) -> int:
    """An upper bound of the decompressed size; deflate compresses at most 1032 to 1."""
    return 1032 * compressed + 64


def held_out(labels: Any, seed: int, place: str, one: str) -> np.ndarray:
    """Where a random share of each class is held out for the test; the choice follows from ``seed``.

    Raises DataError if there are fewer than two classes, or if one has a single example. ``one`` is what an
    example is called.
    """
    names, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        only = short(printable(names[0]), 40)
        raise DataError(f"{place}: all {one}s are of one class, {only}: expected at least two classes")
    if counts.min() < 2:
        rare = short(printable(names[counts.argmin()]), 40)
        raise DataError(
            f"{place}: class {rare} has a single {one}: expected at least two, one to train and one to test; "
            "add some, or leave the class out"
        )
    random = generator(seed, SPLIT)
    is_tested = np.zeros(len(labels), bool)
    for number, count in enumerate(counts):
        own = random.permutation(np.flatnonzero(classes == number))
        is_tested[own[: max(1, round(TEST_SHARE * count))]] = True
    return is_tested


def as_sets(
    train: Pair,
    test: Pair,
    names: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> tuple[Dataset, Dataset]:
    """Make the training and test sets, with the same classes, from the arrays in files.

    Notes on how the arrays were interpreted are added to ``notes``.
    """
    train_x, train_note = arranged_images(train[0])
    test_x, test_note = arranged_images(test[0])
    counts = len(np.atleast_1d(train_x.array)), len(np.atleast_1d(test_x.array))
    train_y, test_y, names, labels_notes = arranged_labels(train[1], test[1], counts, names)
    images_note = train_note or test_note
    notes = (*notes, *([images_note] if images_note else []), *labels_notes)
    x_train, y_train, train_columns = as_pair(train_x.array, train_y.array, names, train_x.name, train_y.name)
    x_test, y_test, test_columns = as_pair(test_x.array, test_y.array, names, test_x.name, test_y.name)
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{test_x.name}: images {x_test.shape[1:]}, but {train_x.name}: {x_train.shape[1:]}; "
            "expected the same (C, H, W)"
        )
    if (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):  # uint8 is scaled, floats are not
        raise DataError(
            f"{test_x.name}: {x_test.dtype}, but {train_x.name}: {x_train.dtype}; "
            "expected uint8 in both or floats in both"
        )
    if names is None:
        train_labels, test_labels = Named(train_y.name, y_train), Named(test_y.name, y_test)
        names = numbered(_class_count(train_labels, test_labels, train_columns, test_columns))
    return Dataset.checked(x_train, y_train, names, notes), Dataset.checked(x_test, y_test, names, notes)


def _class_count(train: Named, test: Named, train_columns: int | None, test_columns: int | None) -> int:
    if train_columns != test_columns:
        raise DataError(
            f"{train.name}: {_described(train_columns)}, but {test.name}: {_described(test_columns)}; "
            "expected the same in both"
        )
    if train_columns is not None:
        return train_columns
    present = np.union1d(train.array, test.array)
    # of the classes below the label present[i], i have an image and present[i] - i have none
    plausible = present <= 2 * np.arange(len(present))
    if 2 * plausible.sum() < len(present) + (not plausible[-1]):
        raise DataError(
            f"{train.name}: the labels are {_listed(present)}, so most classes from 0 to {present[-1]} have "
            f"no image: {_COUNT}"
        )
    if not plausible[-1]:
        _refuse_stray(int(present[plausible][-1]), train, test)
    return int(present[-1]) + 1


def _refuse_stray(highest: int, *sets: Named) -> None:
    for name, labels in sets:
        positions = np.flatnonzero(labels > highest)
        if positions.size:
            position = positions[0]
            raise DataError(
                f"{name}: label {labels[position]} at position {position} is out of range: expected 0 to "
                f"{highest}, because most classes below it have no image; if the label is right, {_COUNT}"
            )


def _described(columns: int | None) -> str:
    return "labels" if columns is None else f"one-hot rows of {columns} columns"


def _listed(labels: np.ndarray) -> str:
    """A list such as "3 and 8" or "0, 3, 7, ..."."""
    texts = [str(label) for label in labels[:6]]
    if len(labels) > len(texts):
        return f"{', '.join(texts)}, ..."
    return " and ".join((", ".join(texts[:-1]), texts[-1])) if len(texts) > 1 else texts[0]
