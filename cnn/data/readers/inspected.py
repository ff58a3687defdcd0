"""Looks at some of many pictures once: their sizes, and whether all are grey. The result is cached."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn.data.published.downloads import cache_folder
from cnn.data.readers.decoded import key_of, remove_unused
from cnn.data.readers.photographs import read_picture
from cnn.support.errors import DataError
from cnn.support.files import write_json

INSPECTED = 32  # pictures
TINT = 8  # of 255: after lossy compression, the colours of a grey picture differ by at most this


class Inspected(NamedTuple):
    """The sizes (height, width) that occur among the pictures, and whether all pictures are grey."""

    sizes: list[tuple[int, int]]
    are_grey: bool


def inspected(root: Path, names: Sequence[str]) -> Inspected:
    """What is found in some of the pictures ``names`` in the folder ``root``.

    They are decoded again only if the name, the size or the time of one of them has changed.
    """
    places = np.unique(np.linspace(0, len(names) - 1, INSPECTED).astype(int))
    some = [names[place] for place in places]
    file = cache_folder() / "inspected" / f"{key_of(root, some, TINT)}.json"
    if found := _read(file):
        return found
    found = _inspect(root, some)
    with suppress(OSError):  # they are inspected again the next time
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_unused(file.parent)
        write_json(file, found._asdict())
    return found


def _inspect(root: Path, names: Sequence[str]) -> Inspected:
    sizes, are_grey = set(), True
    for name in names:
        try:
            picture = read_picture(root / name)
        except DataError:  # it is reported later, when all pictures are read
            continue
        sizes.add((picture.height, picture.width))
        are_grey = are_grey and bool(np.ptp(np.asarray(picture)[..., :3], axis=2).max() <= TINT)
    return Inspected(sorted(sizes), are_grey and bool(sizes))


def _read(file: Path) -> Inspected | None:
    """What was found before; None if it is missing or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(file.read_text("utf-8"))
        sizes = [(int(height), int(width)) for height, width in found["sizes"]]
        os.utime(file)  # it is in use
        return Inspected(sizes, bool(found["are_grey"]))
    return None
