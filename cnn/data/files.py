"""What the readers of files share: opening, bounded reading, and the two sets that come out."""

import os
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from cnn.data.dataset import Dataset, as_pair, numbered
from cnn.errors import DataError
from cnn.reading import open_regular

CHUNK = 1 << 20


class Named(NamedTuple):
    """An array as read, and what an error calls it: the file, and the array in it."""

    name: str
    array: Any


def open_file(path: Path) -> IO[bytes]:
    """``path``, open for reading; DataError where that fails or where it is no regular file."""
    try:
        return open_regular(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | os.PathLike[str], error: Exception) -> DataError:
    """The error that says why the system does not let us at ``path``."""
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{os.fspath(path)}: cannot be read ({reason})")


def read_up_to(size: int, stream: IO[bytes], data: bytearray) -> None:
    """Read on until ``data`` has ``size`` bytes or nothing is left; memory grows with what really comes."""
    while len(data) < size and (chunk := stream.read(min(CHUNK, size - len(data)))):
        data += chunk


def most_inflated(compressed: int) -> int:
    """More than ``compressed`` bytes of deflate can become: the format ends at 1032 to 1."""
    return 1032 * compressed + 64


def as_sets(
    train: tuple[Named, Named], test: tuple[Named, Named], names: tuple[str, ...] | None = None
) -> tuple[Dataset, Dataset]:
    """The training and the test set with the same classes, from (images, labels) of each."""
    (train_x, train_y), (test_x, test_y) = train, test
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
    return Dataset.checked(x_train, y_train, names), Dataset.checked(x_test, y_test, names)


def _class_count(train: Named, test: Named, train_columns: int | None, test_columns: int | None) -> int:
    if train_columns != test_columns:
        raise DataError(
            f"{train.name}: {_described(train_columns)}, but {test.name}: {_described(test_columns)}; "
            "expected the same in both"
        )
    if train_columns is not None:
        return train_columns
    present = np.union1d(train.array, test.array)
    # below the label present[i] there are i classes with an image and present[i] - i without one
    plausible = present <= 2 * np.arange(len(present))
    if not plausible.any():
        raise DataError(
            f"{train.name}: the labels go up to {present[-1]}, but most classes from 0 to there have no "
            "image: expected labels that count the classes from 0, or all their names in `classes` of a "
            ".npz, or classes.npy"
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
                f"{highest}, as most classes up to it have no image; where that is meant, name all classes "
                "in `classes` of a .npz, or classes.npy"
            )


def _described(columns: int | None) -> str:
    return "labels" if columns is None else f"one-hot rows of {columns} columns"
