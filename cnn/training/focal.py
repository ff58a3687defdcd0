"""The focal loss."""

from collections.abc import Sequence

from backends.memory import Array
from cnn.network import Network
from cnn.support.arguments import number, weights_row
from cnn.training.losses import Loss


class Focal(Loss):
    """``-(1 - p)^gamma log p`` for the softmax p of the label: well-learned samples count less.

    Lin et al. 2017, "Focal loss for dense object detection", with the softmax of several classes. With
    gamma = 0 it is CrossEntropy.

    Parameters
    ----------
    gamma : float
        How much less; 2 is usual.
    alpha : float or sequence of float
        Multiplies the loss, with a number for each class or one for all. The mean stays over the samples.
    """

    needs_classes = True

    def __init__(self, gamma: float = 2.0, alpha: float | Sequence[float] | None = None) -> None:
        self.gamma = number("gamma", gamma)
        self.alpha = weights_row("alpha", alpha, one=True)

    def build(self, network: Network) -> None:
        super().build(network)
        self._factors = self._numbers(self.alpha, network.output_shape[0], "alpha", "classes")

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        kernels = self.backend.kernels
        dense, shares = self._buffers.view("targets", y.shape), self._buffers.view("shares", losses.shape)
        kernels.class_targets(targets, self._factors, 0.0, None, dense, shares)
        kernels.focal(y, dense, self.gamma, losses, dy, divisor)
        if sums is not None:
            kernels.tally(losses, y, targets, sums)
