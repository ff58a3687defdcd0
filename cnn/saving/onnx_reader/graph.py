"""The graph of an ONNX file: its nodes, its constants and the shapes of its values."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from backends.memory import Shape
from cnn.support.errors import CheckpointError
from cnn.support.libraries import require
from cnn.support.text import short

FOLDED = {
    "Cast", "Concat", "ConstantOfShape", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Operators whose output is computed if all of their inputs are constant."""
SHORT = 100  # numbers of a constant that is made


class Shapes(dict[str, Shape]):
    """Shapes by the names of values; CheckpointError for one that is not known."""

    def __missing__(self, name: str) -> Shape:
        raise CheckpointError(f"the shape of the value {name} is not known before the network runs")


class Graph:
    """A graph whose constant nodes are computed, for a batch of one sample, so that all shapes are known."""

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

    @property
    def nodes(self) -> Any:
        """The nodes that are not constant, in an order in which they can be computed."""
        return self.model.graph.node

    def data_inputs(self, node: Any) -> list[str]:
        """The inputs of a node that are not constant."""
        return [name for name in node.input if name and name not in self.constants]

    def attributes(self, node: Any) -> dict[str, Any]:
        """The attributes of a node by name, with the defaults of its operator."""
        known = self.onnx.defs.get_schema(node.op_type, self.opset, node.domain).attributes.values()
        defaults = [each.default_value for each in known if each.default_value.name]
        values = {
            each.name: self.onnx.helper.get_attribute_value(each) for each in (*defaults, *node.attribute)
        }
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}

    def fail(self, node: Any, reason: str) -> Any:
        """Raise CheckpointError about a node."""
        raise CheckpointError(f"node {node.name or node.output[0]} {node.op_type} {reason}")

    def evaluated(self, nodes: list[Any], inputs: dict[str, Any]) -> list[Any]:
        """The output of the last one of these nodes, computed by ONNX's reference implementation."""
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

    def _only(self, found: Sequence[Any], what: str) -> Any:
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise CheckpointError(f"the graph has {len(found)} {what}s ({short(names, 100)}), expected one")
        return found[0]

    def _set_batch_of_one(self) -> None:
        """Set the size of the batch to one, so that all shapes are known."""
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
        self.batch_shapes = Shapes(
            (each.name, tuple(int(dim.dim_value) for dim in each.type.tensor_type.shape.dim))
            for each in [*found.input, *found.value_info, *found.output]
            if each.type.tensor_type.HasField("shape")
            and all(dim.dim_value for dim in each.type.tensor_type.shape.dim)
        )
        self.shapes = Shapes((name, shape[1:]) for name, shape in self.batch_shapes.items())

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
        elif node.op_type == "Shape" and data and data[0] in self.batch_shapes and not node.attribute:
            self.constants[output] = np.array(self.batch_shapes[data[0]], np.int64)
        elif not data and node.op_type in FOLDED and self._is_small(node):
            self.constants[output] = np.asarray(self.evaluated([node], {})[0])
        else:
            return False
        return True

    def _is_small(self, node: Any) -> bool:
        """Whether the output of a node is short, or at most as long as its inputs."""
        return node.op_type != "ConstantOfShape" or prod(map(int, self.constants[node.input[0]])) <= SHORT

    def _constant(self, node: Any) -> Any:
        (attribute,) = node.attribute
        value = self.onnx.helper.get_attribute_value(attribute)
        is_tensor = isinstance(value, self.onnx.TensorProto)
        return self.onnx.numpy_helper.to_array(value) if is_tensor else np.array(value)
