"""Neighbouring layers that are computed in one pass, with the same results.

A network finds them when it is built, by asking its layers. They stay its layers; only forward and backward
go through the fused one. What lies between them is not kept: the output is enough for the gradient.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from backends.kernels.functions import Function
from cnn.layers.layer import Array, Layer, Shape


class Fused(Layer):
    """Layers in one pass: its forward and backward replace theirs."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.last = layers[-1]
        self.backend = layers[0].backend
        self._own_parameters = layers[0].parameters

    def walk_passes(self) -> Iterator[tuple[Layer, ...]]:
        yield self.layers


@dataclass
class Join:
    """What a residual block lets its last layer add to its output, in the same pass."""

    addend: Array = None
    addend_grad: Array = None  # where the gradient of the sum goes
    formula: Function | None = None  # of the activation after the sum


class Weighted(Layer):
    """A layer whose output is a product with a weight (O, ...), plus a bias that may be None."""

    @property
    def weights(self) -> tuple[Array, Array | None]:
        """The layer's own weight and bias."""
        weight, bias = (self.parameters.get(name) for name in ("weight", "bias"))
        return getattr(weight, "value", None), getattr(bias, "value", None)

    @abstractmethod
    def infer(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """The output of inference with this weight and bias in place of the layer's own."""

    def forward_with_moments(self, x: Array, mean: Array, variance: Array) -> Array:
        """The output of a training forward, whose moments are written to ``mean`` and ``variance``."""
        y = self.forward(x, training=True)
        self.backend.kernels.moments(y, mean, variance)
        return y

    @abstractmethod
    def with_epilogue(self, following: Sequence[Layer]) -> Fused | None:
        """The layer and the activation or pooling after it as one pass, which has an ``infer`` too."""

    @property
    @abstractmethod
    def bias_shape(self) -> Shape:
        """The shape of the bias, or of one that is put where there is none."""

    def fuse(self, following: Sequence[Layer]) -> Layer | None:
        if folds_into(self, following):
            return Folded(self, following[0], following[1:])
        return self.with_epilogue(following)


def folds_into(layer: Layer, following: Sequence[Layer]) -> bool:
    """Whether the first of ``following`` is a normalization that inference can fold into ``layer``."""
    if not (isinstance(layer, Weighted) and layer.is_own and following):
        return False
    return following[0].epilogue == "batch_norm" and not following[0].mixes_in_inference


def folded(layer: Weighted, normalization: Any) -> tuple[Array, Array]:
    """The weight and bias with which ``layer`` gives in inference what ``normalization`` makes of its output.

    They are computed on the device, from the weights and running averages of now.
    """
    weight, bias = layer.weights
    result = layer.buffer("folded weight", weight.shape), layer.buffer("folded bias", layer.bias_shape)
    normalization.fold(weight, bias, *result)
    return result


class Folded(Fused):
    """A layer with weights and the batch normalization after it, which inference folds into the weights.

    In training they run one after the other, and an activation that follows in the pass of the normalization.
    The layer adds up what the normalization needs to know of its output.
    In inference a ReLU or a pooling that follows runs in the pass of the layer.
    """

    def __init__(self, layer: Weighted, normalization: Layer, following: Sequence[Layer]) -> None:
        fused = layer.with_epilogue(following)
        normalized = fused or normalization.fuse(following)
        epilogue = normalized.layers[1:] if isinstance(normalized, Fused) else ()
        super().__init__(layer, normalization, *epilogue)
        self._layer = layer
        self._normalization: Any = normalization
        self._inference: Any = fused or layer
        self._after = () if fused else epilogue  # what runs by itself in inference
        self._training = [layer, *passes([normalization, *epilogue])]
        self._join: Join | None = None

    def joined(self, join: Join) -> Layer | None:
        last = self._training[-1].joined(join)
        if last is None:
            return None
        self._training[-1], self._join = last, join
        return self

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training:
            y = self._inference.infer(x, *folded(self._layer, self._normalization))
            for layer in self._after:
                y = layer.forward(y, training)
            return y if self._join is None else self._sum(y, self._join)
        moments = self._normalization.moments_before()
        if moments is None:
            x = self._layer.forward(x, training)
        else:
            x = self._layer.forward_with_moments(x, *moments)
            self._normalization.has_moments = True  # only if nothing interrupted the layer
        for layer in self._training[1:]:
            x = layer.forward(x, training)
        return x

    def _sum(self, y: Array, join: Join) -> Array:
        result = self._layer.context.scratch.beside(y, y.shape)
        self.backend.kernels.add_activate(y, join.addend, join.formula, result)
        return result

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        gradient: Array | None = dy
        for layer in reversed(self._training):
            gradient = layer.backward(gradient, input_grad or layer is not self._layer)
        return gradient

    def workspace_bytes(self, batch: int, trained: int) -> int:
        weight = self._layer.parameters["weight"]
        numbers = weight.size + prod(self._layer.bias_shape)
        runs = self._inference, *self._training
        most = max(layer.workspace_bytes(batch, trained) for layer in runs)
        return most + numbers * int(self.backend.xp.dtype(self._layer.dtype).itemsize)

    def walk_passes(self) -> Iterator[tuple[Layer, ...]]:
        for layer in self._training:
            yield from layer.walk_passes()


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
