"""What to know of the parts of a data set before a network is trained on them or tested on them."""

import numpy as np

from cnn.data.dataset import Dataset, some_of
from cnn.data.scale import scale_note
from cnn.support.text import short


def notes_on(part: Dataset, name: str, train: Dataset | None = None) -> list[str]:
    """What to know of the ``name`` part; ``train`` is what the network learns from, if that is another."""
    if train is None:
        notes = [scale_note(part.images, name)]
        if name == "training":
            notes.append(_one_class_note(part))
    else:
        notes = [scale_note(part.images, name, train.images), _untrained_note(part, name, train)]
    return [note for note in notes if note]


def _one_class_note(part: Dataset) -> str | None:
    """Whether there is only one answer to learn."""
    first = part.labels[0]
    if (part.labels != first).any():
        return None
    only = short(part.classes[first], 30)
    return f"all training images are of one class, {only}: the network learns to give every image this answer"


def _untrained_note(part: Dataset, name: str, train: Dataset) -> str | None:
    """Which classes have images in the part, but none to learn from; such images are never recognized."""
    unknown = np.isin(part.labels, np.unique(train.labels), invert=True)
    if not unknown.any():
        return None
    names = some_of(short(part.classes[label], 30) for label in np.unique(part.labels[unknown]))
    return (
        f"{unknown.sum():,} of {len(part):,} {name} images are of classes without a training image: {names}"
    )
