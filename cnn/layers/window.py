"""The window that convolution and pooling slide over an image."""

from math import prod
from typing import Any

from backends import Window
from cnn.layers.layer import Layer, Shape
from cnn.support.arguments import countable, pair
from cnn.support.errors import ShapeError


def border_bytes(layer: Layer, window: Window, batch: int) -> int:
    """Bytes of the input with its padding around it; 0 without padding."""
    if not window.has_padding:
        return 0
    C, H, W = layer.input_shape
    return C * prod(window.padded(H, W)) * batch * int(layer.backend.xp.dtype(layer.dtype).itemsize)


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
