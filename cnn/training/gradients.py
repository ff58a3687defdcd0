"""What happens to the flat gradient between backward and the update: accumulation, then transforms."""

from dataclasses import dataclass

from cnn.network import Network
from cnn.support.arguments import number
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
