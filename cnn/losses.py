"""Losses: how far the network's output is from the labels, sample by sample.

``forward(y, labels)`` gives each sample's loss, (classes, N), (N,) -> (N,). ``backward(divisor)``
gives the gradient of their sum over ``divisor``; with the size of the whole batch as the divisor
that is the gradient of the mean, however the batch is cut.
"""

import warnings

from cnn.errors import ShapeError
from cnn.layers.buffers import Array, Buffers
from cnn.network import Sequential


class Loss:
    """What the losses share: their buffers and the one-hot labels."""

    def build(self, network: Sequential) -> None:
        """Make ready for the output of ``network``; ShapeError where that is no vector of classes."""
        network.require_built()
        if len(network.output_shape) != 1:
            raise ShapeError(
                f"the network's output is {network.output_shape}, a loss expects one number for each class; "
                "end the network with Flatten and Dense"
            )
        self.backend = network.backend
        self._buffers = Buffers(network.backend, network.dtype)
        self._classes = network.backend.xp.arange(network.output_shape[0])[:, None]

    def forward(self, y: Array, labels: Array) -> Array:
        """Each sample's loss: (classes, N), (N,) -> (N,)."""
        raise NotImplementedError

    def backward(self, divisor: int) -> Array:
        """The gradient of the latest forward's sum over ``divisor``: (classes, N), valid until the next."""
        raise NotImplementedError

    def one_hot(self, y: Array, labels: Array) -> Array:
        """1 where the label is, 0 elsewhere: (N,) -> (classes, N)."""
        target = self._buffers.view("target", y.shape)
        self.backend.xp.equal(self._classes, labels, out=target)
        return target


class CrossEntropy(Loss):
    """``-log softmax(y)[label]`` of logits, as PyTorch's CrossEntropyLoss.

    The gradient is the softmax less the one-hot label.
    """

    def build(self, network: Sequential) -> None:
        super().build(network)
        if network.ends_in_softmax:
            warnings.warn(
                "CrossEntropy expects logits, but the network ends in Softmax and will learn slowly: "
                "take the Softmax away, or train with BinaryCrossEntropy",
                stacklevel=3,
            )

    def forward(self, y: Array, labels: Array) -> Array:
        xp = self.backend.xp
        self._target = self.one_hot(y, labels)
        self._probabilities = self._buffers.view("probabilities", y.shape)
        shifted = self._buffers.view("shifted", y.shape)
        xp.subtract(y, xp.max(y, axis=0, keepdims=True), out=shifted)
        xp.exp(shifted, out=self._probabilities)
        total = xp.sum(self._probabilities, axis=0)
        xp.divide(self._probabilities, total, out=self._probabilities)
        return xp.log(total) - xp.take_along_axis(shifted, labels[None], axis=0)[0]

    def backward(self, divisor: int) -> Array:
        dy = self._buffers.view("dy", self._target.shape)
        self.backend.xp.subtract(self._probabilities, self._target, out=dy)
        return self.backend.xp.divide(dy, divisor, out=dy)


class BinaryCrossEntropy(Loss):
    """The notebook's log loss: ``-mean(t log p + (1 - t) log(1 - p))`` of probabilities and one-hot labels.

    As PyTorch's BCELoss, but safe in another way: probabilities are kept a rounding error away
    from 0 and 1, so both the loss and its gradient stay finite and still point the right way.
    """

    def forward(self, y: Array, labels: Array) -> Array:
        xp = self.backend.xp
        self._target = self.one_hot(y, labels)
        self._probabilities = self._buffers.view("probabilities", y.shape)
        margin = float(xp.finfo(y.dtype).eps)
        xp.clip(y, margin, 1 - margin, out=self._probabilities)
        # of p where t = 1 and of 1 - p where t = 0
        right = self._buffers.view("right", y.shape)
        xp.subtract(self._probabilities, 1, out=right)
        xp.add(right, self._target, out=right)
        xp.absolute(right, out=right)
        xp.log(right, out=right)
        return -xp.mean(right, axis=0)

    def backward(self, divisor: int) -> Array:
        # (p - t) / (p (1 - p))
        xp, p = self.backend.xp, self._probabilities
        dy = self._buffers.view("dy", p.shape)
        slope = self._buffers.view("slope", p.shape)
        xp.subtract(1, p, out=slope)
        xp.multiply(slope, p, out=slope)
        xp.subtract(p, self._target, out=dy)
        xp.divide(dy, slope, out=dy)
        return xp.divide(dy, divisor * len(p), out=dy)


class MeanSquaredError(Loss):
    """``mean((y - t)^2)`` over the classes, for one-hot ``t``, as PyTorch's MSELoss."""

    def forward(self, y: Array, labels: Array) -> Array:
        xp = self.backend.xp
        self._difference = self._buffers.view("difference", y.shape)
        square = self._buffers.view("square", y.shape)
        xp.subtract(y, self.one_hot(y, labels), out=self._difference)
        xp.square(self._difference, out=square)
        return xp.mean(square, axis=0)

    def backward(self, divisor: int) -> Array:
        dy = self._buffers.view("dy", self._difference.shape)
        return self.backend.xp.multiply(self._difference, 2 / (divisor * len(dy)), out=dy)
