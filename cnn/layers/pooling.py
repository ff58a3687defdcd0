"""Pooling."""

from math import prod

from backends import Window
from backends.kernels.sampling import Sampling
from backends.kernels.window import Pair
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.resampling import Resampled, require_samplable
from cnn.layers.window import border_bytes, make_window, require_image, window_output
from cnn.support.arguments import flag, pair, shown, size
from cnn.support.errors import ArgumentError, ShapeError


class _Pool2D(Layer):
    """What pooling layers with a sliding window share: the window and the output's shape."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None,
        padding: int | Pair,
        dilation: int | Pair,
        ceil_mode: bool,
    ) -> None:
        name = type(self).__name__
        stride = kernel_size if stride is None else stride
        even = pair(f"{name}: padding", padding, least=0)
        self.window = window = make_window(name, kernel_size, stride, even, dilation)
        self.kernel_size, self.stride = window.size, window.stride
        self.padding, self.dilation = window.padding, window.dilation
        self.ceil_mode = flag(f"{name}: ceil_mode", ceil_mode)
        if any(2 * p > k for p, k in zip(window.padding, window.size, strict=True)):
            raise ArgumentError(
                f"{name}: padding is {shown(padding)}, expected at most half of the kernel size "
                f"{shown(kernel_size)}"
            )

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        require_image(self, input_shape)
        self.window = self._window_for(*input_shape[1:])
        self.output_shape = (input_shape[0], *window_output(self, self.window, input_shape))
        for axis, length in enumerate(input_shape[1:]):
            if not self.window.always_sees(axis, length):
                raise ShapeError(
                    f"layer {self.label}: on a {input_shape[1]}x{input_shape[2]} input a window would see "
                    "padding alone; take less dilation or padding"
                )
        return self.output_shape

    def _window_for(self, height: int, width: int) -> Window:
        """The window for an input of this size."""
        return self.window.rounded_up(height, width) if self.ceil_mode else self.window


class MaxPool2D(_Pool2D):
    """The largest number under each window: (C, H, W) -> (C, OH, OW), as PyTorch's MaxPool2d.

    PyTorch's argument ``return_indices`` does not exist here.
    Windows may overlap (``stride`` less than ``kernel_size``) and reach into padding, which never
    wins. ``stride=None`` means the kernel size. With ``ceil_mode`` the output's size is rounded up: the
    last windows then reach beyond the input. Among equals the first in row-major order wins and
    alone gets the gradient; NaN propagates.
    """

    epilogue = "max_pool2d"
    reads_input = reads_output = False

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        xp = self.backend.xp
        self._winner_type = xp.dtype(xp.uint8 if self.window.taps <= 256 else xp.int32)
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        winner = self.winner(y) if training else None
        self.backend.kernels.max_pool2d(x, self._as_image(y), winner, self.window)
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.max_pool2d_grad(self._as_image(dy), self.winner(dy), dx, self.window)
        return dx

    def winner(self, y: Array) -> Array:
        """Which tap of its window each number of the latest training forward's output came from."""
        return self.buffer("winner", self._as_image(y).shape, self._winner_type)

    def _as_image(self, y: Array) -> Array:
        """The output, or its gradient, with a height and a width."""
        return y

    @property
    def kept_bytes(self) -> int:
        return prod(self.output_shape) * int(self._winner_type.itemsize)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        border = border_bytes(self, self.input_shape, self.window, batch)
        return border + 2 * prod(self.output_shape) * batch * self.master_itemsize


class GlobalMaxPool2D(MaxPool2D):
    """The largest number of each channel: (C, H, W) -> (C,), as Keras's GlobalMaxPooling2D."""

    def __init__(self) -> None:
        """Take no arguments."""

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        self.output_shape = input_shape[:1]
        return self.output_shape

    def _window_for(self, height: int, width: int) -> Window:
        return Window((height, width))

    def _as_image(self, y: Array) -> Array:
        return y.reshape(len(y), 1, 1, y.shape[-1])


class AvgPool2D(_Pool2D, Resampled):
    """The mean under each window: (C, H, W) -> (C, OH, OW), as PyTorch's AvgPool2d.

    ``stride=None`` means the kernel size. With ``ceil_mode`` the output's size is rounded up: the last
    windows then reach beyond the input. Padding counts as zeros, or with ``count_include_pad=False`` not at
    all; what lies beyond the padding never counts. ``divisor_override`` is divided by instead of the count.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        self.count_include_pad = flag("AvgPool2D: count_include_pad", count_include_pad)
        self.divisor_override = divisor_override
        if divisor_override is not None:
            self.divisor_override = size("AvgPool2D: divisor_override", divisor_override)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        divisor = self.divisor_override
        self.rows = self._means(0, None if divisor is None else 1)
        self.columns = self._means(1, divisor)
        return self.output_shape

    def _means(self, axis: int, divisor: int | None) -> Sampling:
        """The mean along an axis under each position of the window."""
        length, padding = self.input_shape[1 + axis], self.padding[axis]
        taps = []
        for position in range(self.output_shape[1 + axis]):
            begin = position * self.stride[axis] - padding
            end = min(begin + self.kernel_size[axis], length + padding)
            seen = range(max(begin, 0), min(end, length))
            count = divisor or (end - begin if self.count_include_pad else len(seen))
            taps.append(tuple((source, 1 / count) for source in seen))
        return Sampling(length, tuple(taps))


class AdaptiveAvgPool2D(Resampled):
    """The means of OH x OW parts of the image: (C, H, W) -> (C, OH, OW), as PyTorch's AdaptiveAvgPool2d.

    ``output_size`` is (OH, OW) or one number for both. If it does not divide the input, neighbouring parts
    overlap.
    """

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        self.output_size = pair("AdaptiveAvgPool2D: output_size", output_size)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        require_image(self, input_shape)
        self.output_shape = require_samplable(self, (input_shape[0], *self.output_size))
        self.rows, self.columns = map(_means_of_parts, input_shape[1:], self.output_size)
        return self.output_shape


class GlobalAvgPool2D(Resampled):
    """The mean of each channel: (C, H, W) -> (C,), as Keras's GlobalAveragePooling2D.

    The output has no height and no width, so that a Dense layer can follow.
    """

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        require_image(self, input_shape)
        self.output_shape = input_shape[:1]
        self.rows, self.columns = (_means_of_parts(length, 1) for length in input_shape[1:])
        return self.output_shape


def _means_of_parts(length: int, count: int) -> Sampling:
    """The means of ``count`` parts of an axis; ends between two positions are rounded outwards."""
    ends = [(part * length // count, -(-(part + 1) * length // count)) for part in range(count)]
    taps = (tuple((source, 1 / (end - begin)) for source in range(begin, end)) for begin, end in ends)
    return Sampling(length, tuple(taps))
