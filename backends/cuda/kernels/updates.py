"""Optimizers' updates.

Those that treat each number alone are one launch. A norm takes two, and so do the updates that need one: the
first computes parts of the sum, and every block of the second adds them in the same order. ``unscale`` takes
two for the same reason.
``clip_value``, ``multiply``, ``count_samples`` and ``count_average`` are one launch of CuPy's.
"""

from typing import Any

import numpy as np

from backends.cuda.kernels.launching import INDICES, Launching
from backends.cuda.launch import THREADS, ceil_div
from backends.kernels.covering import covering
from backends.kernels.updates import (
    LOSS_SCALES,
    MUON_COEFFICIENTS,
    MUON_EPSILON,
    NORM_ROUNDING,
    TINY,
    PortableUpdateKernels,
)
from backends.memory import Array

PART = 1024  # numbers of a vector that one block adds up, unless these would be too many parts


class CompiledUpdateKernels(Launching, PortableUpdateKernels):
    """Optimizers' updates."""

    def count_update(self, counters: Array) -> None:
        if counters.dtype == INDICES:
            self._launch.grid("count_update", np.dtype(np.float32), (1,), (1,), (counters,))
        else:
            super().count_update(counters)

    @covering()
    def clip_norm(self, grad: Array, limit: float) -> None:
        squares, parts = self._sum_squares(grad)
        arguments = (grad, squares, parts, float(limit), NORM_ROUNDING)
        self._with_parts("clip_norm", grad, arguments)

    @covering(INDICES)
    def unscale(self, grad: Array, scale: Array, counts: Array, every: int) -> None:
        parts = min(THREADS, ceil_div(grad.size, PART))
        found = self.scratch("not finite", (1 + parts,), np.float64)
        self._in_parts("count_not_finite", grad, (grad, scale, found))
        arguments = (grad, found, scale, counts, parts, int(every), *LOSS_SCALES)
        self._with_parts("unscale", grad, arguments)

    @covering()
    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        arguments = (value, grad, velocity, rate, momentum, float(weight_decay), TINY, int(nesterov))
        self._elements("sgd", value, arguments)

    @covering()
    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        self._launch.grid("next_powers", powers.dtype, (1,), (1,), (powers, *map(float, factors)))

    @covering()
    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        settings = (*map(float, betas), float(epsilon), float(weight_decay), TINY, int(decoupled))
        self._elements("adam", value, (value, grad, mean, square, powers, rate, *settings))

    @covering()
    def rmsprop(
        self, value: Array, grad: Array, square: Array, mean: Array | None, velocity: Array | None,
        rate: Array, alpha: float, epsilon: float, momentum: float, weight_decay: float,
    ) -> None:  # fmt: skip
        settings = (float(alpha), float(epsilon), float(momentum), float(weight_decay), TINY)
        self._elements("rmsprop", value, (value, grad, square, mean, velocity, rate, *settings))

    @covering()
    def adagrad(
        self, value: Array, grad: Array, square: Array, rate: Array, epsilon: float, weight_decay: float
    ) -> None:
        settings = (float(epsilon), float(weight_decay), TINY)
        self._elements("adagrad", value, (value, grad, square, rate, *settings))

    @covering()
    def next_nadam(self, progress: Array, beta: float, beta_square: float, decay: float) -> None:
        arguments = (progress, float(beta), float(beta_square), float(decay))
        self._launch.grid("next_nadam", progress.dtype, (1,), (1,), arguments)

    @covering()
    def nadam(
        self, value: Array, grad: Array, mean: Array, square: Array, progress: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float,
    ) -> None:  # fmt: skip
        settings = (*map(float, betas), float(epsilon), float(weight_decay), TINY)
        self._elements("nadam", value, (value, grad, mean, square, progress, rate, *settings))

    @covering()
    def lion(
        self, value: Array, grad: Array, mean: Array, rate: Array, betas: tuple[float, float],
        weight_decay: float,
    ) -> None:  # fmt: skip
        settings = (*map(float, betas), float(weight_decay), TINY)
        self._elements("lion", value, (value, grad, mean, rate, *settings))

    @covering()
    def lamb(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float,
    ) -> None:  # fmt: skip
        settings = (float(epsilon), float(weight_decay), TINY)
        squares, parts = self._parts_of(value, 2)
        arguments = (value, grad, mean, square, powers, squares, *map(float, betas), *settings)
        self._in_parts("lamb_moments", value, arguments)
        arguments = (value, mean, square, powers, rate, squares, parts, *settings)
        self._with_parts("lamb", value, arguments)

    @covering()
    def muon(
        self, value: Array, grad: Array, velocity: Array, rate: Array, momentum: Array, nesterov: bool,
        weight_decay: float, steps: int,
    ) -> None:  # fmt: skip
        update, other = (self.scratch(f"muon {name}", value.shape, value.dtype) for name in "xy")
        squares, parts = self._parts_of(value)
        arguments = (velocity, grad, update, momentum, squares, TINY, int(nesterov))
        self._in_parts("muon_momentum", value, arguments)
        self._with_parts("scale_to_norm", update, (update, squares, parts, 1.0, MUON_EPSILON))
        for _ in range(steps):
            self._newton_schulz(update, other)
            update, other = other, update
        rows, columns = value.shape
        factor = max(1, rows / columns) ** 0.5
        self._elements("muon", value, (value, update, rate, factor, float(weight_decay)))

    def _newton_schulz(self, x: Array, out: Array) -> None:
        """``out`` = (a I + b G + c G^2) x with G = x x^T, or x (...) with x^T x if that is smaller."""
        side, tall = min(x.shape), x.shape[0] > x.shape[1]
        gram, square = (self.scratch(f"muon {name}", (side, side), x.dtype) for name in ("gram", "square"))
        self.device.matmul(*((x.T, x) if tall else (x, x.T)), out=gram)
        self.device.matmul(gram, gram, out=square)
        arguments = (gram, square, *MUON_COEFFICIENTS, side)
        self._launch.threads("muon_polynomial", x.dtype, gram.size, arguments)
        self.device.matmul(*((x, gram) if tall else (gram, x)), out=out)

    @covering()
    def scale_to_norm(self, value: Array, norm: float) -> None:
        squares, parts = self._sum_squares(value)
        self._with_parts("scale_to_norm", value, (value, squares, parts, float(norm), TINY))

    @covering(INDICES)
    def average(self, value: Array, mean: Array, count: Array, decay: float) -> None:
        self._elements("average", value, (value, mean, count, 1.0 - decay))

    @covering(INDICES)
    def lookahead(self, value: Array, slow: Array, count: Array, every: int, alpha: float) -> None:
        self._elements("lookahead", value, (value, slow, count, int(every), float(alpha)))

    def _elements(self, name: str, value: Array, arguments: tuple[Any, ...]) -> None:
        """Launch a thread for each number of ``value``."""
        self._launch.threads(name, value.dtype, value.size, (*arguments, value.size))

    def _sum_squares(self, x: Array) -> tuple[Array, int]:
        """Parts of the sum of the squares of ``x``, and how many they are."""
        squares, parts = self._parts_of(x)
        self._in_parts("sum_squares", x, (x, squares))
        return squares, parts

    def _parts_of(self, x: Array, sums: int = 1) -> tuple[Array, int]:
        """Room for the parts of so many sums over ``x``, and how many parts a sum has."""
        parts = min(THREADS, ceil_div(x.size, PART))
        return self.scratch("squares", (sums, parts), np.float64), parts

    def _in_parts(self, name: str, x: Array, arguments: tuple[Any, ...]) -> None:
        """Launch a block for each part of a sum over ``x``."""
        blocks = (self._parts_of(x)[1],)
        self._launch.grid(name, x.dtype, blocks, (THREADS,), (*arguments, x.size), 8 * THREADS)

    def _with_parts(self, name: str, x: Array, arguments: tuple[Any, ...]) -> None:
        """Launch a thread for each number of ``x``; each block adds the parts."""
        self._launch.threads(name, x.dtype, x.size, (*arguments, x.size), shared=8 * THREADS)
