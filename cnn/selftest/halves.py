"""Compare the kernels, the layers and the training of mixed-precision networks with float64 and float32.

The reference gets numbers as they are in 16 bits, so it differs by what the device itself rounds.
:mod:`cnn.selftest.rounding` says how far that may be.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import backends
from backends import Backend
from cnn.inspection.differences import require_near, results
from cnn.inspection.timing import wrapped
from cnn.layers import (
    AvgPool2D,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Residual,
    Tanh,
)
from cnn.network import Network
from cnn.selftest.calls import calls
from cnn.selftest.cases import LAYERS, Case
from cnn.selftest.checks import Check
from cnn.selftest.parity import compare_calls, train
from cnn.selftest.rounding import of_passes, require_dtype
from cnn.support.errors import DisagreementError
from cnn.training.optimizers import SGD

BATCH = 5


def checks(dtype: str, backend: Backend) -> Iterator[Check]:
    """A check for each kernel that takes 16 bits, for each layer, and for training runs."""
    backend.require_support(dtype)
    reference = backends.get("cpu", "portable")
    for call in calls(dtype):
        yield Check(f"{call.name}, {dtype}", partial(compare_calls, call, dtype, backend, reference))
    for case in LAYERS:
        yield Check(f"layer, {case.name}, {dtype}", partial(_compare_layers, case, dtype, backend, reference))
    yield Check(f"training, {dtype}", partial(_compare_trainings, dtype, backend))
    yield Check(f"training twice, recorded and not, {dtype}", partial(_repeat_training, dtype, backend))


def _compare_layers(case: Case, dtype: str, backend: Backend, reference: Backend) -> None:
    """Raise DisagreementError where a layer's results are not the reference's, or have another dtype."""
    network, model = Network(case.make()), Network(case.make())
    network.build(case.input_shape, backend=backend, dtype=dtype)
    model.build(case.input_shape, backend=reference, dtype="float64", fuse=False)
    state = {
        name: array.astype(dtype).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in network.state_dict().items()
    }
    network.load_state_dict(state)
    model.load_state_dict(state)
    random = np.random.default_rng(0)
    x, dy = (
        random.standard_normal((*shape, BATCH)).astype(dtype).astype(np.float32)
        for shape in (network.input_shape, network.output_shape)
    )
    with wrapped(network, partial(_requiring, dtype)):
        network.forward(backend.asarray(x))
    exact = _step_and_inference(model, x.astype(np.float64), dy.astype(np.float64))
    allowed = of_passes(dtype, len(list(network.walk_passes())))
    for name, found in _step_and_inference(network, x, dy).items():
        require_dtype(f"the {name}", "float32", found)
        require_near(f"the {name}", exact[name], found, allowed)


def _requiring(dtype: str, layer: Layer, direction: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method of a layer, whose result must have this dtype."""

    def call(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        require_dtype(f"the result of {layer.label}", dtype, result)
        return result

    return call


def _step_and_inference(network: Network, x: Any, dy: Any) -> dict[str, Any]:
    """The results of a forward and a backward, the output of inference after it, and the statistics."""
    backend = network.backend
    found = results(network, x, dy)
    found["output of inference"] = backend.to_host(network.forward(backend.asarray(x)))
    statistics = {name: backend.to_host(array) for name, array in network.statistics.items()}
    return found | {name: array for name, array in statistics.items() if array.dtype.kind == "f"}


def _smooth() -> list[Layer]:
    """Layers without choices, which could turn on a rounding and change a gradient by far more."""
    return [Conv2D(6, 3, padding=1), Tanh(), AvgPool2D(2), Conv2D(8, 3), Tanh(), Flatten(), Dense(10)]


def _varied() -> list[Layer]:
    """Layers with choices, statistics and random numbers."""
    return [
        Conv2D(4, 3, padding=1, bias=False), BatchNorm2D(), ReLU(), MaxPool2D(2),
        Residual(Conv2D(4, 3, padding=1), ReLU()), Dropout(0.2), Flatten(), Dense(6), Tanh(), Dense(10),
    ]  # fmt: skip


def _compare_trainings(dtype: str, backend: Backend) -> None:
    """Raise DisagreementError where losses or changes of weights are not float32's but for rounding."""
    full, half = (train(_smooth(), backend, each, SGD(0.05, momentum=0.9)) for each in ("float32", dtype))
    allowed = of_passes(dtype, len(_smooth()))
    require_near("the mean loss", full.losses, half.losses, allowed)
    for name, change in full.changes.items():
        require_near(f"the change of {name}", change, half.changes[name], allowed)


def _repeat_training(dtype: str, backend: Backend) -> None:
    """Raise DisagreementError unless a second run and a run that is not recorded have the same bits."""
    first, again, plain = (
        train(_varied(), backend, dtype, SGD(0.05, momentum=0.9), graph) for graph in (True, True, False)
    )
    for which, other in (("again", again), ("without recording a step", plain)):
        for name, array in first.results.items():
            if not np.array_equal(array, other.results[name]):
                raise DisagreementError(f"training {which} gives other bits of {name}")
