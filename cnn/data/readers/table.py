"""Tables as text: a row of numbers and a label for each image, or the path of a picture and a label."""

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backends.text import first_line
from cnn.data.dataset import Dataset
from cnn.data.layouts import LEAST_SIDE, Named
from cnn.data.names import part_of
from cnn.data.pictures import Pictures
from cnn.data.readers.common import as_sets, held_out, names_in, open_file
from cnn.data.readers.folder import Part, load_parts
from cnn.data.readers.photographs import is_picture
from cnn.data.recognize import unread_file
from cnn.support.errors import DataError
from cnn.support.reading import decoded
from cnn.support.text import printable, short

SUFFIXES = (".csv", ".tsv", ".txt")
SEPARATORS = ",\t; "
LABELS = ("label", "labels", "class", "target", "y", "category")  # names of the column of labels
HEAD = 1 << 20  # bytes from which the layout follows
LOOKED_AT = 50  # rows of it


class Layout(NamedTuple):
    """How a table is written."""

    separator: str
    header: int  # lines before the first row
    width: int
    label: int | None  # the column of labels; None if there is none
    is_list: bool  # of pictures: a path and a label
    note: str | None


def tables_in(folder: Path) -> dict[str, Path]:
    """The tables in a folder by part: "train", "test" and "val"; empty without a table for training."""
    files = [name for name in names_in(folder) if Path(name).suffix.lower() in SUFFIXES]
    parts: dict[str, Path] = {}
    for name in files:
        parts.setdefault(part_of(Path(name).stem), folder / name)
    parts.pop("", None)
    return parts if "train" in parts and layout_of(parts["train"]) else {}


def load_tables(parts: dict[str, Path], pictures: Pictures, seed: int) -> tuple[Dataset, Dataset]:
    """Load both sets from tables by part; without a labelled test set, a fifth of each class is held out.

    A row has the numbers of an image and its label, first or last; or the path of a picture, from the folder
    of the table, and its label.
    """
    train, notes = parts["train"], []
    layouts = {part: layout_of(path) for part, path in parts.items()}
    layout = layouts["train"]
    if layout is None:
        raise unread_file(train)
    if layout.label is None:
        raise DataError(f"{train}: there is no column of labels: name one `label`, or put it first or last")
    tested = next((part for part in ("test", "val") if part in parts), None)
    test_layout = layouts[tested] if tested else None
    if tested and (not test_layout or test_layout.label is None or test_layout.is_list != layout.is_list):
        notes.append(f"{parts[tested].name} has no labels and is not used")
        test_layout = None
    if layout.is_list:
        chosen = {"train": _pictures(train, layout)}
        if tested and test_layout:
            chosen[tested] = _pictures(parts[tested], test_layout)
        return load_parts(train.parent, chosen, pictures, seed)
    rows, labels = _rows(train, layout)
    if layout.note:
        notes.append(layout.note)
    name = str(train)
    if tested and test_layout:
        test_rows, test_labels = _rows(parts[tested], test_layout)
        test_name = str(parts[tested])
    else:
        is_tested = held_out(labels, seed, name, "row")
        test_rows, test_labels, test_name = rows[is_tested], labels[is_tested], name
        rows, labels = rows[~is_tested], labels[~is_tested]
        notes.append(f"a test set of {is_tested.sum():,} rows is held out")
    return as_sets(
        (Named(name, _images(rows)), Named(f"{name}, labels", labels)),
        (Named(test_name, _images(test_rows)), Named(f"{test_name}, labels", test_labels)),
        None,
        tuple(notes),
    )


def layout_of(path: Path) -> Layout | None:
    """How the table in ``path`` is written; None if it is not a table of images or pictures."""
    with open_file(path) as file:
        head = file.read(HEAD)
    try:
        lines = decoded(head[: head.rfind(b"\n") + 1] or head).splitlines()
        separator = max(SEPARATORS, key=lines[-1].count)
        table = [row for row in csv.reader(lines[: LOOKED_AT + 1], delimiter=separator) if row]
        (width, _), *_ = Counter(map(len, table)).most_common(1)
    except (ValueError, IndexError, csv.Error):
        return None
    has_fewer_numbers = len(table) > 1 and _numeric(table[0]) < _numeric(table[1])
    header = int(has_fewer_numbers or any(value.strip().lower() in LABELS for value in table[0]))
    rows = [row for row in table[header:] if len(row) == width]
    if not rows or width < 2 or (header and len(table[0]) != width):
        return None
    names = [name.strip().lower() for name in table[0]] if header else []
    paths = [place for place in range(width) if all(is_picture(row[place].strip()) for row in rows)]
    if paths:
        named = (place for place, name in enumerate(names) if name in LABELS)
        others = (place for place in range(width) if place not in paths)
        return Layout(separator, header, width, next(named, next(others, None)), True, None)
    if width == 2 or min(map(_numeric, rows)) < width - 1:
        return None
    label, note = _label_column(rows, names, width)
    return Layout(separator, header, width, label, False, note)


def _numeric(row: Sequence[str]) -> int:
    """How many values of a row are numbers."""
    count = 0
    for value in row:
        try:
            float(value)
            count += 1
        except ValueError:
            pass
    return count


def _label_column(
    rows: Sequence[Sequence[str]], names: Sequence[str], width: int
) -> tuple[int | None, str | None]:
    """The column of labels, and a note if it was a guess."""
    for place, name in enumerate(names):
        if name in LABELS:
            return place, None
    texts = [place for place in (0, width - 1) if any(not _numeric([row[place]]) for row in rows)]
    if texts:
        return texts[0], None
    if isqrt(width) ** 2 == width >= LEAST_SIDE**2:
        return None, None  # all of a row are the pixels of an image
    varies = [place for place in (0, width - 1) if len({row[place] for row in rows}) > 1]
    label = varies[0] if len(varies) == 1 else 0
    return label, f"labels taken from the {'last' if label else 'first'} column"


def _pictures(path: Path, layout: Layout) -> Part:
    """The pictures that a list names, and their classes."""
    with open_file(path) as file:
        text = decoded(file.read())
    rows = [row for row in csv.reader(text.splitlines(), delimiter=layout.separator) if row]
    names, classes = [], []
    for number, row in enumerate(rows[layout.header :], layout.header + 1):
        if len(row) != layout.width or layout.label is None:
            raise DataError(f"{path}: row {number} has {len(row)} columns, expected {layout.width}")
        names.append(next(value.strip() for value in row if is_picture(value.strip())))
        classes.append(row[layout.label].strip())
    return Part(names, classes)


def _rows(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of each row without its label, and the labels as text."""
    others = [place for place in range(layout.width) if place != layout.label]
    read: Any = partial(
        np.loadtxt, path, comments=None, delimiter=layout.separator, skiprows=layout.header, quotechar='"',
        encoding="utf-8-sig",
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty lines
            rows = read(dtype=np.float32, usecols=others, ndmin=2)
            labels = read(dtype=str, usecols=[layout.label], ndmin=1)
    except ValueError as error:
        raise DataError(
            f"{path}: is not a table of numbers ({short(printable(first_line(error)), 200)}): expected "
            f"{layout.width} columns in each row"
        ) from None
    return rows, np.char.strip(labels)


def _images(rows: np.ndarray) -> np.ndarray:
    """Rows as bytes if all are whole numbers from 0 to 255; as images of one line if they are not square."""
    is_whole = (rows == np.floor(rows)).all()
    is_bytes = is_whole and rows.min() >= 0 and 1 < rows.max() <= 255
    rows = rows.astype(np.uint8) if is_bytes else rows
    side = isqrt(rows.shape[1])
    return rows if side >= LEAST_SIDE and side * side == rows.shape[1] else rows[:, None, None, :]
