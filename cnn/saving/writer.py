"""Writers of networks for other programs visit the layers in the order of inference."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, Generic, TypeVar

import numpy as np

from cnn.layers import Layer, Parallel, Residual, Sequential
from cnn.layers.fusion import folded, folds_into
from cnn.support.errors import ArgumentError

Value = TypeVar("Value")  # what stands for the output of a layer


class Writer(ABC, Generic[Value]):
    """Writes the layers of a network one after the other; a subclass does not see the containers.

    A batch normalization is folded into the layer before it if ``predict`` does so too.
    """

    def __init__(self, medium: str, kinds: Collection[type[Layer]]) -> None:
        """Write layers of these ``kinds`` and containers; ``medium`` is what messages call the result."""
        self._medium, self._kinds = medium, kinds

    @abstractmethod
    def write(self, layer: Any, normalization: Layer | None, value: Value) -> Value:
        """Write a layer of one of the kinds, with a normalization folded into it; -> its output."""

    @abstractmethod
    def join(self, layer: Parallel, values: list[Value]) -> Value:
        """Write how the outputs of the branches of ``layer`` are joined; -> the result."""

    def layer(self, layer: Layer, value: Value, normalization: Layer | None = None) -> Value:
        """Write any layer whose input is ``value``; -> its output.

        Raises ArgumentError for a layer that is not of these kinds, because a subclass may compute anything.
        """
        if layer.is_own and isinstance(layer, Sequential):
            return self._sequence(list(layer.in_sequence()), value)
        if layer.is_own and isinstance(layer, Parallel):
            return self.join(layer, [self.layer(branch, value) for branch in layer.branches])
        if type(layer) not in self._kinds:
            known = ", ".join(kind.__name__ for kind in (*self._kinds, Sequential, Parallel, Residual))
            raise self.refusal(layer, f"expected {known}")
        if layer.mixes_in_inference:
            raise self.refusal(layer, "it has no running averages (track_running_stats=False)")
        return self.write(layer, normalization, value)

    def _sequence(self, layers: list[Layer], value: Value) -> Value:
        while layers:
            layer = layers.pop(0)
            normalization = layers.pop(0) if folds_into(layer, layers) else None
            value = self.layer(layer, value, normalization)
        return value

    def refusal(self, layer: Layer, reason: str) -> ArgumentError:
        """The error for a layer that cannot be written."""
        return ArgumentError(f"layer {layer.label} cannot be expressed in {self._medium}: {reason}")


def weights(layer: Any, normalization: Layer | None = None) -> dict[str, Any]:
    """The parameters of ``layer`` on the host, in float32, with a normalization folded into them."""
    if normalization is None:
        arrays = {name: parameter.value for name, parameter in layer.parameters.items()}
    else:
        with layer.backend.active():
            arrays = dict(zip(("weight", "bias"), folded(layer, normalization), strict=True))
    return {name: layer.backend.to_host(array).astype(np.float32) for name, array in arrays.items()}
