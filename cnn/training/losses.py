"""Losses, computed for each sample.

``forward(y, targets, divisor)`` returns the loss of each sample, (..., N) -> (N,); ``backward()`` returns
the gradient of their sum divided by the divisor. If the divisor is the size of the whole batch, this is the
gradient of the mean, even if the batch is split. The targets are labels (N,) or numbers in the shape of
``y``.
"""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from backends import Backend
from backends.memory import Array, Buffers
from cnn.data.dataset import Dataset
from cnn.network import Network
from cnn.support.arguments import number, optional_label, weights_row
from cnn.support.errors import ArgumentError, DataError, Notice, ShapeError
from cnn.support.origin import is_own


class Loss:
    """Base class of losses.

    ``losses`` are those of each sample in the latest forward. A loss whose mean is weighted has ``shares``,
    the weight of each of these samples, and ``total``, the sum over the parts of a batch; for others, whose
    mean is over the samples, both are None.
    """

    needs_classes = False
    """Whether it tells classes apart: the output is a number for each, and a sample has one of them."""

    has_shares = False
    """Whether its mean is weighted."""

    backend: Backend
    shares: Array | None = None
    total: Array | None = None

    def build(self, network: Network) -> None:
        """Prepare for the output of ``network``; ShapeError if the loss cannot be computed of it."""
        network.require_built()
        if self.needs_classes and len(network.output_shape) != 1:
            raise ShapeError(
                f"the network's output is {network.output_shape}, {type(self).__name__} expects one number "
                "for each class; end the network with Flatten and Dense"
            )
        if hasattr(self, "backend"):
            self.backend.allocations += 1  # steps recorded before have the arrays of before
        self.backend = network.backend
        self._buffers = Buffers(network.backend, network.master_dtype)
        self.losses = self._buffers.view("losses", (0,))
        if self.has_shares:
            self.total, self._zero = (self.backend.zeros(1, network.master_dtype) for _ in range(2))

    def require_suitable(self, data: Dataset, network: Network, mixed: bool = False) -> None:
        """Raise DataError unless the network's outputs can be compared with the targets of ``data``.

        ``mixed``: an augmentation blends the labels of images.
        """
        output = network.output_shape
        if self.needs_classes and not data.has_accuracy:
            raise DataError(
                f"{type(self).__name__} expects one class for each image, or probabilities that add up to 1, "
                f"which {data!r} does not have: use BCEWithLogits for several labels, MeanSquaredError for "
                "other numbers"
            )
        if not data.has_one_class_each:
            if data.targets.shape[1:] != output:
                raise DataError(
                    f"the targets of {data!r} have the shape {data.targets.shape[1:]}, the network's output "
                    f"is {output}: expected the same"
                )
        elif len(output) != 1:
            raise DataError(
                f"{data!r} has labels, but the network's output is {output}, no number for each class: "
                "give the numbers that it should learn as targets, or end it with Flatten and Dense"
            )
        else:
            self._require_known(data.labels, output[0])

    def _require_known(self, labels: Any, classes: int) -> None:
        """Raise DataError if one of these labels is no class of the network."""
        highest = labels.max()
        if highest >= classes:
            raise DataError(
                f"the labels go up to {highest}, the network's output has {classes} classes; "
                f"give its last layer {highest + 1} outputs or take fewer classes"
            )

    @property
    def description(self) -> str:
        """The name of the loss, with the arguments that differ from their defaults."""
        name = type(self).__name__
        if not is_own(self):
            return name
        given = inspect.signature(type(self)).parameters
        values = {key: getattr(self, key) for key in given if hasattr(self, key)}
        changed = [f"{key}={value!r}" for key, value in values.items() if value != given[key].default]
        return f"{name}({', '.join(changed)})" if changed else name

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle, without the data of a network."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_NETWORK}

    def begin_batch(self, samples: int) -> int:
        """Begin a batch of so many samples, which may come in parts; -> the divisor of each part."""
        if self.total is None:
            return samples
        self.backend.kernels.copy(self._zero, self.total)
        return 1

    def finish_batch(self, gradient: Array) -> None:
        """Make the sum of the parts' gradients, divided by their divisor, the gradient of the mean."""
        if self.total is not None:
            self.backend.kernels.divide(gradient, self.total)

    def forward(
        self,
        y: Array,
        targets: Array,
        divisor: int | None = None,
        sums: Array | None = None,
        weights: Array | None = None,
    ) -> Array:
        """The loss of each sample: (..., N) -> (N,), valid until the next call.

        ``targets`` are labels (N,) or numbers (..., N). The losses and gradients of the samples are
        multiplied by ``weights`` (N,). The gradient is that of their sum / ``divisor``, or of the mean if
        that is None; results are added to ``sums``, those of a Totals.
        """
        kernels = self.backend.kernels
        self.losses = self._buffers.view("losses", (y.shape[-1],))
        self._gradient = self._buffers.view("gradient", y.shape)
        is_whole = divisor is None
        if divisor is None:
            divisor = self.begin_batch(y.shape[-1])
        is_plain = weights is None and self.total is None
        self.evaluate(y, targets, self.losses, self._gradient, divisor, sums if is_plain else None)
        if weights is not None:
            kernels.weigh(self.losses, self._gradient, weights)
        if self.total is not None:
            kernels.add_up(self.shares, self.total)
        if is_whole:
            self.finish_batch(self._gradient)
        if sums is not None and not is_plain:
            kernels.tally(self.losses, y, targets, sums, self.shares)
        return self.losses

    def backward(self) -> Array:
        """The gradient of the latest forward, in the shape of ``y``, valid until the next call."""
        return self._gradient

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        """:meth:`compute` with ``dy`` divided by ``divisor``, and ``sums`` as in :meth:`forward`."""
        self.compute(y, targets, losses, dy)
        self.backend.xp.divide(dy, divisor, out=dy)
        if sums is not None:
            self.backend.kernels.tally(losses, y, targets, sums)

    def compute(self, y: Array, targets: Array, losses: Array, dy: Array) -> None:
        """``losses`` (N,) = the loss of each sample, ``dy``, in the shape of ``y``, their sum's gradient."""
        raise NotImplementedError

    def _numbers(self, values: tuple[float, ...] | float | None, count: int, name: str, what: str) -> Array:
        """``count`` numbers on the device, from as many or from one for all; None: ones."""
        numbers = values if isinstance(values, tuple) else (1.0 if values is None else values,) * count
        if len(numbers) != count:
            raise ArgumentError(f"{name} has {len(numbers)} numbers, the network has {count} {what}")
        return self.backend.asarray(list(numbers), dtype=self.losses.dtype)


_OF_A_NETWORK = (
    "backend", "_buffers", "losses", "shares", "total", "_zero", "_gradient", "_factors",
)  # fmt: skip


class CrossEntropy(Loss):
    """``-log softmax(y)[label]`` of logits, or ``-sum(t log softmax(y))``, like PyTorch's CrossEntropyLoss.

    The gradient is the softmax minus the one-hot label.

    Parameters
    ----------
    label_smoothing : float
        A share of the target that is spread evenly over all classes (Szegedy et al. 2016).
    class_weights : sequence of float
        A weight for each class, which multiplies its part of the loss. As in PyTorch, the mean of a batch
        is then ``sum(w l) / sum(w)``, with the weight w of each sample's label; for soft labels it stays
        the sum over the number of samples.
    ignore_label : int
        Samples with this label have no loss and no gradient, and are not counted by the mean, the accuracy
        and metrics. If there are no others in a batch, its gradient is 0.
    """

    needs_classes = True

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        ignore_label: int | None = None,
    ) -> None:
        self.label_smoothing = number("label_smoothing", label_smoothing, below=1)
        self.class_weights = weights_row("class_weights", class_weights)
        self.ignore_label = optional_label("ignore_label", ignore_label)

    @property
    def has_shares(self) -> bool:  # type: ignore[override]
        return self.class_weights is not None or self.ignore_label is not None

    def build(self, network: Network) -> None:
        super().build(network)
        self._factors = self._numbers(self.class_weights, network.output_shape[0], "class_weights", "classes")
        if network.gives_probabilities:
            _warn(
                "CrossEntropy expects logits, but the network ends in Softmax and will learn slowly: "
                "remove the Softmax, or train with BinaryCrossEntropy"
            )

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        kernels = self.backend.kernels
        if not self.label_smoothing and not self.has_shares:
            kernels.cross_entropy(y, targets, losses, dy, divisor, sums)
            return
        dense, shares = self._buffers.view("targets", y.shape), self._buffers.view("shares", losses.shape)
        kernels.class_targets(targets, self._factors, self.label_smoothing, self.ignore_label, dense, shares)
        kernels.cross_entropy(y, dense, losses, dy, divisor)
        if self.has_shares:
            self.shares = shares
        if sums is not None:
            kernels.tally(losses, y, targets, sums)

    def require_suitable(self, data: Dataset, network: Network, mixed: bool = False) -> None:
        super().require_suitable(data, network, mixed)
        if self.ignore_label is not None and (mixed or not data.has_one_class_each):
            reason = "an augmentation blends labels" if mixed else f"{data!r} has probabilities"
            raise DataError(
                f"CrossEntropy ignores the label {self.ignore_label}, but {reason}, in which no single label "
                "can be ignored: leave the images out that have this label"
            )

    def _require_known(self, labels: Any, classes: int) -> None:
        counted = labels[labels != self.ignore_label] if self.ignore_label is not None else labels
        if not len(counted):
            raise DataError(f"all images have the label {self.ignore_label}, which the loss ignores")
        super()._require_known(counted, classes)


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
                "add a Softmax, or train with CrossEntropy or BCEWithLogits"
            )

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.binary_cross_entropy(y, targets, losses, dy, divisor, sums)


class BCEWithLogits(Loss):
    """Binary cross entropy of a sigmoid, for images with several labels, like PyTorch's BCEWithLogitsLoss.

    ``-mean(w t log p + (1 - t) log(1 - p))`` for p = sigmoid(y), without overflow.

    Parameters
    ----------
    pos_weight : float or sequence of float
        The weight w of what is present: a number for each class or channel, or one for all.
    """

    def __init__(self, pos_weight: float | Sequence[float] | None = None) -> None:
        self.pos_weight = weights_row("pos_weight", pos_weight, one=True)

    def build(self, network: Network) -> None:
        super().build(network)
        self._factors = self._numbers(
            self.pos_weight, network.output_shape[0], "pos_weight", "classes or channels"
        )
        if network.gives_probabilities:
            _warn(
                "BCEWithLogits expects logits, but the network ends in Softmax: remove the Softmax, or train "
                "with BinaryCrossEntropy"
            )

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.logistic_loss(y, targets, self._factors, losses, dy, divisor, sums)


class MeanSquaredError(Loss):
    """``mean((y - t)^2)`` over the outputs of a sample, like PyTorch's MSELoss; labels become one-hot."""

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.squared_error(y, targets, losses, dy, divisor, sums)


class L1(Loss):
    """``mean(|y - t|)`` over the outputs of a sample, like PyTorch's L1Loss; labels become one-hot."""

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.absolute_error(y, targets, losses, dy, divisor, sums)


class Huber(Loss):
    """Squared error for small differences, absolute error for large ones, like PyTorch's HuberLoss.

    ``d^2 / 2`` for a difference d up to ``delta``, and ``delta (d - delta / 2)`` above it: the mean over the
    outputs of a sample. Labels become one-hot.
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = number("delta", delta)
        if not self.delta:
            raise ArgumentError("delta is 0, expected a number above 0: there would be no loss")

    def evaluate(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None
    ) -> None:
        self.backend.kernels.huber(y, targets, self.delta, losses, dy, divisor, sums)


def _warn(message: str) -> None:
    warnings.warn(message, Notice, stacklevel=5)  # of the caller of fit or evaluate
