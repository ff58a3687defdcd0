"""Data sets: ``train, test = cnn.data.load("mnist")``, from files of your own, ``Dataset(images, labels)``.

This is the host's side: arrays here are NumPy's, the usual (N, C, H, W).
"""

import os
import stat
from pathlib import Path

from backends.text import did_you_mean
from cnn.data import cifar10
from cnn.data.bundled import load_mnist
from cnn.data.dataset import Dataset
from cnn.data.fashion_mnist import load_fashion_mnist
from cnn.data.files import unreadable
from cnn.data.idx import load_folder, read_idx
from cnn.data.npy import holds_npy, load_npy
from cnn.data.npz import load_npz
from cnn.errors import DataError

__all__ = ["NAMES", "Dataset", "load", "read_idx"]

_LOADERS = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": cifar10.load_cifar10,
}
NAMES = tuple(_LOADERS)
NAMES_ELSEWHERE = {
    "fashion": "fashion-mnist",
    "fmnist": "fashion-mnist",
    "cifar": "cifar10",
    "digits": "mnist",
}


def load(source: str | os.PathLike[str]) -> tuple[Dataset, Dataset]:
    """The training set and the test set of ``source``, both with the same classes.

    ``source`` is one of

    - a name: "mnist" (bundled), "fashion-mnist" (31 MB) or "cifar10" (170 MB); the last two are
      downloaded once, into the folder that the environment variable CNN_DATA names, or else into
      the user's cache folder, and verified each time. A folder of such a name is "./mnist".
    - a folder with the four IDX files of MNIST's names, plain or .gz.
    - a .npz file with x_train, y_train, x_test and y_test and, if wanted, the names of the classes
      in ``classes``. Nothing is ever unpickled.
    - a folder with these arrays as .npy files, where images may be more than fit in memory.
    - cifar-10-binary.tar.gz, or the folder that it unpacks to.

    Raises DataError where there is no such data set, where a file is missing, damaged or unfit, or
    cannot be downloaded.
    """
    if isinstance(source, str) and source in _LOADERS:
        return _LOADERS[source]()
    try:
        path = Path(source)
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError) as error:
        raise DataError(
            f"there is no data set {source!r}: expected {', '.join(NAMES)}, or the path of a folder "
            "with IDX or .npy files, of a .npz file, or of cifar-10-binary.tar.gz or its folder"
            + did_you_mean(source, NAMES, NAMES_ELSEWHERE)
        ) from error
    except OSError as error:
        raise unreadable(source, error) from error
    if stat.S_ISDIR(mode):
        return _load_folder(path)
    return cifar10.load_archive(path) if path.name.endswith((".tar.gz", ".tgz")) else load_npz(path)


def _load_folder(path: Path) -> tuple[Dataset, Dataset]:
    if holds_npy(path):
        return load_npy(path)
    return cifar10.load_folder(path) if cifar10.is_folder(path) else load_folder(path)
