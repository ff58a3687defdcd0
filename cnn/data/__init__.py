"""Data sets: ``train, test = cnn.data.load("mnist")``, from files of your own, ``Dataset(images, labels)``.

This is the host's side: arrays here are NumPy's, the usual (N, C, H, W).
"""

import os
import stat
from pathlib import Path

from cnn.data.bundled import load_mnist
from cnn.data.dataset import Dataset
from cnn.data.files import unreadable
from cnn.data.idx import load_folder, read_idx
from cnn.data.npz import load_npz
from cnn.errors import DataError

__all__ = ["Dataset", "load", "read_idx"]


def load(source: str | os.PathLike[str]) -> tuple[Dataset, Dataset]:
    """The training set and the test set of ``source``, both with the same classes.

    ``source`` is "mnist" (bundled; a folder of that name is "./mnist"), a folder with the four IDX
    files of MNIST's names, plain or .gz, or a .npz file with x_train, y_train, x_test and y_test
    and, if wanted, the names of the classes in ``classes``. Nothing is ever unpickled.

    Raises DataError where there is no such data set, or where a file is missing, damaged or unfit.
    """
    if source == "mnist":
        return load_mnist()
    try:
        path = Path(source)
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, TypeError, ValueError) as error:
        raise DataError(
            f"there is no data set {source!r}: expected mnist (bundled), "
            "or the path of a folder with IDX files or of a .npz file"
        ) from error
    except OSError as error:
        raise unreadable(source, error) from error
    return load_folder(path) if stat.S_ISDIR(mode) else load_npz(path)
