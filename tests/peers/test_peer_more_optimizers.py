"""The further optimizers, groups and averages next to PyTorch's, in float64."""

import numpy as np
import pytest
from helpers.twins import built, close, nn, torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import backends
import cnn

KERNELS = ["compiled", "portable"]
PAIRS = {
    "rmsprop": (lambda: cnn.RMSprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "rmsprop with all": (
        lambda: cnn.RMSprop(0.01, 0.9, 1e-6, weight_decay=0.1, momentum=0.8, centered=True),
        lambda p: torch.optim.RMSprop(p, 0.01, 0.9, 1e-6, weight_decay=0.1, momentum=0.8, centered=True),
    ),
    "adagrad": (
        lambda: cnn.Adagrad(0.1, weight_decay=0.01),
        lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.01),
    ),
    "nadam": (
        lambda: cnn.NAdam(0.01, weight_decay=0.01, momentum_decay=0.1),
        lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.01, momentum_decay=0.1),
    ),
}


def pair(kernels):
    layers = [(cnn.Dense(3), nn.Linear(5, 3)), (cnn.Dense(2, bias=False), nn.Linear(3, 2, bias=False))]
    return built(layers, (5,), kernels)


def give_gradients(random, network, peer):
    for parameter, peers in zip(network.parameters.values(), peer.parameters(), strict=True):
        parameter.grad[...] = random.standard_normal(parameter.shape)
        peers.grad = torch.tensor(parameter.grad)


def require_same(network, peer):
    for (name, ours), theirs in zip(network.parameters.items(), peer.parameters(), strict=True):
        close(name, ours.value, theirs, 1e-10)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("named", PAIRS)
def test_ten_steps(named, kernels):
    network, peer = pair(kernels)
    ours, theirs = PAIRS[named][0](), PAIRS[named][1](peer.parameters())
    ours.build(network)
    random = np.random.default_rng(0)
    for _ in range(10):
        give_gradients(random, network, peer)
        ours.step(np.array([ours.learning_rate]))
        theirs.step()
        require_same(network, peer)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (3, 2, 3, 3)])
def test_muon_on_a_matrix(shape, monkeypatch):
    """PyTorch iterates in bfloat16, here in the weight's precision; it takes matrices only."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor)
    random = np.random.default_rng(0)
    layer = (
        cnn.Conv2D(shape[0], shape[2:], bias=False) if len(shape) == 4 else cnn.Dense(shape[0], bias=False)
    )
    network = cnn.Sequential(layer)
    network.build((shape[1], 8, 8) if len(shape) == 4 else shape[1:], backend="cpu", dtype="float64")
    (parameter,) = network.parameters.values()
    peer = torch.nn.Parameter(torch.tensor(parameter.value.reshape(shape[0], -1)))
    ours = cnn.Muon(0.02, momentum=0.9, weight_decay=0.1)
    theirs = torch.optim.Muon([peer], 0.02, weight_decay=0.1, momentum=0.9)
    ours.build(network)
    for _ in range(5):
        parameter.grad[...] = random.standard_normal(parameter.shape)
        peer.grad = torch.tensor(parameter.grad.reshape(shape[0], -1))
        ours.step(np.array([0.02]))
        theirs.step()
        close("weight", parameter.value.reshape(shape[0], -1), peer, 1e-6)  # PyTorch's momentum is scaled


@pytest.mark.parametrize("kernels", KERNELS)
def test_parameter_groups(kernels):
    network, peer = pair(kernels)
    ours = cnn.AdamW(0.01, weight_decay=0.1, groups=[cnn.Group("0.bias", rate=3, weight_decay=0)])
    first, second = peer[0], peer[1]
    others = [first.weight, second.weight]
    groups = [{"params": others}, {"params": [first.bias], "lr": 0.03, "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, 0.01, weight_decay=0.1)
    ours.build(network)
    random = np.random.default_rng(0)
    for _ in range(5):
        give_gradients(random, network, peer)
        ours.step(np.array([0.01]))
        theirs.step()
        require_same(network, peer)


def test_clipping_by_value():
    network, peer = pair("compiled")
    give_gradients(np.random.default_rng(0), network, peer)
    cnn.ClipValue(0.5).apply(network)
    nn.utils.clip_grad_value_(peer.parameters(), 0.5)
    for parameter, peers in zip(network.parameters.values(), peer.parameters(), strict=True):
        close("gradient", parameter.grad, peers.grad, 0)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_moving_average_of_weights_and_statistics(kernels):
    network = cnn.Sequential(cnn.BatchNorm1D(), cnn.Dense(2))
    network.build((5,), backend=backends.get("cpu", kernels), dtype="float64")
    peer = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 2)).double()
    state = {name: torch.tensor(value) for name, value in network.state_dict().items()}
    peer.load_state_dict(state)
    averaged = AveragedModel(peer, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    ours, theirs = cnn.EMA(cnn.SGD(0.1), decay=0.9), torch.optim.SGD(peer.parameters(), 0.1)
    ours.build(network)
    random = np.random.default_rng(0)
    for _ in range(4):
        x = random.standard_normal((7, 5))
        network.forward(x.T.copy(), training=True)
        peer(torch.tensor(x))
        give_gradients(random, network, peer)
        ours.step(np.array([0.1]))
        theirs.step()
        averaged.update_parameters(peer)
    with ours.evaluated():
        for name, value in averaged.module.state_dict().items():
            if "num_batches" not in name:
                close(name, network.state_dict()[name], value, 1e-10)
    require_same(network, peer)
