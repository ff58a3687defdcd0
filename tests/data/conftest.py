"""The small data set on disk, and a digit."""

import numpy as np
import pytest
from helpers.small_files import ARRAYS, NAMES, idx, write


@pytest.fixture(params=["", ".gz"], ids=["plain", "gz"])
def suffix(request):
    return request.param


@pytest.fixture
def folder(tmp_path, suffix):
    for name, array in zip(NAMES, ARRAYS.values(), strict=True):
        write(tmp_path / (name + suffix), idx(array))
    return tmp_path


@pytest.fixture
def npz(tmp_path):
    """A function that writes a .npz: the small set, with some arrays replaced (None: left out)."""

    def save(compressed=True, **replaced):
        arrays = {name: array for name, array in {**ARRAYS, **replaced}.items() if array is not None}
        path = tmp_path / "own.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return path

    return save


@pytest.fixture(scope="module")
def seven():
    """What becomes of the plain digit: dark ink in the middle of white paper."""
    pytest.importorskip("PIL")
    from helpers.drawn_digits import SHAPE, drawn

    from cnn.data.digits import as_digit

    return as_digit(drawn(), SHAPE)
