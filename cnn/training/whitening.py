"""Whitening: a first convolution that is computed from the training images instead of being trained."""

import math
from typing import Any

import numpy as np

from backends.interoperability import to_host
from cnn.data.dataset import Dataset
from cnn.data.preprocessing import Preprocessing
from cnn.data.samples import picked
from cnn.layers import Conv2D
from cnn.network import Network
from cnn.support.arguments import instance
from cnn.support.errors import ArgumentError
from cnn.support.text import dimensions

IMAGES, PATCHES = 5000, 5_000_000  # at most so many images and patches are measured
AT_ONCE = 1 << 20  # numbers of the patches that are in memory together
EPSILON = 5e-4  # added to each mean square, so that patches without variation are not enlarged without bound


def whiten(network: Network, train: Dataset) -> None:
    """Let the first convolution whiten the patches of the training images, and freeze it.

    The outputs of its first half are the principal components of a patch, those with the largest mean square
    first, each divided by its root mean square; the second half are their negatives, so that an activation
    such as GELU loses nothing (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.2).
    A bias becomes 0. The images are prepared as the network does: set ``network.preprocessing`` before, if
    it is to normalize them.

    Raises ArgumentError if the first layer is not a Conv2D that sees all channels (one inside a nested
    Sequential does not count), or if the number of its filters is odd or above 2 * C * KH * KW.
    """
    instance("network", network, Network, "cnn.models.airbench94()").require_built()
    network.check_images(instance("train", train, Dataset, "cnn.data.Dataset(images, labels)").images)
    first = _first_convolution(network)
    filters, channels, height, width = first.parameters["weight"].shape
    mean_squares, components = np.linalg.eigh(_second_moments(network, train, first))  # in ascending order
    scaled = components / np.sqrt(mean_squares + EPSILON)  # (C * KH * KW, component)
    half = scaled.T[::-1][: filters // 2].reshape(-1, channels, height, width)
    bias = {"0.bias": np.zeros(first.bias_shape)} if first.bias else {}
    network.load_state_dict(network.state_dict() | {"0.weight": np.concatenate([half, -half])} | bias)
    network.freeze("0")


def _first_convolution(network: Network) -> Conv2D:
    """The first layer, or ArgumentError if it cannot whiten."""
    first = network.layers[0]
    instead = "or leave whitening out (--no-whiten)"
    if not isinstance(first, Conv2D) or first.groups > 1:
        raise ArgumentError(
            f"the first layer is {first.label}, expected a Conv2D that sees all channels and is not inside "
            f"another layer: put one first, {instead}"
        )
    filters, *patch = first.parameters["weight"].shape
    most = 2 * math.prod(patch)
    if filters % 2 or filters > most:
        raise ArgumentError(
            f"layer {first.label} has {filters} filters, expected an even number of at most {most} to whiten "
            f"patches of {' x '.join(map(str, patch))} numbers: change it, {instead}"
        )
    extent, size = first.window.extent, network.input_shape[1:]
    if extent[0] > size[0] or extent[1] > size[1]:
        raise ArgumentError(
            f"layer {first.label} sees patches of {dimensions(extent)}, which are larger than the images of "
            f"{dimensions(size)}: give it a smaller kernel, {instead}"
        )
    return first


def _second_moments(network: Network, train: Dataset, first: Conv2D) -> Any:
    """The mean of patch * patch^T over the patches that ``first`` sees: (C * KH * KW, C * KH * KW).

    The images are prepared as the network does. They come from the whole set, which may be sorted by class.
    """
    patches = _patches(np.empty((1, *train.shape)), first)  # of each image
    images = min(IMAGES, max(1, PATCHES // len(patches)), len(train))
    chosen = np.linspace(0, len(train) - 1, images).astype(int)
    preprocessing = network.preprocessing or Preprocessing.none(network.input_shape[0])
    shift, scale = preprocessing.arrays(train.images.dtype, "float64")
    at_once = max(1, AT_ONCE // patches.size)
    products, count = 0.0, 0
    for start in range(0, images, at_once):
        numbers = to_host(picked(train.images, chosen[start : start + at_once]))
        patches = _patches((numbers - shift[:, None, None]) * scale[:, None, None], first)
        products, count = products + patches.T @ patches, count + len(patches)
    return products / count


def _patches(images: Any, convolution: Conv2D) -> Any:
    """All patches of the convolution's size and dilation: (N, C, H, W) -> (patches, C * KH * KW)."""
    window = convolution.window
    windows = np.lib.stride_tricks.sliding_window_view(images, window.extent, axis=(2, 3))
    windows = windows[..., :: window.dilation[0], :: window.dilation[1]]  # (N, C, OH, OW, KH, KW)
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * window.taps)
