"""Initial weights, scaled by fan-in: the number of inputs that one output adds up.

An initializer takes a numpy Generator, a shape and the fan-in (kernel area counted), and gives
host numbers in float64; the network casts them. Layers name theirs as a string.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from backends.text import did_you_mean
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError

Initializer = Callable[[Any, tuple[int, ...], int], Any]


def he_normal(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """Normal with variance 2 / fan_in, for ReLU (He et al. 2015, "Delving deep into rectifiers")."""
    return random.normal(0, sqrt(2 / fan_in), shape)


def he_uniform(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """Uniform with variance 2 / fan_in (He et al. 2015)."""
    bound = sqrt(6 / fan_in)
    return random.uniform(-bound, bound, shape)


def lecun_normal(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """Normal with variance 1 / fan_in, for tanh (LeCun et al. 1998, "Efficient backprop")."""
    return random.normal(0, sqrt(1 / fan_in), shape)


def lecun_uniform(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """Uniform with variance 1 / fan_in (LeCun et al. 1998)."""
    bound = sqrt(3 / fan_in)
    return random.uniform(-bound, bound, shape)


def dirac(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """A convolution whose first filters pass a channel each through, for as many channels as there are.

    The rest is uniform with variance 1 / (3 fan_in), as in PyTorch (Zagoruyko & Komodakis 2017, "DiracNets").
    """
    bound = sqrt(1 / fan_in)
    weight = random.uniform(-bound, bound, shape)
    center = tuple(length // 2 for length in shape[2:])
    for channel in range(min(shape[:2])):
        weight[channel] = 0
        weight[(channel, channel, *center)] = 1
    return weight


def zeros(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """Zeros, for biases."""
    return np.zeros(shape)


def ones(random: Any, shape: tuple[int, ...], fan_in: int) -> Any:
    """Ones, for the weights of a normalization."""
    return np.ones(shape)


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return lambda random, shape, fan_in: np.full(shape, value)


INITIALIZERS: dict[str, Initializer] = {
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "dirac": dirac,
    "zeros": zeros,
    "ones": ones,
}


def get(name: str) -> Initializer:
    """The initializer called ``name``."""
    return INITIALIZERS[require(name)]


def require(name: Any, layer: str = "") -> str:
    """``name`` if an initializer is called so; the error begins with ``layer``, which asks for it."""
    if not isinstance(name, str) or name not in INITIALIZERS:
        who, expected = (
            f"{layer}: " if layer else "",
            ", ".join(INITIALIZERS) + did_you_mean(name, INITIALIZERS),
        )
        raise ArgumentError(f"{who}unknown initializer {shown(name)}: expected one of {expected}")
    return name
