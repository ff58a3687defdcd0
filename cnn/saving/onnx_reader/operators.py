"""The layers of each ONNX operator."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

import backends
from cnn import layers
from cnn.layers import Layer
from cnn.network import Network
from cnn.saving.onnx import SAMPLING, inclusion, matrix
from cnn.saving.onnx_reader.graph import Graph
from cnn.saving.onnx_reader.parts import Affine, Made, Part, View, by_channel, changed


def _plain(kind: Callable[[], Layer]) -> Callable[[Graph, Any], list[Part]]:
    return lambda graph, node: [Made(kind())]


def _nothing(graph: Graph, node: Any) -> list[Part]:
    return []


def _view(graph: Graph, node: Any) -> list[Part]:
    shape, axis = graph.batch_shapes[node.output[0]], graph.attributes(node).get("axis", 1)
    if node.op_type == "Flatten" and axis not in (1, 1 - len(graph.batch_shapes[node.input[0]])):
        graph.fail(node, f"flattens from axis {axis} on, expected 1")
    if shape[0] != 1 or prod(shape[1:]) != prod(graph.shapes[graph.data_inputs(node)[0]]) or len(shape) < 2:
        graph.fail(node, "changes the shape across the samples of a batch")
    return [View(shape[1:])]


def _window(graph: Graph, node: Any, kernel: Sequence[int]) -> tuple[dict[str, Any], Any]:
    """The kernel, the stride and the dilation; and the padding ((top, bottom), (left, right))."""
    said = graph.attributes(node)
    if len(kernel) != 2:
        graph.fail(node, f"slides over {len(kernel)} dimensions, expected height and width")
    strides, dilations = tuple(said.get("strides", (1, 1))), tuple(said.get("dilations", (1, 1)))
    pads = tuple(said.get("pads", (0,) * 4))
    automatic = said.get("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        sizes = zip(graph.shapes[node.input[0]][1:], kernel, strides, dilations, strict=True)
        totals = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in sizes]
        less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        pads = less + more if automatic == "SAME_UPPER" else more + less
    how = {"kernel_size": tuple(kernel), "stride": strides, "dilation": dilations}
    return how, ((pads[0], pads[2]), (pads[1], pads[3]))


def _even(padding: Any) -> Any:
    """(vertical, horizontal) if both sides are padded alike; None otherwise."""
    return (padding[0][0], padding[1][0]) if all(one == other for one, other in padding) else None


def weight_of(graph: Graph, node: Any, place: int = 1) -> Any:
    """The constant input of a node at this place."""
    name = node.input[place] if len(node.input) > place else ""
    if name not in graph.constants:
        graph.fail(node, f"has an input {name!r} that is not constant, expected weights")
    return graph.constants[name]


def _optional(graph: Graph, node: Any, place: int) -> Any:
    return weight_of(graph, node, place) if len(node.input) > place and node.input[place] else None


def _with_bias(weight: Any, bias: Any) -> dict[str, Any]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _convolution(graph: Graph, node: Any) -> list[Part]:
    weight, bias = weight_of(graph, node), _optional(graph, node, 2)
    how, padding = _window(graph, node, weight.shape[2:])
    groups = graph.attributes(node)["group"]
    layer = layers.Conv2D(len(weight), padding=padding, groups=groups, bias=bias is not None, **how)
    return [Made(layer, _with_bias(weight, bias))]


def _transposed(graph: Graph, node: Any) -> list[Part]:
    weight, bias, said = weight_of(graph, node), _optional(graph, node, 2), graph.attributes(node)
    how, padding = _window(graph, node, weight.shape[2:])
    begin, end = zip(*padding, strict=True)
    more = [b - e + m for b, e, m in zip(begin, end, said.get("output_padding", (0, 0)), strict=True)]
    if min(more) < 0 or "output_shape" in said or said.get("auto_pad", "NOTSET") != "NOTSET":
        graph.fail(node, "has a padding that no layer here has")
    sizes = {"padding": begin, "output_padding": tuple(more), "groups": said["group"]}
    out = weight.shape[1] * said["group"]
    layer = layers.ConvTranspose2D(out, bias=bias is not None, **how, **sizes)
    return [Made(layer, _with_bias(weight, bias))]


def _dense(graph: Graph, node: Any) -> list[Part]:
    said, weight, bias = graph.attributes(node), weight_of(graph, node), _optional(graph, node, 2)
    if said["transA"]:
        graph.fail(node, "transposes its first input (transA)")
    weight = (weight if said["transB"] else weight.T) * said["alpha"]
    if bias is not None:
        bias = np.broadcast_to(np.ravel(bias) * said["beta"], len(weight))
    return [Made(layers.Dense(len(weight), bias=bias is not None), _with_bias(weight, bias))]


def _product(graph: Graph, node: Any) -> list[Part]:
    if node.input[1] not in graph.constants or len(graph.shapes[node.input[0]]) != 1:
        graph.fail(node, "is no product of a batch of vectors with weights")
    weight = weight_of(graph, node)
    return [Made(layers.Dense(weight.shape[1], bias=False), {"weight": weight.T})]


def _max_pooling(graph: Graph, node: Any) -> list[Part]:
    said = graph.attributes(node)
    how, padding = _window(graph, node, said["kernel_shape"])
    if said.get("storage_order"):
        graph.fail(node, "has another storage_order")
    return [Made(_pool(graph, node, layers.MaxPool2D, how, padding).fresh())]


def _average_pooling(graph: Graph, node: Any) -> list[Part]:
    said = graph.attributes(node)
    how, padding = _window(graph, node, said["kernel_shape"])
    if how.pop("dilation") != (1, 1):
        graph.fail(node, "is dilated")
    how["count_include_pad"] = bool(said.get("count_include_pad", 0))
    layer = _pool(graph, node, layers.AvgPool2D, how, padding)
    if how["count_include_pad"] and not said.get("ceil_mode") and not (inclusion(layer) == 1).all():
        layer = changed(layer, divisor_override=prod(said["kernel_shape"]))  # the padding counts, all of it
    return [Made(layer.fresh(), before=graph.shapes[node.input[0]])]


def _pool(graph: Graph, node: Any, kind: Any, how: dict[str, Any], padding: Any) -> Layer:
    """The pooling with this padding, built; uneven padding may come from rounding the size up."""
    begin = padding[0][0], padding[1][0]
    rounds_up = bool(graph.attributes(node).get("ceil_mode", 0)) or _even(padding) is None
    layer: Any = kind(padding=begin, ceil_mode=rounds_up, **how)
    network = Network(layer)
    network.build(graph.shapes[node.input[0]], backend=backends.get("cpu", "portable"))
    fits = network.output_shape == graph.shapes[node.output[0]]
    if not fits or (_even(padding) is None and layer.window.end != (padding[0][1], padding[1][1])):
        graph.fail(node, f"has the padding {padding}, which no pooling here has")
    return layer


def _global(kind: Callable[[], Layer]) -> Callable[[Graph, Any], list[Part]]:
    def convert(graph: Graph, node: Any) -> list[Part]:
        shape = graph.shapes[node.input[0]]
        if len(shape) != 3:
            graph.fail(node, f"has an input of the shape {shape}, expected (C, H, W)")
        return [Made(kind(), {}, shape[:1]), View(graph.shapes[node.output[0]])]

    return convert


def _mean(graph: Graph, node: Any) -> list[Part]:
    axes = graph.attributes(node).get("axes") if len(node.input) < 2 else graph.constants.get(node.input[1])
    rank = len(graph.batch_shapes[node.input[0]])
    if axes is None or rank != 4 or sorted(axis % rank for axis in axes) != [2, 3]:
        graph.fail(node, "is not the mean over height and width")
    return _global(layers.GlobalAvgPool2D)(graph, node)


def _normalization(graph: Graph, node: Any) -> list[Part]:
    said = graph.attributes(node)
    kind = layers.BatchNorm1D if len(graph.shapes[node.input[0]]) == 1 else layers.BatchNorm2D
    if said.get("training_mode"):
        graph.fail(node, "is in training mode: export the network for inference")
    names = "weight", "bias", "running_mean", "running_var"
    arrays = {name: weight_of(graph, node, place) for place, name in enumerate(names, 1)}
    return [Made(kind(eps=said["epsilon"], momentum=round(1 - said["momentum"], 6)), arrays)]


def _layer_normalization(graph: Graph, node: Any) -> list[Part]:
    said, rank = graph.attributes(node), len(graph.batch_shapes[node.input[0]])
    weight, bias = weight_of(graph, node), _optional(graph, node, 2)
    if said["axis"] % rank != 1:
        graph.fail(node, "does not normalize whole samples")
    return [Made(layers.LayerNorm(eps=said["epsilon"], bias=bias is not None), _with_bias(weight, bias))]


def _instance_normalization(graph: Graph, node: Any) -> list[Part]:
    arrays = {"weight": weight_of(graph, node), "bias": weight_of(graph, node, 2)}
    return [Made(layers.GroupNorm(len(arrays["weight"]), eps=graph.attributes(node)["epsilon"]), arrays)]


def _softmax(kind: Callable[[], Layer]) -> Callable[[Graph, Any], list[Part]]:
    def convert(graph: Graph, node: Any) -> list[Part]:
        rank = len(graph.batch_shapes[node.input[0]])
        if graph.attributes(node)["axis"] % rank != 1 or (graph.opset < 13 and rank > 2):
            graph.fail(node, "is along another axis than that of the channels")
        return [Made(kind())]

    return convert


def _prelu(graph: Graph, node: Any) -> list[Part]:
    slope = weight_of(graph, node)
    full = _full(graph, node, slope)
    weight = by_channel(full)
    if weight is None:
        graph.fail(node, f"has slopes of the shape {slope.shape}, expected one for each channel")
    weight = weight[:1] if slope.size == 1 else weight
    return [Made(layers.PReLU(len(weight)), {"weight": weight})]


def _selu(graph: Graph, node: Any) -> list[Part]:
    said, own = graph.attributes(node), layers.SELU().formula
    if not np.allclose([said["alpha"], said["gamma"]], [own.a, own.b], rtol=1e-6):
        graph.fail(node, "has other constants than SELU")
    return [Made(layers.SELU())]


def _hard_sigmoid(graph: Graph, node: Any) -> list[Part]:
    said = graph.attributes(node)
    if not np.allclose([said["alpha"], said["beta"]], [1 / 6, 0.5], rtol=1e-6):
        graph.fail(node, "has other constants than relu6(x + 3) / 6")
    return [Made(layers.HardSigmoid())]


def _gelu(graph: Graph, node: Any) -> list[Part]:
    return [Made(layers.GELU(graph.attributes(node)["approximate"]))]


def _full(graph: Graph, node: Any, constant: Any) -> Any:
    """A constant in the shape of a sample."""
    shape = graph.shapes[graph.data_inputs(node)[0]]
    try:
        return np.broadcast_to(constant, (1, *shape))[0]
    except ValueError:
        return graph.fail(node, f"has a constant of the shape {constant.shape} for samples of {shape}")


def _arithmetic(graph: Graph, node: Any) -> list[Part]:
    """A constant added, subtracted, multiplied or divided by."""
    (name,) = graph.data_inputs(node)
    place = 1 - list(node.input).index(name)
    constant = _full(graph, node, weight_of(graph, node, place))
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    if node.op_type == "Add":
        return [Affine(one, constant)]
    if node.op_type == "Mul":
        return [Affine(constant, zero)]
    if node.op_type == "Sub":
        return [Affine(one, -constant) if place == 1 else Affine(-one, constant)]
    if place == 0 or not constant.all():
        graph.fail(node, "divides a constant, or by zero")
    return [Affine(one / constant, zero)]


def _padding(graph: Graph, node: Any) -> list[Part]:
    said = graph.attributes(node)
    kinds = {"constant": layers.ZeroPad2D, "reflect": layers.ReflectionPad2D, "edge": layers.ReplicationPad2D}
    pads = [int(pad) for pad in (said["pads"] if "pads" in said else weight_of(graph, node))]
    value = _optional(graph, node, 2) if "pads" not in said else said.get("value", 0)
    if said["mode"] not in kinds or np.any(value if value is not None else 0) or len(node.input) > 3:
        graph.fail(node, "pads with something else than zeros, the mirror image or the edge")
    if len(pads) == 8 and not any(pads[:2] + pads[4:6]):
        return [Made(kinds[said["mode"]]((pads[3], pads[7], pads[2], pads[6])))]
    begin, end = pads[1], pads[len(pads) // 2 + 1]
    rest = [pad for place, pad in enumerate(pads) if place not in (1, len(pads) // 2 + 1)]
    if said["mode"] != "constant" or any(rest) or end - begin not in (0, 1):
        graph.fail(node, f"has the padding {pads}, which no layer here has")
    return [Made(layers.PadChannels(graph.shapes[node.output[0]][0]))]


def _resize(graph: Graph, node: Any) -> list[Part]:
    said, scales = graph.attributes(node), _optional(graph, node, 2)
    places, mode = said["coordinate_transformation_mode"], said["mode"]
    if scales is None or not scales.size:
        before, after = graph.batch_shapes[node.input[0]], graph.batch_shapes[node.output[0]]
        scales = [new / old for new, old in zip(after, before, strict=True)]
    ways = {
        ("nearest", "asymmetric"): ("nearest", False), ("linear", "half_pixel"): ("bilinear", False),
        ("linear", "pytorch_half_pixel"): ("bilinear", False),
        ("linear", "align_corners"): ("bilinear", True),
    }  # fmt: skip
    is_nearest = mode == "nearest"
    if (
        (mode, places) not in ways
        or (is_nearest and said["nearest_mode"] != "floor")
        or list(scales[:2]) != [1, 1]
    ):
        graph.fail(node, f"resizes by {mode} and {places}, which no layer here does")
    way, align = ways[mode, places]
    return [Made(layers.Upsample2D((float(scales[2]), float(scales[3])), way, align))]


def _sampling(graph: Graph, node: Any) -> list[Part]:
    """Weighted rows and columns, as :func:`cnn.saving.onnx.export` writes what has no operator."""
    said, shape = graph.attributes(node), graph.shapes[node.input[0]]
    rows, columns = weight_of(graph, node), weight_of(graph, node, 2)
    if said["equation"] != SAMPLING or rows.ndim != 2 or columns.ndim != 2:
        graph.fail(node, f"has an equation other than {SAMPLING}")
    sizes = len(rows), len(columns)
    factors = (sizes[0] + 1e-9) / shape[1], (sizes[1] + 1e-9) / shape[2]
    ways = (("nearest", False), ("bilinear", False), ("bilinear", True))
    found = [layers.AdaptiveAvgPool2D(sizes), *(layers.Upsample2D(factors, *way) for way in ways)]
    for layer in found:
        Network(layer).build(shape, backend=backends.get("cpu", "portable"))
        own = map(matrix, (layer.rows, layer.columns))
        if all(np.allclose(*both, atol=1e-6) for both in zip(own, (rows, columns), strict=True)):
            return [Made(layer.fresh())]
    return graph.fail(node, "weights rows and columns as no layer here does")


CONVERTERS: dict[str, Callable[[Graph, Any], list[Part]]] = {
    "Add": _arithmetic,
    "AveragePool": _average_pooling,
    "BatchNormalization": _normalization,
    "Cast": _nothing,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Div": _arithmetic,
    "Dropout": _nothing,
    "Einsum": _sampling,
    "Elu": lambda graph, node: [Made(layers.ELU(graph.attributes(node)["alpha"]))],
    "Flatten": _view,
    "Gelu": _gelu,
    "Gemm": _dense,
    "GlobalAveragePool": _global(layers.GlobalAvgPool2D),
    "GlobalMaxPool": _global(layers.GlobalMaxPool2D),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(layers.HardSwish),
    "Identity": _nothing,
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda graph, node: [Made(layers.LeakyReLU(graph.attributes(node)["alpha"]))],
    "LogSoftmax": _softmax(layers.LogSoftmax),
    "MatMul": _product,
    "MaxPool": _max_pooling,
    "Mul": _arithmetic,
    "PRelu": _prelu,
    "Pad": _padding,
    "ReduceMean": _mean,
    "Relu": _plain(layers.ReLU),
    "Reshape": _view,
    "Resize": _resize,
    "Selu": _selu,
    "Sigmoid": _plain(layers.Sigmoid),
    "Softmax": _softmax(layers.Softmax),
    "Softplus": _plain(layers.Softplus),
    "Squeeze": _view,
    "Sub": _arithmetic,
    "Tanh": _plain(layers.Tanh),
    "Unsqueeze": _view,
}
"""The function that makes the layers of a node, by its operator."""
