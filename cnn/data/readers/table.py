"""Tables as text: a row of numbers and a label for each image, or the path of a picture and a label."""

import csv
import unicodedata
import warnings
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backends.text import first_line
from cnn.data.dataset import Dataset
from cnn.data.layouts import LEAST_SIDE, Named
from cnn.data.names import part_of
from cnn.data.readers.common import as_sets, held_out, names_in, open_file
from cnn.data.readers.folder import Part, Wanted, load_parts
from cnn.data.readers.photographs import is_picture
from cnn.data.recognize import unread_file
from cnn.support.errors import DataError
from cnn.support.reading import SAVE_AS, decoded
from cnn.support.text import printable, short

SUFFIXES = (".csv", ".tsv", ".txt")
SEPARATORS = ",\t;"  # a space separates if none of them does
LABELS = ("label", "labels", "class", "target", "y", "category")  # names of the column of labels
INDEX = ("", "id", "index", "unnamed: 0")  # names of a first column that only numbers the rows
HEAD = 1 << 20  # bytes that are read to find out the layout
LOOKED_AT = 50  # rows that are inspected


class Layout(NamedTuple):
    """How a table is written."""

    separator: str
    header: int  # lines before the first row
    width: int
    label: int | None  # the column of labels; None if there is none
    is_list: bool  # of pictures: a path and a label
    note: str | None
    has_index: bool = False  # the first column numbers the rows


def tables_in(folder: Path) -> dict[str, Path]:
    """The tables in a folder by part: "train", "test" and "val"; empty without a table for training."""
    files = [name for name in names_in(folder) if Path(name).suffix.lower() in SUFFIXES]
    parts: dict[str, Path] = {}
    for name in files:
        parts.setdefault(part_of(Path(name).stem), folder / name)
    parts.pop("", None)
    return parts if "train" in parts and layout_of(parts["train"]) else {}


def load_tables(parts: dict[str, Path], wanted: Wanted) -> tuple[Dataset, Dataset]:
    """Load both sets from tables by part; without a labelled test set, a fifth of each class is held out.

    A row has the numbers of an image and its label, first or last; or the path of a picture, relative to the
    folder of the table, and its label.
    """
    train, notes = parts["train"], []
    layouts = {part: layout_of(path) for part, path in parts.items()}
    layout = layouts["train"]
    if layout is None:
        raise _unread(train)
    if layout.label is None:
        if layout.is_list:
            line = (
                "in the first line, name the column"
                if layout.header
                else "add a first line that names the column"
            )
            raise DataError(f"{train}: several columns may contain the labels: {line} of the labels `label`")
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
        return load_parts(train.parent, chosen, wanted)
    rows, labels = _rows(train, layout)
    if layout.note:
        notes.append(layout.note)
    name = str(train)
    if tested and test_layout:
        test_rows, test_labels = _rows(parts[tested], test_layout)
        test_name = str(parts[tested])
    elif wanted.whole:
        test_rows, test_labels, test_name = rows, labels, name
        notes.append(f"there is no test set: all {len(rows):,} rows are tested")
    else:
        is_tested = held_out(labels, wanted.seed, name, "row")
        test_rows, test_labels, test_name = rows[is_tested], labels[is_tested], name
        rows, labels = rows[~is_tested], labels[~is_tested]
        notes.append(f"a test set of {is_tested.sum():,} rows is held out")
    as_bytes = _are_bytes(rows) and _are_bytes(test_rows) and rows.max() > 1
    return as_sets(
        (Named(name, _images(rows, as_bytes)), Named(f"{name}, labels", labels)),
        (Named(test_name, _images(test_rows, as_bytes)), Named(f"{test_name}, labels", test_labels)),
        None,
        tuple(notes),
    )


def layout_of(path: Path) -> Layout | None:
    """How the table in ``path`` is written; None if it is not a table of images or pictures."""
    with open_file(path) as file:
        head = file.read(HEAD)
    try:
        lines = decoded(head[: head.rfind(b"\n") + 1] or head).splitlines()
        separator = max(SEPARATORS, key="".join(lines).count)
        separator = separator if any(separator in line for line in lines) else " "
        table = [row for row in csv.reader(lines[: LOOKED_AT + 1], delimiter=separator) if row]
        (width, _), *_ = Counter(map(len, table)).most_common(1)
    except (ValueError, IndexError, csv.Error):
        return None
    header = int(_is_header(table))
    rows = [row for row in table[header:] if len(row) == width]
    if not rows or width < 2 or (header and len(table[0]) != width):
        return None
    names = [name.strip().lower() for name in table[0]] if header else []
    paths = [place for place in range(width) if all(_is_path(row[place]) for row in rows)]
    if paths:
        named = (place for place, name in enumerate(names) if name in LABELS)
        others = [place for place in range(width) if place not in paths]
        label = next(named, others[0] if len(others) == 1 else None)
        return Layout(separator, header, width, label, True, None)
    if width == 2 or min(map(_numeric, rows)) < width - 1:
        return None
    label, note = _label_column(rows, names, width)
    has_index = bool(label) and (_counts([row[0] for row in rows]) or (names[:1] or ["-"])[0] in INDEX)
    notes = [*([note] if note else []), *(["the first column numbers the rows and is left out"] * has_index)]
    return Layout(separator, header, width, label, False, "; ".join(notes) or None, has_index)


def _is_header(table: Sequence[Sequence[str]]) -> bool:
    """Whether the first of these rows has the names of the columns."""
    first, *others = table
    if any(value.strip().lower() in LABELS for value in first):
        return True
    if not others:
        return False
    has_fewer_paths = not any(map(_is_path, first)) and any(map(_is_path, others[0]))
    return has_fewer_paths or _numeric(first) < _numeric(others[0])


def _is_path(value: str) -> bool:
    return is_picture(value.strip())


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


def _counts(column: Sequence[str]) -> bool:
    """Whether the values count up by one from row to row."""
    start = int(column[0]) if column[0].strip().isdecimal() else 0
    counted = [str(start + number) for number in range(len(column))]
    return len(column) > 2 and [value.strip() for value in column] == counted


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
    if _is_square(width):
        return None, None  # the whole row is the pixels of an image
    # rows of a label and a square image may have the labels 0, 1, 2, ... in order
    is_indexed = _counts([row[0] for row in rows]) and not _is_square(width - 1)
    first, last = int(is_indexed), width - 1
    varies = [place for place in (first, last) if len({row[place] for row in rows}) > 1]
    label = varies[0] if len(varies) == 1 else first
    names_of = {0: "first", 1: "second", last: "last"}
    return label, f"labels taken from the {names_of[label]} column"


def _is_square(count: int) -> bool:
    """Whether so many numbers are the pixels of a square image."""
    return isqrt(count) ** 2 == count >= LEAST_SIDE**2


def _pictures(path: Path, layout: Layout) -> Part:
    """The pictures that a list names, and their classes."""
    try:
        with open_file(path) as file:
            text = decoded(file.read())
        rows = [row for row in csv.reader(text.splitlines(), delimiter=layout.separator) if row]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from None
    names, classes = [], []
    for number, row in enumerate(rows[layout.header :], layout.header + 1):
        if len(row) != layout.width or layout.label is None:
            raise DataError(f"{path}: row {number} has {len(row)} columns, expected {layout.width}")
        name = next((value.strip() for value in row if _is_path(value)), None)
        label = row[layout.label].strip()
        if not name or not label:
            raise DataError(f"{path}: row {number} has no {'label' if name else 'path of a picture'}")
        names.append(name)
        classes.append(unicodedata.normalize("NFC", label))
    return Part(names, classes)


def _rows(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of each row without its label, and the labels as text."""
    labels: list[str] = []
    label = layout.label or 0

    def taken(text: str) -> float:
        labels.append(unicodedata.normalize("NFC", text.strip()))
        return 0

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about empty lines
            rows = np.loadtxt(
                path, np.float32, comments=None, delimiter=layout.separator, skiprows=layout.header,
                quotechar='"', encoding="utf-8-sig", ndmin=2, converters={label: taken},
            )  # fmt: skip
    except ValueError as error:
        reason = short(printable(first_line(error).partition(";")[0]), 200)
        raise DataError(
            f"{path}: is not a table of numbers ({reason}): expected {layout.width} columns in each row"
        ) from None
    if "" in labels:
        raise DataError(f"{path}: row {labels.index('') + layout.header + 1} has no label: expected one")
    left_out = [label, 0] if layout.has_index else [label]
    return np.delete(rows, left_out, axis=1), np.array(labels)


def _unread(path: Path) -> DataError:
    """The error for a file that is not a table, or is in another encoding."""
    with open_file(path) as file:
        head = file.read(HEAD)
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return DataError(f"{path}: it is in UTF-16: {SAVE_AS}")
    try:
        decoded(head[: head.rfind(b"\n") + 1] or head)
    except ValueError as error:
        return DataError(f"{path}: {error}")
    return unread_file(path)


def _are_bytes(rows: np.ndarray) -> bool:
    """Whether all numbers are whole and from 0 to 255."""
    return bool((rows == np.floor(rows)).all() and rows.min() >= 0 and rows.max() <= 255)


def _images(rows: np.ndarray, as_bytes: bool) -> np.ndarray:
    """Rows as the images of a data set; as images of one line if they are not square."""
    rows = rows.astype(np.uint8) if as_bytes else rows
    return rows if _is_square(rows.shape[1]) else rows[:, None, None, :]
