"""Checks that all setups compute the same results before any of them is timed.

Pooling and ReLU choose between values, and rounding can change a choice between nearly equal values. Whole
training runs in float32 may therefore diverge although nothing is wrong. Two comparisons avoid this: each
layer separately, with the same input, in the timed dtype and in float64; and whole training steps in
float64. They use a small batch that is not a multiple of a vector's length, so that kernels have a remainder.
In the timed dtype, the layers are also compared at the batch size that is timed.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from cnn.comparison.results import Agreement
from cnn.comparison.setups import Setup
from cnn.comparison.workload import Workload
from cnn.data import Dataset
from cnn.inspection.differences import difference
from cnn.inspection.timing import wrapped
from cnn.layers.layer import Layer
from cnn.support.errors import DisagreementError

STEPS, FEW_STEPS = 10, 3  # slow setups run few
PROOF_BATCH_SIZE = 17
# TF32, with 11 bits, is within the first; 16-bit results may be rounded to neighbours
TOLERANCE = {"float32": 1e-3, "float64": 1e-9, "bfloat16": 2e-2, "float16": 3e-3}


@dataclass(frozen=True)
class Trace:
    """The first training steps on a setup: the loss of each, and the gradients and weights after the last."""

    losses: list[float]
    gradients: dict[str, Any]
    weights: dict[str, Any]


@dataclass(frozen=True)
class LayerCall:
    """The input and the results of a layer's forward or backward, on the host."""

    given: Any
    results: dict[str, Any]  # by their names in messages


@dataclass(frozen=True)
class RecordedSteps:
    """The first two training steps on a setup, call by call, with their results."""

    calls: list[LayerCall]
    losses: list[Any]
    weights: dict[str, Any]


def prove(
    workload: Workload,
    setups: Sequence[Setup],
    slow: Collection[Setup] = (),
    show: Callable[[str], None] = lambda text: None,
) -> tuple[list[list[float]], list[Agreement | None]]:
    """(The losses of each setup, its agreement with the first); DisagreementError if two differ.

    ``slow`` setups run fewer steps, and only with the small batch. ``show`` is called with a description of
    what is being checked.
    """
    workload = replace(workload, data=_noise(workload))
    small = replace(workload, batch_size=proof_batch_size(workload.batch_size))
    double = replace(small, dtype="float64")
    first, *others = setups
    expected, record = cache(_trace), cache(_record)
    losses: list[list[float]] = [expected(double, first, STEPS).losses]
    agreements: list[Agreement | None] = [None]
    for other in others:
        kinds = list(dict.fromkeys([double, small] if other in slow else [double, small, workload]))
        in_timed_dtype = 0.0
        for kind in kinds:
            show(f"checking {other.name}: each layer, batch {kind.batch_size}, {kind.dtype}")
            apart_by_layer = _replay(kind, other, record(kind, first), first)
            if kind.dtype == workload.dtype:
                in_timed_dtype = max(in_timed_dtype, apart_by_layer)
        steps = FEW_STEPS if other in slow else STEPS
        show(f"checking {other.name}: {steps} whole steps, batch {small.batch_size}, float64")
        trace = _trace(double, other, steps)
        found = _agreement(expected(double, first, steps), trace, layers=in_timed_dtype)
        apart = {"loss": found.loss, "gradients": found.gradients, "weights": found.weights}
        for what, value in apart.items():
            _require(value, f"after {steps} whole steps, {what}", double, other, first)
        losses.append(trace.losses)
        agreements.append(found)
    return losses, agreements


def proof_batch_size(batch_size: int) -> int:
    """The images of a step that is compared, if those that are timed have ``batch_size``."""
    return min(PROOF_BATCH_SIZE, batch_size)


def _noise(workload: Workload) -> Dataset:
    """Random images and labels. Digits have pixels that are always 0, which could hide an error."""
    random = np.random.default_rng(0)
    count = STEPS * workload.batch_size
    images = random.integers(0, 256, (count, *workload.data.shape), dtype=np.uint8)
    return Dataset(images, random.integers(0, len(workload.data.classes), count), workload.data.classes)


def _trace(workload: Workload, setup: Setup, steps: int) -> Trace:
    """Run the first training steps on ``setup``."""
    with setup.active() as backend:
        training = workload.start(backend, batches=steps)
        losses = [float(backend.to_host(training.step()).mean()) for _ in range(steps)]
        parameters = training.network.parameters.items()
        gradients = {name: backend.to_host(parameter.grad) for name, parameter in parameters}
        return Trace(losses, gradients, training.network.state_dict())


def _agreement(first: Trace, other: Trace, layers: float) -> Agreement:
    def apart(a: dict[str, Any], b: dict[str, Any]) -> float:
        return max(difference(a[name], b[name]) for name in a)

    return Agreement(
        loss=difference(np.array(first.losses), np.array(other.losses)),
        gradients=apart(first.gradients, other.gradients),
        weights=apart(first.weights, other.weights),
        layers=layers,
    )


def _record(workload: Workload, setup: Setup) -> RecordedSteps:
    """Record the inputs and results of each layer in two steps on ``setup``, and the final weights."""
    calls: list[LayerCall] = []

    def recording(layer: Layer, direction: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(array: Any, *rest: Any) -> Any:
            given = layer.backend.to_host(array)
            result = method(array, *rest)
            calls.append(LayerCall(given, _on_host(layer, direction, result)))
            return result

        return call

    with setup.active() as backend:
        training = workload.start(backend)
        with wrapped(training.network, recording):
            losses = [backend.to_host(training.plain_step()) for _ in range(2)]
        return RecordedSteps(calls, losses, training.network.state_dict())


def _replay(workload: Workload, setup: Setup, record: RecordedSteps, first: Setup) -> float:
    """Call each layer on ``setup`` with its inputs on ``first``; -> the largest difference of the results.

    The batch, the losses, their gradient and the update do not belong to a layer; they are compared directly.
    Raises DisagreementError at the first result that differs.
    """
    expected = iter(record.calls)
    differences: list[float] = []

    def compare(name: str, recorded: Any, value: Any) -> None:
        differences.append(difference(recorded, value))
        _require(differences[-1], f"given the same input, {name}", workload, setup, first)

    def replaying(layer: Layer, direction: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(array: Any, *rest: Any) -> Any:
            recorded = next(expected)
            if (layer, direction) in ends:
                compare(ends[layer, direction], recorded.given, layer.backend.to_host(array))
            result = method(layer.backend.asarray(recorded.given), *rest)
            for name, value in _on_host(layer, direction, result).items():
                compare(f"layer {layer.label}'s {name}", recorded.results[name], value)
            return result

        return call

    with setup.active() as backend:
        training = workload.start(backend)
        layers = list(training.network.walk())
        ends = {(layers[0], "forward"): "the batch", (layers[-1], "backward"): "the gradient of the loss"}
        with wrapped(training.network, replaying):
            losses = [backend.to_host(training.plain_step()) for _ in range(2)]
        compare("the losses", np.array(record.losses), np.array(losses))
        for name, value in training.network.state_dict().items():
            compare(f"the updated {name}", record.weights[name], value)
    return max(differences)


def _require(apart: float | None, what: str, workload: Workload, other: Setup, first: Setup) -> None:
    """Raise DisagreementError if a difference is larger than rounding explains."""
    allowed = TOLERANCE[workload.dtype]
    if apart is None or not apart <= allowed:  # NaN is not
        raise DisagreementError(
            f"{other.name} and {first.name} do not compute the same: {what} differs by {apart:.1e} in "
            f"{workload.dtype}, expected at most {allowed:.0e}, so nothing was timed"
        )


def _on_host(layer: Layer, direction: str, result: Any) -> dict[str, Any]:
    """The results of a call: its output, or the gradients that it wrote and returned."""
    to_host = layer.backend.to_host
    if direction == "forward":
        return {"output": to_host(result)}
    results = {f"gradient of its {name}": to_host(p.grad) for name, p in layer.parameters.items()}
    return results if result is None else results | {"gradient of its input": to_host(result)}
