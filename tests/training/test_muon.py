"""Muon: which weights it makes orthogonal, and its scaling of them."""

import numpy as np
import pytest

import backends
import cnn

RANDOM = np.random.default_rng(0)


def network(kernels="portable"):
    net = cnn.Sequential(
        cnn.Conv2D(4, 3), cnn.BatchNorm2D(), cnn.Flatten(), cnn.Dense(6), cnn.Dense(3, bias=False)
    )
    net.build((2, 5, 5), backend=backends.get("cpu", kernels), dtype="float64")
    return net


def after_a_step(net, optimizer, rate):
    """The values before the step, the gradients, and the values after it."""
    before = net.state_dict()
    gradients = {name: RANDOM.normal(size=each.shape) for name, each in net.parameters.items()}
    for name, each in net.parameters.items():
        each.grad[...] = gradients[name]
    optimizer.build(net)
    optimizer.step(np.array([rate]))
    return before, gradients, net.state_dict()


@pytest.mark.parametrize("kernels", ["portable", "compiled"])
def test_the_classifier_is_trained_like_a_bias_if_only_hidden_weights_are_made_orthogonal(kernels):
    net = network(kernels)
    optimizer = cnn.Muon(0.1, momentum=0, nesterov=False, other_rate=0.5, hidden_only=True)
    before, gradients, after = after_a_step(net, optimizer, rate=0.1)
    for name in ("4.weight", "3.bias", "1.weight"):
        np.testing.assert_allclose(after[name], before[name] - 0.5 * gradients[name], rtol=1e-12)
    for name in ("0.weight", "3.weight"):
        singular = np.linalg.svd((before[name] - after[name]).reshape(len(after[name]), -1))[1] / 0.1
        assert singular.min() > 0.6
        assert singular.max() < 1.3


def test_the_last_trained_weight_counts_as_the_classifier():
    net = network()
    net.freeze("4")
    optimizer = cnn.Muon(0.1, momentum=0, nesterov=False, other_rate=0.5, hidden_only=True)
    before, gradients, after = after_a_step(net, optimizer, rate=0.1)
    np.testing.assert_allclose(after["3.weight"], before["3.weight"] - 0.5 * gradients["3.weight"])
    np.testing.assert_array_equal(after["4.weight"], before["4.weight"])


@pytest.mark.parametrize("kernels", ["portable", "compiled"])
def test_rows_of_unit_norm(kernels):
    net, plain = network(kernels), network(kernels)
    found = cnn.Muon(0.1, weight_decay=0.1, unit_rows=True)
    scaled = plain.state_dict()
    for name in ("0.weight", "3.weight", "4.weight"):
        scaled[name] = scaled[name] * (len(scaled[name]) ** 0.5 / np.linalg.norm(scaled[name]))
    plain.load_state_dict(scaled)
    _, gradients, after = after_a_step(net, found, rate=0.1)
    for name, each in plain.parameters.items():
        each.grad[...] = gradients[name]
    optimizer = cnn.Muon(0.1)
    optimizer.build(plain)
    optimizer.step(np.array([0.1]))
    for name in ("0.weight", "3.weight", "4.weight"):
        np.testing.assert_allclose(after[name], plain.state_dict()[name], rtol=1e-12)


def test_zeros_have_no_norm_and_stay_zeros():
    net = network()
    zeros = {name: np.zeros_like(value) for name, value in net.state_dict().items()}
    net.load_state_dict(net.state_dict() | {"4.weight": zeros["4.weight"]})
    optimizer = cnn.Muon(0.1, momentum=0, nesterov=False, unit_rows=True)
    optimizer.build(net)
    optimizer.step(np.array([0.1]))
    np.testing.assert_array_equal(net.state_dict()["4.weight"], zeros["4.weight"])
