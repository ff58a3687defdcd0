"""Converts common layouts of arrays in files to the layout that a Dataset documents.

Only unambiguous layouts are converted, with a note; all others are left unchanged.
"""

import re
from collections.abc import Sequence
from math import isqrt
from typing import Any, NamedTuple

import numpy as np

from cnn.data.checked import CHANNELS, MOST_CLASSES, as_names, as_texts, looks_channels_last
from cnn.support.errors import DataError
from cnn.support.text import short, some_of

LEAST_SIDE = 8  # of flattened images
_LISTED = 4  # classes in a note
_WHOLE = re.compile(r"[0-9]{1,9}(\.0*)?")  # a label as text, such as "3" or "3.0"


class Named(NamedTuple):
    """An array from a file, and its name in messages: the file and the array in it."""

    name: str
    array: Any


Pair = tuple[Named, Named]  # images and labels


class Labels(NamedTuple):
    """The labels of both parts, the class names if there are any, and notes on their conversion."""

    train: Named
    test: Named
    names: tuple[str, ...] | None
    notes: tuple[str, ...]

    def taken_as(self, parts: Sequence[Named], names: tuple[str, ...] | None, note: str) -> "Labels":
        """These labels converted to ``parts``, with an additional note."""
        train, test = parts
        return Labels(train, test, names, (*self.notes, note))


def arranged_images(images: Named) -> tuple[Named, str | None]:
    """Images as (N, H, W) or (N, C, H, W) if the layout is unambiguous, and a note if they were changed."""
    array = images.array
    if looks_channels_last(array.shape):
        array = np.moveaxis(array, -1, 1)
        return Named(images.name, array), f"channels last, taken as {array.shape}"
    if array.ndim == 2 and len(array):
        side = isqrt(array.shape[1])
        if side >= LEAST_SIDE and side * side == array.shape[1]:
            note = f"rows of {side * side} pixels, taken as {side}x{side}"
            return Named(images.name, array.reshape(-1, side, side)), note
    if array.ndim == 4 and array.shape[1] > max(CHANNELS):
        return images, "taken as {1} channels of {2}x{3}".format(*array.shape)
    return images, None


def arranged_labels(
    train: Named, test: Named, counts: tuple[int, int], names: tuple[str, ...] | None
) -> Labels:
    """Labels as integers from 0 or as one-hot rows if their meaning is unambiguous.

    ``counts`` has the number of images of each part.
    """
    flat_train, flat_test = _flat(train, counts[0]), _flat(test, counts[1])
    changed = [was for was, now in ((train, flat_train), (test, flat_test)) if was is not now]
    notes = [f"labels {was.array.shape} taken as ({was.array.size},)" for was in changed[:1]]
    labels = Labels(flat_train, flat_test, names, tuple(notes))
    arrays = flat_train.array, flat_test.array
    if any(array.ndim != 1 or not array.size for array in arrays):
        return labels
    texts = [array.dtype.kind in "US" for array in arrays]
    if all(texts):
        return _from_numbers(labels.taken_as(*from_texts((flat_train, flat_test), names)))
    if any(texts):
        raise DataError(
            f"{train.name}: {arrays[0].dtype}, but {test.name}: {arrays[1].dtype}; "
            "expected text in both or numbers in both"
        )
    return _from_numbers(labels)


def _flat(labels: Named, count: int) -> Named:
    """A column of labels, or a row with one label for each image, as (N,)."""
    shape = labels.array.shape
    if len(shape) > 1 and labels.array.size == max(shape) and max(shape) in (shape[0], count):
        return Named(labels.name, labels.array.reshape(-1))
    return labels


def from_texts(
    labels: Sequence[Named], names: tuple[str, ...] | None
) -> tuple[list[Named], tuple[str, ...] | None, str]:
    """Labels as numbers instead of strings, the class names, and a note.

    Strings that are ``names`` count these. Other strings are the names, in sorted order, if there are none
    yet, or they are numbers written as text.
    """
    parts = [(part.name, *_distinct(part)) for part in labels]
    present = sorted({text for _, texts, _ in parts for text in texts})
    are_names = names is not None and set(present) <= set(names)
    if not are_names and all(_WHOLE.fullmatch(text) for text in present):
        numbers = {text: int(float(text)) for text in present}
        return _numbered(parts, numbers), names, "labels are numbers written as text"
    names = names or as_names(present, labels[0].name) or ()
    numbers = {name: number for number, name in enumerate(names)}
    for name, texts, _ in parts:
        unknown = [text for text in texts if text not in numbers]
        if unknown:
            raise DataError(
                f"{name}: label {short(unknown[0], 100)!r} is not one of the given classes: expected "
                f"{some_of(short(known, 100) for known in names)}"
            )
    listed = some_of(short(name, 30) for name in names[:_LISTED])
    more = ", ..." if len(names) > _LISTED else ""
    return _numbered(parts, numbers), names, f"labels are names: {listed}{more}"


def _distinct(labels: Named) -> tuple[list[str], Any]:
    """The distinct strings, and the index of each label among them."""
    name, array = labels
    distinct, places = np.unique(array, return_inverse=True)
    if len(distinct) > MOST_CLASSES:
        raise DataError(f"{name}: {len(distinct):,} different labels: expected at most {MOST_CLASSES:,}")
    texts = as_texts(distinct, name)
    for number, text in enumerate(texts):
        if not text or not text.isprintable():
            position = int((places == number).argmax())
            raise DataError(f"{name}: {text!r} at position {position}: expected a name, as printable text")
    return texts, places


def _numbered(parts: list[tuple[str, list[str], Any]], numbers: dict[str, int]) -> list[Named]:
    """The labels as numbers instead of strings."""
    return [Named(name, np.array([numbers[text] for text in texts])[places]) for name, texts, places in parts]


def _from_numbers(labels: Labels) -> Labels:
    train, test, names = labels[:3]
    arrays = train.array, test.array
    if any(array.dtype.kind not in "biuf" for array in arrays):
        return labels
    if all(array.dtype.kind == "b" for array in arrays):
        taken = [Named(part.name, part.array.astype(np.uint8)) for part in (train, test)]
        return labels.taken_as(taken, names, "labels False and True taken as 0 and 1")
    lowest, highest = min(array.min() for array in arrays), max(array.max() for array in arrays)
    if (lowest, highest) == (-1, 1) and all((abs(array) == 1).all() for array in arrays):
        taken = [Named(part.name, (part.array > 0).astype(np.uint8)) for part in (train, test)]
        return labels.taken_as(taken, names or ("-1", "1"), "labels -1 and 1 taken as two classes")
    if lowest != 1:
        return labels
    if names is None:
        return labels.taken_as((train, test), names, 'labels counted from 1, class "0" has no image')
    if highest == len(names):
        taken = [Named(part.name, part.array - 1) for part in (train, test)]
        return labels.taken_as(taken, names, f"labels counted from 1, the first is {short(names[0], 30)!r}")
    return labels
