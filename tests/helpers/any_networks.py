"""Hypothesis strategies for networks, and what their shapes must be by PyTorch's arithmetic."""

from math import prod
from typing import Any

from hypothesis import strategies as st

import cnn
from cnn import layers
from cnn.layers.container import Container
from helpers.any_values import SMALL, Call, a_call, attempt

Shape = tuple[int, ...]

EXPORTED = [getattr(layers, name) for name in layers.__all__]
KINDS = [
    kind
    for kind in EXPORTED
    if issubclass(kind, cnn.Layer) and kind is not cnn.Layer and not issubclass(kind, Container)
]

IMAGES = st.tuples(SMALL, st.integers(1, 9), st.integers(1, 9))
SHAPES = st.one_of(IMAGES, IMAGES, st.tuples(st.integers(1, 12)), st.tuples(SMALL, SMALL))


@st.composite
def layer_calls(draw: Any, odd: st.SearchStrategy[Any] | None = None) -> Call:
    """A kind of layer with arguments for it, which it may refuse."""
    return draw(a_call(draw(st.sampled_from(KINDS)), odd))


@st.composite
def networks(draw: Any, shapes: st.SearchStrategy[Shape] = SHAPES) -> tuple[cnn.Sequential, Shape]:
    """A network that is not built yet, and an input shape, which it takes more often than not."""
    input_shape = shape = draw(shapes)
    made: list[cnn.Layer] = []
    for call in draw(st.lists(layer_calls(), max_size=6)):
        layer, refusal = attempt(call.make)
        if refusal:
            continue
        if isinstance(layer, cnn.Dense) and len(shape) > 1:
            made.append(cnn.Flatten())
            shape = (prod(shape),)
        after = output_of(layer, shape)
        if after is None and draw(st.integers(0, 9)):
            continue
        made.append(layer)
        if after is None:
            break
        shape = after
    if draw(st.booleans()):
        made = [*made[:1], cnn.Sequential(*made[1:3]), *made[3:]]
    return cnn.Sequential(*made), input_shape


def output_of(layer: cnn.Layer, shape: Shape) -> Shape | None:
    """The output's shape by PyTorch's arithmetic; None where the layer cannot take the input."""
    if isinstance(layer, cnn.Sequential):
        for inner in layer.layers:
            shape = shape and output_of(inner, shape)
        return shape
    if isinstance(layer, cnn.Flatten):
        return (prod(shape),)
    if isinstance(layer, cnn.Reshape):
        return layer.shape if prod(layer.shape) == prod(shape) else None
    if isinstance(layer, cnn.Dense):
        return (layer.out_features,) if len(shape) == 1 else None
    if isinstance(layer, cnn.PReLU):
        return shape if layer.num_parameters in (1, shape[0]) else None
    if isinstance(layer, cnn.GroupNorm):
        return None if shape[0] % layer.groups else shape
    if isinstance(layer, cnn.Dropout2D):
        return shape if len(shape) == 3 else None
    if isinstance(layer, cnn.BatchNorm1D | cnn.BatchNorm2D):
        return shape if len(shape) == (1 if isinstance(layer, cnn.BatchNorm1D) else 3) else None
    if isinstance(layer, cnn.GlobalAvgPool2D | cnn.GlobalMaxPool2D):
        return shape[:1] if len(shape) == 3 else None
    if isinstance(layer, cnn.AdaptiveAvgPool2D):
        return (shape[0], *layer.output_size) if len(shape) == 3 else None
    if isinstance(layer, cnn.ZeroPad2D):
        left, right, top, bottom = layer.padding
        if len(shape) != 3 or (type(layer) is cnn.ReflectionPad2D and not _reflects(layer.padding, shape)):
            return None
        return shape[0], shape[1] + top + bottom, shape[2] + left + right
    if isinstance(layer, layers.PadChannels):
        return (layer.channels, *shape[1:]) if shape[0] <= layer.channels else None
    if isinstance(layer, cnn.Upsample2D):
        size = tuple(int(n * factor) for n, factor in zip(shape[1:], layer.scale_factor, strict=False))
        return (shape[0], *size) if len(shape) == 3 and all(size) else None
    if isinstance(layer, cnn.ConvTranspose2D):
        return _output_of_transposed(layer, shape)
    if hasattr(layer, "kernel_size"):
        return _output_of_window(layer, shape)
    return shape


def _output_of_transposed(layer: cnn.ConvTranspose2D, shape: Shape) -> Shape | None:
    if len(shape) != 3 or shape[0] % layer.groups:
        return None
    windows = zip(
        shape[1:],
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.output_padding,
        strict=True,
    )
    size = tuple((n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in windows)
    return (layer.out_channels, *size) if min(size) > 0 else None


def _reflects(sides: tuple[int, ...], shape: Shape) -> bool:
    """Whether an image is larger than its reflected padding (left, right, top, bottom)."""
    return max(sides[:2]) < shape[2] and max(sides[2:]) < shape[1]


def _output_of_window(layer: Any, shape: Shape) -> Shape | None:
    if len(shape) != 3:
        return None
    C, *sizes = shape
    out = []
    up = getattr(layer, "ceil_mode", False)
    begin, end = layer.window.padding, layer.window.end
    if getattr(layer, "padding_mode", "") == "reflect" and not _reflects(
        (begin[1], end[1], begin[0], end[0]), shape
    ):
        return None
    windows = zip(sizes, layer.kernel_size, layer.stride, begin, end, layer.dilation, strict=True)
    for size, kernel, stride, padding, after, dilation in windows:
        way = size + padding + after - dilation * (kernel - 1) - 1 + (stride - 1 if up else 0)
        count = way // stride + 1
        if up and (count - 1) * stride >= size + padding:
            count -= 1
        if count < 1:
            return None
        out.append(count)
        starts = [position * stride - padding for position in range(out[-1])]
        seen = [any(0 <= start + tap * dilation < size for tap in range(kernel)) for start in starts]
        if not isinstance(layer, cnn.Conv2D) and not all(seen):
            return None  # a window over padding alone has no maximum
    if not isinstance(layer, cnn.Conv2D):
        return (C, *out)
    return None if C % layer.groups else (layer.out_channels, *out)
