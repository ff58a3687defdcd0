"""Enlarging images."""

import struct
from math import floor

from backends.kernels.sampling import Sampling, Tap
from cnn.layers.layer import Context, Shape
from cnn.layers.resampling import Resampled, require_samplable
from cnn.layers.window import require_image
from cnn.support.arguments import choice, flag, number, row, shown
from cnn.support.errors import ArgumentError, ShapeError

MODES = ("nearest", "bilinear")


class Upsample2D(Resampled):
    """The image ``scale_factor`` times as large: (C, H, W) -> (C, OH, OW), as PyTorch's Upsample.

    Parameters
    ----------
    scale_factor : float or (float, float)
        Vertical and horizontal; OH is H times the first, rounded down. Less than 1 makes the image smaller.
    mode : str
        "nearest" repeats numbers, "bilinear" weights the four nearest ones.
    align_corners : bool
        Whether the corners of both images, instead of their edges, lie on each other; for "bilinear" alone.

    Raises
    ------
    ArgumentError
        For an argument out of range, or align_corners with "nearest".
    ShapeError
        When built on an input that is no image, or of which nothing would be left.
    """

    def __init__(
        self, scale_factor: float | tuple[float, float], mode: str = "nearest", align_corners: bool = False
    ) -> None:
        factors = row(scale_factor) or (scale_factor, scale_factor)
        if len(factors) != 2:
            raise ArgumentError(
                f"Upsample2D: scale_factor is {shown(scale_factor)}, expected one number or two"
            )
        vertical, horizontal = (number("Upsample2D: scale_factor", factor, 1e-6, 1e6) for factor in factors)
        self.scale_factor = vertical, horizontal
        self.mode = choice("Upsample2D: mode", mode, MODES)
        self.align_corners = flag("Upsample2D: align_corners", align_corners)
        if self.align_corners and mode == "nearest":
            raise ArgumentError(
                "Upsample2D: align_corners=True with mode='nearest', expected mode='bilinear'"
            )

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        require_image(self, input_shape)
        OH, OW = (floor(n * factor) for n, factor in zip(input_shape[1:], self.scale_factor, strict=True))
        if OH < 1 or OW < 1:
            raise ShapeError(
                f"layer {self.label}: an input of {input_shape[1]}x{input_shape[2]} times "
                f"{self.scale_factor} is {OH}x{OW}; choose a larger scale_factor"
            )
        self.output_shape = require_samplable(self, (input_shape[0], OH, OW))
        self.rows, self.columns = (self._sampling(axis, count) for axis, count in enumerate((OH, OW)))
        return self.output_shape

    def _sampling(self, axis: int, count: int) -> Sampling:
        """An axis of the input at ``count`` positions."""
        length, step = self.input_shape[1 + axis], 1 / self.scale_factor[axis]
        if count == length:
            step = 1.0  # then PyTorch copies the axis, whatever the factor
        if self.mode == "nearest":
            places = (_nearest(position, length, count, step) for position in range(count))
            return Sampling(length, tuple(((place, 1.0),) for place in places))
        if self.align_corners:
            step = (length - 1) / (count - 1) if count > 1 else 0.0
            return Sampling(length, tuple(_between(position * step, length) for position in range(count)))
        middles = (max(0.0, (position + 0.5) * step - 0.5) for position in range(count))
        return Sampling(length, tuple(_between(middle, length) for middle in middles))


def _nearest(position: int, length: int, count: int, step: float) -> int:
    """The input's position for one of the output's; PyTorch computes it in float32 whatever the dtype."""
    if count in (length, 2 * length):
        return position * length // count
    return min(floor(_float32(position * _float32(step))), length - 1)


def _float32(value: float) -> float:
    """The float32 next to a number."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _between(place: float, length: int) -> tuple[Tap, ...]:
    """The neighbours of a place between two positions of the input, weighted by how near they are."""
    first = min(int(place), length - 1)
    share = place - first
    if share == 0 or first == length - 1:
        return ((first, 1.0),)
    return (first, 1.0 - share), (first + 1, share)
