"""Data sets: ``train, test = cnn.data.load("mnist")``, your own files, or ``Dataset(images, labels)``.

Data sets are on the host. Their arrays are NumPy arrays with the usual shape (N, C, H, W).
"""

import os
import stat
from pathlib import Path

from backends.text import did_you_mean
from cnn.data.advice import SAVE
from cnn.data.dataset import Dataset
from cnn.data.pictures import Pictures
from cnn.data.published.bundled import load_mnist
from cnn.data.published.fashion_mnist import FASHION_MNIST, load_fashion_mnist, with_names
from cnn.data.readers import cifar10
from cnn.data.readers.common import MOST_FOLDERS, names_below, names_in, unreadable
from cnn.data.readers.folder import Wanted, class_folders, load_parts
from cnn.data.readers.idx import TURNED, holds_idx, idx_names, load_idx, read_idx
from cnn.data.readers.npy import holds_npy, load_npy, npy_names
from cnn.data.readers.npz import holds_arrays, load_npz
from cnn.data.readers.table import SUFFIXES, load_tables, tables_in
from cnn.data.recognize import unread_file, unread_folder
from cnn.support.errors import DataError
from cnn.support.text import some_of

__all__ = ["NAMES", "Dataset", "Pictures", "load", "read_idx"]

_LOADERS = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": cifar10.load_cifar10,
}
_DOWNLOADED = {each.name: each for each in (FASHION_MNIST, cifar10.CIFAR10)}
NAMES = tuple(_LOADERS)
NAMES_ELSEWHERE = {
    "fashion": "fashion-mnist",
    "fmnist": "fashion-mnist",
    "cifar": "cifar10",
    "digits": "mnist",
}


def load(
    source: str | os.PathLike[str], pictures: Pictures | None = None, seed: int = 0, transposed: bool = False
) -> tuple[Dataset, Dataset]:
    """Load the training set and the test set of ``source``; both have the same classes.

    ``source`` is one of

        - a name: "mnist" (bundled), "fashion-mnist" (31 MB) or "cifar10" (170 MB); the last two are
          downloaded once, into the folder that the environment variable CNN_DATA names, or else into
          the user's cache folder, and verified each time. For a folder with such a name, give "./mnist".
        - a folder with the four IDX files of MNIST's names, plain or .gz. EMNIST's images, which are
          stored transposed, are turned upright if the names of the files have "emnist" in them. The classes
          of Fashion-MNIST have their names, which its files lack.
        - a .npz file with x_train, y_train, x_test and y_test and, optionally, the names of the classes
          in ``classes``. Nothing is ever unpickled.
        - a folder with these arrays as .npy files; the images may be larger than memory.
        - cifar-10-binary.tar.gz, or the folder that it unpacks to.
        - a folder with a folder of pictures for each class, or with the folders train and test (or val) that
          have these. ``pictures`` says how they become images of one shape. They are decoded once and
          cached in the folder for downloads. If there is no test set, ``seed`` chooses a fifth of each class.
        - a table as text (.csv, .tsv, .txt): the numbers of an image and its label in each row, or the path
          of a picture and its label; or a folder with train.csv and test.csv. Pictures and a missing test set
          are treated as above.

        Files and arrays may have other descriptive names (train_images, train-labels.idx1-ubyte), and may be
        in the only subfolder of the given folder. Arrays in a layout that a :class:`Dataset` does not accept
        are converted if their meaning is unambiguous, and ``notes`` of both sets say so: images with channels
        last or flattened square images; labels as a column, as text, as bools, or as -1 and 1. If
        ``transposed``, rows and columns of the stored images are exchanged.

        Raises DataError if there is no such data set, or if a file is missing, damaged or unsuitable, or
        cannot be downloaded.
    """
    return _load(source, Wanted(pictures or Pictures(), seed, transposed=transposed))


def load_test(
    source: str | os.PathLike[str],
    pictures: Pictures | None = None,
    seed: int = 0,
    transposed: bool = False,
    whole: bool = False,
) -> Dataset:
    """The test set that :func:`load` returns; the training pictures are not decoded.

    If the source has no test set and ``whole`` is True, all of its images are the test set.
    """
    return _load(source, Wanted(pictures or Pictures(), seed, True, whole, transposed))[1]


def _load(source: str | os.PathLike[str], wanted: Wanted) -> tuple[Dataset, Dataset]:
    train, test = _stored(source, wanted)
    if train.fit is not None:  # made of pictures, or MNIST
        if wanted.transposed:
            raise DataError(f"{source}: transposed is for arrays in files: leave it out")
        return train, test
    if wanted.transposed and TURNED not in train.notes:
        return train.transposed("rows and columns exchanged"), test.transposed("rows and columns exchanged")
    if "emnist" in os.path.basename(source).lower() and TURNED not in train.notes:
        note = "EMNIST's images are often stored transposed: if they lie on their side, give --transposed"
        return train.with_note(note), test.with_note(note)
    return train, test


def _stored(source: str | os.PathLike[str], wanted: Wanted) -> tuple[Dataset, Dataset]:
    """Both sets as the source stores them."""
    if isinstance(source, str) and source in _LOADERS:
        return _LOADERS[source]()
    try:
        if not source:
            raise ValueError
        path = Path(source)
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError) as error:
        raise DataError(
            f"there is no data set {source!r}: expected {', '.join(NAMES)}, or the path of a folder "
            "of pictures, of a table as text, of a .npz file, of a folder with IDX or .npy files, or of "
            "cifar-10-binary.tar.gz or its folder" + did_you_mean(source, NAMES, NAMES_ELSEWHERE)
        ) from error
    except OSError as error:
        raise unreadable(source, error) from error
    if not stat.S_ISDIR(mode):
        return _load_file(path, wanted)
    return _load_folder(path, wanted)


def needs_download(source: str) -> bool:
    """Whether :func:`load` would have to download ``source``."""
    return source in _DOWNLOADED and not _DOWNLOADED[source].is_here


def _load_file(path: Path, wanted: Wanted) -> tuple[Dataset, Dataset]:
    name = path.name.lower()
    if path.suffix.lower() in SUFFIXES:
        return load_tables({"train": path}, wanted)
    if name.endswith((".tar.gz", ".tgz", ".tar")):
        return cifar10.load_archive(path)
    if name.endswith(".npz") or holds_arrays(path):
        return load_npz(path)
    raise unread_file(path)


def _load_folder(path: Path, wanted: Wanted) -> tuple[Dataset, Dataset]:
    places = _places(path)
    if len(places) > 1:
        several = some_of(str(place.relative_to(path)) for place in places)
        raise DataError(
            f"{path}: contains several data sets, {several}: give one of them; if they are parts of one set, "
            f"{SAVE}"
        )
    if not places and (tables := tables_in(path)):
        return load_tables(tables, wanted)
    if not places and (parts := class_folders(path)):
        return load_parts(path, parts, wanted)
    if not places:
        raise unread_folder(path)
    (place,) = places
    if place == path:
        return _load_own(path)
    train, test = _load_own(place) if place.is_dir() else _load_file(place, wanted)
    note = f"found in {place.relative_to(path)}"
    return train.with_note(note), test.with_note(note)


def _places(folder: Path, depth: int = 1) -> list[Path]:
    """The folders and files with a data set: ``folder`` itself, or entries at most two levels below.

    If a folder has many subfolders, these are assumed to be classes and are not searched.
    """
    if holds_npy(folder) or cifar10.is_folder(folder) or holds_idx(folder):
        return [folder]
    below = names_below(folder)
    if idx_names(below) or npy_names(below):
        return [folder]
    names = names_in(folder)
    files = [folder / name for name in names if name.lower().endswith(".npz")]
    folders = [folder / name for name in names if name.endswith("/")]
    if depth and len(folders) <= MOST_FOLDERS:
        files += [place for inner in folders for place in _places(inner, depth - 1)]
    archive = folder / cifar10.CIFAR10.files[0].name
    if archive.is_file() and not any(
        map(cifar10.is_folder, files)
    ):  # otherwise it is next to the unpacked files
        files.append(archive)
    return files


def _load_own(folder: Path) -> tuple[Dataset, Dataset]:
    """Load the sets whose files are directly in the folder."""
    if holds_npy(folder):
        return load_npy(folder, names_below(folder))
    if cifar10.is_folder(folder):
        return cifar10.load_folder(folder)
    names = names_below(folder)
    if holds_idx(folder) or idx_names(names):
        return with_names(*load_idx(folder, names))
    return load_npy(folder, names)
