"""Finds the first layer and direction in which a value became NaN or infinite.

Steps are not checked one by one. A value that is NaN or infinite stays in the sums of the losses, in the
weights or in the optimizer's state, where an occasional check finds it. The steps since the last successful
check are then repeated, which gives the same bits, and the faulty step is run layer by layer.
"""

from dataclasses import dataclass

from backends.memory import Array
from cnn.data.sharding import Shard
from cnn.layers.container import backward, forward
from cnn.training.run import Run
from cnn.training.step import TrainingStep, scaled_gradient, update


@dataclass(frozen=True)
class Fault:
    """A step that made a value NaN or infinite, and where in the step this first happened."""

    step: int
    place: str | None  # such as "the output of layer 6 Dense (forward)"


class Snapshot:
    """A copy on the device of everything that a step changes; :meth:`take` overwrites it."""

    def __init__(self, run: Run) -> None:
        self._arrays = list(run.training.state.values())
        self._copies = [array.copy() for array in self._arrays]
        self.epoch, self.step = run.epoch, run.step

    def take(self, run: Run) -> None:
        """Copy the current state."""
        for copy, array in zip(self._copies, self._arrays, strict=True):
            copy[...] = array
        self.epoch, self.step = run.epoch, run.step

    def restore(self) -> None:
        """Restore the copied state."""
        for copy, array in zip(self._copies, self._arrays, strict=True):
            array[...] = copy


def is_finite(run: Run) -> bool:
    """Whether everything that a step changes is finite, including the loss sums; waits for the device.

    The answer is the same in all processes, which must call it together.
    """
    is_good = _all_finite(run.training, *run.training.state.values()) and not _has_failed(run.training)
    return run.agreement.all_true(is_good)


def _has_failed(training: TrainingStep) -> bool:
    """Whether a transform of the gradient could not make it finite in any of the latest steps."""
    return any(transform.has_failed for transform in training.transforms)


def find_fault(run: Run, good: Snapshot) -> Fault | None:
    """The first faulty step of this epoch since ``good``; None if there is none.

    Afterwards the weights are those before that step, or those of ``good``.
    """
    good.restore()
    training = run.training
    first = good.step if good.epoch == run.epoch else 0
    if first == 0:
        training.totals.reset()
    before = Snapshot(run)
    for number in training.feed.batches(first):
        before.take(run)
        training()
        if not is_finite(run):
            expects_overflow = not _has_failed(training) and any(
                transform.handles_overflow for transform in training.transforms
            )
            before.restore()
            place = _first_not_finite(run, expects_overflow) if _can_search(training) else None
            before.restore()
            return Fault(number + 1, place)
        if number + 1 == run.step:
            break
    good.restore()
    return None


def _can_search(training: TrainingStep) -> bool:
    """Whether a step can be run layer by layer, each process by itself."""
    return training.network.is_own and training.network.context.link.peers is None


def _first_not_finite(run: Run, expects_overflow: bool) -> str | None:
    """Run one step layer by layer; -> the first result that is NaN or infinite.

    With ``expects_overflow``, gradients may be, since a transform handles that.
    """
    training = run.training
    network, feed = training.network, training.feed
    training.reducer.begin(feed.size)
    with network.unfused():
        places = [_first_in_shard(training, shard, expects_overflow) for shard in feed.shards]
    if place := run.agreement.earliest(next(filter(None, places), None)):
        return str(place)
    training.reducer.finish(feed)
    training.loss.finish_batch(network.flat.grad)
    update(network, training.optimizer, feed.rate, training.transforms)
    for layer in network.in_sequence():
        if not _all_finite(training, *(parameter.value for parameter in layer.parameters.values())):
            return f"the weights of layer {layer.label} (update)"
    if not is_finite(run):
        return "the state of the optimizer (update)"
    return None


def _first_in_shard(training: TrainingStep, shard: Shard, expects_overflow: bool) -> str | None:
    """Compute the gradient of a shard; -> the first result that is NaN or infinite."""
    training.reducer.begin_shard(shard)
    divisor = training.loss.begin_batch(training.feed.size)
    for number, size in enumerate(shard.sizes):
        x, targets = training.feed.gather(size)
        if place := _first_in_gradients(training, x, targets, divisor, expects_overflow):
            return place
        if training.accumulation:
            training.accumulation.add(size, is_first=number == 0)
    if training.accumulation and shard.sizes:
        training.accumulation.finish()
    training.reducer.add(shard)
    return None


def _first_in_gradients(
    training: TrainingStep, x: Array, targets: Array, divisor: int, expects_overflow: bool
) -> str | None:
    """Run forward and backward layer by layer; -> the first result that is NaN or infinite."""
    loss, network = training.loss, training.network
    layers = list(network.in_sequence())
    network.round_weights()
    for layer in layers:
        x = forward(layer, x, training=True)
        if not _all_finite(training, x):
            return f"the output of layer {layer.label} (forward)"
    x = network.output_of(x, training=True)
    if not _all_finite(training, loss.forward(x, targets, divisor, weights=training.feed.weights)):
        return "the loss (forward)"
    dy = scaled_gradient(network, loss, training.transforms)
    if not _all_finite(training, dy):
        return "the gradient of the loss (backward)"
    dy = network.output_gradient_of(dy)
    while layers:
        layer = layers.pop()
        wanted = any(earlier.is_trained for earlier in layers)
        if not wanted and not layer.is_trained:
            break
        dy = backward(layer, dy, input_grad=wanted)
        gradients = [parameter.grad for parameter in layer.parameters.values()]
        if not expects_overflow and not _all_finite(training, *gradients, *([dy] if wanted else [])):
            return f"the gradients of layer {layer.label} (backward)"
    return None


def _all_finite(training: TrainingStep, *arrays: Array) -> bool:
    backend, xp = training.network.backend, training.network.backend.xp
    found = backend.zeros(len(arrays), xp.bool_)
    for place, array in enumerate(arrays):
        mask = backend.workspace(array.size).view(xp.bool_).reshape(array.shape)
        xp.isfinite(array, out=mask)
        found[place : place + 1] = mask.all()
    return bool(backend.to_host(found).all())
