"""The networks of airbench (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU")."""

from collections.abc import Sequence

from cnn.layers import GELU, BatchNorm2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, Rescale
from cnn.network import Network


def airbench(widths: Sequence[int], classes: int = 10) -> Network:
    """A 2x2 convolution, which training may whiten and freeze, and three blocks of two convolutions."""
    layers: list[Layer] = [Conv2D(24, kernel_size=2), GELU()]  # (3, 32, 32) -> (24, 31, 31)
    for channels in widths:  # -> (64, 15, 15) -> (256, 7, 7) -> (256, 3, 3)
        layers += [_convolution(channels), MaxPool2D(2), _normalization(), GELU()]
        layers += [_convolution(channels), _normalization(), GELU()]
    return Network(*layers, MaxPool2D(3), Flatten(), Dense(classes, bias=False), Rescale(1 / 9))


def _convolution(channels: int) -> Layer:
    return Conv2D(channels, kernel_size=3, padding="same", bias=False, initializer="dirac")


def _normalization() -> Layer:
    return BatchNorm2D(eps=1e-12, momentum=0.4, scale=False)


def airbench93(classes: int = 10) -> Network:
    """The network of airbench93; 0.57 million parameters on CIFAR-10."""
    return airbench((64, 128, 128), classes)


def airbench94(classes: int = 10) -> Network:
    """The network of airbench94; 1.97 million parameters on CIFAR-10."""
    return airbench((64, 256, 256), classes)
