"""Neighbouring layers that are computed in one pass, with the same results.

A network finds them when it is built, by asking its layers. They stay its layers; only forward and backward
go through the fused one. What lies between them is not kept: the output is enough for the gradient.
"""

from collections.abc import Sequence

from cnn.layers.layer import Layer


class Fused(Layer):
    """Layers in one pass: its forward and backward replace theirs."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.last = layers[-1]
        self.backend = layers[0].backend
        self._own_parameters = layers[0].parameters


def passes(layers: Sequence[Layer]) -> list[Layer]:
    """The layers in the order in which they run; those that can be fused are replaced by one."""
    found: list[Layer] = []
    index = 0
    while index < len(layers):
        layer = layers[index]
        fused = layer.fuse(layers[index + 1 :]) if layer.is_own else None
        found.append(fused or layer)
        index += len(fused.layers) if isinstance(fused, Fused) else 1
    return found
