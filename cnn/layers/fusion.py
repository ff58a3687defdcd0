"""Neighbouring layers that are computed in one pass, with the same results except for rounding.

A network finds them when it is built, by asking its layers. They stay its layers; only forward and backward
go through the fused one. Their intermediate results are not kept: the output is enough for the gradient.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard

from backends.kernels.functions import RELU, Function
from cnn.layers.layer import Array, Layer, Shape


class Fused(Layer):
    """Layers in one pass: its forward and backward replace theirs."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.last = layers[-1]
        self.backend = layers[0].backend
        self._own_parameters = layers[0].parameters

    @property
    def is_trained(self) -> bool:
        return any(layer.is_trained for layer in self.layers)

    @property
    def in_one_pass(self) -> tuple[Layer, ...]:
        return self.layers

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        yield self.layers

    def kept_outputs(self) -> Iterator[Layer]:
        yield self.last

    def free_output(self) -> None:
        for layer in self.layers:
            layer.free_output()


class Joinable(Layer):
    """A layer that can end a residual block: it then adds the shortcut's output in its own pass."""

    joins = True  # whether this one can

    @abstractmethod
    def forward_joined(
        self, x: Array, training: bool, addend: Array, formula: Function | None, addend_stays: bool
    ) -> Array:
        """The function ``formula`` of the sum of the output and ``addend``.

        ``addend_stays``: whether the addend is valid until :meth:`backward_joined`. If not, ``formula`` is
        None, or one that keeps the slope, and the output is valid until then.
        """

    @abstractmethod
    def backward_joined(
        self, dy: Array, input_grad: bool, addend_grad: Array, formula: Function | None
    ) -> Array | None:
        """What ``backward`` does; the gradient of the sum is written to ``addend_grad``."""


def joins(layer: Layer) -> TypeGuard[Joinable]:
    """Whether the layer can add the shortcut's output of a residual block in its own pass."""
    return isinstance(layer, Joinable) and layer.is_own and layer.joins


@dataclass(frozen=True)
class Epilogue:
    """The layers after one with weights that inference computes in the same pass.

    They are a normalization, an activation and a max pooling, which may be the first or the last of them.
    """

    layers: tuple[Layer, ...] = ()
    normalization: Any = None
    formula: Function | None = None
    pool: Any = None


def find_epilogue(following: Sequence[Layer], pools: bool, pool_first: bool) -> Epilogue:
    """What of ``following`` can be computed in the pass of the layer before.

    ``pools``: whether this can include a pooling, and ``pool_first``: whether a normalization may follow it.
    """
    taken: list[Layer] = []

    def take(is_taken: Callable[[Layer], bool]) -> Any:
        rest = following[len(taken) : len(taken) + 1]
        if not rest or not rest[0].is_own or not is_taken(rest[0]):
            return None
        taken.append(rest[0])
        return rest[0]

    def is_pool(layer: Layer) -> bool:
        return pools and layer.epilogue == "max_pool2d"

    def folds(layer: Layer) -> bool:
        return layer.epilogue == "batch_norm" and not layer.mixes_in_inference

    pool = take(is_pool)
    normalization = take(folds) if pool is None or pool_first else None
    activation = take(lambda layer: layer.formula is not None)
    formula = None if activation is None else activation.formula
    if pool is None and formula in (None, RELU):
        pool = take(is_pool)
    return Epilogue(tuple(taken), normalization, formula, pool)


class Weighted(Layer):
    """A layer whose output is a product with a weight (O, ...), plus a bias that may be None."""

    @property
    def weights(self) -> tuple[Array, Array | None]:
        """The layer's own weight, as products read it, and bias."""
        return self.parameters["weight"].operand, getattr(self.parameters.get("bias"), "value", None)

    @abstractmethod
    def infer(
        self, x: Array, weight: Array, bias: Array | None, epilogue: Epilogue, scale: Array | None = None
    ) -> Array:
        """The output of inference with this weight and bias in place of the layer's own.

        ``epilogue`` is part of it, but for its normalization. ``scale`` is a factor of what is pooled.
        """

    def forward_with_moments(self, x: Array, mean: Array, variance: Array) -> Array:
        """The output of a training forward, whose moments are written to ``mean`` and ``variance``."""
        y = self.forward(x, training=True)
        self.backend.kernels.moments(y, mean, variance)
        return y

    @abstractmethod
    def with_epilogue(self, following: Sequence[Layer]) -> Fused | None:
        """The layer and the activation or pooling after it as one pass, also in training."""

    @abstractmethod
    def find_epilogue(self, following: Sequence[Layer]) -> Epilogue:
        """What of ``following`` inference can compute in the same pass."""

    @property
    @abstractmethod
    def bias_shape(self) -> Shape:
        """The shape of the bias, or of one that is put where there is none."""

    def fuse(self, following: Sequence[Layer]) -> Layer | None:
        fused, epilogue = self.with_epilogue(following), self.find_epilogue(following)
        together = len(fused.layers) if fused else 1
        return Folded(self, epilogue) if len(epilogue.layers) >= together else fused


class Folded(Fused, Joinable):
    """A layer with weights and an epilogue that is one pass in inference.

    A batch normalization is then folded into the weights, or if a pooling comes before it, into a scale and
    a bias of what is pooled. In training the layers run as far as they can be fused there, and the layer
    adds up what a normalization that follows it needs to know of its output.
    """

    def __init__(self, layer: Weighted, epilogue: Epilogue) -> None:
        super().__init__(layer, *epilogue.layers)
        self._layer, self._epilogue = layer, epilogue
        fused = layer.with_epilogue(epilogue.layers)
        rest = epilogue.layers[len(fused.layers) - 1 :] if fused else epilogue.layers
        self._training: list[Any] = [fused or layer, *passes(rest)]
        self._normalizes_first = epilogue.layers[0] is epilogue.normalization
        self._ones = layer.backend.zeros(layer.bias_shape[0], layer.master_dtype)
        self._ones.fill(1)

    @property
    def joins(self) -> bool:  # type: ignore[override]
        return joins(self._training[-1])

    @property
    def reads_input(self) -> bool:  # type: ignore[override]
        return self._training[0].reads_input

    @property
    def reads_output(self) -> bool:  # type: ignore[override]
        return self._training[-1].reads_output

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training:
            return self._infer(x)
        return self._training[-1].forward(self._before_last(x), training)

    def forward_joined(
        self, x: Array, training: bool, addend: Array, formula: Function | None, addend_stays: bool
    ) -> Array:
        if training:
            before = self._before_last(x)
            return self._training[-1].forward_joined(before, training, addend, formula, addend_stays)
        y = self._infer(x)
        result = self._layer.context.arena.like(y, y.shape)
        self.backend.kernels.add_activate(y, addend, formula, result)
        return result

    def _infer(self, x: Array) -> Array:
        weight, bias = self._layer.weights
        normalization, scale = self._epilogue.normalization, None
        if self._normalizes_first:
            weight, bias = folded(self._layer, normalization)
        elif normalization is not None:
            shape, dtype = self._ones.shape, self._layer.master_dtype
            scale, shift = (self._layer.buffer(name, shape, dtype) for name in ("scale", "folded bias"))
            normalization.fold(self._ones, bias, scale, shift)
            bias = shift
        return self._layer.infer(x, weight, bias, self._epilogue, scale)

    def _before_last(self, x: Array) -> Array:
        """The input of the last pass of a training forward."""
        normalization = self._epilogue.normalization
        moments = normalization.moments_before() if self._normalizes_first else None
        if moments is None:
            x = self._training[0].forward(x, training=True)
        else:
            x = self._layer.forward_with_moments(x, *moments)
            normalization.has_moments = True  # only if nothing interrupted the layer
        for layer in self._training[1:-1]:
            x = layer.forward(x, training=True)
        return x

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        return self._backward_before_last(self._training[-1].backward(dy), input_grad)

    def backward_joined(
        self, dy: Array, input_grad: bool, addend_grad: Array, formula: Function | None
    ) -> Array | None:
        last = self._training[-1].backward_joined(dy, True, addend_grad, formula)
        return self._backward_before_last(last, input_grad)

    def _backward_before_last(self, dy: Array | None, input_grad: bool) -> Array | None:
        first, *rest = self._training[:-1]
        for layer in reversed(rest):
            dy = layer.backward(dy)
        return first.backward(dy, input_grad) if input_grad or first.is_trained else None

    def workspace_bytes(self, batch: int, trained: int) -> int:
        weight = self._layer.parameters["weight"]
        numbers = weight.size + prod(self._layer.bias_shape)
        runs = self._layer, *self._training
        most = max(layer.workspace_bytes(batch, trained) for layer in runs)
        return most + numbers * self._layer.master_itemsize

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        if not training:
            yield self.layers
            return
        for layer in self._training:
            yield from layer.walk_passes(training)

    def kept_outputs(self) -> Iterator[Layer]:
        for layer in self._training:
            yield from layer.kept_outputs()


def folded(layer: Weighted, normalization: Any) -> tuple[Array, Array]:
    """The weight and bias with which ``layer`` gives in inference what ``normalization`` makes of its output.

    They are computed on the device, from the weights and running averages of now.
    """
    weight, (_, bias) = layer.parameters["weight"].value, layer.weights
    folded_bias = layer.buffer("folded bias", layer.bias_shape, layer.master_dtype)
    result = layer.buffer("folded weight", weight.shape), folded_bias
    normalization.fold(weight, bias, *result)
    return result


def folds_into(layer: Layer, following: Sequence[Layer]) -> bool:
    """Whether the first of ``following`` is a normalization that inference can fold into ``layer``."""
    if not (layer.is_own and isinstance(layer, Weighted)):
        return False
    return find_epilogue(following, pools=False, pool_first=False).normalization is not None


def is_dropped(layer: Layer, following: Layer) -> bool:
    """Whether training needs the output of a pass only until the one that follows has read it."""
    return not (reads_output(layer) or reads_input(following))


def reads_input(layer: Layer) -> bool:
    """Whether backward may read the input of the latest training forward."""
    return layer.reads_input or not layer.is_own


def reads_output(layer: Layer) -> bool:
    """Whether backward may read the output of the latest training forward."""
    return layer.reads_output or not layer.is_own


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
