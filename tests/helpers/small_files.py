"""A small data set, and its files as bytes: right ones and ones that lie."""

import gzip
import re
import struct
from io import BytesIO

import numpy as np
import pytest

from cnn.support.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
X_TRAIN = np.arange(8 * 12, dtype=np.uint8).reshape(8, 3, 4)
Y_TRAIN = np.array([0, 1, 2, 0, 1, 2, 0, 1], dtype=np.uint8)
X_TEST = X_TRAIN[:4] + 100
Y_TEST = np.array([3, 2, 1, 0], dtype=np.uint8)
ARRAYS = {"x_train": X_TRAIN, "y_train": Y_TRAIN, "x_test": X_TEST, "y_test": Y_TEST}


def refused(*parts):
    return pytest.raises(DataError, match=".*".join(map(re.escape, map(str, parts))))


def idx(array, magic=None, shape=None):
    """An IDX file as bytes; ``magic`` and ``shape`` may lie."""
    shape = array.shape if shape is None else shape
    magic = 0x0800 + len(shape) if magic is None else magic
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + array.astype(np.uint8).tobytes()


def npy(array, shape=None, write_header=np.lib.format.write_array_header_1_0):
    """A .npy file as bytes; the shape in its header may lie."""
    stream = BytesIO()
    write_header(stream, np.lib.format.header_data_from_array_1_0(array) | {"shape": shape or array.shape})
    return stream.getvalue() + array.tobytes()


def write(path, contents):
    """``contents``, compressed where the name says so."""
    path.write_bytes(gzip.compress(contents, mtime=0) if path.suffix == ".gz" else contents)
    return path


def check_small_sets(train, test):
    np.testing.assert_array_equal(train.images[:, 0], X_TRAIN)
    np.testing.assert_array_equal(test.images[:, 0], X_TEST)
    assert train.labels.tolist() == Y_TRAIN.tolist()
    assert test.labels.tolist() == Y_TEST.tolist()
    assert train.images.dtype == test.images.dtype == np.uint8
    assert len(train.classes) == 4  # the training set alone has three
    assert train.classes == test.classes
