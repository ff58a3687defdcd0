"""The outputs of the layers of a network, seen one by one in inference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.memory import Array
from cnn.data.feed import Feed
from cnn.inspection.timing import wrapped
from cnn.layers.layer import Layer
from cnn.network import Network


@dataclass(frozen=True)
class Activation:
    """The output of a layer; ``values`` is a host array (N, C, H, W) or (N, F)."""

    layer: str  # its label: "3 Conv2D"
    values: Any


def activations(network: Network, images: Any) -> list[Activation]:
    """The outputs of all layers that do arithmetic, for host images (N, C, H, W) as for ``predict``."""
    found: list[Activation] = []

    def keep(layer: Layer, y: Array) -> None:
        values = network.backend.to_host(y).astype(network.master_dtype, copy=False)
        found.append(Activation(layer.label, values.transpose(-1, *range(values.ndim - 1))))

    with network.backend.active():
        watch(network, as_batch(network, images), keep)
    return found


def watch(network: Network, x: Array, see: Callable[[Layer, Array], None]) -> None:
    """Run an inference forward on the device batch ``x``.

    ``see(layer, y)`` gets the output of each layer that does arithmetic before the next layers overwrite it.
    """

    def watched(layer: Layer, direction: str, method: Callable[..., Array]) -> Callable[..., Array]:
        if direction == "backward" or layer.is_view:
            return method

        def call(*arguments: Any, **options: Any) -> Array:
            y = method(*arguments, **options)
            see(layer, y)
            return y

        return call

    with wrapped(network, watched):
        network.forward(x)


def as_batch(network: Network, images: Any) -> Array:
    """Images (N, C, H, W) as one preprocessed batch (C, H, W, N) on the network's device."""
    network.check_images(images)
    feed = Feed(
        network.backend, network.dtype, images, None, len(images), preprocessing=network.preprocessing
    )
    ((x, _),) = feed
    return x
