"""The window that convolution and pooling slide over an image, and the padding around the image."""

from math import prod
from typing import Any

from backends import Window
from backends.kernels.window import Pair
from cnn.layers.layer import Layer, Shape
from cnn.support.arguments import countable, pair, row, shown
from cnn.support.errors import ArgumentError, ShapeError

Paddings = tuple[Pair, Pair]
"""((top, bottom), (left, right))."""


def border_bytes(layer: Layer, image: Shape, window: Window, batch: int) -> int:
    """Bytes of images (C, H, W) with their padding around them; 0 without padding."""
    if not window.has_padding:
        return 0
    C, H, W = image
    return C * prod(window.padded(H, W)) * batch * layer.master_itemsize


def column_bytes(layer: Layer, weight: Shape, image: Shape, batch: int) -> int:
    """Bytes of a block of columns for a convolution whose output images have the shape ``image``."""
    _, OH, OW = image
    row = prod(weight[1:]) * OW * batch * layer.master_itemsize
    return max(1, min(OH, layer.backend.column_bytes // row)) * row


def make_window(layer: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> Window:
    """The window that a layer's arguments describe."""
    kernel, stride = pair(f"{layer}: kernel_size", kernel_size), pair(f"{layer}: stride", stride)
    dilation = pair(f"{layer}: dilation", dilation)
    (top, bottom), (left, right) = _paddings(layer, padding, kernel, stride, dilation)
    return Window(kernel, stride, (top, left), dilation, (bottom, right))


def as_given(padding: Any, window: Window) -> Any:
    """A layer's argument ``padding`` as plain data."""
    if isinstance(padding, str):
        return padding
    if window.padding == window.end:
        return window.padding
    return tuple(zip(window.padding, window.end, strict=True))


def _paddings(layer: str, padding: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Paddings:
    """The paddings of "same", of a number, of two, or of two pairs."""
    name = f"{layer}: padding"
    if isinstance(padding, str):
        if padding != "same":
            raise ArgumentError(f"{name} is {shown(padding)}, expected a number, two, or 'same'")
        if stride != (1, 1):
            raise ArgumentError(
                f"{name} is 'same' with a stride of {stride}, expected a stride of 1: "
                "give the padding as numbers"
            )
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        vertical, horizontal = ((total // 2, total - total // 2) for total in totals)
        return vertical, horizontal
    if _is_uneven(padding):
        vertical, horizontal = (pair(name, part, least=0) for part in padding)
        return vertical, horizontal
    above, left = pair(name, padding, least=0)
    return (above, above), (left, left)


def _is_uneven(padding: Any) -> bool:
    """Whether it is ((top, bottom), (left, right))."""
    sides = row(padding) or ()
    return len(sides) == 2 and all(row(side) for side in sides)


def require_image(layer: Layer, input_shape: Shape) -> None:
    """Raise ShapeError if a sample is not an image."""
    if len(input_shape) != 3:
        raise ShapeError(
            f"layer {layer.label}: the input is {input_shape}, expected an image (channels, height, width); "
            "put a Reshape before it"
        )


def window_output(layer: Layer, window: Window, input_shape: Shape) -> tuple[int, int]:
    """(OH, OW) of a sliding window's output on ``input_shape``, or ShapeError."""
    require_image(layer, input_shape)
    height, width = window.padded(*input_shape[1:])
    countable(f"layer {layer.label}: the input with its padding", (input_shape[0], height, width))
    if window.extent[0] > height or window.extent[1] > width:
        kernel, image = f"{window.extent[0]}x{window.extent[1]}", f"{height}x{width}"
        with_padding = " (padding included)" if window.has_padding else ""
        with_dilation = " (dilation included)" if window.dilation != (1, 1) else ""
        raise ShapeError(
            f"layer {layer.label}: a {kernel} kernel{with_dilation} does not fit a {image} input"
            f"{with_padding}; the largest that fits is {image}, or add padding"
        )
    return window.output_size(*input_shape[1:])
