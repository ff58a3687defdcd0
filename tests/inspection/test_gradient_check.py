"""check_gradients finds what is wrong, and leaves the network as it was."""

import numpy as np
import pytest

import cnn


class WrongTanh(cnn.Tanh):
    def gradient(self, dy, out):
        super().gradient(dy, out)
        out *= 1.001


class WrongDense(cnn.Dense):
    def backward(self, dy, input_grad=True):
        dx = super().backward(dy, input_grad)
        self.parameters["bias"].grad[1] += 0.01
        return dx


def network_with(*layers):
    network = cnn.Sequential(cnn.Dense(4), *layers)
    network.build((3,), backend="cpu", dtype="float64")
    return network


def test_a_right_network_passes(backend):
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=backend, dtype="float64")
    before = backend.to_host(network.flat.value)
    checks = cnn.check_gradients(network, entries=3)
    assert [check.name for check in checks] == ["input", *network.parameters]
    assert all(check.passed for check in checks)
    np.testing.assert_array_equal(backend.to_host(network.flat.value), before)


def test_a_thousandth_too_much_is_found():
    checks = cnn.check_gradients(network_with(WrongTanh(), cnn.Dense(2)))
    assert {check.name for check in checks if not check.passed} == {"input", "0.weight", "0.bias"}


def test_the_parameter_that_is_wrong_is_named():
    checks = cnn.check_gradients(network_with(WrongDense(3)))
    assert [check.name for check in checks if not check.passed] == ["1.bias"]


def test_float32_is_refused():
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu")
    with pytest.raises(cnn.ArgumentError, match="dtype is float32, a gradient check needs float64"):
        cnn.check_gradients(network)


def test_frozen_parameters_are_left_out():
    net = cnn.Sequential(cnn.BatchNorm1D(trainable=False), cnn.Dense(3), cnn.Dense(2))
    net.build((4,), backend="cpu", dtype="float64")
    net.freeze("1.weight")
    checks = cnn.check_gradients(net)
    assert [check.name for check in checks] == ["input", "1.bias", "2.weight", "2.bias"]
    assert all(check.passed for check in checks)
