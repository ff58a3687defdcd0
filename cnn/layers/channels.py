"""Layers that scale numbers or add channels, without parameters."""

from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support.arguments import number, size
from cnn.support.errors import ArgumentError, ShapeError


class Rescale(Layer):
    """Every number times ``factor``, a constant: any shape -> the same shape.

    Some networks scale down their logits this way, so that the gradient is small at the start. Raises
    ArgumentError for a factor that is 0 or less.
    """

    reads_input = reads_output = False

    def __init__(self, factor: float) -> None:
        self.factor = number("Rescale: factor", factor)
        if not self.factor:
            raise ArgumentError("Rescale: factor is 0, expected a number above 0")

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.backend.kernels.scale(x, self.factor, y)
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.scale(dy, self.factor, dx)
        return dx


class PadChannels(Layer):
    """Channels of zeros before and after those of the input: (C, H, W) -> (channels, H, W).

    Half of the new channels, rounded down, come first. Together with ``MaxPool2D(1, stride=2)`` it is the
    shortcut without parameters of the residual networks for CIFAR-10 (He et al. 2016, option A). Raises
    ShapeError, when built, for an input with more channels.
    """

    reads_input = reads_output = False

    def __init__(self, channels: int) -> None:
        self.channels = size("PadChannels: channels", channels)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        missing = self.channels - input_shape[0]
        if missing < 0:
            raise ShapeError(
                f"layer {self.label}: the input has {input_shape[0]} channels, more than {self.channels}"
            )
        self._inside = slice(missing // 2, missing // 2 + input_shape[0])
        self.output_shape = (self.channels, *input_shape[1:])
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        kernels = self.backend.kernels
        for zeros in (y[: self._inside.start], y[self._inside.stop :]):
            kernels.clear(zeros)
        kernels.copy(x, y[self._inside])
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.copy(dy[self._inside], dx)
        return dx
