"""What the compiled kernels promise beyond the contract: one pass, any processor, any threads, a cache."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from helpers.quickly import QUICKLY

import backends
import cnn
from backends import Window
from backends.cpu import threads
from backends.kernels.functions import RELU

pytest.importorskip("hypothesis")
pytest.importorskip("numba")
pytest.importorskip("threadpoolctl")
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_kernels_everywhere import SETS, convolutions

from backends.cpu.compiled.vectors import MANY_REGISTERS, VECTOR_BYTES

COMPILED = backends.get("cpu", kernels="compiled").kernels
PORTABLE = backends.get("cpu", kernels="portable").kernels


@st.composite
def pools(draw):
    """A pooling window, or none."""
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    window = Window(
        size,
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        tuple(draw(st.integers(0, length // 2)) for length in size),
        draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
    )
    return draw(st.sampled_from([None, window, Window((2, 2), (2, 2)), Window((2, 2))]))


@pytest.mark.parametrize("kernels", [COMPILED, SETS["compiled, shared out"]], ids=["compiled", "shared out"])
@settings(max_examples=120, deadline=None)
@given(
    convolutions(), pools(), st.sampled_from(["none", "tied", "untied"]), st.booleans(), st.booleans()
)  # fmt: skip
def test_one_pass_is_the_same_as_one_after_the_other(kernels, case, pool, kind, input_grad, rectify):
    rectify = rectify or pool is None
    formula = RELU if rectify else None
    window, groups, x, weight, dy = case
    O, OH, OW, N = dy.shape
    random = np.random.default_rng(O)
    bias = {"none": None, "tied": random.standard_normal(O), "untied": random.standard_normal((O, OH, OW))}[
        kind
    ]

    # one after the other, with the portable kernels
    z = np.empty(dy.shape)
    PORTABLE.conv2d(x, weight, z, window, groups)
    if bias is not None:
        z += bias[..., None] if kind == "untied" else bias[:, None, None, None]
    if rectify:
        z = np.maximum(z, 0)
    y, winner = z, None
    if pool is not None:
        rows, columns = pool.output_size(OH, OW)
        assume(rows >= 1 and columns >= 1 and pool.always_sees(0, OH) and pool.always_sees(1, OW))
        y, winner = np.empty((O, rows, columns, N)), np.empty((O, rows, columns, N), dtype=np.uint8)
        PORTABLE.max_pool2d(z, y, winner, pool)
    gradient = random.standard_normal(y.shape)
    dz = gradient
    if pool is not None:
        dz = np.empty(z.shape)
        PORTABLE.max_pool2d_grad(gradient, winner, dz, pool)
    if rectify:
        dz = dz * (z > 0)
    dw, dx = np.empty_like(weight), np.empty_like(x)
    PORTABLE.conv2d_grad_weight(x, dz, dw, window, groups)
    PORTABLE.conv2d_grad_input(dz, weight, dx, window, groups)

    # in one pass
    found, who = np.full_like(y, np.nan), None
    if pool is None:
        kernels.conv2d_activate(x, weight, bias, found, window, groups, RELU)
    else:
        who = np.empty(y.shape, dtype=np.uint8)
        kernels.conv2d_max_pool2d(x, weight, bias, found, who, window, groups, pool, formula)
        alone = np.full_like(y, np.nan)
        kernels.conv2d_max_pool2d(x, weight, bias, alone, None, window, groups, pool, formula)
        np.testing.assert_array_equal(alone, found)
    found_dw, found_dx = np.full_like(dw, np.nan), np.full_like(dx, np.nan) if input_grad else None
    found_db = None if bias is None else np.full_like(bias, np.nan)
    kernels.conv2d_epilogue_grad(
        gradient, x, found if rectify else None, who, weight, window, groups, pool,
        weight_grad=found_dw, bias_grad=found_db, dx=found_dx,
    )  # fmt: skip
    np.testing.assert_allclose(found, y, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found_dw, dw, rtol=1e-9, atol=1e-9)
    if input_grad:
        np.testing.assert_allclose(found_dx, dx, rtol=1e-9, atol=1e-9)
    if bias is not None:
        np.testing.assert_allclose(found_db, dz.sum(axis=-1 if kind == "untied" else (1, 2, 3)), atol=1e-9)


LAYERS = [(84, 120, 512), (100, 3125, 128), (10, 5000, 30), (128, 9216, 1), (300, 400, 3), (8, 64, 40000)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("O", "F", "N"), LAYERS)
def test_the_products_of_large_dense_layers_on_all_threads(O, F, N, dtype):
    random = np.random.default_rng(0)
    w, x, dy = (random.standard_normal(shape).astype(dtype) for shape in ((O, F), (F, N), (O, N)))
    tolerance = {"float32": 1e-3, "float64": 1e-10}[dtype]
    for a, b in ((w, x), (dy, x.T), (w.T, dy)):
        out = np.full((len(a), b.shape[1]), np.nan, dtype=dtype)
        COMPILED.matmul(a, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=tolerance, atol=tolerance * np.abs(out).max())


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 90),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_products_shared_out(rows, inner, columns, turned_a, turned_b, seed):
    random = np.random.default_rng(seed)
    a = random.standard_normal((inner, rows)).T if turned_a else random.standard_normal((rows, inner))
    b = random.standard_normal((columns, inner)).T if turned_b else random.standard_normal((inner, columns))
    out = np.full((rows, columns), np.nan)
    SETS["compiled, shared out"].matmul(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-10, atol=1e-11)


X = np.arange(32.0).reshape(2, 4, 4, 1)


@pytest.mark.parametrize(
    "x", [X[:, ::-1], X.astype(np.float32), X.astype(np.int64)], ids=["turned", "f4", "i8"]
)
def test_other_arrays_go_the_portable_way(x):
    weight = np.ones((3, 2, 2, 2))
    y, expected = np.empty((3, 3, 3, 1)), np.empty((3, 3, 3, 1))
    COMPILED.conv2d(x, weight, y, Window((2, 2)))
    PORTABLE.conv2d(x, weight, expected, Window((2, 2)))
    np.testing.assert_allclose(y, expected)


@pytest.mark.parametrize("labels", [np.uint8, np.int32, np.int64])
def test_labels_of_any_whole_numbers(labels):
    y = np.random.default_rng(0).standard_normal((10, 6))
    found, expected = [], []
    for kernels, results in ((COMPILED, found), (PORTABLE, expected)):
        losses, dy, sums = np.empty(6), np.empty((10, 6)), np.zeros(3)
        kernels.cross_entropy(y, np.array([0, 9, 3, 3, 1, 7], dtype=labels), losses, dy, 6, sums)
        results.append((losses, dy, sums))
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_label_beyond_the_classes_writes_nowhere_else():
    around = np.zeros((12, 6))
    losses = np.empty(6)
    COMPILED.cross_entropy(np.zeros((10, 6)), np.array([0, 10, -1, 3, 1, 7]), losses, around[1:-1], 1)
    assert np.isnan(losses[[1, 2]]).all()
    assert not around[[0, -1]].any()


@pytest.mark.parametrize("rate", [0.5, np.float32(0.5), np.array([0.5]), np.array(0.5)])
def test_a_learning_rate_may_be_any_number(rate):
    network = cnn.Sequential(cnn.Dense(2))
    network.build((3,), backend=backends.get("cpu", kernels="compiled"))
    optimizer = cnn.SGD(0.1)
    optimizer.build(network)
    network.flat.value.fill(1)
    network.flat.grad.fill(1)
    optimizer.step(rate)
    assert (network.flat.value == 0.5).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_loss_of_large_logits_keeps_its_digits(dtype):
    losses, dy = np.empty(1, dtype), np.empty((2, 1), dtype)
    COMPILED.cross_entropy(np.full((2, 1), 1000, dtype), np.zeros(1, np.intp), losses, dy, 1)
    np.testing.assert_allclose(losses, np.log(2), rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_whose_square_is_infinite_makes_no_nan_in_adam(dtype):
    value, grad = np.ones(3, dtype), np.full(3, np.finfo(dtype).max / 4, dtype)
    mean, square, powers = np.zeros(3, dtype), np.zeros(3, dtype), np.array([0.9, 0.999], dtype)
    arguments = {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.0, "decoupled": False}
    COMPILED.adam(value, grad, mean, square, powers, np.array([0.1], dtype), **arguments)
    assert square.tolist() == [np.inf] * 3
    assert value.tolist() == [1] * 3


def in_a_process(code, **environment):
    """What ``code`` prints, in a process of its own."""
    settings_ = {**os.environ, **environment, "PYTHONPATH": environment.get("PYTHONPATH", str(ROOT))}
    done = subprocess.run([sys.executable, "-c", code], env=settings_, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


STEP = """
import json, platform
import numba
{processor}
import numpy as np, backends, cnn
backend = backends.get("cpu", kernels="compiled")
from backends.cpu.threads import limit_threads
from backends.cpu.compiled.vectors import MANY_REGISTERS, VECTOR_BYTES
def gradients(threads):
    network = cnn.Sequential(
        cnn.Conv2D(6, 5, padding=2), cnn.Conv2D(16, 5), cnn.Conv2D(45, 3, stride=2), cnn.Flatten(),
        cnn.Dense(50), cnn.Dense(10))
    network.build((1, 16, 16), backend=backend, seed=0, dtype="float64")
    x = np.random.default_rng(0).uniform(0, 1, (1, 16, 16, 70))
    dy = np.random.default_rng(1).standard_normal((10, 70))
    network.forward(x, training=True)
    with limit_threads(threads):
        network.forward(x, training=True)
        network.backward(dy)
    return network.flat.grad.tolist()
print(json.dumps(dict(tiles=[VECTOR_BYTES, MANY_REGISTERS], gradients=[gradients(n) for n in {threads}])))
"""


def step(processor="", threads=(1,), **environment):
    """The registers, and the gradients with each number of ``threads``, in a process of its own."""
    return json.loads(in_a_process(STEP.format(threads=threads, processor=processor), **environment))


@pytest.fixture(scope="module")
def here():
    """A step on this processor, as it is, with one thread and with two."""
    return step(threads=(1, 2) if threads.available_cores() > 1 else (1,))


def require_same_on(tiles, here, **processor):
    """A step with other tiles than this processor's has the same gradients."""
    if tiles == [VECTOR_BYTES, MANY_REGISTERS]:
        pytest.skip("these are this processor's own tiles, which all tests use")
    there = step(**processor)
    assert there["tiles"] == tiles
    np.testing.assert_allclose(there["gradients"][0], here["gradients"][0], rtol=1e-9, atol=1e-10)


PROCESSORS = {
    "AVX2, 16 registers": ("haswell", "+avx,+avx2,+fma,+sse4.2", [32, False]),
    "SSE2": ("x86-64", "+sse2", [16, False]),
}


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="names processors of this kind alone"
)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_tiles_of_other_processors_compute_the_same(processor, here, tmp_path):
    name, features, tiles = PROCESSORS[processor]
    variables = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    require_same_on(tiles, here, **variables, **QUICKLY)


AS_ON = """
actual = numba.config.CPU_FEATURES, platform.machine
numba.config.CPU_FEATURES, platform.machine = {features!r}, lambda: {machine!r}
import backends.cpu.compiled.vectors
numba.config.CPU_FEATURES, platform.machine = actual
"""
REGISTERS = {
    "AVX-512": ("+avx512f,+avx2", "x86_64", [64, True]),
    "NEON": ("", "aarch64", [16, True]),
}


@pytest.mark.parametrize("registers", REGISTERS)
def test_the_tiles_of_other_registers_compute_the_same(registers, here, tmp_path):
    features, machine, tiles = REGISTERS[registers]  # LLVM cuts wider vectors to this processor's
    processor = AS_ON.format(features=features, machine=machine)
    require_same_on(tiles, here, processor=processor, NUMBA_CACHE_DIR=str(tmp_path), **QUICKLY)


def test_the_same_threads_give_the_same_bits_and_others_the_same_numbers(here):
    one, *more = here["gradients"]
    assert step(threads=(1, 2) if more else (1,))["gradients"] == here["gradients"]
    for other in more:
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-10)
