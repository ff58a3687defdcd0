"""Makes a network of a graph whose operators this library has.

The graph is followed from its output back to its input. If branches meet in a node, they begin at the last
value that all of them depend on. Their sum is a Residual or a Parallel, their concatenation a Parallel. For
everything else, the error names the node.
"""

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends import Backend
from backends.memory import Shape
from cnn import layers
from cnn.data.preprocessing import Preprocessing
from cnn.layers import Layer
from cnn.network import Network
from cnn.saving.onnx_reader.graph import Graph
from cnn.saving.onnx_reader.operators import CONVERTERS, weight_of
from cnn.saving.onnx_reader.parts import CLOSE, Affine, Made, Part, by_channel, finished
from cnn.support.errors import CheckpointError
from cnn.support.libraries import require
from cnn.support.reading import open_regular
from cnn.support.text import short

ELEMENTWISE = {
    "Abs", "Add", "Clip", "Div", "Erf", "Exp", "Greater", "HardSigmoid", "Log", "Max", "Min", "Mul", "Neg",
    "Pow", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh", "Where",
}  # fmt: skip
FUNCTIONS: tuple[Callable[[], Layer], ...] = (
    layers.SiLU,
    layers.GELU,
    lambda: layers.GELU("tanh"),
    layers.HardSwish,
    layers.HardSigmoid,
)
POINTS = np.linspace(-9, 9, 1801, dtype=np.float32)  # where functions are compared
MOST_BYTES = 1 << 30  # of a file


def read(path: Path, device: Backend | str = "auto") -> Network:
    """The network of an ONNX file on ``device``, with its weights.

    A softmax at the end is left out, since ``predict`` applies it. Class names and the preprocessing of
    pictures are those that :func:`cnn.saving.onnx.export` wrote, if it did. Raises CheckpointError, which
    names the node, for a graph that this library cannot express, and if the file is damaged.
    """
    onnx = require("onnx", "to read an ONNX file")
    try:
        return _Reader(onnx, _loaded(onnx, path)).network(
            backends.get(device) if isinstance(device, str) else device
        )
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {short(str(error), 500)}") from error


def _loaded(onnx: Any, path: Path) -> Any:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise CheckpointError(f"the file has {size:,} bytes, expected at most {MOST_BYTES:,}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except OSError:
        raise
    except Exception as error:  # of the protobuf library and of the checker
        raise CheckpointError(
            f"it is not a valid ONNX file ({short(' '.join(str(error).split()), 200)})"
        ) from None
    return model


class _Reader(Graph):
    """A graph that is followed from its output to its input, and becomes layers."""

    def __init__(self, onnx: Any, model: Any) -> None:
        super().__init__(onnx, model)
        self.producers: dict[str, Any] = {}
        self.dominators: dict[str, str] = {}  # the last value that all ways to a value go through
        self.used: set[str] = set()  # the outputs of nodes that are part of a layer
        self._inside: list[Made] = []  # the layers inside branches
        for node in self.nodes:
            self._take(node)

    def network(self, backend: Backend) -> Network:
        """The network, built on ``backend``."""
        is_double = self.input.type.tensor_type.elem_type == self.onnx.TensorProto.DOUBLE
        parts = self._sequence(self.input.name, self.output)
        shape = self.shapes[self.input.name]
        properties = {each.key: each.value for each in self.model.metadata_props}
        preprocessing = _preprocessing(parts, shape, properties)
        made = finished(parts, shape)
        if made and isinstance(made[-1].layer, layers.Softmax) and len(self.shapes[self.output]) == 1:
            made.pop()  # predict applies it
        network = Network(*(each.layer for each in made))
        network.build(shape, backend=backend, dtype="float64" if is_double else "float32")
        network.load_state_dict(dict(_weights([*made, *self._inside])))
        network.preprocessing = preprocessing
        if "classes" in properties:
            network.class_names = json.loads(properties["classes"])
        return network

    def _take(self, node: Any) -> None:
        """Note where the output of a node comes from."""
        common, *others = self.data_inputs(node) or [""]
        if not common:
            self.fail(node, "has no input that depends on the images")
        for other in others:
            common = self._common(common, other)
        self.producers[node.output[0]], self.dominators[node.output[0]] = node, common

    def _common(self, one: str, other: str) -> str:
        ways = {one}
        while one in self.dominators:
            one = self.dominators[one]
            ways.add(one)
        while other not in ways:
            other = self.dominators[other]
        return other

    def _sequence(self, start: str, end: str) -> list[Part]:
        """The layers between two values; every way to ``end`` goes through ``start``."""
        pieces: list[list[Part]] = []
        while end != start:
            node = self.producers[end]
            if end != node.output[0]:
                self.fail(node, "has several outputs, expected one")
            if end in self.used:
                self.fail(node, "is part of several branches, which no layer here can share")
            self.used.add(end)
            parts = self._parts(node, self.dominators[end])
            for part in parts:
                if isinstance(part, Made):
                    part.shape = part.shape or self.shapes[end]
            pieces.append(parts)
            end = self.dominators[end]
        return [part for piece in reversed(pieces) for part in piece]

    def _parts(self, node: Any, start: str) -> list[Part]:
        """The layers of a node, and of the branches that meet there since ``start``."""
        data = self.data_inputs(node)
        if len(data) > 1 and node.op_type in ("Add", "Sum"):
            return [self._residual(node, [self._sequence(start, name) for name in data])]
        if len(data) > 1 and node.op_type == "Concat":
            if self.attributes(node)["axis"] not in (1, -len(self.batch_shapes[data[0]]) + 1):
                self.fail(node, "joins along another axis than that of the channels")
            branches = [
                self._branch(self._sequence(start, name), start) for name in node.input if name in data
            ]
            if len(data) < len(node.input):
                self.fail(node, "joins a constant")
            return [Made(layers.Parallel(*branches, join="concatenate"))]
        if len(data) > 1 or data[0] != start:
            return self._function(node, start)
        if node.domain not in ("", "ai.onnx") or node.op_type not in CONVERTERS:
            known = ", ".join(sorted({*CONVERTERS, "Concat", "Sum"}))
            self.fail(node, f"is an operator that no layer here computes: expected {known}")
        return CONVERTERS[node.op_type](self, node)

    def _branch(self, parts: list[Part], start: str) -> Layer:
        made = finished(parts, self.shapes[start])
        self._inside += made
        return made[0].layer if len(made) == 1 else layers.Sequential(*(each.layer for each in made))

    def _residual(self, node: Any, ways: list[list[Part]]) -> Made:
        start = self.dominators[node.output[0]]
        if len(ways) != 2:
            return Made(layers.Parallel(*(self._branch(way, start) for way in ways)))
        short_way, long_way = sorted(ways, key=len)
        shortcut = self._branch(short_way, start) if short_way else None
        made = finished(long_way, self.shapes[start])
        self._inside += made
        return Made(layers.Residual(*(each.layer for each in made), shortcut=shortcut))

    def _function(self, node: Any, start: str) -> list[Part]:
        """An activation that consists of several nodes, such as x * sigmoid(x), recognized by its values."""
        region = self._region(node, start)
        names = sorted({each.op_type for each in region})
        if set(names) <= ELEMENTWISE and all(
            self.constants[name].size == 1 for each in region for name in each.input if name in self.constants
        ):
            with np.errstate(all="ignore"):
                values = self.evaluated(region, {start: POINTS})[0]
            for make in (*FUNCTIONS, self._softplus(region, float(values[len(values) // 2]))):
                layer, own = make(), _values(make())
                factor = float(values[-1] / own[-1]) if own[-1] else 0.0
                if factor > 0 and np.allclose(values, factor * own, rtol=CLOSE, atol=CLOSE):
                    self.used |= {each.output[0] for each in region}
                    one = np.ones(self.shapes[node.output[0]], np.float32)
                    return [Made(layer), Affine(factor * one, 0 * one)]
        return self.fail(node, f"joins values in a way that no layer here does ({', '.join(names)})")

    def _softplus(self, region: list[Any], middle: float) -> Callable[[], Layer]:
        """The softplus that has this value at 0, and that is the identity from a threshold on."""
        beta = round(log(2) / middle, 5) if middle > 0 else 1.0
        above = [float(weight_of(self, each)) for each in region if each.op_type == "Greater"]
        return partial(layers.Softplus, beta, round(beta * above[0], 5) if above else 20.0)

    def _region(self, node: Any, start: str) -> list[Any]:
        """The nodes between a value and a node, in order."""
        found, waiting = {node.output[0]}, [*self.data_inputs(node)]
        while waiting:
            name = waiting.pop()
            if name != start and name not in found:
                found.add(name)
                waiting += self.data_inputs(self.producers[name])
        return [each for each in self.nodes if each.output[0] in found]


def _values(layer: Layer) -> Any:
    network = Network(layer)
    network.build((1,), backend=backends.get("cpu", "portable"))
    return network.forward(POINTS[None]).reshape(-1).copy()


def _weights(made: Iterable[Made]) -> Iterable[tuple[str, Any]]:
    for each in made:
        for name, array in each.arrays.items():
            yield f"{each.layer.path}.{name}", array


def _preprocessing(parts: list[Part], shape: Shape, properties: dict[str, str]) -> Preprocessing | None:
    """What is done to the images first, which is taken out of ``parts``; and how pictures become images."""
    if len(shape) != 3:
        return None
    scale, shift = np.ones(shape[0]), np.zeros(shape[0])
    count = 0
    for part in parts:
        factor, addend = (
            (by_channel(part.scale), by_channel(part.shift)) if isinstance(part, Affine) else (None, None)
        )
        if factor is None or addend is None or (factor <= 0).any():
            break
        scale, shift, count = scale * factor, shift * factor + addend, count + 1
    if shift.any():
        del parts[:count]
    else:
        scale = np.ones(shape[0])  # a factor is a layer
    fit = (
        json.loads(properties["preprocessing"])["fit"] if "preprocessing" in properties else Preprocessing.fit
    )
    found = Preprocessing(tuple((-shift / scale).tolist()), tuple((1 / scale).tolist()), fit)
    return found if found.normalizes or "preprocessing" in properties else None
