"""Losses, computed for each sample.

``forward(y, labels, divisor)`` returns the loss of each sample, (classes, N), (N,) -> (N,); ``backward()``
returns the gradient of their sum divided by the divisor. If the divisor is the size of the whole batch, this
is the gradient of the mean, even if the batch is split.
"""

import warnings
from typing import Any

from backends.memory import Array, Buffers
from cnn.network import Network
from cnn.support.errors import Notice, ShapeError


class Loss:
    """Base class of losses.

    ``losses`` are those of each sample in the latest forward.
    """

    def build(self, network: Network) -> None:
        """Prepare for the output of ``network``; ShapeError if it is not a vector of classes."""
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
        """The state to copy or pickle, without the data of a network."""
        own = ("backend", "_buffers", "losses", "_gradient")
        return {name: value for name, value in vars(self).items() if name not in own}

    def forward(
        self, y: Array, labels: Array, divisor: int | None = None, sums: Array | None = None
    ) -> Array:
        """The loss of each sample: (classes, N), (N,) -> (N,), valid until the next call.

        The gradient is divided by ``divisor`` (None: N); results are added to ``sums``, those of a Totals.
        """
        self.losses = self._buffers.view("losses", (y.shape[1],))
        self._gradient = self._buffers.view("gradient", y.shape)
        self.evaluate(y, labels, self.losses, self._gradient, divisor or y.shape[1], sums)
        return self.losses

    def backward(self) -> Array:
        """The gradient of the latest sum divided by the divisor: (classes, N), valid until the next call."""
        return self._gradient

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        """:meth:`compute` with ``dy`` divided by ``divisor``, and ``sums`` as in :meth:`forward`."""
        self.compute(y, labels, losses, dy)
        self.backend.xp.divide(dy, divisor, out=dy)
        if sums is not None:
            self.backend.kernels.tally(losses, y, labels, sums)

    def compute(self, y: Array, labels: Array, losses: Array, dy: Array) -> None:
        """``losses`` (N,) = the loss of each sample, ``dy`` (classes, N) = the gradient of their sum."""
        raise NotImplementedError


class CrossEntropy(Loss):
    """``-log softmax(y)[label]`` of logits, like PyTorch's CrossEntropyLoss.

    The gradient is the softmax minus the one-hot label.
    """

    def build(self, network: Network) -> None:
        super().build(network)
        if network.gives_probabilities:
            _warn(
                "CrossEntropy expects logits, but the network ends in Softmax and will learn slowly: "
                "remove the Softmax, or train with BinaryCrossEntropy"
            )

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.cross_entropy(y, labels, losses, dy, divisor, sums)


class BinaryCrossEntropy(Loss):
    """The notebook's log loss: ``-mean(t log p + (1 - t) log(1 - p))`` of probabilities and one-hot labels.

    Like PyTorch's BCELoss, but probabilities are kept a rounding error away from 0 and 1, so the loss
    and its gradient stay finite and the gradient keeps the right sign.
    """

    def build(self, network: Network) -> None:
        super().build(network)
        last = next((layer for layer in reversed([*network.in_sequence()]) if not layer.is_view), network)
        if last.parameters:  # its outputs have no bounds
            _warn(
                f"BinaryCrossEntropy expects probabilities, but the network ends in {last.label}: "
                "add a Softmax, or train with CrossEntropy"
            )

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.binary_cross_entropy(y, labels, losses, dy, divisor, sums)


class MeanSquaredError(Loss):
    """``mean((y - t)^2)`` over the classes, for one-hot ``t``, like PyTorch's MSELoss."""

    def evaluate(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.squared_error(y, labels, losses, dy, divisor, sums)


def _warn(message: str) -> None:
    warnings.warn(message, Notice, stacklevel=5)  # of the caller of fit or evaluate
