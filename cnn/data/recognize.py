"""What a file or a folder that is no data set of ours holds, in a sentence that says what to do with it."""

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
from cnn.data.dataset import some_of
from cnn.data.files import names_in, open_file
from cnn.errors import DataError
from cnn.text import printable, short

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".heic")
_PICKLES = (".pkl", ".pickle", ".pck", ".pt", ".pth")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")  # are in no text
_HEAD = 1 << 16  # bytes of a file that are looked at
_DESCRIBED = 2  # files of a folder, one by one
_MOST_SEEN = 20_000  # entries of a folder and those below
_DEEPEST = 3  # folders below, as in data/train/cat


class Found(NamedTuple):
    """What something is, and what to do with it."""

    what: str
    advice: str


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
    b"\0\0\x08": Found("an IDX file, one of four", "give the folder with images and labels of both parts"),
}
_ENDINGS = {
    ".parquet": "Parquet tables", ".arrow": "Arrow tables", ".feather": "Arrow tables", ".csv": "CSV tables",
    ".tsv": "TSV tables", ".h5": "HDF5 files", ".hdf5": "HDF5 files", ".mat": "MATLAB files",
    ".tfrecord": "TFRecord files", ".tfrecords": "TFRecord files", ".pkl": "pickles", ".pickle": "pickles",
    ".pt": "PyTorch files", ".pth": "PyTorch files", ".zip": "zip archives", ".tar": "tar archives",
    ".rar": "RAR archives", ".7z": "7z archives", ".json": "JSON files", ".npz": ".npz files",
    ".npy": "NumPy arrays", ".gz": "files compressed by gzip", ".tgz": "tar archives",
}  # fmt: skip


def unread_file(path: Path) -> DataError:
    """The error that says what the file ``path`` is, and what to do."""
    what, advice = _file(path)
    return DataError(f"{path}: this is {what}: {advice}")


def unread_folder(folder: Path) -> DataError:
    """The error that says what ``folder`` holds, and what to do."""
    what, advice = _folder(folder)
    return DataError(f"{folder}: holds {what}: {advice}")


def _file(path: Path) -> Found:
    with open_file(path) as file:
        head = file.read(_HEAD)
    if head[:4] == b"PK\3\4":
        return _zip(path)
    if head[:2] == b"\x1f\x8b":
        what, advice = _plain(path.with_suffix(""), _inflated(head)) or Found("something", UNPACK)
        return Found(f"{what} (compressed by gzip)", advice)
    return _plain(path, head) or Found("no format that is known here", f"expected {_expected()}")


def _plain(path: Path, head: bytes) -> Found | None:
    """What a file is by how it begins, or else by its name."""
    for beginning, found in _BEGINNINGS.items():
        if head.startswith(beginning):
            return found
    if head[257:262] == b"ustar":
        return Found("a tar archive", UNPACK)
    name, ending = path.name.lower(), path.suffix.lower()
    if head[:1] == b"\x80" or ending in _PICKLES or name.startswith("data_batch_"):
        return _pickle(name)
    if ending in _PICTURES:
        return Found("a single picture", "a data set has many, with labels; `cnn predict` takes one")
    if "tfrecord" in name:
        return Found("a TFRecord file", SAVE)
    return _text(path, head) if head else Found("an empty file", "get a whole copy of it")


def _pickle(name: str) -> Found:
    """A pickle, or a file of PyTorch, which is one."""
    advice = SAVE
    if "cifar" in name or "data_batch" in name:
        advice = BINARY
    elif "mnist" in name and "fashion" not in name:
        advice = f"--data mnist comes with the package; of another set, {SAVE}"
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
        f"tables are not read yet; {SAVE}",
    )


def _zip(path: Path) -> Found:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive may raise nearly anything inside zipfile
        return Found("a damaged zip archive", "get a whole copy of it")
    if any(name.endswith("data.pkl") for name in names):
        return _pickle(path.name)
    files = [name for name in names if not name.endswith("/")]
    count = f"{len(files):,} files" if len(files) != 1 else "1 file"
    return Found(f"a zip archive of {count}, such as {_some(files)}", UNPACK)


def _inflated(head: bytes) -> bytes:
    """The beginning of what is compressed; nothing if it is damaged."""
    try:
        return zlib.decompressobj(31).decompress(head, _HEAD)
    except zlib.error:
        return b""


def _folder(folder: Path) -> Found:
    """What a folder holds; a folder of a million files takes no longer than one of some thousands."""
    names = names_in(folder)
    files, all_seen = _files(folder)
    pictures = Counter(above for above, name in files if _ending(name) in _PICTURES)
    least = "" if all_seen else "more than "
    if pictures:
        return _pictures(pictures, least)
    own = [name for name in names if not name.endswith("/")]
    if any(name.startswith("data_batch_") for name in own):
        return Found("the Python version of CIFAR-10", f"{NEVER_OPENED}; {BINARY}")
    if "fine_label_names.txt" in own:
        return Found("the binary version of CIFAR-100", f"it is not read; {SAVE}")
    known = [f"{above}/{name}".strip("/") for above, name in files if _ending(name) in _ENDINGS]
    if 1 <= len(known) <= _DESCRIBED:
        found = [_file(folder / name) for name in sorted(known)]
        described = [f"{name}, {what}" for name, (what, _) in zip(sorted(known), found, strict=True)]
        return Found(" and ".join(described), found[0].advice)
    if not files:
        return Found(f"no files in {_some(names)}" if names else "no files", f"expected {_expected()}")
    kinds = Counter(_ENDINGS[_ending(name)] for _, name in files if _ending(name) in _ENDINGS)
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(3)) or f"{len(files):,} files"
    return Found(f"{least}{listed}, such as {_some(known or names)}", f"expected {_expected()}; or {SAVE}")


def _pictures(pictures: Counter[str], least: str) -> Found:
    total = sum(pictures.values())
    count = f"{least}{total:,} {'picture' if total == 1 else 'pictures'}"
    folders = sorted(above for above in pictures if above)
    if folders:
        shown = ", ".join(f"{short(printable(above), 40)}: {pictures[above]:,}" for above in folders[:8])
        more = f" and {len(folders) - 8:,} more" if len(folders) > 8 else ""
        what = f"{count} in {len(folders):,} {'folder' if len(folders) == 1 else 'folders'} ({shown}{more})"
    else:
        what = f"{count} and no folders that say their classes"
    return Found(what, f"folders of pictures are not read yet; {SAVE}")


def _files(folder: Path) -> tuple[list[tuple[str, str]], bool]:
    """The first (folder, name) of files in a folder and those below, and whether these are all of them."""
    files: list[tuple[str, str]] = []
    places, seen = [("", folder)], 0
    for above, place in places:  # which grows meanwhile
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                seen += 1
                if seen > _MOST_SEEN:
                    return files, False
                if entry.name.startswith("."):
                    continue
                inner = f"{above}/{entry.name}".strip("/")
                if not entry.is_dir():
                    files.append((above, entry.name))
                elif inner.count("/") < _DEEPEST:
                    places.append((inner, Path(entry.path)))
    return files, True


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _some(names: list[str]) -> str:
    return ", ".join(short(printable(name), 40) for name in sorted(names)[:3]) or "none"


def _expected() -> str:
    return "a folder with IDX or .npy files, an .npz file, or cifar-10-binary.tar.gz or its folder"
