"""Products: the one piece of linear algebra that a backend gives."""

import math
from itertools import product

import numpy as np
import pytest


@pytest.mark.parametrize("rows", [1, 3, 5, 8, 11, 16, 20])
@pytest.mark.parametrize("inner", [1, 7, 40, 1000, 1024, 1100])  # long ones may go another way
@pytest.mark.parametrize("columns", [1, 4, 13])
def test_products(backend, rows, inner, columns):
    random = np.random.default_rng([rows, inner, columns])
    a, b = random.standard_normal((rows, inner)), random.standard_normal((inner, columns))
    wide = random.standard_normal((rows, columns + 3))
    exact = np.array([[math.fsum(row * column) for column in b.T] for row in a])
    for turned_a, turned_b, accumulate in product((False, True), repeat=3):
        device_a = backend.asarray(a.T.copy()).T if turned_a else backend.asarray(a)
        device_b = backend.asarray(b.T.copy()).T if turned_b else backend.asarray(b)
        device_wide = backend.asarray(wide.copy())
        backend.matmul(device_a, device_b, out=device_wide[:, 1:-2], accumulate=accumulate)
        expected = wide.copy()
        expected[:, 1:-2] = exact + (wide[:, 1:-2] if accumulate else 0)
        np.testing.assert_allclose(backend.to_host(device_wide), expected, rtol=1e-9, atol=1e-11)
