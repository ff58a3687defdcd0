"""Random arrays for the calls."""

import numpy as np

F, N = 7, 37
RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return RANDOM.uniform(-2, 2, shape)


def labels(count=N, classes=F):
    return RANDOM.integers(0, classes, count)
