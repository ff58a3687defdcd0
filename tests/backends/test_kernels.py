"""Convolution and pooling, worked by hand; test_kernels_everywhere.py has the random shapes."""

import numpy as np
import scipy.signal

import backends
from backends import Window
from backends.kernels.sampling import Sampling

PORTABLE = backends.get("cpu", kernels="portable").kernels
SIGNAL = backends.get("cpu", kernels="signal").kernels


def test_inference_pools_without_winners():
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3))
    window = Window((3, 3), (2, 2), (1, 1))
    y, alone = np.empty((2, 3, 3, 3)), np.empty((2, 3, 3, 3))
    PORTABLE.max_pool2d(x, y, np.empty(y.shape, dtype=np.uint8), window)
    PORTABLE.max_pool2d(x, alone, None, window)
    np.testing.assert_array_equal(alone, y)


def test_a_3x3_max_pooling_with_ties_worked_by_hand(backend):
    x = np.array([[1, 1, 2, 2], [1, 3, 3, 0], [0, 3, 1, 2], [5, 0, 5, 5.0]]).reshape(1, 4, 4, 1)
    window = Window((3, 3), (1, 1))
    y = backend.xp.empty((1, 2, 2, 1))
    winner = backend.xp.empty(y.shape, dtype=backend.xp.uint8)
    backend.kernels.max_pool2d(backend.asarray(x), y, winner, window)
    assert backend.to_host(y).ravel().tolist() == [3, 3, 5, 5]
    # row-major taps: 3 at (1, 1) comes first in both upper windows; 5 at (3, 0); 5 at (3, 2)
    assert backend.to_host(winner).ravel().tolist() == [4, 3, 6, 7]
    dx = backend.xp.empty((1, 4, 4, 1))
    backend.kernels.max_pool2d_grad(
        backend.asarray(np.array([1.0, 10, 100, 1000]).reshape(1, 2, 2, 1)), winner, dx, window
    )
    expected = [[0, 0, 0, 0], [0, 11, 0, 0], [0, 0, 0, 0], [100, 0, 1000, 0]]
    assert backend.to_host(dx).reshape(4, 4).tolist() == expected


def test_nan_wins_a_max_pooling_and_gets_the_gradient(backend):
    x = np.array([[1, np.nan, 9], [0, 2, 3], [7, 8, 4.0]]).reshape(1, 3, 3, 1)
    y = backend.xp.empty((1, 2, 2, 1))
    winner = backend.xp.empty(y.shape, dtype=backend.xp.uint8)
    window = Window((2, 2), (1, 1))
    backend.kernels.max_pool2d(backend.asarray(x), y, winner, window)
    values = backend.to_host(y).ravel()
    assert np.isnan(values[:2]).all()
    assert values[2:].tolist() == [8, 8]
    assert backend.to_host(winner).ravel().tolist() == [1, 0, 3, 2]


def test_padding_never_wins_even_over_minus_infinity(backend):
    x = np.full((1, 2, 2, 1), -np.inf)
    y = backend.xp.empty((1, 2, 2, 1))
    winner = backend.xp.empty(y.shape, dtype=backend.xp.uint8)
    window = Window((2, 2), (2, 2), (1, 1))  # each window sees one number and three of padding
    backend.kernels.max_pool2d(backend.asarray(x), y, winner, window)
    assert backend.to_host(winner).ravel().tolist() == [3, 2, 1, 0]
    dx = backend.xp.empty(x.shape)
    backend.kernels.max_pool2d_grad(
        backend.asarray(np.array([1.0, 2, 3, 4]).reshape(y.shape)), winner, dx, window
    )
    assert backend.to_host(dx).ravel().tolist() == [1, 2, 3, 4]


def test_more_than_256_taps_have_winners_that_bytes_cannot_count():
    x = np.zeros((1, 20, 20, 1))
    x[0, 19, 19, 0] = 1
    y, winner = np.empty((1, 1, 1, 1)), np.empty((1, 1, 1, 1), dtype=np.int32)
    PORTABLE.max_pool2d(x, y, winner, Window((20, 20)))
    assert (y.item(), winner.item()) == (1, 399)


def test_a_strided_padded_convolution_worked_by_hand(backend):
    # 3x3 image, 3x3 kernel of ones, padding 1, stride 2: each output is the sum of one corner's 2x2
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    weight = np.ones((1, 1, 3, 3))
    y = backend.xp.empty((1, 2, 2, 1))
    window = Window((3, 3), (2, 2), (1, 1))
    backend.kernels.conv2d(backend.asarray(x), backend.asarray(weight), y, window)
    assert backend.to_host(y).ravel().tolist() == [1 + 2 + 4 + 5, 2 + 3 + 5 + 6, 4 + 5 + 7 + 8, 5 + 6 + 8 + 9]


def test_convolution_is_scipys_correlation():
    random = np.random.default_rng(3)
    x, w = random.standard_normal((8, 9)), random.standard_normal((3, 4))
    y = np.empty((1, 6, 6, 1))
    PORTABLE.conv2d(x[None, :, :, None], w[None, None], y, Window((3, 4)))
    np.testing.assert_allclose(y[0, :, :, 0], scipy.signal.correlate2d(x, w, "valid"), rtol=1e-12)


def test_resampling_worked_by_hand(backend):
    x = np.arange(1.0, 5).reshape(1, 2, 2, 1)
    y = backend.xp.empty((1, 1, 3, 1))
    rows = Sampling(2, (((0, 1.0), (1, 10.0)),))
    columns = Sampling(2, (((1, 1.0),), (), ((0, 0.5),)))
    backend.kernels.resample(backend.asarray(x), y, rows, columns)
    assert backend.to_host(y).ravel().tolist() == [2 + 40, 0, (1 + 30) / 2]


def test_the_signal_kernels_really_go_through_scipy(monkeypatch):
    calls = {"correlate": 0, "convolve": 0}

    def counted(name, function=None):
        function = getattr(scipy.signal, name)

        def call(*arguments, **named):
            assert named["method"] == "direct"
            calls[name] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(scipy.signal, name, call)

    counted("correlate")
    counted("convolve")
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((4, 6, 6, 2)), random.standard_normal((6, 2, 3, 3))
    y, window = np.empty((6, 4, 4, 2)), Window((3, 3))
    SIGNAL.conv2d(x, weight, y, window, groups=2)
    assert calls == {"correlate": 6, "convolve": 0}  # one for each output channel
    SIGNAL.conv2d_grad_weight(x, y, np.empty_like(weight), window, groups=2)
    assert calls == {"correlate": 12, "convolve": 0}
    SIGNAL.conv2d_grad_input(y, weight, np.empty_like(x), window, groups=2)
    assert calls == {"correlate": 12, "convolve": 4}  # one for each input channel


def test_a_batch_is_gathered_scaled_and_turned(backend):
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 3, 4), dtype=np.uint8)
    chosen = [5, 0, 5]
    out = backend.xp.empty((2, 3, 4, 3), dtype=backend.xp.float32)
    backend.kernels.gather_batch(backend.asarray(images), backend.asarray(np.array(chosen)), out)
    expected = images[chosen].transpose(1, 2, 3, 0) / 255
    np.testing.assert_allclose(backend.to_host(out), expected, rtol=1e-6)
    backend.kernels.gather_batch(
        backend.asarray(images.astype(np.float32)), backend.asarray(np.array(chosen)), out
    )
    np.testing.assert_array_equal(backend.to_host(out), images[chosen].transpose(1, 2, 3, 0))
