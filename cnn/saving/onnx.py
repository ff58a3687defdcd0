"""Networks as ONNX files, for programs that know nothing of this library.

Operators: https://onnx.ai/onnx/operators/
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnn.layers import (
    AvgPool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Reshape,
    Sequential,
    Softmax,
    Tanh,
)
from cnn.network import Network
from cnn.support.errors import ArgumentError
from cnn.support.files import write_whole
from cnn.support.libraries import require
from cnn.support.version import VERSION

OPSET = 17  # of the operators
IR_VERSION = 8  # of the file's form: the one that came with the opset
INPUT, OUTPUT = "images", "probabilities"
SCALING = "bytes scaled to 0..1"


@dataclass(frozen=True)
class Operation:
    """A node that is yet to be put behind the one before it."""

    operator: str
    constants: dict[str, Any] = field(default_factory=dict)  # its further inputs, in order
    attributes: dict[str, Any] = field(default_factory=dict)


def export(network: Network, path: str | Path, classes: Sequence[str] | None = None) -> None:
    """Write ``network`` to ``path`` as an ONNX model that gives what ``network.predict`` gives for floats.

    Parameters
    ----------
    network : Network
        Built. A float64 network is written with float32 weights.
    path : str or Path
        Its folder exists. The same network gives the same bytes.
    classes : sequence of str
        The names of the classes, kept in the file's metadata as JSON under "classes".

    Notes
    -----
    The input "images" is float32 (N, C, H, W), already scaled, or (N, F); the output "probabilities"
    is float32 (N, classes). N is free.

    Raises
    ------
    ArgumentError
        Names the layer that ONNX cannot express, or says that the package onnx is missing.
    OSError
        Where the file cannot be written; nothing half-written is left behind.
    """
    network.require_built()
    onnx = require("onnx", "to write an ONNX file")
    model = onnx.helper.make_model(
        _graph(onnx, network),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xpcnn",
        producer_version=VERSION,
        doc_string=f"{INPUT}: {SCALING}, other numbers as they were in training; {OUTPUT}: of each class",
    )
    if classes is not None:
        onnx.helper.set_model_props(model, {"classes": json.dumps(list(classes))})
    onnx.checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString(deterministic=True))


def _graph(onnx: Any, network: Network) -> Any:
    """The operations as a chain of nodes; values and constants are named by their layer's place."""
    nodes: list[Any] = []
    constants: list[Any] = []
    value = INPUT
    for place, operation in _operations(network):
        names = [f"{place}.{name}" for name in operation.constants]
        constants += map(onnx.numpy_helper.from_array, operation.constants.values(), names)
        inputs, value = [value, *names], f"{place}.{operation.operator}"
        node = onnx.helper.make_node(operation.operator, inputs, [value], value, **operation.attributes)
        nodes.append(node)
    nodes[-1].output[0] = OUTPUT
    images, probabilities = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *sample])
        for name, sample in ((INPUT, network.input_shape), (OUTPUT, network.output_shape))
    )
    return onnx.helper.make_graph(nodes, "network", [images], [probabilities], constants)


def _operations(network: Network) -> Iterator[tuple[str, Operation]]:
    """The network's operations in order, each with the place of its layer; a softmax last."""
    for layer in _plain_layers(network):
        for operation in OPERATIONS[type(layer)](layer):
            yield layer.path, operation
    if not network.gives_probabilities:
        yield "predict", SOFTMAX


def _plain_layers(layer: Layer) -> Iterator[Layer]:
    """The layers inside ``layer``; ArgumentError for a type that is not in the table.

    The exact type counts, since a subclass may compute something else.
    """
    if isinstance(layer, Sequential) and layer.is_own:
        for inner in layer.layers:
            yield from _plain_layers(inner)
    elif type(layer) in OPERATIONS:
        yield layer
    else:
        known = ", ".join(kind.__name__ for kind in (*OPERATIONS, Sequential))
        raise ArgumentError(f"layer {layer.label} cannot be expressed in ONNX: expected {known}")


def _convolution(layer: Any) -> list[Operation]:
    attributes = _window(layer) | {"dilations": layer.dilation, "group": layer.groups}
    arrays = _weights(layer)
    if not layer.untied_bias:
        return [Operation("Conv", arrays, attributes)]
    bias = arrays.pop("bias")  # the operator's own is a number for each channel
    return [Operation("Conv", arrays, attributes), Operation("Add", {"bias": bias})]


def _dense(layer: Any) -> list[Operation]:
    return [Operation("Gemm", _weights(layer), {"transB": 1})]


def _max_pooling(layer: Any) -> list[Operation]:
    return [Operation("MaxPool", {}, _window(layer) | {"dilations": layer.dilation})]


def _average_pooling(layer: Any) -> list[Operation]:
    return [Operation("AveragePool", {}, _window(layer) | {"count_include_pad": 1})]


def _reshape(layer: Any) -> list[Operation]:
    shape = np.array([0, *layer.output_shape], dtype=np.int64)  # 0: as the input has it, the batch
    return [Operation("Reshape", {"shape": shape})]


SOFTMAX = Operation("Softmax", {}, {"axis": 1})  # along the first axis of a sample

OPERATIONS: dict[type[Layer], Callable[[Any], list[Operation]]] = {
    Conv2D: _convolution,
    Dense: _dense,
    MaxPool2D: _max_pooling,
    AvgPool2D: _average_pooling,
    ReLU: lambda layer: [Operation("Relu")],
    Tanh: lambda layer: [Operation("Tanh")],
    Softmax: lambda layer: [SOFTMAX],
    Flatten: lambda layer: [Operation("Flatten", {}, {"axis": 1})],
    Reshape: _reshape,
}


def _window(layer: Any) -> dict[str, Any]:
    """A sliding window as attributes; padding is that of all tops and lefts, then all ends."""
    return {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": layer.padding * 2}


def _weights(layer: Layer) -> dict[str, Any]:
    """The layer's parameters on the host, in float32."""
    return {
        name: layer.backend.to_host(parameter.value).astype(np.float32)
        for name, parameter in layer.parameters.items()
    }
