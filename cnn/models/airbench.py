"""The networks of airbench (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU")."""

from collections.abc import Sequence

from cnn.layers import GELU, BatchNorm2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, Rescale
from cnn.network import Network


def airbench(first: Conv2D, widths: Sequence[int], classes: int = 10) -> Network:
    """Make the network: ``first``, a convolution that training may whiten, then blocks of two convolutions.

    ``widths`` are the channels of the three blocks.
    """
    layers: list[Layer] = [first, GELU()]
    for channels in widths:
        layers += [_convolution(channels), MaxPool2D(2), _normalization(), GELU()]
        layers += [_convolution(channels), _normalization(), GELU()]
    return Network(*layers, MaxPool2D(3), Flatten(), Dense(classes, bias=False), Rescale(1 / 9))


def _convolution(channels: int) -> Layer:
    return Conv2D(channels, kernel_size=3, padding="same", bias=False, initializer="dirac")


def _normalization() -> Layer:
    return BatchNorm2D(eps=1e-12, momentum=0.4, scale=False)


def airbench93(classes: int = 10) -> Network:
    """The network of airbench93; 0.57 million parameters on CIFAR-10."""
    return airbench(_colour(), (64, 128, 128), classes)  # (3, 32, 32) -> (24, 31, 31) -> (64, 15, 15) -> ...


def airbench94(classes: int = 10) -> Network:
    """The network of airbench94; 1.97 million parameters on CIFAR-10."""
    return airbench(_colour(), (64, 256, 256), classes)


def airbench_grey(classes: int = 10) -> Network:
    """The network of airbench93 for grey images; 0.57 million parameters on Fashion-MNIST."""
    return airbench(_grey(), (64, 128, 128), classes)  # (1, 28, 28) -> (18, 26, 26) -> (64, 13, 13) -> ...


def airbench_digits(classes: int = 10) -> Network:
    """A network like airbench93 for simple grey images, half as wide; 0.14 million parameters on MNIST."""
    return airbench(_grey(), (32, 64, 64), classes)


def _colour() -> Conv2D:
    """The first convolution for 3 channels: room for all 12 components of a 2x2 patch and their negatives."""
    return Conv2D(24, kernel_size=2)


def _grey() -> Conv2D:
    """The first convolution for one channel: room for all 9 components of a 3x3 patch and their negatives."""
    return Conv2D(18, kernel_size=3)
