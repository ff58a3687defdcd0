"""A training step: gather a batch, forward, loss, backward, gradient transforms, update."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from backends.graph import CapturedStep, recordable
from backends.memory import Array
from cnn.data.feed import Feed
from cnn.network import Network
from cnn.saving.weights import TRAINING
from cnn.support.origin import call
from cnn.training.distributed.agreement import Agreement, Wish
from cnn.training.distributed.reducer import Reducer
from cnn.training.gradients import Accumulation, GradientTransform
from cnn.training.losses import Loss
from cnn.training.metrics import ShardTotals, Totals
from cnn.training.optimizers import Optimizer


class TrainingStep:
    """Trains on the current batch of ``feed``, each time it is called.

    Everything that differs from step to step is in arrays on the device, so a step on a whole batch is the
    same calls every time: with ``graph`` the device records them and repeats them without Python.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        feed: Feed,
        totals: Totals,
        graph: bool = True,
        transforms: Sequence[GradientTransform] = (),
        reducer: Reducer | None = None,
        agreement: Agreement | None = None,
    ) -> None:
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.feed = feed
        self.totals = totals
        self.transforms = transforms
        for transform in transforms:
            transform.build(network)
        self.accumulation = Accumulation(network) if feed.has_parts else None
        self.reducer = reducer or Reducer()
        self._agreement = agreement or Agreement()
        self.run = recordable(
            partial(
                take_step, network, loss, optimizer, feed, totals, transforms, self.accumulation, self.reducer
            )
        )
        self._graph = graph and self.reducer.is_recordable
        self._repeated: Callable[[], None] = self.run
        self.failure: str | None = None
        """Why the device could not record the step; None if it could, or has not tried."""
        self._recorded_with: tuple[Any, ...] | None = None

    @property
    def state(self) -> dict[str, Array]:
        """Every array that a step changes, by name."""
        return {
            **self.network.state,
            **{f"optimizer/{name}": array for name, array in self.optimizer.state.items()},
            **self._transform_state,
            **self.totals.arrays,
            "cursor": self.feed.cursor,
        }

    @property
    def arrays(self) -> dict[str, Array]:
        """The same arrays under the names that checkpoints have for them; the feed's position is not kept."""
        optimizer = {f"optimizer/{name}": array for name, array in self.optimizer.arrays.items()}
        more = optimizer | self._transform_state | self.totals.arrays | self.network.context.draws.state
        return self.network.arrays | {TRAINING + name: array for name, array in more.items()}

    @property
    def _transform_state(self) -> dict[str, Array]:
        return {name: array for each in self.transforms for name, array in each.state.items()}

    def __call__(self) -> None:
        if not self._graph or self.feed.size != self.feed.batch_size:
            self.run()
            return
        if self._recorded_with != self.optimizer.settings:  # which are constants in a recorded step
            self._recorded_with = self.optimizer.settings
            self._repeated = self.network.backend.graph(self.run, list(self.state.values()))
        if isinstance(self._repeated, CapturedStep) and not self._is_captured(self._repeated):
            self.run()
        else:
            self._repeated()

    def _is_captured(self, step: CapturedStep) -> bool:
        """Capture the step if it is time to; -> whether it can be launched.

        The device runs a step before it captures it, and with it the messages to the other processes. So all
        processes capture in the same step, even if only one of them has to.
        """
        if self._agreement.grants(Wish.CAPTURE, due=not step.is_ready):
            step.capture()
            self.failure = step.failure
            self._graph = self._agreement.all_true(step.failure is None)
            if not self._graph:
                self._repeated = self.run  # the memory of a graph that is not used is freed
        return self._graph and step.is_ready


def take_step(
    network: Network,
    loss: Loss,
    optimizer: Optimizer,
    feed: Feed,
    totals: Totals,
    transforms: Sequence[GradientTransform],
    accumulation: Accumulation | None,
    reducer: Reducer,
) -> None:
    """One training step on the current batch of ``feed``: the gradients of its shards, and the update."""
    reducer.begin(feed.size)
    for shard in feed.shards:
        reducer.begin_shard(shard)
        divisor = loss.begin_batch(feed.size)
        for number, size in enumerate(shard.sizes):
            x, targets = feed.gather(size)
            sums = totals.of(shard.number)
            compute_gradients(network, loss, x, targets, divisor, sums, feed.weights, transforms)
            if accumulation:
                accumulation.add(size, is_first=number == 0)
        if accumulation and shard.sizes:
            accumulation.finish()
        reducer.add(shard)
    reducer.finish(feed)
    loss.finish_batch(network.flat.grad)
    update(network, optimizer, feed.rate, transforms)


def compute_gradients(
    network: Network,
    loss: Loss,
    x: Array,
    targets: Array,
    divisor: int | None = None,
    totals: ShardTotals | None = None,
    weights: Array | None = None,
    transforms: Sequence[GradientTransform] = (),
) -> Array:
    """Forward, loss and backward; -> the loss of each sample (N,).

    ``divisor`` and ``weights`` are those of :meth:`Loss.forward`; results are added to ``totals``. The
    ``transforms`` change the gradient of the output.
    """
    y = network.forward(x, training=True)
    losses = call(loss.forward, y, targets, divisor, sums=totals and totals.sums, weights=weights)
    if totals is not None:
        totals.add(y, targets, loss.shares)
    network.backward(scaled_gradient(network, loss, transforms), input_grad=False)
    return losses


def scaled_gradient(network: Network, loss: Loss, transforms: Sequence[GradientTransform]) -> Array:
    """The gradient of the network's output, as the transforms change it."""
    dy = call(loss.backward)
    for transform in transforms:
        call(transform.before_backward, network, dy)
    return dy


def update(
    network: Network, optimizer: Optimizer, rate: Array, transforms: Sequence[GradientTransform] = ()
) -> None:
    """What follows the backward pass: the gradient transforms in their order, then the new weights."""
    network.clear_frozen()
    for transform in transforms:
        call(transform.apply, network)
    call(optimizer.step, rate)
