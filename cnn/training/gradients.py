"""Gradient transforms: what happens to the flat gradient between backward and the update."""

from dataclasses import dataclass

from cnn.network import Network
from cnn.support.arguments import number
from cnn.support.errors import ArgumentError


class GradientTransform:
    """Changes the flat gradient of a network in place, on its device, with the same calls in every step."""

    def apply(self, network: Network) -> None:
        """Change ``network.flat.grad``."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClipNorm(GradientTransform):
    """Scales a gradient whose norm is above ``limit`` down to it, as PyTorch's clip_grad_norm_.

    The norm is that of all gradients of the network together (Pascanu et al. 2013).
    """

    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", number("limit", self.limit))
        if not self.limit:
            raise ArgumentError("limit is 0, expected a number above 0: no gradient would be left")

    def apply(self, network: Network) -> None:
        network.backend.kernels.clip_norm(network.flat.grad, self.limit)
