"""Gradient checks: compares ``backward`` with finite differences of ``forward``."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from backends.memory import Array
from cnn.inspection.restoring import restored
from cnn.network import Network
from cnn.support import random
from cnn.support.arguments import instance, shown, whole
from cnn.support.errors import ArgumentError

STEPS = (1e-6, 1e-6 / 16, 1e-6 / 256)  # shorter steps avoid kinks of ReLU and max pooling
TOLERANCE = 1e-5
ROUNDING = 1e-4  # a slope below this share of the values is lost in their rounding
NUDGE = 1e-3


@dataclass(frozen=True)
class GradientCheck:
    """The result for one array of gradients."""

    name: str
    checked: int  # the number of entries tried
    error: float  # the largest difference relative to the largest gradient that rounding leaves visible

    @property
    def passed(self) -> bool:
        """Whether rounding explains the error."""
        return self.error < TOLERANCE


def check_gradients(network: Network, x: Any = None, entries: int = 20, seed: int = 0) -> list[GradientCheck]:
    """Compare ``backward`` with central differences of ``sum(dy * y)`` for a random ``dy``.

    Tries ``entries`` random entries of the input and of each parameter, or all if there are fewer. Frozen
    parameters are left out, because training does not use their gradients.
    ``x`` is a batch (N, ...) on the host; by default a batch of three is drawn at random. The network must
    be built in float64, because float32 loses differences this small.

    Input and weights are temporarily changed by about a thousandth. Zeros, such as new biases or the edges of
    an image, are exactly where ReLU has a kink or where values under max pooling are equal, so that there is
    no slope to compare with. Weights and ``state`` are restored.

    Raises ArgumentError or ShapeError if the network or the batch is unsuitable.
    """
    instance("network", network, Network, "cnn.models.lenet5()").require_built()
    whole("entries", entries)
    if network.dtype != "float64":
        raise ArgumentError(f"the network's dtype is {network.dtype}, a gradient check needs float64")
    generator = random.generator(seed, random.CHECK)
    host = generator.standard_normal((3, *network.input_shape)) if x is None else _as_batch(network, x)
    with network.backend.active(), restored(network):
        for parameter in network.parameters.values():
            nudge = NUDGE * generator.standard_normal(parameter.shape)
            parameter.value[...] += network.backend.asarray(nudge)
        return _check(network, host + NUDGE * generator.standard_normal(host.shape), entries, generator)


def _as_batch(network: Network, x: Any) -> np.ndarray:
    """``x`` as a host array that suits the network."""
    try:
        host = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        host = np.array(np.nan)
    if not np.isfinite(host).all():
        raise ArgumentError(f"x is {shown(x)}, expected a batch of finite numbers on the host")
    network.check_images(host)
    return host


def _check(
    network: Network, host: np.ndarray, entries: int, generator: np.random.Generator
) -> list[GradientCheck]:
    backend = network.backend
    x = backend.asarray(np.ascontiguousarray(np.moveaxis(host, 0, -1)))
    y = network.forward(x, training=True)
    dy = backend.asarray(generator.standard_normal(y.shape))
    gradients = {"input": (x, backend.to_host(network.backward(dy)))} | {
        name: (parameter.value, backend.to_host(parameter.grad))
        for name, parameter in network.parameters.items()
        if not parameter.frozen
    }

    def objective() -> float:
        return float(np.sum(backend.to_host(network.forward(x, training=True)) * backend.to_host(dy)))

    visible = max(ROUNDING * float(np.abs(backend.to_host(y) * backend.to_host(dy)).sum()), 1e-8)
    results = []
    for name, (array, gradient) in gradients.items():
        count = min(entries, gradient.size)
        chosen = generator.choice(gradient.size, count, replace=False)
        largest = max(float(np.abs(gradient).max()), visible)
        error = max(
            _error(objective, array, position, gradient.reshape(-1)[position], largest) for position in chosen
        )
        results.append(GradientCheck(name, count, error))
    return results


def _error(
    objective: Callable[[], float], array: Array, position: int, expected: float, unit: float
) -> float:
    """The error of ``expected`` for one entry of ``array``, in units; infinite if it is NaN."""
    error = inf
    for step in STEPS:
        error = min(error, float(abs(_difference(objective, array, position, step) - expected) / unit))
        if error < TOLERANCE:
            break
    return error


def _difference(objective: Callable[[], float], array: Array, position: int, step: float) -> float:
    """The slope of ``objective`` along one entry of ``array``, which is restored."""
    entry = tuple(slice(int(i), int(i) + 1) for i in np.unravel_index(position, array.shape))
    before = array[entry].copy()
    array[entry] = before + step
    above = objective()
    array[entry] = before - step
    below = objective()
    array[entry] = before
    return (above - below) / (2 * step)
