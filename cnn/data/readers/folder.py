"""A folder of pictures, with a folder for each class: ``photos/cat/1.jpg``, or ``photos/train/cat/1.jpg``."""

import os
import unicodedata
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.data.checked import as_names
from cnn.data.dataset import Dataset
from cnn.data.names import PARTS
from cnn.data.pictures import Pictures
from cnn.data.readers.common import held_out, is_folder, is_hidden, unreadable
from cnn.data.readers.decoded import decoded
from cnn.data.readers.photographs import is_picture
from cnn.support.errors import DataError
from cnn.support.text import is_printable


class Part(NamedTuple):
    """The pictures of a part of a data set, as paths in its folder, and the class of each."""

    names: list[str]
    classes: list[str]

    def only(self, chosen: "np.ndarray") -> "Part":
        return Part([*compress(self.names, chosen)], [*compress(self.classes, chosen)])

    def below(self, folder: str) -> "Part":
        """The same pictures, as paths in the folder that contains ``folder``."""
        return Part([f"{folder}/{name}" for name in self.names], self.classes)


def class_folders(folder: Path) -> dict[str, Part]:
    """The pictures in folders of classes, by part: "train", "test" and "val", or "" if it has no parts."""
    below = _folders(folder)
    if len(below) == 1 and len(_folders(folder / below[0])) > 1:  # the folder that an archive unpacks to
        inner = class_folders(folder / below[0])
        return {part: pictures.below(below[0]) for part, pictures in inner.items()}
    parts = {name: PARTS[name.lower()] for name in below if name.lower() in PARTS}
    if "train" not in parts.values():
        parts = {"": ""}
    found = {part: _part(folder, name) for name, part in parts.items()}
    return {part: pictures for part, pictures in found.items() if pictures.names}


class Wanted(NamedTuple):
    """What is loaded of a source, and how."""

    pictures: Pictures = Pictures()
    seed: int = 0  # chooses the fifth of each class that is held out if there is no test set
    test_only: bool = False  # training pictures are not decoded: the test set is returned twice
    whole: bool = False  # if there is no test set, all is tested
    transposed: bool = False  # the rows of the stored images are columns


def load_parts(folder: Path, parts: dict[str, Part], wanted: Wanted) -> tuple[Dataset, Dataset]:
    """Load both sets from pictures in ``folder``, given by part; the classes are in sorted order.

    If there is no test set, a fifth of the pictures of each class is held out for it.
    """
    train, test, notes = _train_and_test(folder, parts, wanted)
    names = as_names(sorted({*train.classes, *test.classes}), str(folder)) or ()
    how = wanted.pictures.completed(folder, train.names)
    if wanted.test_only:
        tested = _load(folder, test, names, how, (how.note, *notes))
        return tested, tested
    sets = [_load(folder, part, names, how, (how.note, *notes)) for part in (train, test)]
    return sets[0], sets[1]


def _train_and_test(folder: Path, parts: dict[str, Part], wanted: Wanted) -> tuple[Part, Part, list[str]]:
    """The pictures of both sets, and notes on how they were chosen."""
    if not parts.keys() & {"train", ""}:
        raise DataError(
            f"{folder}: train has no pictures: expected a folder of pictures for each class in it"
        )
    train = parts.get("train") or parts[""]
    if "test" in parts:
        notes = ["the pictures in val are not used"] if "val" in parts else []
        return train, parts["test"], notes
    if "val" in parts:
        return train, parts["val"], ["there is no test set: val is used for testing"]
    if wanted.whole:
        return train, train, [f"there is no test set: all {len(train.names):,} pictures are tested"]
    is_tested = held_out(train.classes, wanted.seed, str(folder), "picture")
    note = f"a test set of {is_tested.sum():,} pictures is held out"
    return train.only(~is_tested), train.only(is_tested), [note]


def _load(folder: Path, part: Part, names: tuple[str, ...], how: Pictures, notes: tuple[str, ...]) -> Dataset:
    found = decoded(folder, part.names, how.shape, how.fit)
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[name] for name in part.classes], np.int64)[found.is_readable]
    return Dataset.checked(found.images, labels, names, notes, fit=how.fit)


def _part(folder: Path, name: str) -> Part:
    """The pictures of each class below the folder ``name`` of ``folder``, in sorted order."""
    names, classes = [], []
    for inner in _folders(folder / name):
        path = f"{name}/{inner}".strip("/")
        found = sorted(_pictures(folder, path, (Path(os.path.realpath(folder)),)))
        if found and not is_printable(inner):
            raise DataError(
                f"{folder}: the name of the class folder {path!r} is not printable text: rename it"
            )
        names += found
        classes += [unicodedata.normalize("NFC", inner)] * len(found)
    return Part(names, classes)


def _folders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(each.name for each in entries if not is_hidden(each.name) and is_folder(each))
    except OSError as error:
        raise unreadable(folder, error) from error


def _pictures(root: Path, path: str, outer: tuple[Path, ...]) -> Iterator[str]:
    """The pictures in the folder ``path`` of ``root`` and below; ``outer`` are the folders that lead to it.

    A link to a folder that contains it is skipped: that folder has the pictures of other classes.
    """
    here = Path(os.path.realpath(root / path))
    if any(folder.is_relative_to(here) for folder in outer):
        return
    try:
        with os.scandir(root / path) as entries:
            found = [(each.name, is_folder(each)) for each in entries if not is_hidden(each.name)]
    except OSError as error:
        raise unreadable(root / path, error) from error
    for name, contains_more in found:
        inner = f"{path}/{name}"
        if contains_more:
            yield from _pictures(root, inner, (*outer, here))
        elif is_picture(name):
            yield inner
