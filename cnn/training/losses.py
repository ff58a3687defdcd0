"""Losses: how far the network's output is from the labels, sample by sample.

``forward(y, labels, divisor)`` gives each sample's loss, (classes, N), (N,) -> (N,); ``backward()`` gives the
gradient of their sum over the divisor. With the size of the whole batch as the divisor that is the gradient
of the mean, however the batch is cut.
"""

import warnings
from typing import Any

from backends.memory import Array, Buffers
from cnn.network import Network
from cnn.support.errors import Notice, ShapeError


class Loss:
    """What the losses share: their buffers, and what forward left there.

    ``losses`` are each sample's of the latest forward.
    """

    def build(self, network: Network) -> None:
        """Make ready for the output of ``network``; ShapeError where that is no vector of classes."""
        network.require_built()
        if len(network.output_shape) != 1:
            raise ShapeError(
                f"the network's output is {network.output_shape}, a loss expects one number for each class; "
                "end the network with Flatten and Dense"
            )
        self.backend = network.backend
        self._buffers = Buffers(network.backend, network.dtype)
        self.losses = self._buffers.view("losses", (0,))

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or pickled: nothing that the loss has from a network."""
        own = ("backend", "_buffers", "losses", "_gradient")
        return {name: value for name, value in vars(self).items() if name not in own}

    def forward(
        self, y: Array, labels: Array, divisor: int | None = None, sums: Array | None = None
    ) -> Array:
        """Each sample's loss: (classes, N), (N,) -> (N,), valid until the next.

        ``divisor`` (None: N) is that of the gradient; ``sums`` are those of a Totals, which are added to.
        """
        self.losses = self._buffers.view("losses", (y.shape[1],))
        self._gradient = self._buffers.view("gradient", y.shape)
        self.evaluate(y, labels, self.losses, self._gradient, divisor or y.shape[1], sums)
        return self.losses

    def backward(self) -> Array:
        """The gradient of the latest forward's sum over the divisor: (classes, N), valid until the next."""
        return self._gradient

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        """:meth:`compute`, with ``dy`` over ``divisor`` and ``sums`` as :meth:`forward` says."""
        self.compute(y, labels, losses, dy)
        self.backend.xp.divide(dy, divisor, out=dy)
        if sums is not None:
            self.backend.kernels.tally(losses, y, labels, sums)

    def compute(self, y: Array, labels: Array, losses: Array, dy: Array) -> None:
        """``losses`` (N,) = each sample's loss, ``dy`` (classes, N) = the gradient of their sum."""
        raise NotImplementedError


class CrossEntropy(Loss):
    """``-log softmax(y)[label]`` of logits, as PyTorch's CrossEntropyLoss.

    The gradient is the softmax less the one-hot label.
    """

    def build(self, network: Network) -> None:
        super().build(network)
        if network.gives_probabilities:
            warnings.warn(
                "CrossEntropy expects logits, but the network ends in Softmax and will learn slowly: "
                "take the Softmax away, or train with BinaryCrossEntropy",
                Notice,
                stacklevel=4,  # of who called fit or evaluate
            )

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.cross_entropy(y, labels, losses, dy, divisor, sums)


class BinaryCrossEntropy(Loss):
    """The notebook's log loss: ``-mean(t log p + (1 - t) log(1 - p))`` of probabilities and one-hot labels.

    As PyTorch's BCELoss, but safe in another way: probabilities are kept a rounding error away
    from 0 and 1, so both the loss and its gradient stay finite and still point the right way.
    """

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.binary_cross_entropy(y, labels, losses, dy, divisor, sums)


class MeanSquaredError(Loss):
    """``mean((y - t)^2)`` over the classes, for one-hot ``t``, as PyTorch's MSELoss."""

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.squared_error(y, labels, losses, dy, divisor, sums)
