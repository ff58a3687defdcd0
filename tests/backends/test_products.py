"""Products: the one piece of linear algebra that a backend gives."""

import math

import numpy as np
import pytest
from devices import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st

import backends


@st.composite
def products(draw):
    """Shapes of a product, some of them with few rows and a long inner dimension."""
    rows, columns = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    inner = draw(st.one_of(st.integers(1, 40), st.integers(1000, 1100)))
    return rows, inner, columns, draw(st.booleans()), draw(st.booleans()), draw(st.booleans())


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100, deadline=None)
@given(case=products(), seed=st.integers(0, 2**32))
def test_products(device, case, seed):
    device = backends.get(device)
    rows, inner, columns, turned_a, turned_b, accumulate = case
    random = np.random.default_rng(seed)
    a, b = random.standard_normal((rows, inner)), random.standard_normal((inner, columns))
    wide = random.standard_normal((rows, columns + 3))
    device_a = device.asarray(a.T.copy()).T if turned_a else device.asarray(a)
    device_b = device.asarray(b.T.copy()).T if turned_b else device.asarray(b)
    device_wide = device.asarray(wide.copy())
    device.matmul(device_a, device_b, out=device_wide[:, 1:-2], accumulate=accumulate)
    expected = wide.copy()
    product = np.array([[math.fsum(row * column) for column in b.T] for row in a])
    expected[:, 1:-2] = product + (wide[:, 1:-2] if accumulate else 0)
    np.testing.assert_allclose(device.to_host(device_wide), expected, rtol=1e-9, atol=1e-11)
