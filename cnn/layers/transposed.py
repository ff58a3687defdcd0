"""Transposed convolution."""

from math import prod

from backends import Window
from cnn.layers import initializers
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.window import border_bytes, column_bytes, make_window, require_image
from cnn.support.arguments import countable, flag, pair, shown, size
from cnn.support.errors import ArgumentError, ShapeError


class ConvTranspose2D(Layer):
    """The gradient of a convolution as a layer, which enlarges an image: (C, H, W) -> (O, OH, OW).

    As PyTorch's ConvTranspose2d in arguments, weight layout (C, O/groups, KH, KW) and meaning: each number of
    the input adds a multiple of the kernel to the output. ``OH = (H - 1) * stride - 2 * padding +
    dilation * (KH - 1) + output_padding + 1``, and OW likewise.

    Parameters
    ----------
    out_channels : int
        O.
    kernel_size, stride, padding, dilation : int or (int, int)
        Those of the convolution from the output to the input, vertical and horizontal.
    output_padding : int or (int, int)
        More rows at the bottom and columns on the right, fewer than the stride or the dilation.
    groups : int
        Input and output channels are cut into so many groups, which do not see each other.
    bias : bool
        One number per output channel.
    initializer : str
        The weight's, by name (see :mod:`cnn.initializers`); biases start at zero. The fan-in is
        O/groups * KH * KW, as in PyTorch.
    trainable : bool
        Whether training changes the layer.

    Raises
    ------
    ArgumentError
        For an argument out of range.
    ShapeError
        When built on an input that is no image, not divisible into groups, or smaller than its padding.
    """

    reads_output = False

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        initializer: str = "he_normal",
        *,
        trainable: bool = True,
    ) -> None:
        self.trainable = trainable
        name = "ConvTranspose2D"
        self.out_channels = size(f"{name}: out_channels", out_channels)
        self.groups = size(f"{name}: groups", groups)
        self.bias = flag(f"{name}: bias", bias)
        self.initializer = initializers.require(initializer, name)
        even = pair(f"{name}: padding", padding, least=0)
        window = make_window(name, kernel_size, stride, even, dilation)
        self.kernel_size, self.stride = window.size, window.stride
        self.padding, self.dilation = window.padding, window.dilation
        self.output_padding = pair(f"{name}: output_padding", output_padding, least=0)
        steps = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(extra >= max(stride, dilation) for extra, stride, dilation in steps):
            raise ArgumentError(
                f"{name}: output_padding is {shown(output_padding)}, expected less than the "
                f"stride {self.stride} or the dilation {self.dilation}"
            )
        if self.out_channels % self.groups:
            raise ArgumentError(
                f"{name}: out_channels is {out_channels}, expected a multiple of groups, {groups}"
            )
        (top, left), (more_rows, more_columns) = self.padding, self.output_padding
        end = top - more_rows, left - more_columns
        # of the convolution from the output to the input: no window reaches into the output's padding
        self.window = Window(self.kernel_size, self.stride, self.padding, self.dilation, end)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        require_image(self, input_shape)
        channels = input_shape[0]
        if channels % self.groups:
            raise ShapeError(
                f"layer {self.label}: an input of {channels} channels cannot be cut into {self.groups} "
                f"groups; choose groups that divide {channels}"
            )
        window = self.window
        OH, OW = (
            (length - 1) * stride + extent - start - end
            for length, stride, extent, start, end in zip(
                input_shape[1:], window.stride, window.extent, window.padding, window.end, strict=True
            )
        )
        if OH < 1 or OW < 1:
            raise ShapeError(
                f"layer {self.label}: the output of a {input_shape[1]}x{input_shape[2]} input would be "
                f"{OH}x{OW}; take less padding"
            )
        self.output_shape = countable(f"layer {self.label}: the output", (self.out_channels, OH, OW))
        weight_shape = (channels, self.out_channels // self.groups, *window.size)
        self._weight = self.parameter("weight", weight_shape, self.initializer, prod(weight_shape[1:]))
        if self.bias:
            self._bias = self.parameter("bias", (self.out_channels,), "zeros")
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.backend.kernels.conv2d_grad_input(x, self._weight.operand, y, self.window, self.groups)
        if self.bias:
            self.backend.kernels.add_bias(y, self._bias.value)
        if training:
            self._x = x
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        self.backend.kernels.conv2d_grad_weight(dy, self._x, self._weight.grad, self.window, self.groups)
        if self.bias:
            self.backend.kernels.sum_rows(dy, self._bias.grad)
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.conv2d(dy, self._weight.operand, dx, self.window, self.groups)
        return dx

    def workspace_bytes(self, batch: int, trained: int) -> int:
        columns = column_bytes(self, self._weight.shape, self.input_shape, batch)
        return border_bytes(self, self.output_shape, self.window, batch) + columns

    @property
    def multiply_adds(self) -> int:
        return self._weight.size * prod(self.input_shape[1:])
