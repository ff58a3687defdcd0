"""The parts of an image on which a prediction depends: gradients of the score, and occlusion."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from backends.interoperability import to_host
from backends.memory import Array
from cnn.data.checked import as_images
from cnn.inspection.activations import as_batch
from cnn.layers.dropout import Dropout
from cnn.network import Network
from cnn.support.arguments import whole
from cnn.support.errors import ArgumentError, ShapeError

PATCHES = 7  # across the shorter side of an image, if the size of a patch is not given
AT_ONCE = 64  # covered images


def saliency(network: Network, images: Any, classes: Sequence[int]) -> Any:
    """The gradient of a class's score with respect to the network's input: (N, C, H, W) on the host.

    The score is the network's output in inference for ``classes[n]``, so that dropout drops nothing and batch
    normalization uses its running averages: a logit, or a probability if the network ends in Softmax. The
    input is the image after preprocessing. The network stays as it is.

    Parameters
    ----------
    network
        A network whose output is a number for each class.
    images
        Images (N, C, H, W), as :meth:`Sequential.predict` takes them.
    classes
        A class for each image.

    Raises ShapeError or ArgumentError if the images or the classes do not suit the network.
    """
    images = as_images(images)
    _require_classes(network, classes, len(images))
    with network.backend.active():
        twin = _as_in_inference(network)
        x = as_batch(twin, images)
        y = twin.forward(x, training=True)
        dy = np.zeros(y.shape, dtype=network.master_dtype)
        dy[list(classes), range(len(images))] = 1
        gradient = twin.backward(network.backend.asarray(dy))
        return np.moveaxis(network.backend.to_host(gradient), -1, 0)


def occlusion(
    network: Network, image: Any, label: int, size: int | None = None, stride: int | None = None
) -> Any:
    """How much a class's probability falls if parts of the image are covered: (H, W) on the host.

    A square patch in the median colour of the image covers one place after the other. Each pixel gets the
    mean change of the probability over the patches that cover it: positive if covering it lowers the
    probability.

    Parameters
    ----------
    network
        A network whose output is a number for each class.
    image
        An image (C, H, W), as :meth:`Sequential.predict` takes a batch of them.
    label
        The class.
    size
        The side of the patch in pixels; by default a seventh of the image's shorter side.
    stride
        The distance of neighbouring patches, at most the size; by default half the size.

    Raises ShapeError or ArgumentError if an argument does not suit the network.
    """
    (image,) = to_host(as_images(image[None]))
    _require_classes(network, [label], 1)
    H, W = image.shape[1:]
    size = max(1, round(min(H, W) / PATCHES)) if size is None else min(whole("size", size), H, W)
    stride = max(1, size // 2) if stride is None else min(whole("stride", stride), size)
    places = [
        (slice(top, top + size), slice(left, left + size))
        for top in _starts(H, size, stride)
        for left in _starts(W, size, stride)
    ]
    before = float(network.predict(image[None])[0, label])
    changes, covers = np.zeros((H, W)), np.zeros((H, W))
    for some, covered in _covered(image, places):
        for place, probability in zip(some, network.predict(covered)[:, label].tolist(), strict=True):
            changes[place] += before - probability
            covers[place] += 1
    return changes / covers


def _require_classes(network: Network, classes: Sequence[int], count: int) -> None:
    network.require_built()
    if len(network.output_shape) != 1:
        raise ShapeError(f"the network's output is {network.output_shape}, expected a number for each class")
    if len(classes) != count:
        raise ShapeError(f"there are {len(classes)} classes for {count} images, expected one for each image")
    for label in classes:
        if whole("class", label, least=0) >= network.output_shape[0]:
            raise ArgumentError(f"class is {label}, expected at most {network.output_shape[0] - 1}")


def _as_in_inference(network: Network) -> Network:
    """A copy whose training forward computes what inference does, so that it has a gradient."""
    twin = network.copy()
    if twin.arrays:
        twin.freeze("*")
    for layer in twin.walk():
        if isinstance(layer, Dropout):
            layer.p = 0.0
    return twin


def _starts(length: int, size: int, stride: int) -> list[int]:
    """The first pixels of patches that together cover everything."""
    return sorted({*range(0, length - size, stride), length - size})


def _covered(image: Array, places: list[Any]) -> Iterator[tuple[list[Any], Array]]:
    """Some of the places at a time, and the images in which they are covered."""
    colour = np.median(image, axis=(1, 2), keepdims=True).astype(image.dtype)
    for start in range(0, len(places), AT_ONCE):
        some = places[start : start + AT_ONCE]
        covered = np.repeat(image[None], len(some), axis=0)
        for copy, place in zip(covered, some, strict=True):
            copy[:, *place] = colour
        yield some, covered
