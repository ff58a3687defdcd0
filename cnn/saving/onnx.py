"""Exports networks as ONNX files, for programs without this library.

Operators: https://onnx.ai/onnx/operators/
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from backends.kernels.functions import CUBIC, TANH_SCALE
from backends.kernels.sampling import Sampling
from cnn.data.fitting import GROUND
from cnn.data.preprocessing import BYTE, Preprocessing
from cnn.layers import (
    ELU,
    GELU,
    SELU,
    AdaptiveAvgPool2D,
    AvgPool2D,
    BatchNorm1D,
    BatchNorm2D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Dropout2D,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    PadChannels,
    Parallel,
    PReLU,
    ReflectionPad2D,
    ReLU,
    ReplicationPad2D,
    Rescale,
    Reshape,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Upsample2D,
    ZeroPad2D,
)
from cnn.network import Network
from cnn.saving.writer import Writer, weights
from cnn.support.files import write_whole
from cnn.support.libraries import require
from cnn.support.version import VERSION

OPSET = 17  # of the operators
IR_VERSION = 8  # of the file format: the version released with the opset
X = "x"  # the input of a layer, among the inputs of its operations
SAMPLING = "nchw,ph,qw->ncpq"  # of images with matrices of the rows and the columns
INPUT, OUTPUT = "images", "probabilities"
SCALING = "bytes scaled to 0..1"


@dataclass(frozen=True)
class Operation:
    """A node of a layer: its inputs come from nodes before it, its constants and attributes are here."""

    operator: str
    constants: dict[str, Any] = field(default_factory=dict)  # its other inputs, in order
    attributes: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()  # operators before it in the layer, or X, the layer's input; (): the latest


def export(network: Network, path: str | Path, classes: Sequence[str] | None = None) -> None:
    """Write ``network`` to ``path`` as an ONNX model with the outputs of ``network.predict`` for floats.

    Parameters
    ----------
    network : Network
        A built network. A float64 network is written with float32 weights, and a mixed-precision network is
        exported as its copy in float32.
    path : str or Path
        A file in an existing folder. The same network always gives the same bytes.
    classes : sequence of str
        The class names, stored in the file's metadata as JSON under "classes". "preprocessing" says there how
        a picture becomes an input: its size and fit, the ground under transparent pictures, the scale of
        bytes, and the mean and std that the graph itself applies.

    Notes
    -----
    The input "images" is float32 (N, C, H, W), already scaled, or (N, F); the output "probabilities"
    is float32 (N, classes). N is free. If the network has a ``preprocessing``, the model begins with it.

    Raises
    ------
    ArgumentError
        If ONNX cannot express a layer, or if the package onnx is missing.
    OSError
        If the file cannot be written; no partial file is left behind.
    """
    network = network.in_full_precision()
    onnx = require("onnx", "to write an ONNX file")
    model = onnx.helper.make_model(
        _graph(onnx, network),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xpcnn",
        producer_version=VERSION,
        doc_string=f"{INPUT}: {SCALING}, other numbers as they were in training; {OUTPUT}: of each class",
    )
    properties: dict[str, Any] = {}
    if len(network.input_shape) == 3:
        properties["preprocessing"] = _prepared(network)
    if classes is not None:
        properties["classes"] = list(classes)
    if properties:
        onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in properties.items()})
    onnx.checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString(deterministic=True))


def _prepared(network: Network) -> dict[str, Any]:
    """How a picture becomes an input of the file; the graph subtracts mean and divides by std itself."""
    C, H, W = network.input_shape
    own = network.preprocessing or Preprocessing.none(C)
    sizes = {"height": H, "width": W, "channels": C}
    return sizes | {"resampling": "bicubic", "ground": GROUND, "scale": 1 / BYTE} | own.description


def _graph(onnx: Any, network: Network) -> Any:
    """The graph of the network; values and constants are named by the position of their layer."""
    builder = _Builder(onnx)
    value = INPUT
    for name, operation in _preprocessing(network):
        value = builder.operation(name, operation, [value])
    value = builder.layer(network, value)
    if not network.gives_probabilities and len(network.output_shape) == 1:  # as in Network.probabilities
        builder.operation("predict", SOFTMAX, [value])
    if not builder.nodes:
        builder.operation("predict", Operation("Identity"), [value])
    builder.nodes[-1].output[0] = OUTPUT
    images, probabilities = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *sample])
        for name, sample in ((INPUT, network.input_shape), (OUTPUT, network.output_shape))
    )
    return onnx.helper.make_graph(builder.nodes, "network", [images], [probabilities], builder.constants)


class _Builder(Writer[str]):
    """The nodes and constants of a graph under construction."""

    def __init__(self, onnx: Any) -> None:
        super().__init__("ONNX", (*WEIGHTED, *OPERATIONS))
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def write(self, layer: Any, normalization: Layer | None, value: str) -> str:
        kind = type(layer)
        if kind in WEIGHTED:
            operations = WEIGHTED[kind](layer, weights(layer, normalization))
        else:
            operations = OPERATIONS[kind](layer)
        return self._operations(layer.path, operations, value)

    def join(self, layer: Parallel, values: list[str]) -> str:
        return self.operation(layer.path, JOINS[layer.join], values)

    def _operations(self, place: str, operations: list[Operation], value: str) -> str:
        values = {X: value}
        for operation in operations:
            inputs = [values[name] for name in operation.inputs] or [value]
            value = values[operation.operator] = self.operation(place, operation, inputs)
        return value

    def operation(self, place: str, operation: Operation, values: list[str]) -> str:
        """Add a node; -> its output."""
        names = [f"{place}.{name}" for name in operation.constants]
        self.constants += map(self._onnx.numpy_helper.from_array, operation.constants.values(), names)
        output = f"{place}.{operation.operator}"
        if any(node.name == output for node in self.nodes):
            output += f".{len(self.nodes)}"
        make = self._onnx.helper.make_node
        self.nodes.append(
            make(operation.operator, [*values, *names], [output], output, **operation.attributes)
        )
        return output


def _preprocessing(network: Network) -> list[tuple[str, Operation]]:
    """What the network's preprocessing does to each channel, by name."""
    if network.preprocessing is None or not network.preprocessing.normalizes:
        return []
    shift, scale = (
        array.reshape(-1, 1, 1) for array in network.preprocessing.arrays(np.dtype("float32"), "float32")
    )
    return [
        ("preprocessing", Operation("Sub", {"mean": shift})),
        ("preprocessing", Operation("Mul", {"inverse_std": scale})),
    ]


def _convolution(layer: Any, arrays: dict[str, Any]) -> list[Operation]:
    attributes = _window(layer) | {"dilations": layer.dilation, "group": layer.groups}
    padding = _padding(layer.pad) if layer.pad else []
    if not layer.untied_bias:
        return [*padding, Operation("Conv", arrays, attributes)]
    bias = arrays.pop("bias")  # the operator's own bias has one value per channel
    return [*padding, Operation("Conv", arrays, attributes), Operation("Add", {"bias": bias})]


def _padding(layer: Any) -> list[Operation]:
    left, right, top, bottom = layer.padding
    pads = np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
    return [Operation("Pad", {"pads": pads}, {"mode": PAD_MODES[type(layer)]})]


def _transposed_convolution(layer: Any) -> list[Operation]:
    attributes = _window(layer) | {"dilations": layer.dilation, "group": layer.groups}
    ends = [max(end, 0) for end in layer.window.end]
    more = [max(-end, 0) for end in layer.window.end]
    attributes |= {"pads": (*layer.padding, *ends), "output_padding": more}
    return [Operation("ConvTranspose", weights(layer), attributes)]


def _enlarging(layer: Any) -> list[Operation]:
    if any(factor % 1 for factor in layer.scale_factor):  # programs round the places in different ways
        return _resampling(layer)
    arrays = {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, *layer.scale_factor], np.float32)}
    if layer.mode == "nearest":
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        places = "align_corners" if layer.align_corners else "half_pixel"
        how = {"mode": "linear", "coordinate_transformation_mode": places}
    return [Operation("Resize", arrays, how)]


def _dense(layer: Any, arrays: dict[str, Any]) -> list[Operation]:
    return [Operation("Gemm", arrays, {"transB": 1})]


def _max_pooling(layer: Any) -> list[Operation]:
    pads = {"pads": layer.padding * 2, "ceil_mode": int(layer.ceil_mode)}
    return [Operation("MaxPool", {}, _window(layer) | pads | {"dilations": layer.dilation})]


def _average_pooling(layer: Any) -> list[Operation]:
    pooled = Operation("AveragePool", {}, _window(layer) | {"count_include_pad": 1})
    factor = inclusion(layer)
    return [pooled] if np.all(factor == 1) else [pooled, Operation("Mul", {"factor": factor})]


def inclusion(layer: Any) -> Any:
    """What the mean of each whole window is multiplied by (OH, OW): not 1 if padding does not count."""
    rows, columns = (
        np.array([taps[0][1] * size for taps in sampling.taps], np.float32)
        for sampling, size in zip((layer.rows, layer.columns), layer.kernel_size, strict=True)
    )
    return np.outer(rows, columns)


def _resampling(layer: Any) -> list[Operation]:
    matrices = {"rows": layer.rows, "columns": layer.columns}
    arrays = {name: matrix(sampling) for name, sampling in matrices.items()}
    return [Operation("Einsum", arrays, {"equation": SAMPLING})]


def matrix(sampling: Sampling) -> Any:
    """The sampling as a matrix (positions of the output, those of the input)."""
    matrix = np.zeros((len(sampling), sampling.size), np.float32)
    for row, taps in zip(matrix, sampling.taps, strict=True):
        for source, weight in taps:
            row[source] = weight
    return matrix


def _reshape(layer: Any) -> list[Operation]:
    shape = np.array([0, *layer.output_shape], dtype=np.int64)  # 0: the size of the input, here the batch
    return [Operation("Reshape", {"shape": shape})]


def _batch_normalization(layer: Any) -> list[Operation]:
    channels = layer.input_shape[0]
    arrays = {"weight": np.ones(channels, np.float32), "bias": np.zeros(channels, np.float32)}
    arrays |= weights(layer)
    for name in ("running_mean", "running_var"):
        arrays[name] = layer.backend.to_host(layer.statistics[name]).astype(np.float32)
    return [Operation("BatchNormalization", arrays, {"epsilon": layer.eps})]


def _layer_normalization(layer: Any) -> list[Operation]:
    arrays = {"weight": np.ones(layer.input_shape, np.float32)} | weights(layer)
    return [Operation("LayerNormalization", arrays, {"axis": 1, "epsilon": layer.eps})]


def _group_normalization(layer: Any) -> list[Operation]:
    """Out of older operators: GroupNormalization itself came with opset 18."""
    shape, groups = layer.input_shape, layer.groups
    affine = {name: value.reshape(-1, *[1] * (len(shape) - 1)) for name, value in weights(layer).items()}
    one = {"scale": np.ones(groups, np.float32), "shift": np.zeros(groups, np.float32)}
    return [
        Operation("Reshape", {"grouped": np.array([0, groups, -1], np.int64)}),
        Operation("InstanceNormalization", one, {"epsilon": layer.eps}),
        Operation("Reshape", {"shape": np.array([0, *shape], np.int64)}),
        *([Operation("Mul", {"weight": affine["weight"]})] if layer.affine else []),
        *([Operation("Add", {"bias": affine["bias"]})] if layer.affine else []),
    ]


def _prelu(layer: Any) -> list[Operation]:
    weight = weights(layer)["weight"].reshape(-1, *[1] * (len(layer.input_shape) - 1))
    return [Operation("PRelu", {"weight": weight})]


def _gelu(layer: Any) -> list[Operation]:
    """Out of older operators: Gelu itself came with opset 20."""
    if layer.approximate == "none":
        return [
            _times("scale", sqrt(0.5)),
            Operation("Erf"),
            Operation("Add", {"one": _constant(1)}),
            _times("half", 0.5),
            Operation("Mul", inputs=(X, "Mul")),
        ]
    return [
        Operation("Mul", inputs=(X, X)),
        _times("cubic", CUBIC * TANH_SCALE),
        Operation("Add", {"scale": _constant(TANH_SCALE)}),
        Operation("Mul", inputs=(X, "Add")),
        Operation("Sigmoid"),
        Operation("Mul", inputs=(X, "Sigmoid")),
    ]


def _softplus(layer: Any) -> list[Operation]:
    return [
        _times("beta", layer.beta),
        Operation("Softplus"),
        Operation("Div", {"divisor": _constant(layer.beta)}),
        Operation("Greater", {"threshold": _constant(layer.threshold / layer.beta)}, inputs=(X,)),
        Operation("Where", inputs=("Greater", X, "Div")),
    ]


def _times(name: str, factor: float) -> Operation:
    return Operation("Mul", {name: _constant(factor)})


def _constant(value: float) -> Any:
    return np.array(value, np.float32)


def _channel_padding(layer: Any) -> list[Operation]:
    missing = layer.channels - layer.input_shape[0]
    others = [0] * (len(layer.input_shape) - 1)
    ends = [0, missing // 2, *others, 0, missing - missing // 2, *others]
    return [Operation("Pad", {"pads": np.array(ends, np.int64)})]


PAD_MODES = {ZeroPad2D: "constant", ReflectionPad2D: "reflect", ReplicationPad2D: "edge"}
JOINS = {"add": Operation("Sum"), "concatenate": Operation("Concat", {}, {"axis": 1})}
FLATTEN = Operation("Flatten", {}, {"axis": 1})
SOFTMAX = Operation("Softmax", {}, {"axis": 1})  # along the first axis of a sample

WEIGHTED: dict[type[Layer], Callable[[Any, dict[str, Any]], list[Operation]]] = {
    Conv2D: _convolution,
    Dense: _dense,
}
"""Into whose weights a normalization after them is folded."""
OPERATIONS: dict[type[Layer], Callable[[Any], list[Operation]]] = {
    ZeroPad2D: _padding,
    ReflectionPad2D: _padding,
    ReplicationPad2D: _padding,
    ConvTranspose2D: _transposed_convolution,
    Upsample2D: _enlarging,
    BatchNorm1D: _batch_normalization,
    BatchNorm2D: _batch_normalization,
    MaxPool2D: _max_pooling,
    GlobalMaxPool2D: lambda layer: [Operation("GlobalMaxPool"), FLATTEN],
    AvgPool2D: _average_pooling,
    AdaptiveAvgPool2D: _resampling,
    GlobalAvgPool2D: lambda layer: [Operation("GlobalAveragePool"), FLATTEN],
    ReLU: lambda layer: [Operation("Relu")],
    Tanh: lambda layer: [Operation("Tanh")],
    Rescale: lambda layer: [_times("factor", layer.factor)],
    PadChannels: _channel_padding,
    Dropout: lambda layer: [],  # inference changes nothing
    Dropout2D: lambda layer: [],
    LayerNorm: _layer_normalization,
    GroupNorm: _group_normalization,
    Softmax: lambda layer: [SOFTMAX],
    Flatten: lambda layer: [FLATTEN],
    LogSoftmax: lambda layer: [Operation("LogSoftmax", {}, {"axis": 1})],
    LeakyReLU: lambda layer: [Operation("LeakyRelu", {}, {"alpha": layer.slope})],
    PReLU: _prelu,
    ELU: lambda layer: [Operation("Elu", {}, {"alpha": layer.alpha})],
    SELU: lambda layer: [Operation("Selu", {}, {"alpha": layer.formula.a, "gamma": layer.formula.b})],
    GELU: _gelu,
    SiLU: lambda layer: [Operation("Sigmoid"), Operation("Mul", inputs=(X, "Sigmoid"))],
    Sigmoid: lambda layer: [Operation("Sigmoid")],
    Softplus: _softplus,
    HardSigmoid: lambda layer: [Operation("HardSigmoid", {}, {"alpha": 1 / 6, "beta": 0.5})],
    HardSwish: lambda layer: [Operation("HardSwish")],
    Reshape: _reshape,
}


def _window(layer: Any) -> dict[str, Any]:
    """The attributes of a sliding window; padding is given for all starts, then for all ends."""
    pads = layer.window.padding + layer.window.end
    return {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": pads}
