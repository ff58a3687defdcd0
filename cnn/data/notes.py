"""Notes on the parts of a data set, shown before training or testing."""

import numpy as np

from cnn.data.dataset import Dataset
from cnn.data.scale import scale_note
from cnn.support.text import short, some_of

UNBALANCED = 4  # times as many images
ENOUGH = 100  # images; in smaller sets chance alone may make such a difference


def notes_on(part: Dataset, name: str, train: Dataset | None = None, normalized: bool = False) -> list[str]:
    """Notes on the ``name`` part; ``train`` is the training set, if that is a different one.

    If the network has mean and std of its own (``normalized``), any range of the training images is fine.
    """
    if train is None:
        notes = [None if normalized else scale_note(part.images, name)]
        if name == "training":
            notes += [_one_class_note(part) or _imbalance_note(part), _case_note(part)]
    else:
        notes = [scale_note(part.images, name, train.images), _untrained_note(part, name, train)]
    return [note for note in notes if note]


def _one_class_note(part: Dataset) -> str | None:
    """The note that all images are of one class."""
    if not part.has_one_class_each:
        return None
    first = part.labels[0]
    if (part.labels != first).any():
        return None
    only = short(part.classes[first], 30)
    return (
        f"all training images are of one class, {only}: the network will predict this class for every image"
    )


def _imbalance_note(part: Dataset) -> str | None:
    """The note that a class has many times as many images as another."""
    if not part.has_one_class_each or len(part) < ENOUGH:
        return None
    labels, counts = np.unique(part.labels, return_counts=True)
    rare, common = counts.argmin(), counts.argmax()
    if counts[common] < UNBALANCED * counts[rare]:
        return None
    (few, least), (many, most) = (
        (short(part.classes[labels[which]], 30), counts[which]) for which in (rare, common)
    )
    return f"the classes are unbalanced, from {least:,} training images of {few} to {most:,} of {many}"


def _case_note(part: Dataset) -> str | None:
    """The note on two classes whose names differ only in upper and lower case; single letters may."""
    first: dict[str, str] = {}
    for name in part.classes:
        other = first.setdefault(name.casefold(), name)
        if other != name and len(name) > 1:
            return (
                f"the classes {short(other, 30)!r} and {short(name, 30)!r} differ only in upper and lower "
                "case: give them one name if they are the same class"
            )
    return None


def _untrained_note(part: Dataset, name: str, train: Dataset) -> str | None:
    """The note on classes that have images in the part but no training images."""
    if not (part.has_one_class_each and train.has_one_class_each):
        return None
    unknown = np.isin(part.labels, np.unique(train.labels), invert=True)
    if not unknown.any():
        return None
    names = some_of(short(part.classes[label], 30) for label in np.unique(part.labels[unknown]))
    return f"{unknown.sum():,} of {len(part):,} {name} images are of classes without training images: {names}"
