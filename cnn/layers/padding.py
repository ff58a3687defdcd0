"""Padding around images."""

from backends.kernels.sampling import Sampling
from cnn.layers.layer import Context, Shape
from cnn.layers.resampling import Resampled, require_samplable
from cnn.layers.window import require_image
from cnn.support.arguments import row, shown, size
from cnn.support.errors import ArgumentError, ShapeError


class ZeroPad2D(Resampled):
    """Zeros around the image: (C, H, W) -> (C, H + top + bottom, W + left + right), as PyTorch's ZeroPad2d.

    ``padding`` is (left, right, top, bottom), in PyTorch's order, or one number for all four.
    """

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        name = f"{type(self).__name__}: padding"
        sides = row(padding) or (padding,) * 4
        if len(sides) != 4:
            raise ArgumentError(
                f"{name} is {shown(padding)}, expected one number or four: (left, right, top, bottom)"
            )
        self.padding = tuple(size(name, side, least=0) for side in sides)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        left, right, top, bottom = self.padding
        require_image(self, input_shape)
        C, H, W = input_shape
        shape = C, H + top + bottom, W + left + right
        self.output_shape = require_samplable(self, shape)
        self.rows = self._padded(H, top, bottom)
        self.columns = self._padded(W, left, right)
        return self.output_shape

    def _padded(self, length: int, before: int, after: int) -> Sampling:
        """An axis of the input with its padding."""
        sources = (self._source(position, length) for position in range(-before, length + after))
        return Sampling(length, tuple(() if source is None else ((source, 1.0),) for source in sources))

    def _source(self, position: int, length: int) -> int | None:
        """The position of an axis of the input that is seen at ``position``; None: a zero."""
        return position if 0 <= position < length else None


class ReflectionPad2D(ZeroPad2D):
    """The image mirrored at its edges, which are not repeated, as PyTorch's ReflectionPad2d.

    The padding must be less than the image's height or width. Otherwise like :class:`ZeroPad2D`.
    """

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        left, right, top, bottom = self.padding
        if max(top, bottom) >= input_shape[1] or max(left, right) >= input_shape[2]:
            raise ShapeError(
                f"layer {self.label}: the padding (left, right, top, bottom) is {self.padding}, expected "
                f"less than the width and the height of the input, which is {input_shape[1]}x{input_shape[2]}"
            )
        return self.output_shape

    def _source(self, position: int, length: int) -> int:
        last = length - 1
        return last - abs(last - abs(position))


class ReplicationPad2D(ZeroPad2D):
    """The image with its edges repeated, as PyTorch's ReplicationPad2d. Otherwise like :class:`ZeroPad2D`."""

    def _source(self, position: int, length: int) -> int:
        return min(max(position, 0), length - 1)


PADS: dict[str, type[ZeroPad2D]] = {
    "zeros": ZeroPad2D,
    "reflect": ReflectionPad2D,
    "replicate": ReplicationPad2D,
}
"""The layer that pads, by PyTorch's name of the mode."""
