"""Convolution."""

from typing import Any

from backends import Window
from cnn.layers import initializers
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support.arguments import flag, pair, room, size
from cnn.support.errors import ArgumentError, ShapeError


class Conv2D(Layer):
    """A bank of filters slid over an image: (C, H, W) -> (O, OH, OW).

    ``y[o] = bias[o] + sum_c weight[o, c] * x[c]``, a cross-correlation, as PyTorch's Conv2d in
    arguments, weight layout (O, C/groups, KH, KW) and meaning; named as in Keras.

    Parameters
    ----------
    out_channels : int
        O, the number of filters.
    kernel_size, stride, padding, dilation : int or (int, int)
        Vertical and horizontal; the padding is zeros on both sides.
    groups : int
        Output channels see the input channels of their own group only.
    bias : bool
        One number per output channel.
    untied_bias : bool
        A bias per output position instead, (O, OH, OW), as in the notebook.
    initializer : str
        The weight's, by name (see :mod:`cnn.initializers`); biases start at zero.

    Raises
    ------
    ArgumentError
        For an argument out of range.
    ShapeError
        When built on an input that is no image, too small, or not divisible into groups.
    """

    replayable = True

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        untied_bias: bool = False,
        initializer: str = "he_normal",
    ) -> None:
        self.out_channels = size("Conv2D: out_channels", out_channels)
        self.groups = size("Conv2D: groups", groups)
        self.bias = flag("Conv2D: bias", bias)
        self.untied_bias = flag("Conv2D: untied_bias", untied_bias)
        if self.untied_bias and not self.bias:
            raise ArgumentError("Conv2D: untied_bias=True with bias=False, expected one or the other")
        self.initializer = initializers.require(initializer, "Conv2D")
        self.window = window = make_window("Conv2D", kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = window.size, window.stride
        self.padding, self.dilation = window.padding, window.dilation
        if self.out_channels % self.groups:
            raise ArgumentError(
                f"Conv2D: out_channels is {out_channels}, expected a multiple of groups, {groups}"
            )

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        OH, OW = window_output(self, self.window, input_shape)
        channels = input_shape[0]
        if channels % self.groups:
            raise ShapeError(
                f"layer {self.label}: an input of {channels} channels cannot be cut into {self.groups} "
                f"groups; choose groups that divide {channels}"
            )
        self.output_shape = room(f"layer {self.label}: the output", (self.out_channels, OH, OW))
        weight_shape = (self.out_channels, channels // self.groups, *self.window.size)
        fan_in = channels // self.groups * self.window.taps
        self._weight = self.parameter("weight", weight_shape, self.initializer, fan_in)
        if self.bias:
            shape = self.output_shape if self.untied_bias else (self.out_channels,)
            self._bias = self.parameter("bias", shape, "zeros")
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.backend.kernels.conv2d(x, self._weight.value, y, self.window, self.groups)
        if self.untied_bias:
            self.backend.run(self.backend.xp.add, y, self._bias.value[..., None], out=y)
        elif self.bias:
            self.backend.kernels.add_bias(y, self._bias.value)
        if training:
            self._x = x
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        self.backend.kernels.conv2d_grad_weight(self._x, dy, self._weight.grad, self.window, self.groups)
        if self.untied_bias:
            self.backend.run(self.backend.xp.sum, dy, axis=-1, out=self._bias.grad)
        elif self.bias:
            self.backend.kernels.sum_rows(dy, self._bias.grad)
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.conv2d_grad_input(dy, self._weight.value, dx, self.window, self.groups)
        return dx

    @property
    def multiply_adds(self) -> int:
        _, OH, OW = self.output_shape
        return self._weight.size * OH * OW


def make_window(layer: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Window:
    """The window that a layer's arguments describe."""
    return Window(
        pair(f"{layer}: kernel_size", kernel_size),
        pair(f"{layer}: stride", stride),
        pair(f"{layer}: padding", padding, least=0),
        pair(f"{layer}: dilation", dilation),
    )


def window_output(layer: Layer, window: Window, input_shape: Shape) -> tuple[int, int]:
    """(OH, OW) of a sliding window's output on ``input_shape``, or ShapeError."""
    if len(input_shape) != 3:
        raise ShapeError(
            f"layer {layer.label}: the input is {input_shape}, expected an image (channels, height, width); "
            "put a Reshape before it"
        )
    height, width = window.padded(*input_shape[1:])
    room(f"layer {layer.label}: the input with its padding", (input_shape[0], height, width))
    if window.extent[0] > height or window.extent[1] > width:
        kernel, image = f"{window.extent[0]}x{window.extent[1]}", f"{height}x{width}"
        with_padding = " (padding included)" if window.has_padding else ""
        with_dilation = " (dilation included)" if window.dilation != (1, 1) else ""
        raise ShapeError(
            f"layer {layer.label}: a {kernel} kernel{with_dilation} does not fit a {image} input"
            f"{with_padding}; the largest that fits is {image}, or add padding"
        )
    return window.output_size(*input_shape[1:])
