"""Convolution and pooling over random shapes, strides, paddings, dilations and groups, by definition."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from helpers import host_cuda
from helpers.guarded import guarded
from helpers.host_cuda import RawModule
from helpers.standin import Array, StandInBackend

import backends
from backends import Window
from backends.cuda.kernels import convolution
from backends.kernels.sampling import Sampling

pytest.importorskip("hypothesis")
pytest.importorskip("numba")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SETS = {name: backends.get("cpu", kernels=name).kernels for name in ("compiled", "portable", "signal")}


class SharedOut:
    """The compiled kernels, each on all threads, however little there is to do."""

    def __getattr__(self, name):
        def call(*arguments, **named):
            with mock.patch("backends.cpu.compiled.jit.SMALL", 0):
                return getattr(SETS["compiled"], name)(*arguments, **named)

        return call


class CudaOnHost:
    """The CUDA kernels, compiled for the host: threads and blocks run forwards or backwards.

    What they are given lies between pages that nobody may touch.
    """

    def __init__(self, backwards, narrow=convolution.NARROW):
        self.backwards = backwards
        self.narrow = narrow
        self.kernels = StandInBackend("compiled", column_bytes=5000).kernels

    def __getattr__(self, name):
        def call(*arguments):
            fenced = [guarded(a, not self.backwards) if isinstance(a, np.ndarray) else a for a in arguments]
            arrays = [Array(a) if isinstance(a, np.ndarray) else a for a in fenced]
            backwards = mock.patch.object(RawModule, "backwards", self.backwards)
            with backwards, mock.patch.object(convolution, "NARROW", self.narrow):
                getattr(self.kernels, name)(*arrays)
            give_back(fenced, arguments)

        return call


class OnGpu:
    """The CUDA kernels where they belong."""

    def __init__(self, narrow=convolution.NARROW):
        self.narrow = narrow

    def __getattr__(self, name):
        def call(*arguments):
            device = backends.get("cuda", "compiled")
            arrays = [device.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
            with mock.patch.object(convolution, "NARROW", self.narrow):
                getattr(device.kernels, name)(*arrays)
            give_back([device.to_host(a) if device.owns(a) else a for a in arrays], arguments)

        return call


def give_back(results, arguments):
    for result, argument in zip(results, arguments, strict=True):
        if isinstance(argument, np.ndarray):
            argument[...] = result


SETS["compiled, shared out"] = SharedOut()
SETS["GPU"], SETS["GPU, by columns"] = OnGpu(), OnGpu(narrow=0)
if host_cuda.MISSING is None:
    SETS["CUDA"], SETS["CUDA, backwards"] = CudaOnHost(False), CudaOnHost(True)
    SETS["CUDA, by columns"] = CudaOnHost(False, narrow=0)


POOLING = ("compiled", "compiled, shared out", "CUDA", "CUDA, backwards", "GPU", "portable")
CONVOLVING = (*POOLING, "CUDA, by columns", "GPU, by columns", "signal")


def each_set(*names):
    """Those of the sets that there are; the CUDA kernels run on the host where it has a compiler."""
    marks = {"CUDA": host_cuda.needed, "GPU": pytest.mark.gpu}
    sets = [pytest.param(SETS.get(name), marks=marks.get(name.split(",")[0], ())) for name in names]
    return pytest.mark.parametrize("kernels", sets, ids=names)


@st.composite
def convolutions(draw):
    """(window, groups, x, weight, dy) of random shapes, batch last, in float64."""
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    window = Window(draw(pair(1, 4)), draw(pair(1, 3)), draw(pair(0, 3)), draw(pair(1, 3)))
    window = replace(window, end=draw(st.just(window.padding) | pair(-2, 3)))
    groups = draw(st.integers(1, 3))
    C, O = groups * draw(st.integers(1, 2)), groups * draw(st.one_of(st.integers(1, 3), st.integers(4, 17)))
    H, W = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    N = draw(st.one_of(st.integers(1, 4), st.integers(5, 40)))
    rows, columns = window.output_size(H, W)
    assume(rows >= 1 and columns >= 1)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.standard_normal((C, H, W, N))
    weight = random.standard_normal((O, C // groups, *window.size))
    return window, groups, x, weight, random.standard_normal((O, rows, columns, N))


def padded(x, window, value=0.0):
    (top, left), (bottom, right) = window.padding, (max(width, 0) for width in window.end)
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


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


@each_set(*CONVOLVING)
@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolution_is_its_definition(kernels, case):
    window, groups, x, weight, dy = case
    y = np.full_like(dy, np.nan)
    kernels.conv2d(x, weight, y, window, groups)
    np.testing.assert_allclose(
        y, defined_convolution(x, weight, window, groups, dy.shape), rtol=1e-10, atol=1e-10
    )


@each_set(*CONVOLVING)
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
    C, N = draw(st.integers(1, 3)), draw(st.one_of(st.integers(1, 3), st.integers(4, 20)))
    H, W = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    window = window.rounded_up(H, W) if draw(st.booleans()) else window
    rows, columns = window.output_size(H, W)
    assume(rows >= 1 and columns >= 1)
    assume(window.always_sees(0, H) and window.always_sees(1, W))  # layers refuse the others
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.integers(-2, 3, (C, H, W, N)).astype(float)
    return window, x, random.standard_normal((C, rows, columns, N))


@each_set(*POOLING)
@settings(max_examples=80, deadline=None)
@given(poolings())
def test_max_pooling_takes_the_first_largest_and_its_gradient_goes_back_there(kernels, case):
    window, x, dy = case
    y, winner = np.full_like(dy, np.nan), np.full(dy.shape, 99, dtype=np.uint8)
    kernels.max_pool2d(x, y, winner, window)
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
    alone = np.full_like(dy, np.nan)
    kernels.max_pool2d(x, alone, None, window)
    np.testing.assert_array_equal(alone, y)
    dx = np.full_like(x, np.nan)
    kernels.max_pool2d_grad(dy, winner, dx, window)
    top, left = window.padding
    np.testing.assert_allclose(
        dx, gradient[:, top : top + x.shape[1], left : left + x.shape[2]], rtol=1e-12, atol=1e-12
    )


@st.composite
def samplings(draw, size):
    """A random sampling of an axis of this length, often with many equal steps."""
    weights = st.sampled_from([1.0, 0.5, -0.25]) | st.floats(-2, 2)
    if draw(st.booleans()):
        step, count, weight = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(weights)
        first = range(draw(st.integers(0, 2)), size, step)
        return Sampling(
            size, tuple(tuple((i, weight) for i in range(f, min(f + count, size))) for f in first)
        )
    taps = st.dictionaries(st.integers(0, size - 1), weights, max_size=size)
    taps = draw(st.lists(taps.map(lambda taps: tuple(taps.items())), min_size=1, max_size=7))
    return Sampling(size, tuple(taps))


def as_product(sampling):
    """The matrix (positions of the output, those of the input) that a sampling stands for."""
    matrix = np.zeros((len(sampling), sampling.size))
    for row, taps in zip(matrix, sampling.taps, strict=True):
        for source, weight in taps:
            row[source] = weight
    return matrix


@st.composite
def resamplings(draw):
    """(x, rows, columns)."""
    C, H, W = draw(st.integers(1, 3)), draw(st.integers(1, 8)), draw(st.integers(1, 8))
    N = draw(st.one_of(st.integers(1, 3), st.integers(4, 20)))
    x = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal((C, H, W, N))
    return x, draw(samplings(H).filter(len)), draw(samplings(W).filter(len))


@each_set(*POOLING)
@settings(max_examples=80, deadline=None)
@given(resamplings())
def test_resampling_is_a_product_on_either_side_and_transposed_its_adjoint(kernels, case):
    x, rows, columns = case
    y = np.full((len(x), len(rows), len(columns), x.shape[-1]), np.nan)
    kernels.resample(x, y, rows, columns)
    expected = np.einsum("ph,qw,chwn->cpqn", as_product(rows), as_product(columns), x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    dx = np.full_like(x, np.nan)
    kernels.resample(y, dx, rows.transposed, columns.transposed)
    expected = np.einsum("ph,qw,cpqn->chwn", as_product(rows), as_product(columns), y)
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 20).flatmap(samplings))
def test_the_runs_of_a_sampling_are_the_same_sums(sampling):
    found = np.zeros((len(sampling), sampling.size))
    for to, of, weight in sampling.runs:
        targets, sources = range(len(sampling))[to], range(sampling.size)[of]
        assert len(sources) in (1, len(targets))
        assert len(sources) <= sampling.longest
        for position, target in enumerate(targets):
            found[target, sources[position % len(sources)]] += weight
    np.testing.assert_array_equal(found, as_product(sampling))


def test_a_regular_sampling_is_few_runs():
    halves = [(2 * p + i, 0.5) for p in range(100) for i in range(2)]
    means = Sampling(200, tuple(zip(halves[::2], halves[1::2], strict=True)))
    mirrored = Sampling(100, tuple(((abs(p), 1.0),) for p in range(-3, 100)))
    doubled = Sampling(50, tuple(((p // 2, 1.0),) for p in range(100)))
    assert [len(s.runs) for s in (means, means.transposed, mirrored, doubled, doubled.transposed)] == [2] * 5


@given(
    size=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
    length=st.integers(1, 9),
    up=st.booleans(),
)
def test_a_window_knows_which_taps_see_the_input(size, stride, padding, dilation, length, up):
    window = Window((size, 1), (stride, 1), (padding, 0), (dilation, 1))
    window = window.rounded_up(length, 1) if up and 2 * padding <= size else window
    count = window.output_size(length, 1)[0]
    assume(count >= 1)
    seen = set()
    for tap in range(size):
        places = {p for p in range(count) if 0 <= p * stride + tap * dilation - padding < length}
        inside = window.inside(0, tap, length)
        assert set(range(inside.start, inside.stop)) == places
        seen |= places
    if 2 * padding <= size:  # as layers insist for a pool
        assert window.always_sees(0, length) == (len(seen) == count)
