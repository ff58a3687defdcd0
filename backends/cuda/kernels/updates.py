"""Optimizers' updates."""

from backends.cuda.kernels.launching import Launching
from backends.kernels.covering import covering
from backends.kernels.updates import TINY, PortableUpdateKernels
from backends.memory import Array


class CompiledUpdateKernels(Launching, PortableUpdateKernels):
    """Optimizers' updates."""

    @covering()
    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        settings = (momentum, float(weight_decay), TINY, int(nesterov))
        self._launch.threads(
            "sgd", value.dtype, value.size, (value, grad, velocity, rate, *settings, value.size)
        )

    @covering()
    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        self._launch.grid("next_powers", powers.dtype, (1,), (1,), (powers, *map(float, factors)))

    @covering()
    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        betas = float(betas[0]), float(betas[1])
        settings = (*betas, float(epsilon), float(weight_decay), TINY, int(decoupled))
        arguments = (value, grad, mean, square, powers, rate, *settings, value.size)
        self._launch.threads("adam", value.dtype, value.size, arguments)
