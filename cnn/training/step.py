"""A training step: gather a batch, forward, loss, backward, gradient transforms, update, count."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from backends.memory import Array
from cnn.data.feed import Feed
from cnn.network import Sequential
from cnn.training.gradients import GradientTransform
from cnn.training.losses import Loss
from cnn.training.metrics import Totals
from cnn.training.optimizers import Optimizer


class TrainingStep:
    """Called with the size of each batch, as ``feed.turns()`` gives it out.

    Everything that differs from step to step is in arrays on the device, so a step is the same calls every
    time: with ``graph`` the device may record them and repeat whole batches by itself.
    """

    def __init__(
        self,
        network: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        feed: Feed,
        totals: Totals,
        graph: bool = True,
        transforms: Sequence[GradientTransform] = (),
    ) -> None:
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.feed = feed
        self.totals = totals
        self.transforms = transforms

        def run(size: int) -> None:
            x, labels = feed.batch(size)
            compute_gradients(network, loss, x, labels, totals.sums)
            update(network, optimizer, feed.rate, transforms)

        self.run = run  # call by call; no method, which would keep the graph and its memory in a cycle
        whole = partial(run, feed.batch_size)
        changed = [network.flat.value, *network.statistics.values(), *optimizer.state.values(), totals.sums]
        self.changed = changed = [*changed, feed.cursor]
        self._graph = (lambda: network.backend.graph(whole, changed)) if graph else (lambda: whole)
        self._recorded: tuple[Any, ...] | None = None  # the optimizer's settings in what is repeated

    def __call__(self, size: int) -> None:
        if size != self.feed.batch_size:
            self.run(size)
            return
        if self._recorded != self.optimizer.settings:
            self._recorded = self.optimizer.settings
            self._whole = self._graph()
        self._whole()


def update(
    network: Sequential, optimizer: Optimizer, rate: Array, transforms: Sequence[GradientTransform] = ()
) -> None:
    """What follows the backward pass: the transforms of the gradient in their order, then the new weights."""
    for transform in transforms:
        transform.apply(network)
    optimizer.step(rate)


def compute_gradients(
    network: Sequential, loss: Loss, x: Array, labels: Array, sums: Array | None = None
) -> Array:
    """A step without its batch and update; -> each sample's loss (N,). ``sums`` as the loss takes them."""
    y = network.forward(x, training=True)
    losses = loss.forward(y, labels, sums=sums)
    network.backward(loss.backward(), input_grad=False)
    return losses
