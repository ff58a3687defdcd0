"""The proof that setups compute the same, before any of them is timed."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from cnn.comparison.results import Agreement
from cnn.comparison.setups import Setup
from cnn.comparison.workload import Training, Workload
from cnn.errors import DisagreementError
from cnn.layers.layer import Layer
from cnn.timing import wrapped

STEPS = 10
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}  # rounding alone stays a hundred times below


@dataclass(frozen=True)
class Trace:
    """A setup's first steps: the loss of each, what was left at the end, and the first step's time."""

    losses: list[float]
    gradients: dict[str, Any]
    weights: dict[str, Any]
    first_step: float


def trace(workload: Workload, setup: Setup) -> Trace:
    """Run the first steps on ``setup``."""
    with setup.active() as backend:
        start = time.perf_counter()
        training = workload.start(backend, batches=STEPS)
        losses = [float(backend.to_host(training.step()).mean())]
        first_step = time.perf_counter() - start
        losses += [float(backend.to_host(training.step()).mean()) for _ in range(1, STEPS)]
        parameters = training.network.parameters.items()
        gradients = {name: backend.to_host(parameter.grad) for name, parameter in parameters}
        return Trace(losses, gradients, training.network.state_dict(), first_step)


def agreement(first: Trace, other: Trace) -> Agreement:
    """How far two setups are from each other after the same steps."""
    return Agreement(
        loss=difference(np.array(first.losses), np.array(other.losses)),
        gradients=max(difference(first.gradients[name], other.gradients[name]) for name in first.gradients),
        weights=max(difference(first.weights[name], other.weights[name]) for name in first.weights),
    )


def difference(a: Any, b: Any) -> float:
    """The largest difference of two host arrays, relative to the largest number in the first."""
    largest = float(np.max(np.abs(a), initial=0))
    apart = float(np.max(np.abs(a - b), initial=0))
    return apart / largest if largest else apart


def require_same(workload: Workload, first: Setup, other: Setup, found: Agreement) -> None:
    """Raise DisagreementError where the two are apart, naming the layer at which that began."""
    tolerance = TOLERANCE[workload.dtype]
    if all(apart <= tolerance for apart in astuple(found)):  # NaN is not
        return
    raise DisagreementError(
        f"{other.name} and {first.name} do not compute the same: {_where(workload, first, other)}, and "
        f"after {STEPS} steps the loss by {found.loss:.1e}, gradients by {found.gradients:.1e}, weights by "
        f"{found.weights:.1e}; expected at most {tolerance:.0e}, so nothing was timed"
    )


def _where(workload: Workload, first: Setup, other: Setup) -> str:
    """The first layer's result that is apart, going through the steps on both side by side."""
    tolerance = TOLERANCE[workload.dtype]
    trainings = [_Recorded(workload, setup) for setup in (first, other)]
    for step in range(1, STEPS + 1):
        for (name, a), (_, b) in zip(*(training.step() for training in trainings), strict=True):
            if not (apart := difference(a, b)) <= tolerance:
                return f"in step {step} {name} differs by {apart:.1e}"
    return "no single layer's result is apart"


class _Recorded:
    """A training that hands out every layer's results on the host, in the order they came."""

    def __init__(self, workload: Workload, setup: Setup) -> None:
        self._setup = setup
        with setup.active() as backend:
            self._training: Training = workload.start(backend, batches=STEPS)

    def step(self) -> list[tuple[str, Any]]:
        """A step's results by what they are called."""
        results: list[tuple[str, Any]] = []

        def record(layer: Layer, direction: str, method: Callable[..., Any]) -> Callable[..., Any]:
            def recorded(*arguments: Any, **options: Any) -> Any:
                result = method(*arguments, **options)
                if direction == "backward":
                    for name, parameter in layer.parameters.items():
                        value = layer.backend.to_host(parameter.grad)
                        results.append((f"layer {layer.label}'s gradient of its {name}", value))
                if result is not None:
                    name = "output" if direction == "forward" else "gradient of its input"
                    results.append((f"layer {layer.label}'s {name}", layer.backend.to_host(result)))
                return result

            return recorded

        with self._setup.active(), wrapped(self._training.network, record):
            self._training.step()
        return results
