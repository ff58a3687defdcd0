"""What happens to the flat gradient between backward and the update: accumulation, then transforms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.kernels.updates import LOSS_SCALES
from backends.memory import Array
from cnn.network import Network
from cnn.support.arguments import number, whole
from cnn.support.errors import ArgumentError


class Accumulation:
    """Adds up the gradients of the parts of a batch, in a vector of its own (gradient accumulation).

    The loss of each part is divided by the size of the whole batch, so the sum is the gradient of the batch,
    and layers that draw random numbers draw those of the whole batch.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sum = network.backend.xp.zeros_like(network.flat.grad)

    def add(self, samples: int, is_first: bool) -> None:
        """Add the gradient of a part of so many samples."""
        kernels, grad = self._network.backend.kernels, self._network.flat.grad
        if is_first:
            kernels.copy(grad, self._sum)
        else:
            kernels.add(self._sum, grad, self._sum)
        self._network.count_samples(samples)

    def finish(self) -> None:
        """Make the sum the network's gradient."""
        self._network.backend.kernels.copy(self._sum, self._network.flat.grad)


class GradientTransform:
    """Changes the flat gradient of a network in place, on its device, with the same calls in every step."""

    handles_overflow = False  # whether a gradient that is not finite is expected and made harmless

    def build(self, network: Network) -> None:
        """Prepare for ``network``."""

    @property
    def has_failed(self) -> bool:
        """Whether it has nothing left to try against gradients that are not finite; waits for the device."""
        return False

    @property
    def state(self) -> dict[str, Array]:
        """The arrays that it changes besides the gradient, by names of its own; checkpoints have them."""
        return {}

    def before_backward(self, network: Network, dy: Array) -> None:
        """Change ``dy``, the gradient of the network's output, in place."""

    def apply(self, network: Network) -> None:
        """Change ``network.flat.grad``."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Clip(GradientTransform):
    """A transform with a limit."""

    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", number("limit", self.limit))
        if not self.limit:
            raise ArgumentError("limit is 0, expected a number above 0: no gradient would be left")


class ClipNorm(_Clip):
    """Scales a gradient whose norm is above ``limit`` down to it, as PyTorch's clip_grad_norm_.

    The norm is that of all gradients of the network together (Pascanu et al. 2013).
    """

    def apply(self, network: Network) -> None:
        network.backend.kernels.clip_norm(network.flat.grad, self.limit)


class ClipValue(_Clip):
    """Moves each number of the gradient into the range from -``limit`` to ``limit``.

    As PyTorch's clip_grad_value_; NaN stays NaN.
    """

    def apply(self, network: Network) -> None:
        network.backend.kernels.clip_value(network.flat.grad, self.limit)


@dataclass
class LossScaling(GradientTransform):
    """Keeps small gradients in float16: the backward pass computes ``scale`` times the gradient.

    Numbers below 6e-8 would become 0 in float16 (Micikevicius et al. 2018, "Mixed precision training"). The
    scale changes as that of PyTorch's GradScaler: it is halved if the gradient contains NaN or infinity, and
    doubled after ``growth_interval`` finite gradients in a row. PyTorch skips the update of a step that
    overflows. Here the gradient of that step is set to 0 instead, so that every step makes the same calls and
    can be recorded. Momentum, weight decay, averages and schedules continue.

    It is the first transform, so that the others get the gradient itself. ``fit`` puts it there for networks
    of float16. bfloat16 has the range of float32 and does not need it.

    Parameters
    ----------
    init_scale : float
        The first scale, a power of 2 from 2^-24 to 2^24.
    growth_interval : int
        The scale is doubled after so many finite gradients in a row.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """

    init_scale: float = 2.0**16
    growth_interval: int = 2000

    handles_overflow = True

    def __post_init__(self) -> None:
        self.init_scale = number("LossScaling: init_scale", self.init_scale)
        low, high = LOSS_SCALES
        if not low <= self.init_scale <= high or math.frexp(self.init_scale)[0] != 0.5:
            raise ArgumentError(
                f"LossScaling: init_scale is {self.init_scale:g}, expected a power of 2 from 2^-24 to 2^24"
            )
        self.growth_interval = whole("LossScaling: growth_interval", self.growth_interval)
        self._network: Any = None
        self._flat: Any = None

    def build(self, network: Network) -> None:
        """Prepare for ``network``. The scale is kept if it is the same network as before."""
        if network is not self._network or network.flat is not self._flat:
            backend = network.backend
            self._scale = backend.asarray([self.init_scale], network.master_dtype)
            self._counts = backend.zeros(2, "int64")
            self._network, self._flat = network, network.flat

    @property
    def state(self) -> dict[str, Array]:
        return {"loss_scaling/scale": self._scale, "loss_scaling/counts": self._counts}

    @property
    def scale(self) -> float:
        """The scale of the next step; waits for the device."""
        return float(self._network.backend.to_host(self._scale)[0])

    @property
    def overflows(self) -> int:
        """How many steps had a gradient that contained NaN or infinity; waits for the device."""
        return int(self._network.backend.to_host(self._counts)[1])

    @property
    def has_failed(self) -> bool:
        return self.scale <= LOSS_SCALES[0]

    def before_backward(self, network: Network, dy: Array) -> None:
        network.backend.kernels.multiply(dy, self._scale)

    def apply(self, network: Network) -> None:
        network.backend.kernels.unscale(network.flat.grad, self._scale, self._counts, self.growth_interval)

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle: the settings alone."""
        settings = {"init_scale": self.init_scale, "growth_interval": self.growth_interval}
        return settings | {"_network": None, "_flat": None}


def with_loss_scaling(
    transforms: Sequence[GradientTransform], network: Network
) -> Sequence[GradientTransform]:
    """``transforms`` with the loss scaling that float16 needs; ArgumentError if there is one later on."""
    later = [number for number, each in enumerate(transforms) if number and isinstance(each, LossScaling)]
    if later:
        raise ArgumentError(
            f"LossScaling is number {later[0] + 1} of the transforms, expected it first: the others get the "
            "gradient that it has scaled back"
        )
    if network.dtype != "float16" or any(isinstance(each, LossScaling) for each in transforms):
        return transforms
    return [LossScaling(), *transforms]
