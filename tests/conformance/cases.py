"""The conformance cases of the package ``onnx`` whose operators this library has.

They are small models with inputs and expected outputs, made by ONNX's own reference and by PyTorch.
https://github.com/onnx/onnx/blob/main/docs/OnnxBackendTest.md
"""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Backend
from cnn.support.errors import DisagreementError
from conformance.node import Node
from conformance.operators import MOVING, OPERATORS
from conformance.tensors import Tensor, Tensors

onnx = pytest.importorskip("onnx")
loader = pytest.importorskip("onnx.backend.test.loader")

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")  # "real" ones would be downloaded


@dataclass(frozen=True)
class Case:
    """A model, its inputs with the expected outputs, and the tolerances."""

    name: str
    model: Any
    data_sets: list[tuple[Tensors, Tensors]]
    rtol: float
    atol: float

    def run(self, backend: Backend) -> None:
        """Raise DisagreementError if an output is wrong, NotOurs if no layer here can compute it."""
        with backend.active():
            for inputs, expected in self.data_sets:
                outputs = _outputs(self.model, inputs, backend)
                for position, (found, wanted) in enumerate(zip(outputs, expected, strict=True)):
                    self._compare(f"output {position}", found, wanted)

    def _compare(self, what: str, found: Tensor, wanted: Tensor) -> None:
        if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            raise DisagreementError(
                f"{what} is {found.dtype} {found.shape}, expected {wanted.dtype} {wanted.shape}"
            )
        if not np.allclose(found, wanted, self.rtol, self.atol, equal_nan=True):
            apart = np.max(np.abs(found - wanted))
            raise DisagreementError(
                f"{what} is off by {apart:.1e}, expected at most {self.atol:g} + {self.rtol:g} of each number"
            )


@cache
def cases() -> dict[str, Case]:
    """The cases by name. Making them takes some seconds, once for each process."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of other operators' cases, which overflow on purpose
        found = [case for kind in KINDS for case in loader.load_model_tests(kind=kind)]
    models = [case.model or onnx.load(Path(case.model_dir) / "model.onnx") for case in found]
    return {
        case.name: Case(case.name, model, _data_sets(case), case.rtol, case.atol)
        for case, model in zip(found, models, strict=True)
        if _is_ours(model)
    }


def _is_ours(model: Any) -> bool:
    """Whether some of its operators are ours, and the others compute nothing."""
    names = {(node.domain, node.op_type) for node in model.graph.node}
    return bool(names & OPERATORS.keys()) and names <= OPERATORS.keys() | MOVING.keys()


def _data_sets(case: Any) -> list[tuple[Tensors, Tensors]]:
    """(Inputs, outputs) of each of the case's data sets, from memory or from its folder."""
    if case.data_sets is not None:
        return [(list(inputs), list(outputs)) for inputs, outputs in case.data_sets]
    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    return [(_tensors(folder, "input"), _tensors(folder, "output")) for folder in folders]


def _tensors(folder: Path, kind: str) -> Tensors:
    """The tensors in the files kind_0.pb, kind_1.pb and so on."""
    files = [folder / f"{kind}_{place}.pb" for place in range(len(list(folder.glob(f"{kind}_*.pb"))))]
    return [onnx.numpy_helper.to_array(onnx.load_tensor(file)) for file in files]


def _outputs(model: Any, inputs: Tensors, backend: Backend) -> Tensors:
    """What the model gives for ``inputs``, node after node."""
    graph = model.graph
    tensors = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    names = [given.name for given in graph.input if given.name not in tensors]
    tensors |= zip(names, inputs, strict=True)
    versions = {used.domain: used.version for used in model.opset_import}
    for made in graph.node:
        opset = versions[made.domain]
        node = Node(_attributes(made, opset), opset, len(made.output))
        given = [tensors[name] if name else None for name in made.input]
        results = {**OPERATORS, **MOVING}[made.domain, made.op_type](backend, node, *given)
        tensors |= zip(made.output, results, strict=True)
    return [tensors[output.name] for output in graph.output]


def _attributes(made: Any, opset: int) -> dict[str, Any]:
    """A node's attributes by name, and the defaults of its operator for those that it leaves out."""
    known = onnx.defs.get_schema(made.op_type, opset, made.domain).attributes.values()
    defaults = [attribute.default_value for attribute in known if attribute.default_value.name]
    return {attribute.name: _plain(attribute) for attribute in (*defaults, *made.attribute)}


def _plain(attribute: Any) -> Any:
    """An attribute as Python has it: numbers, text, tuples, tensors."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return tuple(value) if isinstance(value, list) else value
