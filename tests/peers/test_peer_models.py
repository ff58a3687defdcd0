"""ResNet-20 next to the same network in PyTorch."""

from itertools import pairwise

import numpy as np
from helpers.twins import nn, torch

import cnn


class Block(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.missing, self.stride = channels - before, stride

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        half = self.missing // 2
        kept = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(y + nn.functional.pad(kept, (0, 0, 0, 0, half, half)))


class ResNet(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, *[16] * blocks, *[32] * blocks, *[64] * blocks]
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Block(a, b, 1 if a == b else 2) for a, b in pairs))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.blocks(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(y.mean((2, 3)))


def test_resnet20_gives_the_same_outputs_and_gradients():
    torch.manual_seed(0)
    peer = ResNet(3).double()
    network = cnn.models.make("resnet20")
    network.build((3, 32, 32), backend="cpu", dtype="float64")
    values = zip(network.parameters, peer.parameters(), strict=True)
    counted = zip(network.statistics, peer.buffers(), strict=True)
    network.load_state_dict({name: value.detach().numpy() for name, value in [*values, *counted]})
    x = np.random.default_rng(0).random((4, 3, 32, 32))
    dy = np.random.default_rng(1).random((4, 10))
    y = peer(torch.tensor(x))
    y.backward(torch.tensor(dy))
    ours = network.forward(np.moveaxis(x, 0, -1).copy(), training=True)
    np.testing.assert_allclose(ours.T, y.detach().numpy(), rtol=1e-9, atol=1e-9)
    network.backward(dy.T.copy())
    for (name, parameter), weight in zip(network.parameters.items(), peer.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, weight.grad.numpy(), rtol=1e-7, atol=1e-9, err_msg=name)
