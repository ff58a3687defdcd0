"""Winograd's convolution: how far it is from exact results, what gives the same bits, when it is used."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.quickly import QUICKLY

import backends
from backends import Window

pytest.importorskip("numba")

from backends.cpu import threads
from backends.cpu.compiled import jit
from backends.cpu.compiled.vectors import MANY_REGISTERS, VECTOR_BYTES
from backends.cpu.kernels import winograd
from backends.kernels.functions import RELU, Function

COMPILED = backends.get("cpu", kernels="compiled").kernels
PORTABLE = backends.get("cpu", kernels="portable").kernels
PADDINGS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 2), (2, 2)), ((0, 1), (2, 0)), ((2, 0), (-1, 1))]
SHAPES = [(24, 24, 6, 6), (27, 35, 9, 11), (64, 30, 8, 5), (33, 64, 7, 15)]  # C, O, H, W
POOL = Window((2, 2), (2, 2))


@pytest.fixture(autouse=True)
def for_all_batches(monkeypatch):
    """Winograd's wherever it can be used, and threads however little there is to do."""
    monkeypatch.setattr(winograd, "LEAST_SAVING", 0.01)
    monkeypatch.setattr(winograd, "LEAST_SAVING_OF_WEIGHT", 0.01)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS_OF_WEIGHT", 24)
    monkeypatch.setattr(jit, "SMALL", 0)


def numbers(C, O, H, W, N, padding, end):
    """(x, weight, bias, window, shape of the output)."""
    random = np.random.default_rng(C + O + N)
    window = Window((3, 3), padding=padding, end=end)
    x = np.maximum(random.standard_normal((C, H, W, N), dtype=np.float32), 0)
    weight = random.standard_normal((O, C, 3, 3), dtype=np.float32) * np.float32((2 / (9 * C)) ** 0.5)
    bias = random.standard_normal(O, dtype=np.float32)
    return x, weight, bias, window, (O, *window.output_size(H, W), N)


def exact(kernel, a, b, shape, window):
    """A kernel of the portable set in float64."""
    out = np.zeros(shape)
    getattr(PORTABLE, kernel)(a.astype(np.float64), b.astype(np.float64), out, window, 1)
    return out


def require_close(found, expected):
    error = found - expected
    assert np.isfinite(found).all()
    assert np.abs(error).max() < 5e-5 * np.abs(expected).max()
    assert np.sqrt((error**2).mean()) < 5e-6 * expected.std()


def uses(C, shape, window, dtype="float32", groups=1):
    return COMPILED.uses_winograd(C, shape, window, groups, np.dtype(dtype))


def nan(shape):
    return np.full(shape, np.nan, np.float32)


@pytest.mark.parametrize("N", [1, 7, 16, 33, 128])
@pytest.mark.parametrize(("shape", "padding"), list(zip(SHAPES, PADDINGS[1:], strict=True)))
def test_forward_and_gradients_are_close_to_those_of_float64(shape, padding, N):
    x, weight, bias, window, y_shape = numbers(*shape, N, *padding)
    assert uses(len(x), y_shape, window) == (winograd.lanes(x.dtype) <= N)
    y, rectified, dx, dw = nan(y_shape), nan(y_shape), nan(x.shape), nan(weight.shape)
    COMPILED.conv2d(x, weight, y, window)
    expected = exact("conv2d", x, weight, y_shape, window)
    require_close(y, expected)

    COMPILED.conv2d_activate(x, weight, bias, rectified, window, 1, RELU)
    require_close(rectified, np.maximum(expected + bias[:, None, None, None], 0))

    dy = np.random.default_rng(1).standard_normal(y_shape, dtype=np.float32)
    COMPILED.conv2d_grad_input(dy, weight, dx, window)
    require_close(dx, exact("conv2d_grad_input", dy, weight, x.shape, window))

    COMPILED.conv2d_grad_weight(x, dy, dw, window)
    require_close(dw, exact("conv2d_grad_weight", x, dy, weight.shape, window))


@pytest.mark.parametrize("N", [16, 33, 128])
def test_the_weight_gradient_of_a_narrow_layer_in_small_and_large_blocks(N):
    x, weight, _, window, y_shape = numbers(16, 16, 17, 9, N, (1, 1), (1, 1))
    dy, dw = np.random.default_rng(1).standard_normal(y_shape, dtype=np.float32), nan(weight.shape)
    COMPILED._winograd_grad_weight(x, dy, dw, window.padding)
    require_close(dw, exact("conv2d_grad_weight", x, dy, weight.shape, window))


@pytest.mark.parametrize("padding", PADDINGS)
def test_every_padding(padding):
    x, weight, _, window, y_shape = numbers(25, 26, 6, 7, 16, *padding)
    y, dx = nan(y_shape), nan(x.shape)
    COMPILED.conv2d(x, weight, y, window)
    require_close(y, exact("conv2d", x, weight, y_shape, window))
    COMPILED.conv2d_grad_input(y, weight, dx, window)
    require_close(dx, exact("conv2d_grad_input", y, weight, x.shape, window))


@pytest.mark.parametrize("O", [1, 2, 3, 5, 7, 12, 31, 32, 44, 53, 62, 128])
def test_every_number_of_rows_is_covered_by_tiles(O):
    x, weight, _, window, y_shape = numbers(24, O, 4, 4, 16, (1, 1), (1, 1))
    y = nan(y_shape)
    COMPILED._winograd(x, weight, None, y, window.padding)
    require_close(y, exact("conv2d", x, weight, y_shape, window))


@pytest.mark.parametrize("N", [16, 33, 128])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 15)])
def test_a_function_of_the_output_in_the_same_pass(size, N):
    x, weight, bias, window, y_shape = numbers(24, 29, *size, N, (1, 1), (1, 1))
    gelu, y = Function("gelu"), nan(y_shape)
    COMPILED.conv2d(x, weight, y, window)
    for own in (bias, None):
        expected, found = nan(y_shape), nan(y_shape)
        before = y + (0 if own is None else own[:, None, None, None])
        COMPILED.activate(before, gelu, expected)
        COMPILED.conv2d_activate(x, weight, own, found, window, 1, gelu)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("winners", [False, True])
@pytest.mark.parametrize("formula", [None, RELU, Function("silu")])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_pooled_numbers_are_scaled_before_the_bias_and_the_function(size, formula, winners):
    x, weight, bias, window, y_shape = numbers(24, 29, *size, 33, (1, 1), (1, 1))
    x[3, 2, 1, 5] = np.nan
    scale = np.random.default_rng(1).standard_normal(29, dtype=np.float32)  # some are negative
    shape = (len(weight), *POOL.output_size(*size), 33)
    y, found, expected = nan(y_shape), nan(shape), nan(shape)
    winner = np.zeros(shape, np.uint8) if winners else None
    COMPILED.conv2d(x, weight, y, window)
    COMPILED.max_pool2d(y, expected, None, POOL)
    COMPILED.finish(expected, scale, bias, formula)
    COMPILED.conv2d_max_pool2d(x, weight, bias, found, winner, window, 1, POOL, formula, scale)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.isnan(found).any()
    assert not np.isnan(found).all()


def test_more_channels_than_are_multiplied_at_a_time():
    x, weight, _, window, y_shape = numbers(winograd.DEPTH + 3, 24, 4, 4, 16, (1, 1), (1, 1))
    y = nan(y_shape)
    COMPILED.conv2d(x, weight, y, window)
    require_close(y, exact("conv2d", x, weight, y_shape, window))


@pytest.mark.parametrize("N", [16, 33])
@pytest.mark.parametrize(("size", "rectify"), [((8, 8), True), ((7, 9), True), ((5, 15), False)])
def test_pooling_in_the_same_pass_gives_the_same_bits(size, rectify, N):
    x, weight, bias, window, y_shape = numbers(24, 29, *size, N, (1, 1), (1, 1))
    x[3, 2, 1, 5] = np.nan  # wins wherever it gets to
    weight[4] = 0  # all equal: the first wins
    y = nan(y_shape)
    COMPILED.conv2d(x, weight, y, window)
    COMPILED.add_bias(y, bias, rectify)
    shape = (len(weight), *POOL.output_size(*size), N)
    expected, taps = nan(shape), np.zeros(shape, np.uint8)
    COMPILED.max_pool2d(y, expected, taps, POOL)
    for winner in (np.full(shape, 77, np.uint8), None):
        pooled = nan(shape)
        COMPILED.conv2d_max_pool2d(
            x, weight, bias, pooled, winner, window, 1, POOL, RELU if rectify else None
        )
        np.testing.assert_array_equal(pooled, expected)
        assert winner is None or (winner == taps).all()
    assert np.isnan(expected).any()
    assert not np.isnan(expected).all()


@pytest.mark.parametrize("pool", [Window((3, 3), (2, 2)), POOL.rounded_up(7, 7)])
@pytest.mark.parametrize("untied", [False, True])
def test_other_poolings_and_biases(pool, untied):
    x, weight, bias, window, y_shape = numbers(24, 24, 7, 7, 16, (1, 1), (1, 1))
    if untied:
        bias = np.random.default_rng(2).standard_normal(y_shape[:3], dtype=np.float32)
    shape = (len(weight), *pool.output_size(7, 7), 16)
    found, expected = nan(shape), np.zeros(shape)
    COMPILED.conv2d_max_pool2d(x, weight, bias, found, None, window, 1, pool, RELU)
    wide = [array.astype(np.float64) for array in (x, weight, bias)]
    PORTABLE.conv2d_max_pool2d(*wide, expected, None, window, 1, pool, RELU)
    require_close(found, expected)


@pytest.mark.parametrize(("pool", "rectify"), [(None, True), (POOL, True), (POOL, False)])
def test_gradients_behind_relu_and_pooling(pool, rectify):
    x, weight, bias, window, y_shape = numbers(26, 25, 9, 7, 24, (1, 1), (1, 1))
    shape = y_shape if pool is None else (y_shape[0], *pool.output_size(*y_shape[1:3]), 24)
    y, winner = nan(shape), None
    if pool is None:
        COMPILED.conv2d_activate(x, weight, bias, y, window, 1, RELU)
    else:
        winner = np.zeros(shape, np.uint8)
        COMPILED.conv2d_max_pool2d(x, weight, bias, y, winner, window, 1, pool, RELU if rectify else None)
    dy = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    found = nan(weight.shape), nan(bias.shape), nan(x.shape)
    expected = np.zeros(weight.shape), np.zeros(bias.shape), np.zeros(x.shape)
    COMPILED.conv2d_epilogue_grad(dy, x, y if rectify else None, winner, weight, window, 1, pool, *found)
    wide = [array.astype(np.float64) for array in (dy, x, y)]
    wide = wide if rectify else [*wide[:2], None]
    PORTABLE.conv2d_epilogue_grad(*wide, winner, weight.astype(np.float64), window, 1, pool, *expected)
    for gradient, value in zip(found, expected, strict=True):
        require_close(gradient, value)


@pytest.mark.parametrize("N", [16, 33, 128])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 5)])
def test_moments_of_the_output_in_the_same_pass(size, N):
    x, weight, bias, window, y_shape = numbers(24, 31, *size, N, (1, 1), (1, 1))
    bias += 30  # far from zero, as seen from its spread
    y, mean, variance = nan(y_shape), nan(bias.shape), nan(bias.shape)
    COMPILED.conv2d_moments(x, weight, bias, y, window, 1, mean, variance)
    expected = nan(y_shape)
    COMPILED.conv2d(x, weight, expected, window)
    COMPILED.add_bias(expected, bias)
    np.testing.assert_array_equal(y, expected)
    rows = y.reshape(len(y), -1).astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(variance, rows.var(axis=1), rtol=1e-5)


@pytest.mark.parametrize("channels", [24, 140])
def test_the_gradient_of_the_weight_is_the_same_each_time_and_for_threads_but_for_rounding(
    channels, monkeypatch
):
    x, weight, _, window, y_shape = numbers(channels, 130, 9, 10, 33, (1, 1), (1, 1))
    dy = np.random.default_rng(1).standard_normal(y_shape, dtype=np.float32)
    expected = exact("conv2d_grad_weight", x, dy, weight.shape, window)
    for count in (1, 2, 5):
        monkeypatch.setattr(threads, "_asked", threads.Limit(count, "the test"))
        first, again = nan(weight.shape), nan(weight.shape)
        COMPILED.conv2d_grad_weight(x, dy, first, window)
        COMPILED.conv2d_grad_weight(x, dy, again, window)
        np.testing.assert_array_equal(first, again)
        require_close(first, expected)


@pytest.mark.parametrize("N", [16, 33])
def test_two_threads_compute_what_one_does_bit_for_bit(N, monkeypatch):
    x, weight, bias, window, y_shape = numbers(40, 33, 13, 10, N, (1, 1), (1, 1))
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(threads, "_asked", threads.Limit(count, "the test"))
        pooled, winner = nan((33, 6, 5, N)), np.zeros((33, 6, 5, N), np.uint8)
        y, dx, mean, variance = nan(y_shape), nan(x.shape), nan(bias.shape), nan(bias.shape)
        COMPILED.conv2d_moments(x, weight, bias, y, window, 1, mean, variance)
        COMPILED.conv2d_max_pool2d(x, weight, bias, pooled, winner, window, 1, POOL, RELU)
        COMPILED.conv2d_grad_input(y, weight, dx, window)
        activated, scaled = nan(y_shape), nan(pooled.shape)
        COMPILED.conv2d_activate(x, weight, bias, activated, window, 1, Function("gelu"))
        COMPILED.conv2d_max_pool2d(x, weight, bias, scaled, None, window, 1, POOL, Function("gelu"), bias)
        arrays = y, mean, variance, pooled, winner, dx, activated, scaled
        results.append([array.tobytes() for array in arrays])
    assert results[0] == results[1] == results[2]


def test_images_do_not_depend_on_the_batch_around_them():
    x, weight, _, window, y_shape = numbers(24, 24, 6, 6, 40, (1, 1), (1, 1))
    y = nan(y_shape)
    COMPILED.conv2d(x, weight, y, window)
    for part in (slice(0, 17), slice(3, 35)):
        some = nan((*y_shape[:3], part.stop - part.start))
        COMPILED.conv2d(np.ascontiguousarray(x[..., part]), weight, some, window)
        np.testing.assert_array_equal(some, y[..., part])


def test_it_is_used_where_it_saves_multiplications(monkeypatch):
    monkeypatch.undo()
    window, shape = Window((3, 3), padding=(1, 1)), (64, 16, 16, 128)
    assert uses(64, shape, window)
    assert not uses(64, shape, replace(window, direct=True))
    assert not uses(64, shape, window, dtype="float64")
    assert not uses(64, shape, window, groups=2)
    for other in (Window((5, 5)), Window((3, 3), stride=(2, 2)), Window((3, 3), dilation=(2, 1))):
        assert not uses(64, shape, other)
    few = winograd.LEAST_CHANNELS - 1
    assert not uses(few, shape, window)
    assert not uses(64, (few, *shape[1:]), window)
    for OH, OW, N in ((2, 2, 128), (5, 5, 128), (16, 16, 1), (16, 16, winograd.lanes(winograd.FLOAT32) - 1)):
        assert not uses(64, (64, OH, OW, N), window)
    assert not PORTABLE.uses_winograd(64, shape, window, 1, np.dtype("float32"))


ON_OTHER_VECTORS = """
import backends.cpu.compiled.vectors as vectors
vectors.VECTOR_BYTES, vectors.MANY_REGISTERS = {nbytes}, {many}
import numpy as np
import test_winograd as tests
assert tests.winograd.lanes(np.dtype("float32")) == {nbytes} // 4
settings = tests.winograd
settings.LEAST_SAVING = settings.LEAST_SAVING_OF_WEIGHT = 0.01
settings.LEAST_CHANNELS = settings.LEAST_CHANNELS_OF_WEIGHT = 24
tests.test_forward_and_gradients_are_close_to_those_of_float64((27, 35, 9, 11), ((0, 1), (2, 0)), 33)
tests.test_other_poolings_and_biases(tests.POOL, False)
"""


@pytest.mark.parametrize(("nbytes", "many"), [(16, False), (16, True), (64, True)])
def test_vectors_and_registers_of_other_processors(nbytes, many, tmp_path):
    if (nbytes, many) == (VECTOR_BYTES, MANY_REGISTERS):
        pytest.skip("these are this processor's own, which all tests use")
    code = ON_OTHER_VECTORS.format(nbytes=nbytes, many=many)
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)} | QUICKLY
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert found.returncode == 0, found.stderr
