"""fit and evaluate: the loops around a network."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cnn import defaults, plan, random
from cnn.arguments import flag, instance, shown, whole
from cnn.callbacks import Callback, LearningGuard, NaNGuard, Progress, ending
from cnn.data.dataset import Dataset
from cnn.data.feed import Feed, is_too_large
from cnn.data.notes import notes_on
from cnn.errors import ArgumentError, DataError, Notice
from cnn.losses import BinaryCrossEntropy, CrossEntropy, Loss
from cnn.metrics import Totals
from cnn.network import EVALUATION_BATCH, Sequential
from cnn.optimizers import SGD, Optimizer
from cnn.resumption import SavedTraining
from cnn.run import Run
from cnn.schedules import SCHEDULES, Constant, Schedule
from cnn.step import TrainingStep
from cnn.transforms import ClipNorm, GradientTransform


def fit(
    network: Sequential,
    train: Dataset,
    validation: Dataset | None = None,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    epochs: int = 1,
    batch_size: int = 128,
    schedule: Schedule | None = None,
    seed: int = 0,
    callbacks: Sequence[Callback] | None = None,
    graph: bool = True,
    stream: bool | None = None,
    resume: str | Path | None = None,
    transforms: Sequence[GradientTransform] | None = None,
) -> list[dict[str, Any]]:
    """Train ``network`` on ``train``, in shuffled batches.

    Parameters
    ----------
    network : Sequential
        Built, or it is built now for the images of ``train`` on the default device.
    train, validation : Dataset
        ``validation`` is evaluated at the end of each epoch.
    loss : Loss
        None: CrossEntropy, or BinaryCrossEntropy for a network that ends in Softmax.
    optimizer : Optimizer
        None: SGD with momentum 0.9 and a learning rate of 0.05 * sqrt(batch_size / 128), at most 0.1. One
        used before on this network continues with its state.
    epochs, batch_size : int
        An epoch's last batch holds what is left.
    schedule : Schedule
        Of the learning rate over this call (see :mod:`cnn.schedules`). None: constant; or, if ``optimizer``
        is None too, Linear(warmup=100).
    seed : int
        Of the shuffles.
    callbacks : sequence of Callback
        None: a progress bar, an error if a number is no longer finite, and a warning if the network does
        not learn; ``[]`` is silent.
    graph : bool
        Let a GPU record a step and repeat it by itself; where it cannot, a warning says so once.
    stream : bool
        Leave the training images on the host and bring batches to the device while it computes. None: where
        they do not fit there.
    resume : str or Path
        A checkpoint that :class:`cnn.Checkpoint` wrote in a training with the same arguments: go on from
        there, on any device. On the same device with as many threads the weights end up the same, bit for
        bit, as without the interruption. ``epochs`` counts from the very start and may be another number.
    transforms : sequence of GradientTransform
        What happens to the gradient before each update, in this order. None: nothing; or, if ``optimizer`` is
        None too, [ClipNorm(1)].

    Returns
    -------
    list of dict
        One an epoch, those before ``resume`` too: epoch, loss, accuracy, images_per_second, seconds,
        learning_rate and, with ``validation``, validation_loss and validation_accuracy.

    Raises
    ------
    ShapeError, DataError, ArgumentError
        Where data and network do not fit, before anything is changed.
    CheckpointError
        Where ``resume`` is damaged, or of another training.
    TrainingError
        From NaNGuard.
    OutOfMemory, DeviceLost
        Where the device fails; the former names a batch size that should fit, where it can be told.
    """
    instance("network", network, Sequential, "cnn.models.lenet5()")
    instance("train", train, Dataset, "cnn.data.Dataset(images, labels)")
    epochs = whole("epochs", epochs)
    batch_size = whole("batch_size", batch_size)
    saved = None if resume is None else SavedTraining.read(resume)
    if saved is not None:
        saved.require_data(train)
    if schedule is None:
        schedule = _default_schedule(optimizer, saved)
    instance("schedule", schedule, Schedule, "cnn.schedules.Linear()")
    if transforms is None:
        transforms = _default_transforms(optimizer, saved)
    if not isinstance(transforms, Sequence):
        raise ArgumentError(f"transforms is {shown(transforms)}, expected a list such as [cnn.ClipNorm(1)]")
    for transform in transforms:
        instance("transforms", transform, GradientTransform, "cnn.ClipNorm(1)")
    if optimizer is None:
        optimizer = _default_optimizer(saved, batch_size, len(train))
    instance("optimizer", optimizer, Optimizer, "cnn.SGD(0.05)")
    callbacks = [Progress(), NaNGuard(), LearningGuard()] if callbacks is None else callbacks
    if not isinstance(callbacks, Sequence):
        raise ArgumentError(f"callbacks is {shown(callbacks)}, expected a list such as [cnn.NaNGuard()]")
    for callback in callbacks:
        instance("callbacks", callback, Callback, "cnn.NaNGuard()")
    seed = whole("seed", seed, least=0)
    flag("graph", graph)
    if not network.built:
        network.build(train.shape, seed=seed)
    if stream is None:
        stream = is_too_large(network.backend, train.images, network.dtype)
    flag("stream", stream)
    advising = plan.advising(network, optimizer, train, validation, batch_size, stream)
    with advising, network.backend.active(), ExitStack() as at_end:
        feed = make_feed(network, train, batch_size, stream)
        checked = None if validation is None else make_feed(network, validation)
        _warn_of_data(train, validation)
        loss = make_loss(network, loss)
        optimizer.build(network)
        training = TrainingStep(network, loss, optimizer, feed, Totals(network), graph, transforms)
        run = Run(training, epochs, _settings(training, train, schedule, batch_size, seed))
        run.guess = np.bincount(train.labels).max() / len(train)
        if saved is not None:
            saved.restore(run)
        for callback in callbacks:
            callback.on_start(run)
            at_end.enter_context(ending(callback, run))
        for epoch in range(len(run.history), epochs):
            if run.epoch != epoch + 1:  # else the run is taken up in the middle of this one
                run.epoch, run.step, run.seconds_before = epoch + 1, 0, 0.0
                run.totals.reset()
            order = random.generator(seed, random.SHUFFLE, epoch).permutation(len(train))
            rates = learning_rates(optimizer.learning_rate, schedule, epoch, epochs, len(feed))
            feed.start(order, rates)
            _train_epoch(run, callbacks)
            if run.stop:
                break
            record = _figures(run, float(rates[-1]))
            if checked:
                result = _evaluate(network, checked, loss)
                record |= {f"validation_{name}": value for name, value in result.items()}
            run.history.append(record)
            for callback in callbacks:
                callback.on_epoch(run, record)
            if run.stop:
                break
    return run.history


def _default_optimizer(saved: SavedTraining | None, batch_size: int, images: int) -> Optimizer:
    """SGD at the default learning rate, or at the one that was the default when ``saved`` began."""
    usual = defaults.learning_rate(batch_size, images)
    rate = saved.settings.get("learning_rate", usual) if saved else usual
    return SGD(rate, momentum=defaults.MOMENTUM)


def _default_schedule(optimizer: Optimizer | None, saved: SavedTraining | None) -> Schedule:
    """Constant for an optimizer that was chosen, and for ``saved`` if it began so."""
    if optimizer is not None or (saved and saved.settings.get("schedule") == repr(Constant())):
        return Constant()
    return SCHEDULES[defaults.SCHEDULE](warmup=defaults.WARMUP)


def _default_transforms(optimizer: Optimizer | None, saved: SavedTraining | None) -> list[GradientTransform]:
    """None for an optimizer that was chosen, and for ``saved`` if it began so."""
    if optimizer is not None or (saved and not saved.settings.get("transforms")):
        return []
    return [ClipNorm(defaults.CLIP)]


def _settings(
    training: TrainingStep, train: Dataset, schedule: Schedule, batch_size: int, seed: int
) -> dict[str, Any]:
    """What a training that is taken up again has to be the same in."""
    optimizer = training.optimizer
    return {
        "images": len(train),
        "data": train.fingerprint,
        "batch_size": batch_size,
        "steps": len(training.feed),
        "seed": seed,
        "dtype": training.network.dtype,
        "loss": type(training.loss).__name__,
        "optimizer": type(optimizer).__name__,
        **optimizer.present_settings,
        "schedule": repr(schedule),
        "transforms": [repr(transform) for transform in training.transforms]
        or None,  # as before there were any
    }


def _train_epoch(run: Run, callbacks: Sequence[Callback]) -> None:
    """What is left of one pass over the feed, or less where a callback stops it."""
    run.start_clock()
    for size in run.training.feed.turns(run.step):
        run.training(size)
        run.step += 1
        for callback in callbacks:
            callback.on_step(run)
        if run.stop:
            break


def _figures(run: Run, last_rate: float) -> dict[str, Any]:
    """The epoch's line of the history, without validation."""
    result = run.totals.read()  # waits for the device
    seconds = run.seconds
    return {
        "epoch": run.epoch,
        **result,
        "learning_rate": last_rate,
        "seconds": seconds,
        "images_per_second": run.totals.count / seconds,
    }


def evaluate(
    network: Sequential, data: Dataset, loss: Loss | None = None, batch_size: int = EVALUATION_BATCH
) -> dict[str, float]:
    """{"loss": mean loss, "accuracy": share of right answers} of ``network`` on ``data``.

    ``loss=None`` is the one that :func:`fit` would take. Raises ShapeError or DataError where data
    and network do not fit.
    """
    instance("network", network, Sequential, "cnn.models.lenet5()").require_built()
    with network.backend.active():
        feed = make_feed(network, data, batch_size)
        return _evaluate(network, feed, make_loss(network, loss))


def make_loss(network: Sequential, loss: Loss | None) -> Loss:
    """``loss``, ready for ``network``; None is CrossEntropy, or BinaryCrossEntropy for probabilities."""
    if loss is None:
        loss = BinaryCrossEntropy() if network.ends_in_softmax else CrossEntropy()
    instance("loss", loss, Loss, "cnn.CrossEntropy()").build(network)
    return loss


def _warn_of_data(train: Dataset, validation: Dataset | None) -> None:
    notes = notes_on(train, "training")
    if validation is not None:
        notes += notes_on(validation, "evaluated", train)  # which may be the test set
    for note in notes:
        warnings.warn(note, Notice, stacklevel=3)  # of who called fit


def make_feed(
    network: Sequential, data: Dataset, batch_size: int = EVALUATION_BATCH, stream: bool | None = None
) -> Feed:
    """``data`` for the network's device; ShapeError or DataError where the two do not fit."""
    batch_size = whole("batch_size", batch_size)
    instance("data", data, Dataset, "cnn.data.Dataset(images, labels)")
    network.check_images(data.images)
    highest, classes = data.labels.max(), network.output_shape[0]
    if highest >= classes:
        raise DataError(
            f"the labels go up to {highest}, the network's output has {classes} classes; "
            f"give its last layer {highest + 1} outputs or take fewer classes"
        )
    return Feed(network.backend, network.dtype, data.images, data.labels, batch_size, stream)


def learning_rates(base: float, schedule: Schedule, epoch: int, epochs: int, steps: int) -> Any:
    """The learning rate of each of an epoch's ``steps``: the schedule in the middle of each."""
    first, total = epoch * steps, epochs * steps
    schedule = schedule.over(total)
    return np.array([base * schedule((step + 0.5) / total) for step in range(first, first + steps)])


def _evaluate(network: Sequential, feed: Feed, loss: Loss) -> dict[str, float]:
    totals = Totals(network)
    for x, labels in feed:
        loss.forward(network.forward(x), labels, sums=totals.sums)
    return totals.read()
