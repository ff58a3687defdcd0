"""What every layer keeps, on every device and kernel set; the rows are in cnn/selftest/cases.py."""

import json

import numpy as np
import pytest
from helpers import host_cuda
from helpers.devices import DEVICES, get
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.inspection.differences import results
from cnn.inspection.layer_checks import check_layer
from cnn.layers.description import describe, rebuild
from cnn.selftest.cases import LAYERS as CASES

N = 5


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(params=DEVICES)
def device(request, kernels):
    return get(request.param, kernels)


def built(case, device, dtype="float64", seed=1):
    network = cnn.Sequential(case.make())
    network.build(case.input_shape, backend=device, seed=seed, dtype=dtype)
    return network


def sample(case, batch=N, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal((*case.input_shape, batch)).astype(dtype)


def test_it_passes_the_checks_of_every_layer(case, device):
    found = check_layer(case.make(), case.input_shape, device)
    assert [(check.name, check.problem) for check in found if not check.passed] == []


def random_dy(network, batch=N, seed=2):
    shape = (*network.output_shape, batch)
    return np.random.default_rng(seed).standard_normal(shape).astype(network.dtype)


def test_the_output_has_the_shape_that_build_promised(case, device):
    network = built(case, device)
    assert network.output_shape == case.output_shape
    assert network.forward(device.asarray(sample(case))).shape == (*case.output_shape, N)


def test_training_and_inference_give_the_same_output(case, device):
    network = built(case, device)
    if network.mixes_samples or network.context.draws.counters is not None:
        pytest.skip("its training output is another one")
    x = device.asarray(sample(case))
    trained = device.to_host(network.forward(x, training=True))
    np.testing.assert_array_equal(device.to_host(network.forward(x)), trained)


def test_every_device_and_kernel_set_gives_the_same(case, device):
    reference = built(case, backends.get("cpu", kernels="portable"))
    x, dy = sample(case), random_dy(reference)
    expected = results(reference, x, dy)
    for name, value in results(built(case, device), x, dy).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, atol=1e-11, err_msg=name)


def test_one_small_block_of_columns_after_another_gives_the_same(case):
    whole = built(case, backends.get("cpu", kernels="portable"))
    rows = built(case, backends.CpuBackend("portable"))
    rows.backend.column_bytes = 1  # every output row is a block
    x, dy = sample(case), random_dy(whole)
    expected = results(whole, x, dy)
    for name, value in results(rows, x, dy).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kernels", ["portable", "signal", pytest.param("compiled", marks=host_cuda.needed)])
def test_it_runs_on_a_device_that_never_converts(case, kernels):
    network = built(case, backends.get("cpu", kernels="portable"))
    elsewhere = built(case, StandInBackend(kernels=kernels))
    x, dy = sample(case), random_dy(network)
    expected = results(network, x, dy)
    for name, value in results(elsewhere, x, dy).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("kernels", ["portable", pytest.param("compiled", marks=host_cuda.needed)])
def test_a_steady_step_allocates_nothing_large(case, kernels):
    if not case.plain:
        pytest.skip("a user's own function allocates what it likes")
    device = StandInBackend(kernels)
    network = built(case, device)
    x, dy = device.asarray(sample(case, batch=256)), device.asarray(random_dy(network, batch=256))
    for _ in range(2):
        device.reset_counters()
        network.forward(x, training=True)
        network.backward(dy)
    assert device.largest_allocation <= min(x.nbytes, dy.nbytes) / 3


def test_the_input_gradient_is_left_out_on_request(case, device):
    network = built(case, device)
    x, dy = sample(case), random_dy(network)
    expected = results(network, x, dy)
    network.flat.grad.fill(7)
    network.forward(device.asarray(x), training=True)
    network.backward(device.asarray(dy), input_grad=False)
    for name, parameter in network.parameters.items():
        np.testing.assert_array_equal(
            device.to_host(parameter.grad), expected[f"gradient of {name}"], err_msg=name
        )
    assert network.layers[0].backward(device.asarray(dy), input_grad=False) is None


def test_plain_data_is_enough_to_make_it_again(case):
    network = built(case, backends.get("cpu"))
    layer = network.layers[0]
    if not case.plain:
        with pytest.raises(cnn.CheckpointError, match="holds a function"):
            describe(layer)
        return
    twin = cnn.Sequential(rebuild(json.loads(json.dumps(describe(layer)))))
    twin.build(case.input_shape, backend="cpu", seed=1, dtype="float64")
    assert repr(twin.layers[0]) == repr(layer) or isinstance(layer, cnn.Sequential)
    np.testing.assert_array_equal(twin.forward(sample(case)), network.forward(sample(case)))
