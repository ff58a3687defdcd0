"""Whitening: a first convolution that is computed from the training images instead of being trained."""

from typing import Any

import numpy as np

from cnn.data.dataset import Dataset
from cnn.data.preprocessing import Preprocessing
from cnn.layers import Conv2D
from cnn.network import Network
from cnn.support.arguments import instance
from cnn.support.errors import ArgumentError

SAMPLES = 5000  # images that give the patches
AT_ONCE = 64  # images whose patches are in memory together
EPSILON = 5e-4  # added to each variance, so that patches without variation are not enlarged without bound


def whiten(network: Network, train: Dataset) -> None:
    """Let the first convolution whiten the patches of the training images, and freeze it.

    The outputs of its first half are the principal components of a patch, those with the largest variance
    first, each divided by its standard deviation; the second half are their negatives, so that an activation
    such as GELU loses nothing (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.2).
    A bias becomes 0. The images are prepared as the network does: set ``network.preprocessing`` before, if
    it is to normalize them.

    Raises ArgumentError if the first layer is no convolution of all channels, or has more filters than
    2 * C * KH * KW.
    """
    instance("network", network, Network, "cnn.models.airbench94()").require_built()
    network.check_images(instance("train", train, Dataset, "cnn.data.Dataset(images, labels)").images)
    weight = _first_weight(network)
    filters, channels, height, width = weight.shape
    moments = _second_moments(network, train, (height, width))
    variances, components = np.linalg.eigh(moments)  # in ascending order
    scaled = components / np.sqrt(variances + EPSILON)  # (C * KH * KW, component)
    half = scaled.T[::-1][: filters // 2].reshape(-1, channels, height, width)
    bias = {"0.bias": np.zeros(filters)} if "0.bias" in network.parameters else {}
    network.load_state_dict(network.state_dict() | {"0.weight": np.concatenate([half, -half])} | bias)
    network.freeze("0")


def _first_weight(network: Network) -> Any:
    """The weight (O, C, KH, KW) of the first layer, or ArgumentError if it cannot whiten."""
    first = network.layers[0]
    if not isinstance(first, Conv2D) or first.parameters["weight"].shape[1] != network.input_shape[0]:
        raise ArgumentError(
            f"the first layer is {first.label}, expected a Conv2D of all channels, which whitens the images"
        )
    weight = first.parameters["weight"]
    filters, most = weight.shape[0], 2 * int(np.prod(weight.shape[1:]))
    if filters % 2 or filters > most:
        raise ArgumentError(
            f"layer {first.label} has {filters} filters: expected an even number of at most {most} to whiten "
            f"patches of {' x '.join(map(str, weight.shape[1:]))} numbers"
        )
    return weight


def _second_moments(network: Network, train: Dataset, size: tuple[int, int]) -> Any:
    """The mean of patch * patch^T over all patches of this size: (C * KH * KW, C * KH * KW).

    The images are prepared as the network does. They come from the whole set, which may be sorted by class.
    """
    chosen = np.linspace(0, len(train) - 1, min(SAMPLES, len(train))).astype(int)
    preprocessing = network.preprocessing or Preprocessing.none(network.input_shape[0])
    shift, scale = preprocessing.arrays(train.images.dtype, "float64")
    products, count = 0.0, 0
    for numbers in np.array_split(chosen, -(-len(chosen) // AT_ONCE)):
        images = (train.images[numbers] - shift[:, None, None]) * scale[:, None, None]
        patches = _patches(images, size)
        products, count = products + patches.T @ patches, count + len(patches)
    return products / count


def _patches(images: Any, size: tuple[int, int]) -> Any:
    """All patches of this size: (N, C, H, W) -> (patches, C * KH * KW)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, size, axis=(2, 3))  # (N, C, OH, OW, KH, KW)
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * size[0] * size[1])
