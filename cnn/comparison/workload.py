"""The training steps that every setup runs: a model, batches of MNIST, and an optimizer."""

from dataclasses import dataclass
from math import prod

import numpy as np

from backends import Backend
from backends.memory import Array, Shape
from cnn import models
from cnn.comparison.results import Work
from cnn.data import Dataset, load
from cnn.layers.layer import Layer
from cnn.models.sources import Source
from cnn.network import Network
from cnn.support import random
from cnn.support.arguments import whole
from cnn.support.dtypes import require_dtype
from cnn.training.evaluation import make_feed, make_loss
from cnn.training.gradients import with_loss_scaling
from cnn.training.metrics import Totals
from cnn.training.optimizers import SGD
from cnn.training.step import TrainingStep

RATE, MOMENTUM = 0.01, 0.9
NOISE = 256  # images


@dataclass(frozen=True)
class Workload:
    """A model to train on any device, with the same initial weights and the same batches everywhere."""

    source: Source  # of the model
    batch_size: int
    dtype: str
    data: Dataset
    winograd: bool = True

    def start(self, backend: Backend, batch_size: int | None = None, batches: int = 2) -> "Training":
        """A network ready for its first step; it cycles through ``batches`` batches."""
        return Training(self, backend, batch_size or self.batch_size, batches)

    def batches(self, batch_size: int, count: int) -> Dataset:
        """``count`` full batches; the data are repeated if necessary."""
        chosen = np.arange(batch_size * count) % len(self.data)
        return Dataset(self.data.images[chosen], self.data.labels[chosen], self.data.classes)


class Training:
    """A network, its loss, its optimizer and its batches on one device."""

    def __init__(self, workload: Workload, backend: Backend, batch_size: int, batches: int) -> None:
        data = workload.batches(batch_size, batches)
        self.network = workload.source.make(len(data.classes), data.shape)
        self.network.build(
            data.shape, backend=backend, seed=0, dtype=workload.dtype, winograd=workload.winograd
        )
        self.loss = make_loss(self.network, None)
        self._optimizer = SGD(RATE, momentum=MOMENTUM)
        self._optimizer.build(self.network)
        feed = make_feed(self.network, data, batch_size, stream=False)
        feed.start(np.arange(len(data)), np.full(batches, RATE))
        self._step = TrainingStep(
            self.network, self.loss, self._optimizer, feed, Totals(self.network),
            transforms=with_loss_scaling((), self.network),
        )  # fmt: skip

    def step(self) -> Array:
        """Run a whole step like ``cnn.fit``, on the next batch; -> the loss of each sample (N,)."""
        self._step()
        return self.loss.losses

    def plain_step(self) -> Array:
        """The same without a graph, so that layers can be observed."""
        self._step.run()
        return self.loss.losses


def make_workload(model: str, batch_size: int, dtype: str, winograd: bool = True) -> Workload:
    """The model on MNIST's test images, or on noise if it was built for other images.

    Raises ArgumentError if an argument is invalid.
    """
    whole("batch_size", batch_size)
    require_dtype(dtype)
    source = models.find(model)
    data = load("mnist")[1] if source.input_shape is None else _noise(source.input_shape)
    return Workload(source, batch_size, dtype, data, winograd)


def _noise(shape: Shape) -> Dataset:
    """Images of this shape whose numbers are random."""
    generator = random.generator(0, random.CHECK)
    images = generator.integers(0, 256, (NOISE, *shape), dtype=np.uint8)
    return Dataset(images, np.zeros(NOISE, dtype=int))  # a label that every network has


def work(network: Network, batch_size: int) -> list[Work]:
    """The work of each layer in a training step."""
    layers = list(network.walk())
    first_trained = next((i for i, layer in enumerate(layers) if layer.is_trained), len(layers))
    return [
        _layer_work(layer, batch_size, backward=i >= first_trained, input_grad=i > first_trained)
        for i, layer in enumerate(layers)
    ]


def _layer_work(layer: Layer, batch_size: int, backward: bool, input_grad: bool) -> Work:
    if layer.is_view:
        return Work(layer.label, 0, 0, 0, 0)
    itemsize = layer.itemsize
    x, y = (prod(shape) * batch_size * itemsize for shape in (layer.input_shape, layer.output_shape))
    parameters = sum(parameter.size for parameter in layer.parameters.values()) * itemsize
    flops = 2 * layer.multiply_adds * batch_size
    winner = layer.kept_bytes * batch_size  # of max pooling; other layers keep only their output
    kept = winner or (x if parameters else y)  # read again by backward
    return Work(
        layer.label,
        forward_flops=flops,
        backward_flops=backward * flops * (1 + input_grad),
        forward_bytes=x + y + winner + parameters,
        backward_bytes=backward * (y + kept + input_grad * (x + parameters) + parameters),
    )
