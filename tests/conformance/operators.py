"""ONNX operators through this library's layers: what a layer can express is run, the rest says why not.

Nothing is computed here that a layer should compute: tensors are turned, cut and given other shapes.
What the operators mean: https://onnx.ai/onnx/operators/
"""

from collections.abc import Callable
from math import prod

import numpy as np

from backends import Backend, Window
from cnn.layers import (
    ELU,
    GELU,
    SELU,
    AvgPool2D,
    BatchNorm1D,
    BatchNorm2D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    PReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from cnn.network import Network
from cnn.training.losses import CrossEntropy
from cnn.training.metrics import Totals
from conformance.node import DIMENSIONS, Node, NotOurs, Slide
from conformance.tensors import (
    Tensor,
    Tensors,
    as_image,
    built,
    infer,
    known,
    like,
    product,
    to_device,
    to_host,
)
from conformance.updates import adam, momentum

NO_NUMBERS = "its tensor holds no numbers, ours hold at least one"
DILATED_MEAN = "its mean has a dilation, AvgPool2D has none"
FACTORS = "it multiplies by alpha or beta, Dense has no such factors"
CUT_AT_END = "more is cut off at the end of its output than at the beginning, ConvTranspose2D cuts off less"
CLASS_WEIGHTS = "its classes have weights, CrossEntropy counts all alike"
IGNORED_LABEL = "some of its labels do not count, CrossEntropy counts all"
UNEVEN = "its padding is not the same on both sides, which pooling refuses"
WIDE_PADDING = "its padding is more than half of its kernel, which pooling refuses"
OTHER_CONSTANTS = "its constants are others than those of the layer"
SLOPES = "it has a slope for each number, PReLU has one or one for each channel"
BIASED = "its running variance is that of the batch, ours is unbiased"
OUTSIDE = "one of its indices lies outside of the window that it belongs to"

Operator = Callable[..., Tensors]  # of a backend, a node and its input tensors


def convolution(
    backend: Backend, node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensors:
    """Conv: Conv2D."""
    window = node.window(weight.shape[2:], x.shape[2:])
    padding = tuple(zip(window.padding, window.end, strict=True))
    sizes = window.size, window.stride, padding, window.dilation
    layer = Conv2D(len(weight), *sizes, node["group"], bias=bias is not None)
    weights = [as_image(weight)] + ([] if bias is None else [bias])
    return [like(x, infer(backend, layer, as_image(x), weights))]


def transposed_convolution(
    backend: Backend, node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensors:
    """ConvTranspose: ConvTranspose2D."""
    slide, size, groups = Slide(node, weight.shape[2:]), x.shape[2:], node["group"]
    none = (0,) * len(size)
    extra = tuple(node.get("output_padding", none))
    image = node.get("output_shape")
    if node["auto_pad"].startswith("SAME"):
        image = [n * stride for n, stride in zip(size, slide.strides, strict=True)]
    begin, end = slide.given_padding()
    if image:
        whole = slide.input_sizes(size, extra, none, none)
        begin = tuple((all_ - n) // 2 for all_, n in zip(whole, image, strict=True))
        end = tuple(all_ - n - before for all_, n, before in zip(whole, image, begin, strict=True))
    window = slide.window(begin, tuple(after - more for after, more in zip(end, extra, strict=True)))
    output_padding = tuple(first - last for first, last in zip(window.padding, window.end, strict=True))
    if min(output_padding) < 0:
        raise NotOurs(CUT_AT_END)
    layer = ConvTranspose2D(
        weight.shape[1] * groups, window.size, window.stride, window.padding, output_padding, groups,
        bias is not None, window.dilation,
    )  # fmt: skip
    weights = [as_image(weight)] + ([] if bias is None else [bias])
    return [like(x, infer(backend, layer, as_image(x), weights))]


def max_pooling(backend: Backend, node: Node, x: Tensor) -> Tensors:
    """MaxPool: MaxPool2D; the indices are those of its winners in the whole tensor."""
    window, ceil_mode = _pool(node.window(node["kernel_shape"], x.shape[2:])), bool(node.get("ceil_mode", 0))
    layer = MaxPool2D(window.size, window.stride, window.padding, window.dilation, ceil_mode)
    if node.outputs == 1:
        return [like(x, infer(backend, layer, as_image(x)))]
    by_columns = bool(node.get("storage_order", 0))
    return [like(x, part) for part in _pooled(backend, layer, as_image(x), by_columns)]


def max_unpooling(
    backend: Backend, node: Node, dy: Tensor, indices: Tensor, shape: Tensor | None = None
) -> Tensors:
    """MaxUnpool: what MaxPool2D gives back for an input whose largest numbers lie at the indices."""
    slide = Slide(node, node["kernel_shape"])
    begin, end = slide.given_padding()
    window = _pool(slide.window(begin, end))
    if shape is None:
        none = (0,) * len(slide.kernel)
        shape = (*dy.shape[:2], *slide.input_sizes(dy.shape[2:], none, begin, end))
    x = np.zeros(tuple(shape), dy.dtype)
    x.reshape(-1)[indices.reshape(-1)] = 1
    layer = MaxPool2D(window.size, window.stride, window.padding, window.dilation)
    _, found = _pooled(backend, layer, as_image(x))
    if (found != as_image(indices)).any():
        raise NotOurs(OUTSIDE)
    return [_back(backend, layer.fresh(), x, dy, [])]


def average_pooling(backend: Backend, node: Node, x: Tensor) -> Tensors:
    """AveragePool: AvgPool2D."""
    window = _pool(node.window(node["kernel_shape"], x.shape[2:]))
    if window.dilation != (1, 1):
        raise NotOurs(DILATED_MEAN)
    how = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    return [like(x, infer(backend, AvgPool2D(window.size, window.stride, window.padding, *how), as_image(x)))]


def global_pooling(kind: type[GlobalAvgPool2D] | type[GlobalMaxPool2D]) -> Operator:
    """GlobalAveragePool, GlobalMaxPool: the layer, whose output has no height and no width."""

    def pool(backend: Backend, node: Node, x: Tensor) -> Tensors:
        image = as_image(x)
        if image.ndim > 4:
            raise NotOurs(DIMENSIONS)
        return [infer(backend, kind(), image).reshape(*x.shape[:2], *[1] * (x.ndim - 2))]

    return pool


def elementwise(make: Callable[[Node], Layer]) -> Operator:
    """Relu, Elu, Gelu and the like: the layer with the node's constants, for a tensor of any shape."""

    def activate(backend: Backend, node: Node, x: Tensor) -> Tensors:
        return [infer(backend, make(node), x.reshape(len(x), -1)).reshape(x.shape)]

    return activate


def _selu(node: Node) -> Layer:
    layer = SELU()
    if not np.allclose((node["alpha"], node["gamma"]), (layer.formula.a, layer.formula.b), rtol=1e-6):
        raise NotOurs(OTHER_CONSTANTS)
    return layer


def prelu(backend: Backend, node: Node, x: Tensor, slope: Tensor) -> Tensors:
    """PRelu: PReLU, if there is one slope or one for each channel."""
    if slope.size not in (1, x.shape[1]) or slope.shape[:1] != (slope.size,):
        raise NotOurs(SLOPES)
    return [infer(backend, PReLU(slope.size), x, [slope.reshape(-1)])]


def layer_normalization(
    backend: Backend, node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensors:
    """LayerNormalization: LayerNorm with its moments; all axes before ``axis`` are the batch."""
    axis = node["axis"] % x.ndim
    shape = x.shape[axis:]
    weights = [array.reshape(shape) for array in (weight, bias) if array is not None]
    layer, rows = LayerNorm(node["epsilon"], bias=bias is not None), x.reshape(-1, *shape)
    y = built(backend, layer, rows, weights).forward(to_device(backend, rows), training=True)
    moments = (backend.to_host(array) for array in (layer._mean, layer._scale))
    outer = *x.shape[:axis], *[1] * len(shape)
    outputs = [to_host(backend, y).reshape(x.shape), *(array.reshape(outer) for array in moments)]
    return outputs[: node.outputs]


def batch_normalization(
    backend: Backend, node: Node, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensors:
    """BatchNormalization in inference: the layer."""
    if node.get("training_mode", 0):
        raise NotOurs(BIASED)
    if x.ndim > 4:
        raise NotOurs(DIMENSIONS)
    kind = BatchNorm1D if x.ndim == 2 else BatchNorm2D
    image, network = as_image(x), Network(kind(node["epsilon"]))
    network.build(image.shape[1:], backend=backend, dtype=known(x).dtype.name)
    names = "0.weight", "0.bias", "0.running_mean", "0.running_var"
    network.load_state_dict(dict(zip(names, (weight, bias, mean, variance), strict=True)))
    return [like(x, to_host(backend, network.forward(to_device(backend, image))))]


def group_normalization(backend: Backend, node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensors:
    """GroupNormalization: GroupNorm; before opset 21 the weights are those of groups."""
    groups = node["num_groups"]
    each = x.shape[1] // len(weight)
    return [
        infer(backend, GroupNorm(groups, node["epsilon"]), x, [np.repeat(w, each) for w in (weight, bias)])
    ]


def instance_normalization(backend: Backend, node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensors:
    """InstanceNormalization: GroupNorm with as many groups as channels."""
    return [infer(backend, GroupNorm(x.shape[1], node["epsilon"]), x, [weight, bias])]


def gemm(backend: Backend, node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensors:
    """Gemm: Dense, or where every sample has a bias of its own a product that is added to it."""
    beta = node["beta"]
    c = None if beta == 0 else c
    if node["alpha"] != 1 or (c is not None and beta != 1):
        raise NotOurs(FACTORS)
    x = a.T if node["transA"] else a
    weight = b if node["transB"] else b.T
    if c is None:
        return [infer(backend, Dense(len(weight), bias=False), x, [weight])]
    if c.ndim == 2 and len(c) > 1:
        return [product(backend, x, weight.T, np.broadcast_to(c, (len(x), len(weight))))]
    bias = np.broadcast_to(c.reshape(-1), len(weight))
    return [infer(backend, Dense(len(weight)), x, [weight, bias])]


def matrix_product(backend: Backend, node: Node, a: Tensor, b: Tensor) -> Tensors:
    """MatMul: the backend's product, matrix by matrix."""
    left, right = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
    stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*stack, *left.shape[-2:]))
    right = np.broadcast_to(right, (*stack, *right.shape[-2:]))
    y = np.empty((*stack, left.shape[-2], right.shape[-1]), known(a).dtype)
    for place in np.ndindex(stack):
        y[place] = product(backend, left[place], right[place])
    vectors = tuple(axis for axis, factor in ((-2, a), (-1, b)) if factor.ndim == 1)
    return [y.squeeze(vectors)]


def softmax(backend: Backend, node: Node, x: Tensor) -> Tensors:
    """Softmax: the layer."""
    return [_by_class(node, x, lambda rows: infer(backend, Softmax(), rows))]


def log_softmax(backend: Backend, node: Node, x: Tensor) -> Tensors:
    """LogSoftmax: the layer."""
    return [_by_class(node, x, lambda rows: infer(backend, LogSoftmax(), rows))]


def cross_entropy(
    backend: Backend, node: Node, scores: Tensor, labels: Tensor, weights: Tensor | None = None
) -> Tensors:
    """SoftmaxCrossEntropyLoss: CrossEntropy, where every place of an image is a sample."""
    if weights is not None:
        raise NotOurs(CLASS_WEIGHTS)
    if (labels == node.get("ignore_index")).any():
        raise NotOurs(IGNORED_LABEL)
    by_place = np.moveaxis(scores, 1, -1)  # (N, C, ...) -> (N, ..., C)
    rows = by_place.reshape(-1, scores.shape[1])
    loss, totals = _loss(backend, rows)
    indices = backend.asarray(labels.reshape(-1).astype(np.int64))
    losses = loss.forward(to_device(backend, rows), indices, sums=totals.sums)
    reduction = node["reduction"]
    if reduction == "none":
        result = backend.to_host(losses).reshape(labels.shape)
    elif reduction == "mean":
        result = np.array(totals.read()["loss"], scores.dtype)
    else:
        result = backend.to_host(totals.sums)[0].astype(scores.dtype)
    if node.outputs == 1:
        return [result]
    return [result, np.moveaxis(_log_probabilities(backend, rows).reshape(by_place.shape), -1, 1)]


def flatten(backend: Backend, node: Node, x: Tensor) -> Tensors:
    """Flatten: the layer; all axes before ``axis`` are the batch."""
    axis = node["axis"]
    axis += x.ndim if axis < 0 else 0
    return [infer(backend, Flatten(), x.reshape(prod(x.shape[:axis]), *(x.shape[axis:] or (1,))))]


def reshape(backend: Backend, node: Node, x: Tensor, shape: Tensor) -> Tensors:
    """Reshape: the layer; where the first axis changes too, the whole tensor is one sample."""
    if not x.size:
        raise NotOurs(NO_NUMBERS)
    sizes = [int(size) or x.shape[axis] for axis, size in enumerate(shape)]
    first, *rest = (x.size // -prod(sizes) if size == -1 else size for size in sizes)
    if first == len(x):
        return [infer(backend, Reshape(rest), x)]
    return [infer(backend, Reshape((first, *rest)), x[None])[0]]


def _pool(window: Window) -> Window:
    """The window itself; NotOurs where pooling, ours and PyTorch's, refuses its padding."""
    if window.padding != window.end:
        raise NotOurs(UNEVEN)
    if any(2 * padding > size for padding, size in zip(window.padding, window.size, strict=True)):
        raise NotOurs(WIDE_PADDING)
    return window


def _pooled(
    backend: Backend, layer: MaxPool2D, image: Tensor, by_columns: bool = False
) -> tuple[Tensor, Tensor]:
    """Max pooling (N, C, OH, OW), and where in the tensor its winners lie, counted by rows or columns."""
    window = layer.window
    y = built(backend, layer, image, []).forward(to_device(backend, image), training=True)
    taps = to_host(backend, layer.winner(y)).astype(np.int64)
    corners = np.ogrid[: taps.shape[2], : taps.shape[3]]
    moves = zip(window.stride, window.dilation, window.padding, strict=True)
    places = zip(corners, np.divmod(taps, window.size[1]), moves, strict=True)
    rows, columns = (
        corner * stride + tap * dilation - padding for corner, tap, (stride, dilation, padding) in places
    )
    N, C, H, W = image.shape
    planes = np.arange(N * C).reshape(N, C, 1, 1) * H * W
    return to_host(backend, y), planes + (columns * H + rows if by_columns else rows * W + columns)


def _back(backend: Backend, layer: Conv2D | MaxPool2D, x: Tensor, dy: Tensor, weights: Tensors) -> Tensor:
    """What the layer gives back for its input ``x``."""
    network = built(backend, layer, as_image(x), weights)
    network.forward(to_device(backend, as_image(x)), training=True)
    return like(dy, to_host(backend, network.backward(to_device(backend, as_image(dy)))))


def _by_class(node: Node, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of ``x`` as (N, classes, ...), put back; before opset 13 later axes are classes too."""
    axis = node["axis"]
    if node.opset < 13:
        return function(x.reshape(prod(x.shape[:axis]), -1)).reshape(x.shape)
    return np.moveaxis(function(np.moveaxis(x, axis, 1)), 1, axis)


def _log_probabilities(backend: Backend, logits: Tensor) -> Tensor:
    """(N, classes, ...) -> the same shape: minus the loss with each class as the label."""
    by_place = np.moveaxis(logits, 1, -1)
    rows = by_place.reshape(-1, logits.shape[1])
    loss, _ = _loss(backend, rows)
    y = to_device(backend, rows)
    labels = (backend.asarray(np.full(len(rows), label)) for label in range(rows.shape[1]))
    losses = [backend.to_host(loss.forward(y, indices)) for indices in labels]
    return np.moveaxis(-np.stack(losses, axis=-1).reshape(by_place.shape), -1, 1)


def _loss(backend: Backend, logits: Tensor) -> tuple[CrossEntropy, Totals]:
    """The loss, and where it is added up, of a network that gives out ``logits``, (N, classes)."""
    network = Network()
    network.build(logits.shape[1:], backend=backend, dtype=known(logits).dtype.name)
    loss = CrossEntropy()
    loss.build(network)
    return loss, Totals(network)


def _axes(node: Node, axes: Tensor | None) -> tuple[int, ...]:
    """Axes that are an attribute of older operators and an input of newer ones."""
    return tuple(node.get("axes", axes))


OPERATORS: dict[tuple[str, str], Operator] = {
    ("", "Conv"): convolution,
    ("", "ConvTranspose"): transposed_convolution,
    ("", "MaxPool"): max_pooling,
    ("", "MaxUnpool"): max_unpooling,
    ("", "AveragePool"): average_pooling,
    ("", "GlobalMaxPool"): global_pooling(GlobalMaxPool2D),
    ("", "GlobalAveragePool"): global_pooling(GlobalAvgPool2D),
    ("", "Gemm"): gemm,
    ("", "MatMul"): matrix_product,
    ("", "Relu"): elementwise(lambda node: ReLU()),
    ("", "Tanh"): elementwise(lambda node: Tanh()),
    ("", "LeakyRelu"): elementwise(lambda node: LeakyReLU(node["alpha"])),
    ("", "PRelu"): prelu,
    ("", "Elu"): elementwise(lambda node: ELU(node["alpha"])),
    ("", "Selu"): elementwise(_selu),
    ("", "Gelu"): elementwise(lambda node: GELU(node["approximate"])),
    ("", "Sigmoid"): elementwise(lambda node: Sigmoid()),
    ("", "Softplus"): elementwise(lambda node: Softplus()),
    ("", "HardSwish"): elementwise(lambda node: HardSwish()),
    ("", "BatchNormalization"): batch_normalization,
    ("", "LayerNormalization"): layer_normalization,
    ("", "GroupNormalization"): group_normalization,
    ("", "InstanceNormalization"): instance_normalization,
    ("", "Softmax"): softmax,
    ("", "LogSoftmax"): log_softmax,
    ("", "SoftmaxCrossEntropyLoss"): cross_entropy,
    ("", "Flatten"): flatten,
    ("", "Reshape"): reshape,
    ("ai.onnx.preview.training", "Momentum"): momentum,
    ("ai.onnx.preview.training", "Adam"): adam,
}
"""By domain and name; a case that is made of them is ours."""

MOVING: dict[tuple[str, str], Operator] = {
    ("", "Constant"): lambda backend, node: [node["value"]],
    ("", "Transpose"): lambda backend, node, x: [x.transpose(node.get("perm"))],
    ("", "Squeeze"): lambda backend, node, x, axes=None: [x.squeeze(_axes(node, axes))],
    ("", "Unsqueeze"): lambda backend, node, x, axes=None: [np.expand_dims(x, _axes(node, axes))],
}
"""They compute nothing, so they may stand beside ours and happen on the host."""
