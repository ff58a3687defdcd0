"""Layers that only look at their input differently: no copy, no arithmetic."""

from collections.abc import Sequence
from math import prod

from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support import arguments
from cnn.support.errors import ShapeError


class Reshape(Layer):
    """A sample's numbers in another shape, in the same order: any shape -> ``shape``."""

    is_view = True

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = arguments.shape("Reshape: shape", shape)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        if prod(input_shape) != prod(self.shape):
            raise ShapeError(
                f"layer {self.label}: an input of {input_shape} has {prod(input_shape)} numbers "
                f"and cannot take the shape {self.shape}, which has {prod(self.shape)}"
            )
        self.output_shape = self.shape
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        return x.reshape(*self.output_shape, x.shape[-1])

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        return dy.reshape(*self.input_shape, dy.shape[-1]) if input_grad else None


class Flatten(Reshape):
    """A sample's numbers as one vector: (C, H, W) -> (C*H*W,), in PyTorch's order."""

    def __init__(self) -> None:
        """Take no arguments."""

    def build(self, input_shape: Shape, context: Context) -> Shape:
        self.shape = (prod(input_shape),)
        return super().build(input_shape, context)
