"""What the CUDA kernels for normalization and dropout promise beyond the numbers of the portable ones."""

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend, counters

import backends
from backends.cuda.kernels.launching import parts_of_rows

pytestmark = host_cuda.needed
PORTABLE = backends.get("cpu", "portable").kernels


def far_from_zero(*shape):
    """Numbers in float32 with the mean 10,000 and the variance 1, which is lost in the sum of the squares."""
    return (10_000 + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def with_an_outlier_in_front(*shape):
    """The first number of each row and of each column is far away from the others."""
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    x[0, 0], x[0, :, 0] = 1000, 1000
    return x


@pytest.fixture
def device():
    return StandInBackend("compiled")


@pytest.mark.parametrize("make", [far_from_zero, with_an_outlier_in_front])
def test_the_variance_of_a_long_row_keeps_its_digits_in_float32(make, device):
    x = make(2, 40, 250)
    mean, variance = (device.asarray(np.zeros(2, np.float32)) for _ in range(2))
    device.kernels.moments(device.asarray(x), mean, variance)
    assert parts_of_rows(2, 10_000)[0] > 1
    exact = x.astype(np.float64).reshape(2, -1)
    np.testing.assert_allclose(device.to_host(mean), exact.mean(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(device.to_host(variance), exact.var(axis=1), rtol=1e-5)


@pytest.mark.parametrize("make", [far_from_zero, with_an_outlier_in_front])
def test_the_variance_of_a_samples_group_keeps_its_digits_in_float32(make, device):
    x = make(2, 300, 3)
    mean, scale = (device.asarray(np.zeros((2, 3), np.float32)) for _ in range(2))
    y = device.asarray(np.zeros_like(x))
    device.kernels.normalize_groups(device.asarray(x), None, None, 1e-5, mean, scale, y)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(device.to_host(mean), exact.mean(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(device.to_host(scale), 1 / np.sqrt(exact.var(axis=1) + 1e-5), rtol=1e-5)


def test_the_variance_of_equal_numbers_is_zero(device):
    x = np.full((2, 3000), 0.1, np.float32)
    mean, variance = (device.asarray(np.ones(2, np.float32)) for _ in range(2))
    device.kernels.moments(device.asarray(x), mean, variance)
    np.testing.assert_allclose(device.to_host(mean), x[:, 0], rtol=1e-7)
    assert device.to_host(variance).max() < 1e-14


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("channels", [False, True])
def test_dropout_has_the_bits_of_the_portable_kernel(p, channels, device):
    x = np.random.default_rng(0).standard_normal((5, 3, 7, 40)).astype(np.float32)
    counters, expected = np.array([2**31, 2**32 - 20]), np.zeros_like(x)  # the position goes past 32 bits
    PORTABLE.dropout(x, p, 2**32 - 5, counters, expected, channels)
    y = device.asarray(np.zeros_like(x))
    device.kernels.dropout(device.asarray(x), p, 2**32 - 5, device.asarray(counters), y, channels)
    np.testing.assert_array_equal(device.to_host(y), expected)


def test_a_normalization_may_overwrite_its_input(device):
    x = np.random.default_rng(0).standard_normal((3, 500))
    mean, variance = x.mean(axis=1), x.var(axis=1)
    y = device.asarray(x)
    given = device.asarray(mean), device.asarray(variance), None, None, 1e-5
    device.kernels.normalize(y, *given, y)
    expected = (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5)
    np.testing.assert_allclose(device.to_host(y), expected, rtol=1e-12)


def test_a_layer_with_nothing_to_finish_launches_nothing(device):
    y = device.asarray(np.ones((3, 5)))
    device.reset_counters()
    device.kernels.finish(y, None, None, None)
    assert counters.works == 0
