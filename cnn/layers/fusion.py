"""Neighbouring layers that a kernel set computes in one pass, with the same results.

A network finds them when it is built. They stay its layers; only its forward and backward take the way
through here. What lies between them is not kept: the output of ReLU and of pooling tells enough of it.
"""

from collections.abc import Sequence
from typing import Any

from cnn.layers.activation import ReLU
from cnn.layers.convolution import Conv2D
from cnn.layers.dense import Dense
from cnn.layers.layer import Array, Layer
from cnn.layers.pooling import MaxPool2D


class Fused:
    """Layers in one pass: its forward and backward are those of one layer in place of them all."""

    replayable = True

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers
        self.first, self.last = layers[0], layers[-1]
        self.backend = self.first.backend
        self.kernels: Any = self.backend.kernels  # of a set that ``fuses``
        self.parameters = self.first.parameters

    def forward(self, x: Array, training: bool = False) -> Array:
        x = self.backend.xp.ascontiguousarray(x, dtype=self.first.dtype)
        y = self.last.output(x, training)
        self.compute(x, y, training)
        if training:
            self._x, self._y = x, y
        return y

    def compute(self, x: Array, y: Array, training: bool) -> None:
        """``y`` = the output for ``x``."""
        raise NotImplementedError

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        raise NotImplementedError


class FusedConvolution(Fused):
    """Conv2D and ReLU, and max pooling where it follows."""

    def __init__(self, convolution: Conv2D, relu: ReLU, pool: MaxPool2D | None = None) -> None:
        super().__init__(convolution, relu, *([pool] if pool else []))
        self.convolution, self.pool = convolution, pool
        self._weight, self._bias = self.parameters["weight"], self.parameters.get("bias")

    def compute(self, x: Array, y: Array, training: bool) -> None:
        window, groups = self.convolution.window, self.convolution.groups
        bias = None if self._bias is None else self._bias.value
        if self.pool is None:
            self.kernels.conv2d_relu(x, self._weight.value, bias, y, window, groups)
        else:
            winner = self.pool.winner(y) if training else None
            self.kernels.conv2d_relu_max_pool2d(
                x, self._weight.value, bias, y, winner, window, groups, self.pool.window
            )

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        convolution, kernels = self.convolution, self.kernels
        shape = (*convolution.output_shape, dy.shape[-1])
        scratch = convolution.context.scratch
        grad = scratch.beside(dy, kernels.gradient_shape(shape, convolution.window, input_grad))
        dx = convolution.input_gradient(grad) if input_grad else None
        kernels.conv2d_relu_grad(
            self.backend.xp.ascontiguousarray(dy, dtype=convolution.dtype),
            self._x,
            self._y,
            self.pool.winner(self._y) if self.pool else None,
            self._weight.value,
            convolution.window,
            convolution.groups,
            self.pool.window if self.pool else None,
            grad=grad,
            weight_grad=self._weight.grad,
            bias_grad=None if self._bias is None else self._bias.grad,
            dx=dx,
        )
        return dx


class FusedDense(Fused):
    """Dense and ReLU."""

    def __init__(self, dense: Dense, relu: ReLU) -> None:
        super().__init__(dense, relu)
        self.dense = dense
        self._bias = self.parameters.get("bias")

    def compute(self, x: Array, y: Array, training: bool) -> None:
        self.dense.multiply(x, y, training)
        if self._bias is None:
            self.kernels.relu(y, y)
        else:
            self.kernels.add_bias(y, self._bias.value, rectify=True)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        grad = self.dense.context.scratch.beside(dy, dy.shape)
        sums = None if self._bias is None else self._bias.grad
        self.kernels.relu_grad(dy, self._y, grad, sums)
        return self.dense.multiply_back(grad, input_grad)


def passes(layers: Sequence[Layer]) -> list[Layer | Fused]:
    """The layers in the order in which they run, those that can be fused taken together."""
    found: list[Layer | Fused] = []
    index = 0
    while index < len(layers):
        fused = _fused(layers[index : index + 3])
        found.append(fused or layers[index])
        index += len(fused.layers) if fused else 1
    return found


def _fused(layers: Sequence[Layer]) -> Fused | None:
    """What the first of up to three layers is to be fused with."""
    first = layers[0]
    relu, pool = (*layers[1:], None, None)[:2]
    if type(relu) is not ReLU or not first.backend.kernels.fuses:
        return None
    if type(first) is Dense:
        return FusedDense(first, relu)
    if type(first) is not Conv2D:
        return None
    if type(pool) is MaxPool2D and pool.window.taps <= 256:
        return FusedConvolution(first, relu, pool)
    return FusedConvolution(first, relu)
