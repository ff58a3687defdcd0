"""Initializers beside torch.nn.init's: the same distribution for the same layer."""

from functools import partial

import numpy as np
import pytest
from helpers.twins import nn, torch
from scipy import stats

import cnn

# PyTorch counts the fan-in of a weight itself; its "linear" is a gain of 1
PEERS = {
    "he_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "he_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "lecun_normal": partial(nn.init.kaiming_normal_, nonlinearity="linear"),
    "lecun_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="linear"),
    "zeros": nn.init.zeros_,
}

LAYERS = [
    (lambda name: cnn.Dense(300, initializer=name), lambda: nn.Linear(400, 300), (400,)),
    (lambda name: cnn.Conv2D(256, (5, 3), initializer=name), lambda: nn.Conv2d(32, 256, (5, 3)), (32, 9, 9)),
    (
        lambda name: cnn.Conv2D(512, 3, groups=4, initializer=name),
        lambda: nn.Conv2d(128, 512, 3, groups=4),
        (128, 9, 9),
    ),
]


def test_every_initializer_has_a_peer():
    assert {*PEERS, "ones", "dirac"} == cnn.initializers.INITIALIZERS.keys()


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (3, 5, 2, 4)])
def test_dirac_filters(shape):
    """As many filters as there are channels; PyTorch fills all of a smaller tensor."""
    weight = cnn.initializers.get("dirac")(np.random.default_rng(0), shape, 27)
    count = min(shape[:2])
    theirs = nn.init.dirac_(torch.empty(count, *shape[1:])).numpy()
    np.testing.assert_array_equal(weight[:count], theirs)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("layer", LAYERS, ids=["dense", "convolution", "convolution in groups"])
def test_weights_are_drawn_from_the_same_distribution(layer, name):
    ours, theirs, shape = layer
    network = cnn.Sequential(ours(name))
    network.build(shape, backend="cpu", seed=0, dtype="float64")
    torch.manual_seed(0)
    weight = theirs().weight.detach()
    PEERS[name](weight)
    drawn, expected = network.parameters["0.weight"].value, weight.numpy()
    assert drawn.shape == expected.shape
    # Kolmogorov and Smirnov: a factor of 1.03 would be found
    assert stats.ks_2samp(drawn.ravel(), expected.ravel()).pvalue > 0.001
    assert abs(drawn).max() == pytest.approx(abs(expected).max(), rel=0.2)


@pytest.mark.parametrize("layer", LAYERS, ids=["dense", "convolution", "convolution in groups"])
def test_biases_begin_at_zero_unlike_pytorchs(layer):
    ours, theirs, shape = layer
    network = cnn.Sequential(ours("he_normal"))
    network.build(shape, backend="cpu")
    assert not network.parameters["0.bias"].value.any()
    assert theirs().bias.any()
