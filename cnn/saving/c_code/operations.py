"""A network as a list of operations on values; the table LAYERS has the operations of each layer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

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
from cnn.layers.layer import Shape
from cnn.network import Network
from cnn.saving.writer import Writer, weights


@dataclass(eq=False)
class Value:
    """The numbers that an operation gives: their shape, and their range on the calibration images."""

    shape: Shape
    low: float = 0.0
    high: float = 0.0

    @property
    def size(self) -> int:
        """The number of its numbers."""
        return prod(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def positions(self) -> int:
        """The numbers of one channel."""
        return prod(self.shape[1:])


@dataclass(frozen=True, eq=False)
class Operation:
    """A function of one or more values, with its constant arrays and its other settings.

    Arrays in brackets are optional.

    ===================  =====================================  ==========================================
    kind                 arrays                                 settings
    ===================  =====================================  ==========================================
    convolve             weight, [bias (O,) or (O, OH, OW)]     window, groups
    convolve_transposed  weight, [bias (O,)]                    window, groups
    dense                weight, [bias]
    pool_max                                                    window
    average (channels)
    resample                                                    rows, columns (each a Sampling)
    pad_channels                                                before
    activate                                                    function
    prelu                weight (1,) or (C,)
    scale_and_shift      scale (C,), shift (C,)
    multiply                                                    factor
    normalize            [weight], [bias]                       groups, eps
    softmax, log_softmax
    reshape
    add, concatenate (of two values, of several)
    ===================  =====================================  ==========================================
    """

    kind: str
    arrays: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None  # of its output; None: as that of the layer


@dataclass(frozen=True, eq=False)
class Node:
    """An operation in a program: what it is applied to, what it gives, and the layer that it comes from."""

    operation: Operation
    inputs: tuple[Value, ...]
    output: Value
    layer: Layer

    @property
    def kind(self) -> str:
        return self.operation.kind


@dataclass(frozen=True, eq=False)
class Program:
    """The operations of a network in order, from prepared images to what ``predict`` gives."""

    nodes: list[Node]
    input: Value
    output: Value
    multiply_adds: int


def program_of(network: Network, samples: Any = None) -> Program:
    """The operations of ``network``.

    ``samples`` (C, H, W, N), on the network's device, are prepared images on which the ranges of all values
    are measured. Raises ArgumentError for a layer that is not in the table.
    """
    recorder = _Recorder()
    with network.backend.active():
        first = recorder.traced(network.input_shape, samples)
        last = recorder.layer(network, first)
        if not network.gives_probabilities and len(network.output_shape) == 1:  # as in Network.probabilities
            last = recorder.operation(Operation("softmax"), network, (last,), last.value.shape)
    return Program(recorder.nodes, first.value, last.value, recorder.multiply_adds)


@dataclass(frozen=True)
class _Traced:
    """A value, and its numbers for the calibration images."""

    value: Value
    samples: Any = None


class _Recorder(Writer[_Traced]):
    """Records the operations of a network."""

    def __init__(self) -> None:
        super().__init__("C", tuple(LAYERS))
        self.nodes: list[Node] = []
        self.multiply_adds = 0

    def write(self, layer: Any, normalization: Layer | None, traced: _Traced) -> _Traced:
        self.multiply_adds += layer.multiply_adds
        operations = LAYERS[type(layer)](layer, weights(layer, normalization))
        for array in (array for operation in operations for array in operation.arrays.values()):
            if not np.isfinite(array).all():
                raise self.refusal(layer, "it has weights that are not finite")
        samples = traced.samples
        if samples is not None:
            for each in (layer, normalization):
                samples = samples if each is None else each.forward(samples, training=False)
            samples = samples.copy()  # the buffer may be used again
            if not np.isfinite(float(samples.min()) + float(samples.max())):
                raise self.refusal(layer, "its output for the calibration images is not finite")
        for operation in operations:
            is_last = operation is operations[-1]
            shape = operation.shape or layer.output_shape
            traced = self.operation(operation, layer, (traced,), shape, samples if is_last else None)
        return _Traced(traced.value, samples)

    def join(self, layer: Parallel, branches: list[_Traced]) -> _Traced:
        first, *others = branches
        if layer.join == "concatenate":
            samples = None if first.samples is None else _concatenated(layer, branches)
            kind = Operation("concatenate")
            return self.operation(kind, layer, tuple(branches), layer.output_shape, samples)
        for other in others:
            samples = None if first.samples is None else first.samples + other.samples
            first = self.operation(Operation("add"), layer, (first, other), layer.output_shape, samples)
        return first

    def operation(
        self,
        operation: Operation,
        layer: Layer,
        inputs: tuple[_Traced, ...],
        shape: Shape,
        samples: Any = None,
    ) -> _Traced:
        """Record an operation; -> its output. Without samples, its range is that of its input."""
        result = self.traced(shape, samples, inputs[0].value)
        values = tuple(each.value for each in inputs)
        self.nodes.append(Node(operation, values, result.value, layer))
        return result

    def traced(self, shape: Shape, samples: Any, before: Value | None = None) -> _Traced:
        """A new value."""
        if samples is not None:
            low, high = float(samples.min()), float(samples.max())
        else:
            low, high = (before.low, before.high) if before else (0.0, 0.0)
        return _Traced(Value(shape, low, high), samples)


def _concatenated(layer: Layer, branches: list[_Traced]) -> Any:
    samples = [each.samples for each in branches]
    return layer.backend.xp.concatenate(samples, axis=0)


Arrays = dict[str, Any]


def _convolution(layer: Any, arrays: Arrays) -> list[Operation]:
    padding = [] if layer.pad is None else _resampling(layer.pad, {})
    return [*padding, Operation("convolve", arrays, {"window": layer.window, "groups": layer.groups})]


def _transposed_convolution(layer: Any, arrays: Arrays) -> list[Operation]:
    settings = {"window": layer.window, "groups": layer.groups}
    return [Operation("convolve_transposed", arrays, settings)]


def _dense(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("dense", arrays)]


def _max_pooling(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("pool_max", settings={"window": layer.window})]


def _average(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("average")]


def _resampling(layer: Any, arrays: Arrays) -> list[Operation]:
    settings = {"rows": layer.rows, "columns": layer.columns}
    return [Operation("resample", settings=settings, shape=layer.output_shape)]


def _channel_padding(layer: Any, arrays: Arrays) -> list[Operation]:
    before = (layer.channels - layer.input_shape[0]) // 2
    return [Operation("pad_channels", settings={"before": before})]


def _activation(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("activate", settings={"function": layer.formula})]


def _prelu(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("prelu", arrays)]


def _batch_normalization(layer: Any, arrays: Arrays) -> list[Operation]:
    channels = layer.input_shape[0]
    mean, variance = (
        layer.backend.to_host(layer.statistics[name]).astype(np.float64)
        for name in ("running_mean", "running_var")
    )
    scale = arrays.get("weight", np.ones(channels)) / np.sqrt(variance + layer.eps)
    shift = arrays.get("bias", np.zeros(channels)) - mean * scale
    return [Operation("scale_and_shift", {"scale": np.float32(scale), "shift": np.float32(shift)})]


def _normalization(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("normalize", arrays, {"groups": layer.groups, "eps": layer.eps})]


def _softmax(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("softmax")]


def _log_softmax(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("log_softmax")]


def _rescaling(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("multiply", settings={"factor": layer.factor})]


def _view(layer: Any, arrays: Arrays) -> list[Operation]:
    return [Operation("reshape")]


def _nothing(layer: Any, arrays: Arrays) -> list[Operation]:
    return []


LAYERS: dict[type[Layer], Callable[[Any, Arrays], list[Operation]]] = {
    Conv2D: _convolution,
    ConvTranspose2D: _transposed_convolution,
    Dense: _dense,
    BatchNorm1D: _batch_normalization,
    BatchNorm2D: _batch_normalization,
    LayerNorm: _normalization,
    GroupNorm: _normalization,
    MaxPool2D: _max_pooling,
    GlobalMaxPool2D: _max_pooling,
    GlobalAvgPool2D: _average,
    AvgPool2D: _resampling,
    AdaptiveAvgPool2D: _resampling,
    ZeroPad2D: _resampling,
    ReflectionPad2D: _resampling,
    ReplicationPad2D: _resampling,
    Upsample2D: _resampling,
    PadChannels: _channel_padding,
    Rescale: _rescaling,
    Dropout: _nothing,
    Dropout2D: _nothing,
    Flatten: _view,
    Reshape: _view,
    ReLU: _activation,
    Tanh: _activation,
    LeakyReLU: _activation,
    ELU: _activation,
    SELU: _activation,
    GELU: _activation,
    SiLU: _activation,
    Sigmoid: _activation,
    Softplus: _activation,
    HardSigmoid: _activation,
    HardSwish: _activation,
    PReLU: _prelu,
    Softmax: _softmax,
    LogSoftmax: _log_softmax,
}
"""The operations of each layer, which gets its weights as host arrays."""
