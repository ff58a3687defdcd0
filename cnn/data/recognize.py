"""Recognizes files and folders that are not supported data sets, and says what to do with them."""

import codecs
import csv
import os
import re
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from cnn.data.advice import BINARY, NEVER_OPENED, SAVE, UNPACK
from cnn.data.readers import cifar10
from cnn.data.readers.common import is_folder, is_hidden, names_in, open_file
from cnn.support.errors import DataError
from cnn.support.text import printable, short, some_of

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".heic")
_PICKLES = (".pkl", ".pickle", ".pck", ".pt", ".pth")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")  # never occur in text
_HEAD = 1 << 16  # bytes of a file that are read
_NPY_HEADER = 200  # bytes: they contain the type of the array
_DESCRIBED = 2  # files of a folder that are described one by one
_MOST_SEEN = 20_000  # entries of a folder and its subfolders
_DEEPEST = 6  # levels of subfolders; links may form cycles
_CIFAR_FILE = re.compile(r"data_batch_\d|test_batch")  # in the Python version


class Found(NamedTuple):
    """A description of a file or folder, and advice."""

    what: str
    advice: str


_PYTHON_CIFAR10 = Found("the Python version of CIFAR-10", f"{NEVER_OPENED}; {BINARY}")
_BEGINNINGS = {
    b"PAR1": Found("a Parquet table", SAVE),
    b"ARROW1": Found("an Arrow table", SAVE),
    b"\x89HDF\r\n\x1a\n": Found("an HDF5 file", SAVE),
    b"MATLAB ": Found("a MATLAB file", SAVE),
    b"SQLite format 3": Found("an SQLite database", SAVE),
    b"PK\3\4": Found("a zip archive", UNPACK),
    b"Rar!\x1a\x07": Found("a RAR archive", UNPACK),
    b"7z\xbc\xaf\x27\x1c": Found("a 7z archive", UNPACK),
    b"BZh": Found("compressed by bzip2", UNPACK),
    b"\xfd7zXZ\0": Found("compressed by xz", UNPACK),
    b"\x28\xb5\x2f\xfd": Found("compressed by Zstandard", UNPACK),
    b"\x93NUMPY": Found(
        "a single NumPy array", "give a folder with x_train.npy, y_train.npy, x_test.npy and y_test.npy"
    ),
    b"\0\0\x08": Found(
        "an IDX file, one of four", "give the folder with the images and labels of both parts"
    ),
}
_ENDINGS = {
    ".parquet": "Parquet tables", ".arrow": "Arrow tables", ".feather": "Arrow tables", ".csv": "CSV tables",
    ".tsv": "TSV tables", ".h5": "HDF5 files", ".hdf5": "HDF5 files", ".mat": "MATLAB files",
    ".tfrecord": "TFRecord files", ".tfrecords": "TFRecord files", ".pkl": "pickles", ".pickle": "pickles",
    ".pt": "PyTorch files", ".pth": "PyTorch files", ".zip": "zip archives", ".tar": "tar archives",
    ".rar": "RAR archives", ".7z": "7z archives", ".json": "JSON files", ".npz": ".npz files",
    ".npy": "NumPy arrays", ".gz": "files compressed by gzip", ".tgz": "tar archives",
    ".bz2": "files compressed by bzip2", ".xz": "files compressed by xz", ".xlsx": "spreadsheets",
}  # fmt: skip


def unread_file(path: Path) -> DataError:
    """The error that describes the file ``path``."""
    what, advice = _file(path)
    return DataError(f"{path}: this is {what}: {advice}")


def unread_folder(folder: Path) -> DataError:
    """The error that describes the contents of ``folder``."""
    what, advice = _folder(folder)
    return DataError(f"{folder}: contains {what}: {advice}")


def _file(path: Path) -> Found:
    with open_file(path) as file:
        head = file.read(_HEAD)
    if head[:4] == b"PK\3\4":
        return _zip(path)
    if head[:2] == b"\x1f\x8b":
        what, advice = _plain(path.with_suffix(""), _inflated(head)) or Found("something", UNPACK)
        return Found(f"{what} (compressed by gzip)", advice)
    return _plain(path, head) or Found("not a supported format", f"expected {_expected()}")


def _plain(path: Path, head: bytes) -> Found | None:
    """Recognize a file by its first bytes, or else by its name."""
    name, ending = path.name.lower(), path.suffix.lower()
    if name.startswith("cifar-10-python"):
        return _PYTHON_CIFAR10
    if head.startswith(b"\x93NUMPY") and b"'|O'" in head[:_NPY_HEADER]:
        return _pickle(name)
    for beginning, found in _BEGINNINGS.items():
        if head.startswith(beginning):
            return found
    if head[257:262] == b"ustar":
        return Found("a tar archive", UNPACK)
    if head[:1] == b"\x80" or ending in _PICKLES or _CIFAR_FILE.fullmatch(name):
        return _pickle(name)
    if name in cifar10.FILES:
        return Found("one of the six files of CIFAR-10", "give the folder with all of them")
    if ending in _PICTURES:
        return Found(
            "a single picture",
            "a data set needs many pictures with labels; use `cnn predict` for a single one",
        )
    if "tfrecord" in name:
        return Found("a TFRecord file", SAVE)
    return _text(path, head) if head else Found("an empty file", "get a complete copy of it")


def _pickle(name: str) -> Found:
    """A pickle or a PyTorch file, which contains one."""
    advice = SAVE
    if "cifar-10-" in name or _CIFAR_FILE.match(name):
        advice = BINARY
    elif "mnist" in name and "fashion" not in name:
        advice = f"--data mnist is included in the package; for another set, {SAVE}"
    return Found("a pickle", f"{NEVER_OPENED}; {advice}")


def _text(path: Path, head: bytes) -> Found | None:
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    text = head.decode(encoding, errors="replace")
    if _CONTROLS.search(text) or text.count("\N{REPLACEMENT CHARACTER}") > len(text) // 4:
        return None
    if path.suffix.lower() in (".json", ".jsonl") or text.lstrip()[:1] in "{[":
        return Found("JSON", SAVE)
    first = text.splitlines()[0] if text.strip() else ""
    separator = max(",\t;", key=first.count)
    columns = next(csv.reader([first], delimiter=separator), [])
    if len(columns) < 2:
        return Found("text", f"expected {_expected()}")
    known = "" if len(first) < len(text) or len(head) < _HEAD else " or more"
    named = some_of(short(printable(column), 20) for column in columns[:4])
    more = ", ..." if len(columns) > 4 else ""
    return Found(
        f"a table as text (CSV) with {len(columns):,}{known} columns ({named}{more})",
        "expected the numbers of an image and a label in each row, or the path of a picture and a label",
    )


def _zip(path: Path) -> Found:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive may raise nearly anything inside zipfile
        return Found("a damaged zip archive", "get a complete copy of it")
    if any(name.endswith("data.pkl") for name in names):
        return _pickle(path.name)
    if "[Content_Types].xml" in names:
        return Found("a spreadsheet or another office document", SAVE)
    files = [name for name in names if not name.endswith("/") and not is_hidden(name)]
    if not files:
        return Found("a zip archive without files", "get a complete copy of it")
    return Found(f"a zip archive of {_counted(len(files), 'file')}, such as {_some(files)}", UNPACK)


def _inflated(head: bytes) -> bytes:
    """The decompressed beginning of a file; empty if it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(head, _HEAD)
    except zlib.error:
        return b""


def _folder(folder: Path) -> Found:
    """Describe a folder; at most the first thousands of its files are read."""
    names = names_in(folder)
    files, all_seen = _files(folder)
    pictures = Counter(above for above, name in files if _ending(name) in _PICTURES)
    least = "" if all_seen else "more than "
    if pictures:
        return _pictures(pictures, least)
    own = {name for _, name in files}
    if "data_batch_1" in own:
        return _PYTHON_CIFAR10
    if {"train", "test", "meta"} <= own:
        return Found("the Python version of CIFAR-100", f"{NEVER_OPENED}; {SAVE}")
    if "fine_label_names.txt" in own:
        return Found("the binary version of CIFAR-100", f"it is not supported; {SAVE}")
    if not files:
        return Found(f"no files in {_some(names)}" if names else "no files", f"expected {_expected()}")
    paths = sorted(f"{above}/{name}".strip("/") for above, name in files)
    known = [path for path in paths if _ending(path) in _ENDINGS]
    if not known:
        what = f"{least}{_counted(len(paths), 'file')}, such as {_some(paths)}"
        return Found(what, f"expected {_expected()}; or {SAVE}")
    found = [_file(folder / path) for path in known[:_DESCRIBED]]
    if len(known) <= _DESCRIBED:
        what = " and ".join(f"{path}, {what}" for path, (what, _) in zip(known, found, strict=True))
    else:
        kinds = Counter(_ENDINGS[_ending(path)] for path in known)
        listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(3))
        what = f"{least}{listed}, such as {_some(known)}"
    return Found(what, found[0].advice)


def _pictures(pictures: Counter[str], least: str) -> Found:
    total = sum(pictures.values())
    count = least + _counted(total, "picture")
    folders = sorted(above for above in pictures if above)
    if folders:
        shown = ", ".join(f"{short(printable(above), 40)}: {pictures[above]:,}" for above in folders[:8])
        more = f" and {len(folders) - 8:,} more" if len(folders) > 8 else ""
        what = f"{count} in {_counted(len(folders), 'folder')} ({shown}{more})"
    else:
        what = f"{count} and no class folders"
    return Found(
        what, "expected a folder of pictures for each class, or the folders train and test with these"
    )


def _files(folder: Path) -> tuple[list[tuple[str, str]], bool]:
    """The (folder, name) of the first files in a folder and below, and whether these are all files."""
    files: list[tuple[str, str]] = []
    places, seen, all_seen = [("", folder)], 0, True
    for above, place in places:  # grows during the loop
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                seen += 1
                if seen > _MOST_SEEN:
                    return files, False
                if is_hidden(entry.name):
                    continue
                inner = f"{above}/{entry.name}".strip("/")
                if not is_folder(entry):
                    files.append((above, entry.name))
                elif inner.count("/") < _DEEPEST:
                    places.append((inner, Path(entry.path)))
                else:
                    all_seen = False
    return files, all_seen


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _some(names: list[str]) -> str:
    return ", ".join(short(printable(name), 40) for name in sorted(names)[:3]) or "none"


def _expected() -> str:
    return (
        "a folder of pictures, a table as text, an .npz file, a folder with IDX or .npy files, or "
        "cifar-10-binary.tar.gz or its folder"
    )
