"""Layers with weights and what follows them, in one pass."""

from math import prod
from typing import Any

from backends.kernels.functions import RELU
from cnn.layers.fusion import Fused
from cnn.layers.layer import Array, Layer


class FusedConvolution(Fused):
    """A convolution with ReLU, max pooling, or both of them. The convolution's output is not kept."""

    def __init__(self, convolution: Any, relu: Layer | None, pool: Any = None) -> None:
        super().__init__(convolution, *(layer for layer in (relu, pool) if layer is not None))
        self.convolution, self.relu, self.pool = convolution, relu, pool
        self._weight, self._bias = self.parameters["weight"], self.parameters.get("bias")

    @property
    def reads_output(self) -> bool:  # type: ignore[override]
        return self.relu is not None

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.last.output(x, training)
        winner = self.pool.winner(y) if training and self.pool is not None else None
        weight, bias = self.convolution.weights
        window, groups = self.convolution.window, self.convolution.groups
        if self.pool is None:
            self.backend.kernels.conv2d_activate(x, weight, bias, y, window, groups, RELU)
        else:
            pool, formula = self.pool.window, None if self.relu is None else RELU
            self.backend.kernels.conv2d_max_pool2d(x, weight, bias, y, winner, window, groups, pool, formula)
        if training:
            self._x, self._y, self._winner = x, y, winner
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        convolution = self.convolution
        dx = convolution.input_gradient(dy) if input_grad else None
        self.backend.kernels.conv2d_epilogue_grad(
            dy, self._x, None if self.relu is None else self._y, self._winner,
            self._weight.operand, convolution.window, convolution.groups,
            None if self.pool is None else self.pool.window,
            weight_grad=self._weight.grad, bias_grad=None if self._bias is None else self._bias.grad, dx=dx,
        )  # fmt: skip
        return dx

    def workspace_bytes(self, batch: int, trained: int) -> int:
        itemsize = self.convolution.master_itemsize
        y, grad = (prod(self.convolution.output_shape) * count * itemsize for count in (batch, trained))
        rectified = prod(self.last.output_shape) * trained * itemsize
        extra = y + grad + rectified if self.pool else grad
        return max(layer.workspace_bytes(batch, trained) for layer in self.layers) + extra


class FusedDense(Fused):
    """A fully connected layer with ReLU."""

    def __init__(self, dense: Any, relu: Layer) -> None:
        super().__init__(dense, relu)
        self.dense = dense
        self._bias = self.parameters.get("bias")

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.last.output(x, training)
        self.dense.multiply(x, y, training)
        _, bias = self.dense.weights
        self.backend.kernels.finish(y, None, bias, RELU)
        if training:
            self._y = y
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        grad = self.dense.context.arena.like(dy, dy.shape)
        sums = None if self._bias is None else self._bias.grad
        self.backend.kernels.relu_grad(dy, self._y, grad, sums)
        return self.dense.multiply_back(grad, input_grad)
