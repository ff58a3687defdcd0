"""Are the gradients right? Compared with finite differences, which know nothing of backward."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn import random
from cnn.arguments import whole
from cnn.errors import ArgumentError
from cnn.layers.buffers import Array
from cnn.network import Sequential

STEP = 1e-6
TOLERANCE = 1e-5


@dataclass(frozen=True)
class GradientCheck:
    """How one array of gradients fared."""

    name: str
    checked: int  # how many entries were tried
    error: float  # the largest difference, as a share of the largest gradient

    @property
    def passed(self) -> bool:
        """Whether the error can be explained by rounding."""
        return self.error < TOLERANCE


def check_gradients(
    network: Sequential, x: Any = None, entries: int = 20, seed: int = 0
) -> list[GradientCheck]:
    """Compare ``backward`` with central differences of ``sum(dy * y)`` for a random ``dy``.

    Tries ``entries`` random entries of the input and of each parameter (all where there are fewer).
    ``x`` is a host batch (N, ...); None draws one of three. The network must be built in float64,
    since differences this small are lost in float32; its weights are put back.
    """
    network.require_built()
    whole("entries", entries)
    if network.dtype != "float64":
        raise ArgumentError(f"the network's dtype is {network.dtype}, a gradient check needs float64")
    with network.backend.active():
        return _check(network, x, entries, random.generator(seed, random.CHECK))


def _check(network: Sequential, x: Any, entries: int, generator: np.random.Generator) -> list[GradientCheck]:
    backend = network.backend
    if x is None:
        x = generator.standard_normal((3, *network.input_shape))
    x = backend.asarray(np.moveaxis(np.asarray(x), 0, -1).astype(np.float64, order="C"))
    y = network.forward(x, training=True)
    dy = backend.asarray(generator.standard_normal(y.shape))
    gradients = {"input": (x, backend.to_host(network.backward(dy)))} | {
        name: (parameter.value, backend.to_host(parameter.grad))
        for name, parameter in network.parameters.items()
    }

    def objective() -> float:
        return float(np.sum(backend.to_host(network.forward(x, training=True)) * backend.to_host(dy)))

    results = []
    for name, (array, gradient) in gradients.items():
        count = min(entries, gradient.size)
        chosen = generator.choice(gradient.size, count, replace=False)
        largest = max(np.abs(gradient).max(), 1e-8)
        errors = []
        for position in chosen:
            expected = gradient.reshape(-1)[position]
            error = abs(_difference(objective, array, position, STEP) - expected) / largest
            if error >= TOLERANCE:  # perhaps a kink of ReLU or max pooling lies within the step
                error = min(
                    error, abs(_difference(objective, array, position, STEP / 16) - expected) / largest
                )
            errors.append(float(error))
        results.append(GradientCheck(name, count, max(errors)))
    return results


def _difference(objective: Any, array: Array, position: int, step: float) -> float:
    """The slope of ``objective`` along one entry of ``array``, which is put back."""
    entry = tuple(slice(int(i), int(i) + 1) for i in np.unravel_index(position, array.shape))
    before = array[entry].copy()
    array[entry] = before + step
    above = objective()
    array[entry] = before - step
    below = objective()
    array[entry] = before
    return (above - below) / (2 * step)
