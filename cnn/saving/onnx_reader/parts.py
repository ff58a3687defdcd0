"""Parts of a network that nodes of a graph become, and how they are put together as layers."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

import backends
from backends.memory import Shape
from cnn import layers
from cnn.layers import Layer
from cnn.network import Network
from cnn.saving.onnx import inclusion
from cnn.support.errors import CheckpointError

CLOSE = 2e-6  # relative difference of numbers that count as equal


@dataclass
class Made:
    """A layer, its weights, and the shape of its output if that is not the node's."""

    layer: Layer
    arrays: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    before: Shape | None = None  # of an average pooling: the shape of its input


@dataclass
class View:
    """The same numbers in another shape."""

    shape: Shape


@dataclass
class Affine:
    """Numbers times ``scale`` plus ``shift``, which are arrays in the shape of a sample."""

    scale: Any
    shift: Any


Part = Made | View | Affine


def finished(parts: list[Part], shape: Shape) -> list[Made]:
    """The layers of all parts: views in a row are one layer, an affine function joins the layer before it."""
    made: list[Made] = []
    now = view = shape  # of the output so far, before and after the latest views
    for part in [*parts, None]:
        if isinstance(part, View):
            view = part.shape
            continue
        if view != now:
            made.append(Made(layers.Flatten() if len(view) == 1 else layers.Reshape(view), shape=view))
            now = view
        if isinstance(part, Made):
            made.append(part)
            now = view = part.shape or now
        elif isinstance(part, Affine):
            _apply(part, made)
    return made


def _apply(part: Affine, made: list[Made]) -> None:
    """Make an affine function part of the layer before it, or a layer of its own."""
    last, scale, shift = made[-1] if made else None, part.scale, part.shift
    if (scale == scale.flat[0]).all() and not shift.any() and scale.flat[0] > 0:
        _rescale(float(scale.flat[0]), made)
        return
    factor, addend = by_channel(scale), by_channel(shift)
    if last and last.before and not shift.any() and (scale == scale[:1]).all():
        made[-1] = _other_pooling(last, last.before, scale[0])
    elif last and _takes_untied_bias(last.layer) and (scale == 1).all() and addend is None:
        layer = changed(last.layer, bias=True, untied_bias=True)
        made[-1] = Made(layer, last.arrays | {"bias": shift}, last.shape)
    elif factor is None or addend is None:
        raise CheckpointError(
            f"constants of the shape {scale.shape} are multiplied with or added to each sample, which no "
            "layer here does: expected one number for each channel"
        )
    elif last and _is_linear(last.layer):
        weight, bias = last.arrays["weight"], last.arrays.get("bias", 0)
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        arrays = {"weight": scaled, "bias": bias * factor + addend}
        made[-1] = Made(changed(last.layer, bias=True), arrays, last.shape)
    else:
        normalization = layers.BatchNorm1D() if scale.ndim == 1 else layers.BatchNorm2D()
        arrays = {"weight": factor * np.sqrt(1 + normalization.eps), "bias": addend}
        arrays |= {"running_mean": 0 * factor, "running_var": 0 * factor + 1}
        made.append(Made(normalization, arrays, scale.shape))


def _takes_untied_bias(layer: Any) -> bool:
    return type(layer) is layers.Conv2D and not layer.bias


def _is_linear(layer: Any) -> bool:
    """Whether a number for each channel can be multiplied into its weight and added to its bias."""
    return type(layer) is layers.Dense or (type(layer) is layers.Conv2D and not layer.untied_bias)


def _rescale(factor: float, made: list[Made]) -> None:
    shape = made[-1].shape if made else None
    last: Any = made[-1].layer if made else None
    if isinstance(last, layers.Rescale):
        factor *= last.factor
        made.pop()
    if abs(factor - 1) > CLOSE:
        made.append(Made(layers.Rescale(factor), {}, shape))


def _other_pooling(pooling: Made, input_shape: Shape, factor: Any) -> Made:
    """The average pooling whose outputs are ``factor`` times the means of whole windows."""
    window: Any = pooling.layer
    taps = prod(window.kernel_size)
    divisor = max(1, round(taps / factor.flat[0]))
    for changes in ({"count_include_pad": False, "divisor_override": None}, {"divisor_override": divisor}):
        layer = changed(pooling.layer, **changes)
        Network(layer).build(input_shape, backend=backends.get("cpu", "portable"))
        if np.allclose(inclusion(layer), factor, rtol=1e-5):
            return Made(layer.fresh(), {}, pooling.shape)
    raise CheckpointError(
        "the means of an average pooling are multiplied by numbers that no pooling here has"
    )


def by_channel(array: Any) -> Any:
    """The number of each channel; None if an array has several for one."""
    rows = array.reshape(len(array), -1)
    return rows[:, 0].astype(np.float64) if (rows == rows[:, :1]).all() else None


def changed(layer: Any, **changes: Any) -> Layer:
    """A layer with other arguments, not yet built."""
    return type(layer)(**layer.config | changes)
