"""Convolution and pooling: worked by hand, and over random shapes against direct definitions."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import backends
from backends import Window

PORTABLE = backends.get("cpu", kernels="portable").kernels
SIGNAL = backends.get("cpu", kernels="signal").kernels


@st.composite
def convolutions(draw):
    """(window, groups, x, weight, dy) of random shapes, batch last, in float64."""
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    window = Window(draw(pair(1, 4)), draw(pair(1, 3)), draw(pair(0, 3)), draw(pair(1, 3)))
    groups = draw(st.integers(1, 3))
    C, O = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    H, W, N = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    rows, columns = window.output_size(H, W)
    assume(rows >= 1 and columns >= 1)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.standard_normal((C, H, W, N))
    weight = random.standard_normal((O, C // groups, *window.size))
    return window, groups, x, weight, random.standard_normal((O, rows, columns, N))


def padded(x, window, value=0.0):
    top, left = window.padding
    return np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)), constant_values=value)


def patch(x, window, row, column):
    """What the window sees of a padded x at an output position: (C, KH, KW, N)."""
    top, left = row * window.stride[0], column * window.stride[1]
    return x[
        :,
        top : top + window.extent[0] : window.dilation[0],
        left : left + window.extent[1] : window.dilation[1],
    ]


def positions(y):
    return np.ndindex(y.shape[1:3])


def defined_convolution(x, weight, window, groups, shape):
    """The definition, a position at a time."""
    y = np.empty(shape)
    outputs, inputs = len(weight) // groups, weight.shape[1]
    x = padded(x, window)
    for row, column in positions(y):
        seen = patch(x, window, row, column)
        for o, w in enumerate(weight):
            first = o // outputs * inputs
            y[o, row, column] = np.einsum("chw,chwn->n", w, seen[first : first + inputs])
    return y


@pytest.mark.parametrize("kernels", [PORTABLE, SIGNAL], ids=["portable", "signal"])
@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolution_is_its_definition(kernels, case):
    window, groups, x, weight, dy = case
    y = np.full_like(dy, np.nan)
    kernels.conv2d(x, weight, y, window, groups)
    np.testing.assert_allclose(
        y, defined_convolution(x, weight, window, groups, dy.shape), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("kernels", [PORTABLE, SIGNAL], ids=["portable", "signal"])
@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(0, 2**32))
def test_both_gradients_are_the_adjoints_of_the_convolution(kernels, case, seed):
    # <dy, conv(v, w)> = <grad_input(dy, w), v> and <dy, conv(x, u)> = <grad_weight(x, dy), u> for all u, v
    window, groups, x, weight, dy = case
    random = np.random.default_rng(seed)
    v, u = random.standard_normal(x.shape), random.standard_normal(weight.shape)
    dx, dw = np.full_like(x, np.nan), np.full_like(weight, np.nan)
    kernels.conv2d_grad_input(dy, weight, dx, window, groups)
    kernels.conv2d_grad_weight(x, dy, dw, window, groups)
    along_v = np.sum(dy * defined_convolution(v, weight, window, groups, dy.shape))
    along_u = np.sum(dy * defined_convolution(x, u, window, groups, dy.shape))
    np.testing.assert_allclose(np.sum(dx * v), along_v, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum(dw * u), along_u, rtol=1e-9, atol=1e-9)


@st.composite
def poolings(draw):
    """(window, x) with many equal numbers, so that ties occur."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    window = Window(
        size,
        draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        tuple(draw(st.integers(0, length // 2)) for length in size),
        draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
    )
    C, N = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    H, W = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rows, columns = window.output_size(H, W)
    assume(rows >= 1 and columns >= 1)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.integers(-2, 3, (C, H, W, N)).astype(float)
    return window, x, random.standard_normal((C, rows, columns, N))


@settings(max_examples=80, deadline=None)
@given(poolings())
def test_max_pooling_takes_the_first_largest_and_its_gradient_goes_back_there(case):
    window, x, dy = case
    y, winner = np.full_like(dy, np.nan), np.full(dy.shape, 99, dtype=np.uint8)
    PORTABLE.max_pool2d(x, y, winner, window)
    around = padded(x, window, -np.inf)
    gradient = np.zeros_like(around)
    for row, column in positions(dy):
        seen = patch(around, window, row, column)
        flat = seen.reshape(len(x), -1, x.shape[-1])
        first = flat.argmax(axis=1)  # numpy's argmax is the first
        np.testing.assert_array_equal(y[:, row, column], flat.max(axis=1))
        np.testing.assert_array_equal(winner[:, row, column], first)
        for c, n in np.ndindex(first.shape):
            i, j = divmod(first[c, n], window.size[1])
            patch(gradient, window, row, column)[c, i, j, n] += dy[c, row, column, n]
    dx = np.full_like(x, np.nan)
    PORTABLE.max_pool2d_grad(dy, winner, dx, window)
    top, left = window.padding
    np.testing.assert_allclose(
        dx, gradient[:, top : top + x.shape[1], left : left + x.shape[2]], rtol=1e-12, atol=1e-12
    )


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


def test_average_pooling_worked_by_hand_counts_padding_as_zeros(backend):
    x = np.arange(1.0, 5).reshape(1, 2, 2, 1)
    y = backend.xp.empty((1, 2, 2, 1))
    backend.kernels.avg_pool2d(backend.asarray(x), y, Window((2, 2), (2, 2), (1, 1)))
    assert backend.to_host(y).ravel().tolist() == [0.25, 0.5, 0.75, 1.0]


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
