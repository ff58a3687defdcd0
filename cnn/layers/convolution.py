"""Convolution."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from backends import Window
from backends.kernels.window import Pair
from cnn.layers import initializers
from cnn.layers.epilogues import FusedConvolution
from cnn.layers.fusion import Epilogue, Fused, Weighted, find_epilogue
from cnn.layers.layer import Array, Context, Layer, Parameter, Shape
from cnn.layers.padding import PADS, ZeroPad2D
from cnn.layers.window import as_given, border_bytes, column_bytes, make_window, window_output
from cnn.support.arguments import choice, countable, flag, size
from cnn.support.errors import ArgumentError, ShapeError


class Conv2D(Weighted):
    """A bank of filters slid over an image: (C, H, W) -> (O, OH, OW).

    ``y[o] = bias[o] + sum_c weight[o, c] * x[c]``, a cross-correlation, as PyTorch's Conv2d in
    arguments, weight layout (O, C/groups, KH, KW) and meaning; named as in Keras. Wide 3x3 convolutions may
    use Winograd's algorithm (see :meth:`Network.build`); results are then within 5e-5 of the largest number.

    Parameters
    ----------
    out_channels : int
        O, the number of filters.
    kernel_size, stride, dilation : int or (int, int)
        Vertical and horizontal.
    padding : int, (int, int), ((int, int), (int, int)) or "same"
        Vertical and horizontal, the same on both sides; or ((top, bottom), (left, right)). "same" keeps the
        height and the width. If the kernel's size is even, it puts one more at the bottom and on the right.
    groups : int
        Output channels see the input channels of their own group only.
    bias : bool
        One number per output channel.
    untied_bias : bool
        A bias per output position instead, (O, OH, OW), as in the notebook.
    initializer : str
        The weight's, by name (see :mod:`cnn.initializers`); biases start at zero.
    padding_mode : str
        What the padding consists of: "zeros", "reflect" (the input mirrored at its edges) or "replicate"
        (its edges repeated).
    trainable : bool
        Whether training changes the layer.

    Raises
    ------
    ArgumentError
        For an argument out of range, and for the padding "same" with a stride.
    ShapeError
        When built on an input that is no image, too small, or not divisible into groups.
    """

    reads_output = False

    def __init__(
        self,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | tuple[Pair, Pair] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        untied_bias: bool = False,
        initializer: str = "he_normal",
        padding_mode: str = "zeros",
        *,
        trainable: bool = True,
    ) -> None:
        self.trainable = trainable
        self.out_channels = size("Conv2D: out_channels", out_channels)
        self.groups = size("Conv2D: groups", groups)
        self.bias = flag("Conv2D: bias", bias)
        self.untied_bias = flag("Conv2D: untied_bias", untied_bias)
        if self.untied_bias and not self.bias:
            raise ArgumentError("Conv2D: untied_bias=True with bias=False, expected one or the other")
        self.initializer = initializers.require(initializer, "Conv2D")
        self.window = window = make_window("Conv2D", kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = window.size, window.stride
        self.padding, self.dilation = as_given(padding, window), window.dilation
        self.padding_mode = choice("Conv2D: padding_mode", padding_mode, list(PADS))
        if self.out_channels % self.groups:
            raise ArgumentError(
                f"Conv2D: out_channels is {out_channels}, expected a multiple of groups, {groups}"
            )

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        seen_shape = input_shape
        self.pad: ZeroPad2D | None = None  # puts the padding that is not zeros around the input
        if self.padding_mode != "zeros":
            (top, left), (bottom, right) = self.window.padding, self.window.end
            self.pad = PADS[self.padding_mode]((left, right, top, bottom))
            seen_shape = self.pad.build(input_shape, replace(context, path=f"{self.label}'s"))
            self.window = Window(self.kernel_size, self.stride, dilation=self.dilation)
        self.window = replace(self.window, direct=not context.winograd)
        OH, OW = window_output(self, self.window, seen_shape)
        channels = input_shape[0]
        if channels % self.groups:
            raise ShapeError(
                f"layer {self.label}: an input of {channels} channels cannot be cut into {self.groups} "
                f"groups; choose groups that divide {channels}"
            )
        self.output_shape = countable(f"layer {self.label}: the output", (self.out_channels, OH, OW))
        weight_shape = (self.out_channels, channels // self.groups, *self.window.size)
        fan_in = channels // self.groups * self.window.taps
        self._weight = self.parameter("weight", weight_shape, self.initializer, fan_in)
        if self.bias:
            self._bias = self.parameter("bias", self.bias_shape, "zeros")
        return self.output_shape

    @property
    def bias_shape(self) -> Shape:
        return self.output_shape if self.untied_bias else (self.out_channels,)

    def forward(self, x: Array, training: bool = False) -> Array:
        x = self._padded(x, training)
        y = self.output(x, training)
        self.backend.kernels.conv2d_activate(x, *self.weights, y, self.window, self.groups, None)
        if training:
            self._x = x
        return y

    def forward_with_moments(self, x: Array, mean: Array, variance: Array) -> Array:
        self._x = x = self._padded(x, training=True)
        y = self.output(x, training=True)
        kernel = self.backend.kernels.conv2d_moments
        kernel(x, *self.weights, y, self.window, self.groups, mean, variance)
        return y

    def infer(
        self, x: Array, weight: Array, bias: Array | None, epilogue: Epilogue, scale: Array | None = None
    ) -> Array:
        x = self._padded(x, training=False)
        y = epilogue.layers[-1].output(x, training=False)
        kernels, pool, formula = self.backend.kernels, epilogue.pool, epilogue.formula
        how = self.window, self.groups
        if pool is None:
            kernels.conv2d_activate(x, weight, bias, y, *how, formula)
        else:
            kernels.conv2d_max_pool2d(x, weight, bias, y, None, *how, pool.window, formula, scale)
        return y

    def _padded(self, x: Array, training: bool) -> Array:
        if self.pad is None:
            return x
        if not training:
            return self.pad.forward(x)
        padded = self.buffer("padded", (*self.pad.output_shape, x.shape[-1]))  # which blocks may share
        self.pad.resample(x, padded)
        return padded

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        self.backend.kernels.conv2d_grad_weight(self._x, dy, self._weight.grad, self.window, self.groups)
        if self.bias:
            self.backend.kernels.sum_rows(dy, self._bias.grad)
        if not input_grad:
            return None
        seen_shape = self.input_shape if self.pad is None else self.pad.output_shape
        dx = self.context.arena.like(dy, (*seen_shape, dy.shape[-1]))
        self.backend.kernels.conv2d_grad_input(dy, self._weight.operand, dx, self.window, self.groups)
        return dx if self.pad is None else self.pad.backward(dx)

    def with_epilogue(self, following: Sequence[Layer]) -> Fused | None:
        if self.pad is not None:
            return None
        match [layer.epilogue for layer in following[:2]]:
            case ["relu", "max_pool2d"]:
                return FusedConvolution(self, *following[:2])
            case ["max_pool2d", *_]:
                return FusedConvolution(self, None, following[0])
            case ["relu", *_]:
                return FusedConvolution(self, following[0])
        return None

    def find_epilogue(self, following: Sequence[Layer]) -> Epilogue:
        return find_epilogue(following, pools=True, pool_first=not self.untied_bias)

    @property
    def algorithm(self) -> str:  # type: ignore[override]
        large, dtype = (*self.output_shape, 128), self.backend.xp.dtype(self.dtype)
        kernels = self.backend.kernels
        is_used = kernels.uses_winograd(self.input_shape[0], large, self.window, self.groups, dtype)
        return "Winograd F(4x4, 3x3)" if is_used else ""

    @property
    def filters(self) -> Parameter | None:
        return self._weight

    def workspace_bytes(self, batch: int, trained: int) -> int:
        columns = column_bytes(self, self._weight.shape, self.output_shape, batch)
        padding = 0 if self.pad is None else self.pad.workspace_bytes(batch, trained)
        return max(padding, border_bytes(self, self.input_shape, self.window, batch) + columns)

    @property
    def kept_bytes(self) -> int:
        seen = 0 if self.pad is None else prod(self.pad.output_shape)
        return seen * self.itemsize

    @property
    def multiply_adds(self) -> int:
        _, OH, OW = self.output_shape
        return self._weight.size * OH * OW
