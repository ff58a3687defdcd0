"""Optimizers' updates."""

from math import sqrt
from typing import Any

import numpy as np

from backends import graph
from backends.cpu.compiled import steps
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import NOTHING, floats
from backends.kernels.updates import NORM_ROUNDING, TINY, PortableUpdateKernels
from backends.memory import Array


class CompiledUpdateKernels(PortableUpdateKernels):
    """Optimizers' updates."""

    def clip_norm(self, grad: Array, limit: float) -> None:
        graph.launch(_clip_norm, grad, limit)

    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        has_velocity = velocity is not None
        state = velocity if has_velocity else NOTHING[value.dtype]
        settings = floats(value.dtype, weight_decay, TINY)
        arguments = (
            value, grad, state, _rate(rate, value), _rate(momentum, value), settings, int(has_velocity),
            int(nesterov), value.size,
        )  # fmt: skip
        steps.sgd(value.dtype, arguments, thread_count(value.size))

    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        graph.launch(np.multiply, powers, factors, out=powers)

    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        settings = floats(value.dtype, *betas, epsilon, weight_decay, TINY)
        arguments = (
            value, grad, mean, square, powers, _rate(rate, value), settings, int(decoupled), value.size,
        )  # fmt: skip
        steps.adam(value.dtype, arguments, thread_count(2 * value.size))


def _rate(rate: Any, value: Array) -> Array:
    """The learning rate as an array of one element with the dtype of the values."""
    return np.asarray(rate, dtype=value.dtype).reshape(1)


def _clip_norm(grad: Array, limit: float) -> None:
    factor = limit / (sqrt(np.dot(grad, grad)) + NORM_ROUNDING)
    if factor < 1:
        np.multiply(grad, grad.dtype.type(factor), out=grad)
