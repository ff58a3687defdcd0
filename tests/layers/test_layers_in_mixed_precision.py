"""Every layer of the table in bfloat16 and float16, next to itself in float32, on the stand-in device.

Each pass of a layer rounds its output or the gradient of its input once, and reads weights that are rounded
once. So a layer is off by a few units of rounding, relative to the largest number. Layers that follow each
other add up what they are off by.
"""

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend

import cnn
from cnn.inspection.activations import watch
from cnn.inspection.differences import require_near, results
from cnn.selftest.cases import LAYERS as CASES

ml_dtypes = pytest.importorskip("ml_dtypes")
DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # the largest relative error of one rounding
ROUNDINGS = 4  # of a pass: its input's gradient, its output, its weights and its function's argument
N = 5


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=["portable", pytest.param("compiled", marks=host_cuda.needed)])
def kernels(request):
    """The kernels of the stand-in device."""
    return request.param


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


def built(case, dtype, kernels="portable"):
    network = cnn.Sequential(case.make())
    network.build(case.input_shape, backend=StandInBackend(kernels), seed=1, dtype=dtype)
    return network


def numbers(shape, dtype, seed):
    """Numbers that 16 bits have exactly, in float32."""
    return np.random.default_rng(seed).standard_normal((*shape, N)).astype(DTYPES[dtype]).astype(np.float32)


def test_it_gives_what_it_gives_in_float32_but_for_rounding(case, dtype, kernels):
    half, full = built(case, dtype, kernels), built(case, "float32")
    x, dy = numbers(half.input_shape, dtype, 0), numbers(half.output_shape, dtype, 2)
    passes = len(list(half.walk_passes()))
    expected = results(full, x, dy)
    for name, found in results(half, x, dy).items():
        assert found.dtype == np.float32, name
        require_near(name, expected[name], found, ROUNDINGS * passes * UNIT[dtype])
    to_host = half.backend.to_host
    expected, found = (to_host(net.forward(net.backend.asarray(x))) for net in (full, half))
    assert found.dtype == np.float32
    require_near("the output of inference", expected, found, ROUNDINGS * passes * UNIT[dtype])


def test_parameters_and_statistics_are_float32_and_activations_have_16_bits(case, dtype):
    network = built(case, dtype)
    results(network, numbers(network.input_shape, dtype, 0), numbers(network.output_shape, dtype, 2))
    assert (network.flat.value.dtype, network.flat.grad.dtype) == (np.float32, np.float32)
    assert all(array.dtype in (np.float32, np.int64) for array in network.state.values())
    assert network.flat.operand.dtype == DTYPES[dtype]
    seen = []
    x = network.backend.asarray(numbers(network.input_shape, dtype, 0))
    watch(network, x, lambda layer, y: seen.append(y.dtype))
    assert set(seen) <= {DTYPES[dtype]}
