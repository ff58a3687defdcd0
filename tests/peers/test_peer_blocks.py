"""Normalization and branches beside torch.nn: training steps, running averages, inference, state_dict."""

import numpy as np
import pytest
from helpers.twins import at_random, batch_last, built, close, given, nn, numbers, same_step, seeds, st, torch

import cnn

MOMENTUMS = st.one_of(st.none(), st.floats(0.01, 1))


@st.composite
def normalizations(draw):
    """(ours, PyTorch's), input shape: of images or vectors."""
    channels = draw(st.integers(1, 6))
    settings = {
        "eps": draw(st.floats(1e-5, 1)),
        "momentum": draw(MOMENTUMS),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
    }
    if draw(st.booleans()):
        shape = channels, draw(st.integers(1, 5)), draw(st.integers(1, 5))
        return (cnn.BatchNorm2D(**settings), nn.BatchNorm2d(channels, **settings)), shape
    return (cnn.BatchNorm1D(**settings), nn.BatchNorm1d(channels, **settings)), (channels,)


@at_random
@given(normalizations(), st.integers(2, 33), seeds)
def test_batch_normalization(kernels, drawn, N, seed):
    layer, shape = drawn
    network, peer = built([layer], shape, kernels)
    for step in range(3):
        same_step(network, peer, numbers(seed + step, N, *shape))
    for name, value in peer.state_dict().items():
        close(name, network.state_dict()[name], value.numpy())
    peer.eval()
    x = numbers(seed, N, *shape)
    close("inference", network.forward(batch_last(x)), batch_last(peer(torch.tensor(x)).detach().numpy()))


@at_random
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.booleans(), seeds)
def test_normalization_of_samples(kernels, groups, each, axes, affine, bias, seed):
    shape = groups * each, *(3, 4)[:axes]
    eps = 0.05  # with less, a group of one or two numbers magnifies rounding
    layers = [
        (cnn.LayerNorm(eps, affine, bias), nn.LayerNorm(shape, eps, affine, bias)),
        (cnn.GroupNorm(groups, eps, affine), nn.GroupNorm(groups, groups * each, eps, affine)),
    ]
    for layer in layers:
        same_step(*built([layer], shape, kernels), numbers(seed, 5, *shape))


class Block(nn.Module):
    """A residual block as others write it."""

    def __init__(self, layers, shortcut):
        super().__init__()
        for name, layer in layers.named_children():
            self.add_module(name, layer)
        self.names = [name for name, _ in layers.named_children()]
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x):
        y = x
        for name in self.names:
            y = getattr(self, name)(y)
        return y + (self.shortcut(x) if hasattr(self, "shortcut") else x)


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_residual_network(kernels, shortcut):
    torch.manual_seed(0)
    channels = 5 if shortcut else 3
    ours = cnn.Residual(
        cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(),
        cnn.Conv2D(channels, 3, padding=1),
        shortcut=cnn.Conv2D(channels, 1) if shortcut else None,
    )  # fmt: skip
    theirs = Block(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, channels, 3, padding=1),
        ),
        nn.Conv2d(3, channels, 1) if shortcut else None,
    )  # fmt: skip
    network, peer = built([(ours, theirs), (cnn.Flatten(), nn.Flatten())], (3, 6, 5), kernels)
    assert network.state_dict().keys() == peer.state_dict().keys()
    for seed in range(3):
        same_step(network, peer, numbers(seed, 7, 3, 6, 5))
    peer.eval()  # here the normalization is folded into the convolution
    x = numbers(3, 7, 3, 6, 5)
    close("inference", network.forward(batch_last(x)), batch_last(peer(torch.tensor(x))))


def test_dropout_keeps_as_many_and_scales_as_pytorch():
    x = np.ones((1, 100, 200))
    network = cnn.Sequential(cnn.Dropout(0.3))
    network.build(x.shape[:2], backend="cpu", dtype="float64")
    ours = network.forward(x, training=True)
    theirs = nn.Dropout(0.3)(torch.ones(100, 200, dtype=torch.float64)).numpy()
    assert set(np.unique(ours).round(12)) == set(np.unique(theirs).round(12))
    assert abs((ours > 0).mean() - 0.7) < 0.01
