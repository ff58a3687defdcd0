"""Pooling."""

from math import prod

from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.window import border_bytes, make_window, window_output
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError, ShapeError


class _Pool2D(Layer):
    """What sliding-window layers without parameters share: their window and the output's shape."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
    ) -> None:
        name = type(self).__name__
        stride = kernel_size if stride is None else stride
        self.window = window = make_window(name, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = window.size, window.stride
        self.padding, self.dilation = window.padding, window.dilation
        if any(2 * p > k for p, k in zip(window.padding, window.size, strict=True)):
            raise ArgumentError(
                f"{name}: padding is {shown(padding)}, expected at most half of the kernel size "
                f"{shown(kernel_size)}"
            )

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        self.output_shape = (input_shape[0], *window_output(self, self.window, input_shape))
        for axis, size in enumerate(input_shape[1:]):
            if not self.window.always_sees(axis, size):
                raise ShapeError(
                    f"layer {self.label}: on a {input_shape[1]}x{input_shape[2]} input a window would see "
                    "padding alone; take less dilation or padding"
                )
        return self.output_shape

    def workspace_bytes(self, batch: int, trained: int) -> int:
        itemsize = int(self.backend.xp.dtype(self.dtype).itemsize)
        return border_bytes(self, self.window, batch) + 2 * prod(self.output_shape) * batch * itemsize


class MaxPool2D(_Pool2D):
    """The largest number under each window: (C, H, W) -> (C, OH, OW), as PyTorch's MaxPool2d.

    Windows may overlap (``stride`` less than ``kernel_size``) and reach into padding, which never
    wins. ``stride=None`` means the kernel size. Among equals the first in row-major order wins and
    alone gets the gradient; NaN propagates.
    """

    epilogue = "max_pool2d"

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        xp = self.backend.xp
        self._winner_type = xp.dtype(xp.uint8 if self.window.taps <= 256 else xp.int32)
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        winner = self.winner(y) if training else None
        self.backend.kernels.max_pool2d(x, y, winner, self.window)
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.max_pool2d_grad(dy, self.winner(dy), dx, self.window)
        return dx

    def winner(self, y: Array) -> Array:
        """Which tap of its window each number of the latest training forward's output came from."""
        return self.buffer("winner", y.shape, self._winner_type)

    @property
    def kept_bytes(self) -> int:
        return super().kept_bytes + prod(self.output_shape) * self._winner_type.itemsize


class AvgPool2D(_Pool2D):
    """The mean under each window: (C, H, W) -> (C, OH, OW), as PyTorch's AvgPool2d.

    Padding counts as zeros (PyTorch's ``count_include_pad=True``). ``stride=None`` means the
    kernel size.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__(kernel_size, stride, padding)

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.backend.kernels.avg_pool2d(x, y, self.window)
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.avg_pool2d_grad(dy, dx, self.window)
        return dx
