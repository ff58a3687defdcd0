"""What is shown on the page in these tests."""

import numpy as np
import pytest

import backends
import cnn
from cnn.demo import Viewer

NAMES = ("<img src=x onerror=alert(1)>", "salt & 'pepper'", "a long name " * 8, "3", "4", "5", "6")


@pytest.fixture(scope="session")
def grey():
    """A viewer of a network for drawings of 20 x 16, light on dark, with test images."""
    network = cnn.Sequential(
        cnn.Conv2D(3, 3), cnn.BatchNorm2D(), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(7)
    )
    network.build((1, 20, 16), backend=backends.get("cpu"))
    network.preprocessing = cnn.Preprocessing((0.1,), (0.3,), fit="letterbox")
    random = np.random.default_rng(0)
    images = random.integers(0, 90, (12, 1, 20, 16), dtype=np.uint8)
    tests = cnn.data.Dataset(images, random.integers(0, 7, 12), NAMES)
    return Viewer(network, NAMES, "<b>grey</b>", tests)
