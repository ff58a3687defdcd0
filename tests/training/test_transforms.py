"""Gradient transforms: clipping, by every set of kernels and wherever a step is made."""

import pickle

import numpy as np
import pytest

import backends
import cnn
from cnn.training.step import update

GRADIENT = np.array([[3, -4, 0.0]])


def network(device, dtype="float64"):
    net = cnn.Sequential(cnn.Dense(1, bias=False))
    net.build((3,), backend=device, dtype=dtype)
    return net


def clipped(net, gradient, limit):
    """What is left of a gradient."""
    net.flat.grad[:] = 0
    net.backend.asarray(gradient, out=net.parameters["0.weight"].grad)
    cnn.ClipNorm(limit).apply(net)
    return net.backend.to_host(net.parameters["0.weight"].grad)


@pytest.fixture(params=["compiled", "portable"])
def net(request):
    return network(backends.get("cpu", request.param))


def test_a_gradient_with_a_larger_norm_is_scaled_down_to_it(backend):
    np.testing.assert_allclose(clipped(network(backend), GRADIENT, 1), GRADIENT / 5, rtol=1e-6)


def test_on_every_set_of_kernels(net):
    np.testing.assert_allclose(clipped(net, GRADIENT, 2), GRADIENT * 2 / 5, rtol=1e-6)


@pytest.mark.parametrize("gradient", [GRADIENT, 0 * GRADIENT])
def test_a_smaller_one_stays_as_it_is_bit_for_bit(net, gradient):
    np.testing.assert_array_equal(clipped(net, gradient, 5.1), gradient)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_hidden(net, bad):
    with np.errstate(invalid="ignore"):
        assert np.isnan(clipped(net, [[bad, 1, 1]], 1)).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_stays(dtype):
    net = network("cpu", dtype)
    clipped(net, GRADIENT, 1)
    assert net.flat.grad.dtype == dtype


def test_the_norm_is_of_all_layers_together():
    net = cnn.Sequential(cnn.Dense(2), cnn.Tanh(), cnn.Dense(1))
    net.build((2,), backend="cpu")
    for parameter in net.parameters.values():
        parameter.grad[...] = 1
    cnn.ClipNorm(1.5).apply(net)
    for parameter in net.parameters.values():
        np.testing.assert_allclose(parameter.grad, 1.5 / 3, rtol=1e-6)  # 9 numbers


def test_it_comes_before_the_update():
    net, optimizer = network("cpu"), cnn.SGD(1.0)
    before = net.parameters["0.weight"].value.copy()
    optimizer.build(net)
    net.parameters["0.weight"].grad[...] = GRADIENT
    update(net, optimizer, np.ones(1), [cnn.ClipNorm(1)])
    np.testing.assert_allclose(net.parameters["0.weight"].value, before - GRADIENT / 5, rtol=1e-6)


@pytest.mark.parametrize("limit", [0, -1, np.nan, np.inf, "1", None])
@pytest.mark.parametrize("kind", [cnn.ClipNorm, cnn.ClipValue])
def test_a_limit_that_is_none_is_refused(kind, limit):
    with pytest.raises(cnn.ArgumentError, match=f"limit is .*{limit}.*, expected"):
        kind(limit)


@pytest.mark.parametrize("transforms", [cnn.ClipNorm(1), [1], "clip"])
def test_fit_refuses_what_are_none(transforms):
    data = cnn.data.Dataset(np.zeros((4, 1, 2, 2), np.uint8), [0, 1, 0, 1])
    with pytest.raises(cnn.ArgumentError, match="transforms is "):
        cnn.fit(cnn.models.lenet5(), data, transforms=transforms)


def test_a_checkpoint_knows_them(tmp_path):
    random = np.random.default_rng(0)
    data = cnn.data.Dataset(random.integers(0, 256, (32, 1, 3, 1), dtype=np.uint8), random.integers(0, 2, 32))
    path = tmp_path / "c.safetensors"

    def trained(epochs, limit, **more):
        net = cnn.Sequential(cnn.Flatten(), cnn.Dense(2))
        net.build((1, 3, 1), backend="cpu")
        options = {
            "optimizer": cnn.SGD(0.5, momentum=0.9),
            "transforms": [cnn.ClipNorm(limit)],
            "batch_size": 8,
        }
        cnn.fit(net, data, epochs=epochs, **{"callbacks": []} | options | more)
        return net.flat.value

    trained(1, 0.1, callbacks=[cnn.Checkpoint(path)])
    np.testing.assert_array_equal(trained(2, 0.1, resume=path), trained(2, 0.1))
    with pytest.raises(cnn.CheckpointError, match=r"began with transforms .*0\.1.*now it is .*0\.2"):
        trained(2, 0.2, resume=path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_number_can_be_limited_by_itself(backend, dtype):
    net = network(backend, dtype)
    net.backend.asarray([[0.5, -4, np.nan]], out=net.parameters["0.weight"].grad)
    cnn.ClipValue(0.75).apply(net)
    np.testing.assert_array_equal(
        net.backend.to_host(net.parameters["0.weight"].grad), [[0.5, -0.75, np.nan]]
    )
    assert net.flat.grad.dtype == dtype


def test_transforms_follow_one_another():
    net, optimizer = network("cpu"), cnn.SGD(1.0)
    before = net.parameters["0.weight"].value.copy()
    optimizer.build(net)
    net.parameters["0.weight"].grad[...] = GRADIENT
    update(net, optimizer, np.ones(1), [cnn.ClipNorm(1), cnn.ClipValue(0.7)])
    np.testing.assert_allclose(net.parameters["0.weight"].value, before - [[0.6, -0.7, 0]], rtol=1e-6)


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(cnn.ClipNorm(2.0))) == cnn.ClipNorm(2.0)
