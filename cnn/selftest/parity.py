"""Compare a device's kernels with the reference: the CPU in float64, with convolution by scipy.signal.

Both are given the very same numbers, those of float32 and 16 bits too, so that they differ by rounding alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import backends
from backends import Backend
from cnn.comparison.agreement import TOLERANCE
from cnn.data import Dataset
from cnn.inspection.differences import require_near, results
from cnn.layers import Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU
from cnn.network import Network
from cnn.selftest.call import Call
from cnn.selftest.calls import calls
from cnn.selftest.cases import NETWORKS, Example
from cnn.selftest.checks import Check
from cnn.selftest.rounding import of_sums, require_dtype, require_exact
from cnn.support.dtypes import WIDE
from cnn.training.fit import fit
from cnn.training.optimizers import SGD, Adam, Optimizer

COMPOSED = {"conv2d_activate", "conv2d_max_pool2d", "conv2d_epilogue_grad", "conv2d_moments"}
"""Kernels that may be composed of others, and in 16 bits round between them."""

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: SGD(0.05, momentum=0.9, weight_decay=0.01),
    "Adam": lambda: Adam(0.001),
}


def checks(backend: Backend) -> Iterator[Check]:
    """A check for each kernel, for each small network, and for a training with each optimizer."""
    reference = reference_of(backend)
    for dtype in WIDE:
        for call in calls(dtype):
            yield Check(f"{call.name}, {dtype}", partial(compare_calls, call, dtype, backend, reference))
        for example in NETWORKS:
            run = partial(_compare_networks, example, dtype, backend, reference)
            yield Check(f"network, {example.name}, {dtype}", run)
    for name, optimizer in OPTIMIZERS.items():
        yield Check(f"training with {name}", partial(_compare_trainings, optimizer, backend, reference))


def reference_of(backend: Backend) -> Backend:
    """The CPU with scipy.signal; for that itself with the portable kernels, which do not use it."""
    is_itself = (backend.name, backend.kernels.name) == ("cpu", "signal")
    return backends.get("cpu", "portable" if is_itself else "signal")


def compare_calls(call: Call, dtype: str, backend: Backend, reference: Backend) -> None:
    """Raise DisagreementError where an array is not what it is after the same call of the reference.

    ``dtype`` is that of the network that makes the call.
    """
    exact = call.wide().run(reference)
    between = call.kernel in COMPOSED or call.arguments.get("addend_grad") is not None  # which is read again
    for name, found in call.run(backend).items():
        require_dtype(name, call.arguments[name].dtype, found)
        require_exact(name, exact[name], found, dtype, between)


def _compare_networks(example: Example, dtype: str, backend: Backend, reference: Backend) -> None:
    """The same for outputs and gradients of a network; the reference computes layer by layer."""
    network = example.network()
    network.build(example.input_shape, backend=backend, dtype=dtype)
    model = example.network()
    model.build(example.input_shape, backend=reference, dtype="float64", fuse=False)
    model.load_state_dict(network.state_dict())
    random = np.random.default_rng(0)
    x, dy = (
        random.standard_normal((*shape, 5)).astype(dtype)
        for shape in (network.input_shape, network.output_shape)
    )
    expected = results(model, x, dy)
    for name, found in results(network, x, dy).items():
        require_near(name, expected[name], found, of_sums(dtype))


def _compare_trainings(optimizer: Callable[[], Optimizer], backend: Backend, reference: Backend) -> None:
    """The same for the weights after ten steps on noise, in float64, where no choice turns on a rounding."""
    weights = [train(_choosing(), each, "float64", optimizer()).weights for each in (reference, backend)]
    for name, expected in weights[0].items():
        require_near(f"the trained {name}", expected, weights[1][name], TOLERANCE["float64"])


def _choosing() -> list[Layer]:
    """Layers that choose between numbers."""
    return [Conv2D(6, 3, padding=1), ReLU(), MaxPool2D(2), Conv2D(8, 3), ReLU(), Flatten(), Dense(10)]


@dataclass(frozen=True)
class Trained:
    """The mean loss of each epoch of a training run, the weights at its end, and how they have changed."""

    losses: Any
    weights: dict[str, Any]
    changes: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        """The arrays by name."""
        return {"the mean loss": self.losses} | self.weights


def train(
    layers: list[Layer], backend: Backend, dtype: str, optimizer: Optimizer, graph: bool = True
) -> Trained:
    """Train a network for ten steps on noise."""
    random = np.random.default_rng(0)
    noise = Dataset(random.integers(0, 256, (38, 1, 12, 12), dtype=np.uint8), random.integers(0, 10, 38))
    network = Network(*layers)
    network.build(noise.shape, backend=backend, dtype=dtype)
    initial = network.state_dict()
    history = fit(network, noise, optimizer=optimizer, epochs=2, batch_size=8, callbacks=[], graph=graph)
    weights = network.state_dict()
    changes = {name: weights[name] - initial[name] for name in weights}
    return Trained(np.array([line["loss"] for line in history]), weights, changes)
