"""MNIST, which is included in the package."""

import hashlib
from importlib.resources import as_file, files

from cnn.data.checked import Array
from cnn.data.dataset import Dataset
from cnn.data.readers.idx import AXES, FILES, read_with_contents
from cnn.support.errors import DataError

MNIST = files("cnn.data.published") / "mnist"  # in a folder or a zip file

_SHA256 = {  # of each decompressed file
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load_mnist() -> tuple[Dataset, Dataset]:
    """The 60,000 training and 10,000 test images of MNIST, each file verified."""
    x_train, y_train, x_test, y_test = (_verified(name, axes) for name, axes in zip(FILES, AXES, strict=True))
    sets = Dataset(x_train, y_train, classes=10), Dataset(x_test, y_test, classes=10)
    for each in sets:
        each.fit = "digit"
    return sets


def _verified(name: str, axes: int) -> Array:
    try:
        with as_file(MNIST / f"{name}.gz") as path:
            array, contents = read_with_contents(path, axes)
    except DataError as error:
        raise _damaged(str(error)) from error
    if hashlib.sha256(contents).hexdigest() != _SHA256[name]:
        raise _damaged(f"{MNIST / f'{name}.gz'}: its contents do not have the expected sha256")
    return array


def _damaged(reason: str) -> DataError:
    return DataError(f"{reason}; the installed package is damaged: reinstall xpcnn")
