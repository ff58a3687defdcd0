"""Reads ONNX files: a graph whose operators this library has becomes a network with the same outputs.

The graph is followed from its output back to its input. If branches meet in a node, they begin at the last
value that all of them depend on: their sum is a Residual, their concatenation a Parallel. Everything else is
refused with the name of its node.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import log, prod
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
from cnn.saving.onnx import SAMPLING, inclusion, matrix
from cnn.support.errors import CheckpointError
from cnn.support.libraries import require
from cnn.support.text import short

FOLDED = {
    "Cast", "Concat", "ConstantOfShape", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
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
POINTS = np.linspace(-9, 9, 1801, dtype=np.float32)  # where a function is compared with these
CLOSE = 2e-6
SHORT = 100  # numbers of a constant that is made
MOST_BYTES = 1 << 30  # of a file


@dataclass
class Made:
    """A layer, its weights, and the shape of its output if that is not the node's."""

    layer: Layer
    arrays: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    before: Shape | None = None  # the shape of the input of an average pooling


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
    if path.stat().st_size > MOST_BYTES:
        raise CheckpointError(f"the file has {path.stat().st_size:,} bytes, expected at most {MOST_BYTES:,}")
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


class _Shapes(dict[str, Shape]):
    """Shapes by the names of values; CheckpointError for one that is not known."""

    def __missing__(self, name: str) -> Shape:
        raise CheckpointError(f"the shape of the value {name} is not known before the network runs")


class _Reader:
    """A graph with its constants, its shapes and the order of its values."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.model = onnx, model
        graph = model.graph
        self.opset = next((used.version for used in model.opset_import if used.domain in ("", "ai.onnx")), 0)
        self.constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
        self.input = self._only([each for each in graph.input if each.name not in self.constants], "input")
        self.output = self._only(graph.output, "output").name
        self._set_batch_of_one()
        self._infer()
        while self._fold():
            self._infer()
        self.producers: dict[str, Any] = {}
        self.dominators: dict[str, str] = {}  # the last value that all ways to a value go through
        self.used: set[str] = set()  # the outputs of nodes that are part of a layer
        self._inside: list[Made] = []  # the layers inside branches
        for node in graph.node:
            self._take(node)

    def network(self, backend: Backend) -> Network:
        """The network, built on ``backend``."""
        is_double = self.input.type.tensor_type.elem_type == self.onnx.TensorProto.DOUBLE
        parts = self._sequence(self.input.name, self.output)
        shape = self.shapes[self.input.name]
        properties = {each.key: each.value for each in self.model.metadata_props}
        preprocessing = _preprocessing(parts, shape, properties)
        made = _finished(parts, shape)
        if made and isinstance(made[-1].layer, layers.Softmax) and len(self.shapes[self.output]) == 1:
            made.pop()  # predict applies it
        network = Network(*(each.layer for each in made))
        network.build(shape, backend=backend, dtype="float64" if is_double else "float32")
        network.load_state_dict(dict(_weights([*made, *self._inside])))
        network.preprocessing = preprocessing
        if "classes" in properties:
            network.class_names = json.loads(properties["classes"])
        return network

    def _only(self, found: Sequence[Any], what: str) -> Any:
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise CheckpointError(f"the graph has {len(found)} {what}s ({short(names, 100)}), expected one")
        return found[0]

    def _set_batch_of_one(self) -> None:
        """Let all shapes be those for a single sample, so that they are known."""
        kind = self.input.type.tensor_type
        dims = kind.shape.dim
        if len(dims) < 2 or not all(each.dim_value for each in dims[1:]):
            names = ", ".join(str(each.dim_value or each.dim_param or "?") for each in dims)
            raise CheckpointError(
                f"its input {self.input.name} is ({names}), expected a batch of samples of a fixed shape: "
                "export the network with the height and width of its images"
            )
        if kind.elem_type not in (self.onnx.TensorProto.FLOAT, self.onnx.TensorProto.DOUBLE):
            raise CheckpointError(f"its input {self.input.name} has a dtype other than float32 and float64")
        dims[0].ClearField("dim_param")
        dims[0].dim_value = 1
        for each in self.model.graph.output:
            each.type.tensor_type.ClearField("shape")

    def _infer(self) -> None:
        """Find the shapes of all values."""
        self.model.graph.ClearField("value_info")
        try:
            found = self.onnx.shape_inference.infer_shapes(self.model, strict_mode=True, data_prop=True).graph
        except Exception as error:  # InferenceError is not public
            reason = short(" ".join(str(error).split()), 200)
            raise CheckpointError(
                f"the shapes of its values do not fit a batch of any size ({reason})"
            ) from None
        self.known = _Shapes(
            (each.name, tuple(int(dim.dim_value) for dim in each.type.tensor_type.shape.dim))
            for each in [*found.input, *found.value_info, *found.output]
            if each.type.tensor_type.HasField("shape")
            and all(dim.dim_value for dim in each.type.tensor_type.shape.dim)
        )
        self.shapes = _Shapes((name, shape[1:]) for name, shape in self.known.items())

    def _fold(self) -> int:
        """Replace nodes whose output is constant by constants; -> how many."""
        graph, before = self.model.graph, len(self.constants)
        rest = [node for node in graph.node if not self._is_folded(node)]
        graph.ClearField("node")
        graph.node.extend(rest)
        for name in list(self.constants)[before:]:
            graph.initializer.append(self.onnx.numpy_helper.from_array(self.constants[name], name))
        return len(self.constants) - before

    def _is_folded(self, node: Any) -> bool:
        """Whether the output of a node is constant, which is then among the constants."""
        data, output = self.data_inputs(node), node.output[0]
        if node.op_type == "Constant":
            self.constants[output] = self._constant(node)
        elif node.op_type == "Shape" and data and data[0] in self.known and not node.attribute:
            self.constants[output] = np.array(self.known[data[0]], np.int64)
        elif not data and node.op_type in FOLDED and self._is_small(node):
            self.constants[output] = np.asarray(self._evaluated([node], {})[0])
        else:
            return False
        return True

    def _take(self, node: Any) -> None:
        """Note where the output of a node comes from."""
        common, *others = self.data_inputs(node) or [""]
        if not common:
            self.fail(node, "has no input that depends on the images")
        for other in others:
            common = self._common(common, other)
        self.producers[node.output[0]], self.dominators[node.output[0]] = node, common

    def _is_small(self, node: Any) -> bool:
        """Whether its output is no longer than its inputs, or short."""
        return node.op_type != "ConstantOfShape" or prod(map(int, self.constants[node.input[0]])) <= SHORT

    def data_inputs(self, node: Any) -> list[str]:
        """The inputs of a node that are not constant."""
        return [name for name in node.input if name and name not in self.constants]

    def _common(self, one: str, other: str) -> str:
        ways = {one}
        while one in self.dominators:
            one = self.dominators[one]
            ways.add(one)
        while other not in ways:
            other = self.dominators[other]
        return other

    def _constant(self, node: Any) -> Any:
        (attribute,) = node.attribute
        value = self.onnx.helper.get_attribute_value(attribute)
        is_tensor = isinstance(value, self.onnx.TensorProto)
        return self.onnx.numpy_helper.to_array(value) if is_tensor else np.array(value)

    def _evaluated(self, nodes: list[Any], inputs: dict[str, Any]) -> list[Any]:
        """The output of the last of a few nodes, by ONNX's own reference."""
        helper, onnx = self.onnx.helper, self.onnx
        constants = {
            name: self.constants[name] for node in nodes for name in node.input if name in self.constants
        }
        given = {**constants, **inputs}
        kinds = {
            name: helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype) for name, value in given.items()
        }
        infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
        result = onnx.ValueInfoProto(name=nodes[-1].output[0])
        graph = helper.make_graph(nodes, "part", infos, [result])
        model = helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        return require("onnx.reference", "to read an ONNX file").ReferenceEvaluator(model).run(None, given)

    def fail(self, node: Any, reason: str) -> Any:
        """Raise CheckpointError about a node."""
        raise CheckpointError(f"node {node.name or node.output[0]} {node.op_type} {reason}")

    def attributes(self, node: Any) -> dict[str, Any]:
        """The attributes of a node by name, with the defaults of its operator."""
        known = self.onnx.defs.get_schema(node.op_type, self.opset, node.domain).attributes.values()
        defaults = [each.default_value for each in known if each.default_value.name]
        values = {
            each.name: self.onnx.helper.get_attribute_value(each) for each in (*defaults, *node.attribute)
        }
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}

    def _sequence(self, start: str, end: str) -> list[Part]:
        """The layers between two values, of which every way to ``end`` goes through ``start``."""
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
            if self.attributes(node)["axis"] not in (1, -len(self.known[data[0]]) + 1):
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
        made = _finished(parts, self.shapes[start])
        self._inside += made
        return made[0].layer if len(made) == 1 else layers.Sequential(*(each.layer for each in made))

    def _residual(self, node: Any, ways: list[list[Part]]) -> Made:
        start = self.dominators[node.output[0]]
        if len(ways) != 2:
            return Made(layers.Parallel(*(self._branch(way, start) for way in ways)))
        short_way, long_way = sorted(ways, key=len)
        shortcut = self._branch(short_way, start) if short_way else None
        made = _finished(long_way, self.shapes[start])
        self._inside += made
        return Made(layers.Residual(*(each.layer for each in made), shortcut=shortcut))

    def _function(self, node: Any, start: str) -> list[Part]:
        """An activation that the file spells out, such as x * sigmoid(x), told by its values."""
        region = self._region(node, start)
        names = sorted({each.op_type for each in region})
        if set(names) <= ELEMENTWISE and all(
            self.constants[name].size == 1 for each in region for name in each.input if name in self.constants
        ):
            with np.errstate(all="ignore"):
                values = self._evaluated(region, {start: POINTS})[0]
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
        above = [float(_weight(self, each)) for each in region if each.op_type == "Greater"]
        return partial(layers.Softplus, beta, round(beta * above[0], 5) if above else 20.0)

    def _region(self, node: Any, start: str) -> list[Any]:
        """The nodes between a value and a node, in order."""
        found, waiting = {node.output[0]}, [*self.data_inputs(node)]
        while waiting:
            name = waiting.pop()
            if name != start and name not in found:
                found.add(name)
                waiting += self.data_inputs(self.producers[name])
        return [each for each in self.model.graph.node if each.output[0] in found]


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
            (_by_channel(part.scale), _by_channel(part.shift)) if isinstance(part, Affine) else (None, None)
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


def _by_channel(array: Any) -> Any:
    """The number of each channel; None if an array has several for one."""
    rows = array.reshape(len(array), -1)
    return rows[:, 0].astype(np.float64) if (rows == rows[:, :1]).all() else None


def _finished(parts: list[Part], shape: Shape) -> list[Made]:
    """The layers of all parts: views in a row are one layer, affine functions belong to the layer before."""
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
    factor, addend = _by_channel(scale), _by_channel(shift)
    if last and last.before and not shift.any() and (scale == scale[:1]).all():
        made[-1] = _other_pooling(last, last.before, scale[0])
    elif last and _takes_untied_bias(last.layer) and (scale == 1).all() and addend is None:
        layer = _changed(last.layer, bias=True, untied_bias=True)
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
        made[-1] = Made(_changed(last.layer, bias=True), arrays, last.shape)
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
    """The average pooling whose means are these times those of whole windows."""
    taps = prod(pooling.layer.kernel_size)  # type: ignore[attr-defined]
    divisor = max(1, round(taps / factor.flat[0]))
    for changes in ({"count_include_pad": False, "divisor_override": None}, {"divisor_override": divisor}):
        layer = _changed(pooling.layer, **changes)
        Network(layer).build(input_shape, backend=backends.get("cpu", "portable"))
        if np.allclose(inclusion(layer), factor, rtol=1e-5):
            return Made(layer.fresh(), {}, pooling.shape)
    raise CheckpointError(
        "the means of an average pooling are multiplied by numbers that no pooling here has"
    )


def _changed(layer: Any, **changes: Any) -> Layer:
    return type(layer)(**layer.config | changes)


def _plain(kind: Callable[[], Layer]) -> Callable[[_Reader, Any], list[Part]]:
    return lambda reader, node: [Made(kind())]


def _nothing(reader: _Reader, node: Any) -> list[Part]:
    return []


def _view(reader: _Reader, node: Any) -> list[Part]:
    shape, axis = reader.known[node.output[0]], reader.attributes(node).get("axis", 1)
    if node.op_type == "Flatten" and axis not in (1, 1 - len(reader.known[node.input[0]])):
        reader.fail(node, f"flattens from axis {axis} on, expected 1")
    if shape[0] != 1 or prod(shape[1:]) != prod(reader.shapes[reader.data_inputs(node)[0]]) or len(shape) < 2:
        reader.fail(node, "changes the shape across the samples of a batch")
    return [View(shape[1:])]


def _window(reader: _Reader, node: Any, kernel: Sequence[int]) -> tuple[dict[str, Any], Any]:
    """The kernel, the stride and the dilation; and the padding ((top, bottom), (left, right))."""
    said = reader.attributes(node)
    if len(kernel) != 2:
        reader.fail(node, f"slides over {len(kernel)} dimensions, expected height and width")
    strides, dilations = tuple(said.get("strides", (1, 1))), tuple(said.get("dilations", (1, 1)))
    pads = tuple(said.get("pads", (0,) * 4))
    automatic = said.get("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        sizes = zip(reader.shapes[node.input[0]][1:], kernel, strides, dilations, strict=True)
        totals = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in sizes]
        less, more = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        pads = less + more if automatic == "SAME_UPPER" else more + less
    how = {"kernel_size": tuple(kernel), "stride": strides, "dilation": dilations}
    return how, ((pads[0], pads[2]), (pads[1], pads[3]))


def _even(padding: Any) -> Any:
    """(vertical, horizontal) if both sides are padded alike; None otherwise."""
    return (padding[0][0], padding[1][0]) if all(one == other for one, other in padding) else None


def _weight(reader: _Reader, node: Any, place: int = 1) -> Any:
    name = node.input[place] if len(node.input) > place else ""
    if name not in reader.constants:
        reader.fail(node, f"has an input {name!r} that is not constant, expected weights")
    return reader.constants[name]


def _optional(reader: _Reader, node: Any, place: int) -> Any:
    return _weight(reader, node, place) if len(node.input) > place and node.input[place] else None


def _with_bias(weight: Any, bias: Any) -> dict[str, Any]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _convolution(reader: _Reader, node: Any) -> list[Part]:
    weight, bias = _weight(reader, node), _optional(reader, node, 2)
    how, padding = _window(reader, node, weight.shape[2:])
    groups = reader.attributes(node)["group"]
    layer = layers.Conv2D(len(weight), padding=padding, groups=groups, bias=bias is not None, **how)
    return [Made(layer, _with_bias(weight, bias))]


def _transposed(reader: _Reader, node: Any) -> list[Part]:
    weight, bias, said = _weight(reader, node), _optional(reader, node, 2), reader.attributes(node)
    how, padding = _window(reader, node, weight.shape[2:])
    begin, end = zip(*padding, strict=True)
    more = [b - e + m for b, e, m in zip(begin, end, said.get("output_padding", (0, 0)), strict=True)]
    if min(more) < 0 or "output_shape" in said or said.get("auto_pad", "NOTSET") != "NOTSET":
        reader.fail(node, "has a padding that no layer here has")
    sizes = {"padding": begin, "output_padding": tuple(more), "groups": said["group"]}
    out = weight.shape[1] * said["group"]
    layer = layers.ConvTranspose2D(out, bias=bias is not None, **how, **sizes)
    return [Made(layer, _with_bias(weight, bias))]


def _dense(reader: _Reader, node: Any) -> list[Part]:
    said, weight, bias = reader.attributes(node), _weight(reader, node), _optional(reader, node, 2)
    if said["transA"]:
        reader.fail(node, "transposes its first input (transA)")
    weight = (weight if said["transB"] else weight.T) * said["alpha"]
    if bias is not None:
        bias = np.broadcast_to(np.ravel(bias) * said["beta"], len(weight))
    return [Made(layers.Dense(len(weight), bias=bias is not None), _with_bias(weight, bias))]


def _product(reader: _Reader, node: Any) -> list[Part]:
    if node.input[1] not in reader.constants or len(reader.shapes[node.input[0]]) != 1:
        reader.fail(node, "is no product of a batch of vectors with weights")
    weight = _weight(reader, node)
    return [Made(layers.Dense(weight.shape[1], bias=False), {"weight": weight.T})]


def _max_pooling(reader: _Reader, node: Any) -> list[Part]:
    said = reader.attributes(node)
    how, padding = _window(reader, node, said["kernel_shape"])
    if said.get("storage_order"):
        reader.fail(node, "has another storage_order")
    return [Made(_pool(reader, node, layers.MaxPool2D, how, padding).fresh())]


def _average_pooling(reader: _Reader, node: Any) -> list[Part]:
    said = reader.attributes(node)
    how, padding = _window(reader, node, said["kernel_shape"])
    if how.pop("dilation") != (1, 1):
        reader.fail(node, "is dilated")
    how["count_include_pad"] = bool(said.get("count_include_pad", 0))
    layer = _pool(reader, node, layers.AvgPool2D, how, padding)
    if how["count_include_pad"] and not said.get("ceil_mode") and not (inclusion(layer) == 1).all():
        layer = _changed(layer, divisor_override=prod(said["kernel_shape"]))  # the padding counts, all of it
    return [Made(layer.fresh(), before=reader.shapes[node.input[0]])]


def _pool(reader: _Reader, node: Any, kind: Any, how: dict[str, Any], padding: Any) -> Layer:
    """The pooling with this padding, built; uneven padding may come from rounding the size up."""
    begin = padding[0][0], padding[1][0]
    rounds_up = bool(reader.attributes(node).get("ceil_mode", 0)) or _even(padding) is None
    layer: Any = kind(padding=begin, ceil_mode=rounds_up, **how)
    network = Network(layer)
    network.build(reader.shapes[node.input[0]], backend=backends.get("cpu", "portable"))
    fits = network.output_shape == reader.shapes[node.output[0]]
    if not fits or (_even(padding) is None and layer.window.end != (padding[0][1], padding[1][1])):
        reader.fail(node, f"has the padding {padding}, which no pooling here has")
    return layer


def _global(kind: Callable[[], Layer]) -> Callable[[_Reader, Any], list[Part]]:
    def convert(reader: _Reader, node: Any) -> list[Part]:
        shape = reader.shapes[node.input[0]]
        if len(shape) != 3:
            reader.fail(node, f"has an input of the shape {shape}, expected (C, H, W)")
        return [Made(kind(), {}, shape[:1]), View(reader.shapes[node.output[0]])]

    return convert


def _mean(reader: _Reader, node: Any) -> list[Part]:
    axes = reader.attributes(node).get("axes") if len(node.input) < 2 else reader.constants.get(node.input[1])
    rank = len(reader.known[node.input[0]])
    if axes is None or rank != 4 or sorted(axis % rank for axis in axes) != [2, 3]:
        reader.fail(node, "is not the mean over height and width")
    return _global(layers.GlobalAvgPool2D)(reader, node)


def _normalization(reader: _Reader, node: Any) -> list[Part]:
    said = reader.attributes(node)
    kind = layers.BatchNorm1D if len(reader.shapes[node.input[0]]) == 1 else layers.BatchNorm2D
    if said.get("training_mode"):
        reader.fail(node, "is in training mode: export the network for inference")
    names = "weight", "bias", "running_mean", "running_var"
    arrays = {name: _weight(reader, node, place) for place, name in enumerate(names, 1)}
    return [Made(kind(eps=said["epsilon"], momentum=round(1 - said["momentum"], 6)), arrays)]


def _layer_normalization(reader: _Reader, node: Any) -> list[Part]:
    said, rank = reader.attributes(node), len(reader.known[node.input[0]])
    weight, bias = _weight(reader, node), _optional(reader, node, 2)
    if said["axis"] % rank != 1:
        reader.fail(node, "does not normalize whole samples")
    return [Made(layers.LayerNorm(eps=said["epsilon"], bias=bias is not None), _with_bias(weight, bias))]


def _instance_normalization(reader: _Reader, node: Any) -> list[Part]:
    arrays = {"weight": _weight(reader, node), "bias": _weight(reader, node, 2)}
    return [Made(layers.GroupNorm(len(arrays["weight"]), eps=reader.attributes(node)["epsilon"]), arrays)]


def _softmax(kind: Callable[[], Layer]) -> Callable[[_Reader, Any], list[Part]]:
    def convert(reader: _Reader, node: Any) -> list[Part]:
        rank = len(reader.known[node.input[0]])
        if reader.attributes(node)["axis"] % rank != 1 or (reader.opset < 13 and rank > 2):
            reader.fail(node, "is along another axis than that of the channels")
        return [Made(kind())]

    return convert


def _prelu(reader: _Reader, node: Any) -> list[Part]:
    slope = _weight(reader, node)
    full = _full(reader, node, slope)
    weight = _by_channel(full)
    if weight is None:
        reader.fail(node, f"has slopes of the shape {slope.shape}, expected one for each channel")
    weight = weight[:1] if slope.size == 1 else weight
    return [Made(layers.PReLU(len(weight)), {"weight": weight})]


def _selu(reader: _Reader, node: Any) -> list[Part]:
    said, own = reader.attributes(node), layers.SELU().formula
    if not np.allclose([said["alpha"], said["gamma"]], [own.a, own.b], rtol=1e-6):
        reader.fail(node, "has other constants than SELU")
    return [Made(layers.SELU())]


def _hard_sigmoid(reader: _Reader, node: Any) -> list[Part]:
    said = reader.attributes(node)
    if not np.allclose([said["alpha"], said["beta"]], [1 / 6, 0.5], rtol=1e-6):
        reader.fail(node, "has other constants than relu6(x + 3) / 6")
    return [Made(layers.HardSigmoid())]


def _gelu(reader: _Reader, node: Any) -> list[Part]:
    return [Made(layers.GELU(reader.attributes(node)["approximate"]))]


def _full(reader: _Reader, node: Any, constant: Any) -> Any:
    """A constant in the shape of a sample."""
    shape = reader.shapes[reader.data_inputs(node)[0]]
    try:
        return np.broadcast_to(constant, (1, *shape))[0]
    except ValueError:
        return reader.fail(node, f"has a constant of the shape {constant.shape} for samples of {shape}")


def _arithmetic(reader: _Reader, node: Any) -> list[Part]:
    """A constant added, subtracted, multiplied or divided by."""
    (name,) = reader.data_inputs(node)
    place = 1 - list(node.input).index(name)
    constant = _full(reader, node, _weight(reader, node, place))
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    if node.op_type == "Add":
        return [Affine(one, constant)]
    if node.op_type == "Mul":
        return [Affine(constant, zero)]
    if node.op_type == "Sub":
        return [Affine(one, -constant) if place == 1 else Affine(-one, constant)]
    if place == 0 or not constant.all():
        reader.fail(node, "divides a constant, or by zero")
    return [Affine(one / constant, zero)]


def _padding(reader: _Reader, node: Any) -> list[Part]:
    said = reader.attributes(node)
    kinds = {"constant": layers.ZeroPad2D, "reflect": layers.ReflectionPad2D, "edge": layers.ReplicationPad2D}
    pads = [int(pad) for pad in (said["pads"] if "pads" in said else _weight(reader, node))]
    value = _optional(reader, node, 2) if "pads" not in said else said.get("value", 0)
    if said["mode"] not in kinds or np.any(value if value is not None else 0) or len(node.input) > 3:
        reader.fail(node, "pads with something else than zeros, the mirror image or the edge")
    if len(pads) == 8 and not any(pads[:2] + pads[4:6]):
        return [Made(kinds[said["mode"]]((pads[3], pads[7], pads[2], pads[6])))]
    begin, end = pads[1], pads[len(pads) // 2 + 1]
    rest = [pad for place, pad in enumerate(pads) if place not in (1, len(pads) // 2 + 1)]
    if said["mode"] != "constant" or any(rest) or end - begin not in (0, 1):
        reader.fail(node, f"has the padding {pads}, which no layer here has")
    return [Made(layers.PadChannels(reader.shapes[node.output[0]][0]))]


def _resize(reader: _Reader, node: Any) -> list[Part]:
    said, scales = reader.attributes(node), _optional(reader, node, 2)
    places, mode = said["coordinate_transformation_mode"], said["mode"]
    if scales is None or not scales.size:
        before, after = reader.known[node.input[0]], reader.known[node.output[0]]
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
        reader.fail(node, f"resizes by {mode} and {places}, which no layer here does")
    way, align = ways[mode, places]
    return [Made(layers.Upsample2D((float(scales[2]), float(scales[3])), way, align))]


def _sampling(reader: _Reader, node: Any) -> list[Part]:
    """Weighted rows and columns, as :func:`cnn.saving.onnx.export` writes what has no operator."""
    said, shape = reader.attributes(node), reader.shapes[node.input[0]]
    rows, columns = _weight(reader, node), _weight(reader, node, 2)
    if said["equation"] != SAMPLING or rows.ndim != 2 or columns.ndim != 2:
        reader.fail(node, f"has an equation other than {SAMPLING}")
    sizes = len(rows), len(columns)
    factors = (sizes[0] + 1e-9) / shape[1], (sizes[1] + 1e-9) / shape[2]
    ways = (("nearest", False), ("bilinear", False), ("bilinear", True))
    found = [layers.AdaptiveAvgPool2D(sizes), *(layers.Upsample2D(factors, *way) for way in ways)]
    for layer in found:
        Network(layer).build(shape, backend=backends.get("cpu", "portable"))
        own = map(matrix, (layer.rows, layer.columns))
        if all(np.allclose(*both, atol=1e-6) for both in zip(own, (rows, columns), strict=True)):
            return [Made(layer.fresh())]
    return reader.fail(node, "weights rows and columns as no layer here does")


CONVERTERS: dict[str, Callable[[_Reader, Any], list[Part]]] = {
    "Add": _arithmetic,
    "AveragePool": _average_pooling,
    "BatchNormalization": _normalization,
    "Cast": _nothing,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Div": _arithmetic,
    "Dropout": _nothing,
    "Einsum": _sampling,
    "Elu": lambda reader, node: [Made(layers.ELU(reader.attributes(node)["alpha"]))],
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
    "LeakyRelu": lambda reader, node: [Made(layers.LeakyReLU(reader.attributes(node)["alpha"]))],
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
