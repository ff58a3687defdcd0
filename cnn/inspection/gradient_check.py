"""Are the gradients right? Compared with finite differences, which know nothing of backward."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from backends.memory import Array
from cnn.network import Network
from cnn.support import random
from cnn.support.arguments import instance, shown, whole
from cnn.support.errors import ArgumentError

STEPS = (1e-6, 1e-6 / 16, 1e-6 / 256)  # shorter ones where a kink of ReLU or max pooling lies within one
TOLERANCE = 1e-5
ROUNDING = 1e-4  # a slope below this share of the numbers it is told from drowns in their rounding
NUDGE = 1e-3


@dataclass(frozen=True)
class GradientCheck:
    """How one array of gradients fared."""

    name: str
    checked: int  # how many entries were tried
    error: float  # the largest difference, as a share of the largest gradient that rounding leaves visible

    @property
    def passed(self) -> bool:
        """Whether the error can be explained by rounding."""
        return self.error < TOLERANCE


def check_gradients(network: Network, x: Any = None, entries: int = 20, seed: int = 0) -> list[GradientCheck]:
    """Compare ``backward`` with central differences of ``sum(dy * y)`` for a random ``dy``.

    Tries ``entries`` random entries of the input and of each parameter (all where there are fewer).
    ``x`` is a host batch (N, ...); None draws one of three. The network must be built in float64,
    since differences this small are lost in float32.

    Input and weights are moved by about a thousandth for the while: zeros, such as new biases or the edges
    of an image, lie just where ReLU bends or where numbers under max pooling are equal, and the functions
    have no slope to compare with. Weights and ``state`` are put back.

    Raises ArgumentError or ShapeError for what is no such network or batch.
    """
    instance("network", network, Network, "cnn.models.lenet5()").require_built()
    whole("entries", entries)
    if network.dtype != "float64":
        raise ArgumentError(f"the network's dtype is {network.dtype}, a gradient check needs float64")
    generator = random.generator(seed, random.CHECK)
    host = generator.standard_normal((3, *network.input_shape)) if x is None else _as_batch(network, x)
    with network.backend.active(), _put_back(network):
        for parameter in network.parameters.values():
            nudge = NUDGE * generator.standard_normal(parameter.shape)
            parameter.value[...] += network.backend.asarray(nudge)
        return _check(network, host + NUDGE * generator.standard_normal(host.shape), entries, generator)


def _as_batch(network: Network, x: Any) -> np.ndarray:
    """``x`` as host numbers that the network takes."""
    try:
        host = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        host = np.array(np.nan)
    if not np.isfinite(host).all():
        raise ArgumentError(f"x is {shown(x)}, expected a batch of finite numbers on the host")
    network.check_images(host)
    return host


@contextmanager
def _put_back(network: Network) -> Iterator[None]:
    """After the block, weights and what else a training forward changes are what they were before."""
    before = [(array, array.copy()) for array in network.state.values()]
    try:
        yield
    finally:
        for array, copy in before:
            array[...] = copy


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
    """How far off ``expected`` is for one entry of ``array``, in units; infinitely, where that is NaN."""
    error = inf
    for step in STEPS:
        error = min(error, float(abs(_difference(objective, array, position, step) - expected) / unit))
        if error < TOLERANCE:
            break
    return error


def _difference(objective: Callable[[], float], array: Array, position: int, step: float) -> float:
    """The slope of ``objective`` along one entry of ``array``, which is put back."""
    entry = tuple(slice(int(i), int(i) + 1) for i in np.unravel_index(position, array.shape))
    before = array[entry].copy()
    array[entry] = before + step
    above = objective()
    array[entry] = before - step
    below = objective()
    array[entry] = before
    return (above - below) / (2 * step)
