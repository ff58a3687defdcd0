"""fit, evaluate, predict: the loops around a network."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from cnn import random
from cnn.callbacks import Callback, NaNGuard, Progress, Run
from cnn.data.dataset import Dataset
from cnn.data.feed import Feed
from cnn.errors import ShapeError
from cnn.layers.activation import softmax
from cnn.layers.arguments import whole
from cnn.losses import BinaryCrossEntropy, CrossEntropy, Loss
from cnn.metrics import Totals
from cnn.network import Sequential
from cnn.optimizers import SGD, Optimizer
from cnn.schedules import Constant, Schedule

EVALUATION_BATCH = 256


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
        None: SGD(0.05, momentum=0.9). One used before on this network goes on with its state.
    epochs, batch_size : int
        An epoch's last batch holds what is left.
    schedule : Schedule
        Of the learning rate over this call (see :mod:`cnn.schedules`); None: constant.
    seed : int
        Of the shuffles.
    callbacks : sequence of Callback
        None: a progress bar, and an error when the loss is no longer finite; ``[]`` is silent.

    Returns
    -------
    list of dict
        One an epoch: epoch, loss, accuracy, images_per_second, seconds, learning_rate and, with
        ``validation``, validation_loss and validation_accuracy.

    Raises
    ------
    ShapeError, DataError, ArgumentError
        Where data and network do not fit, before anything is changed.
    TrainingError
        From NaNGuard.
    """
    whole("fit", "epochs", epochs)
    if not network.built:
        network.build(train.shape, seed=seed)
    feed = Feed(network, train.images, train.labels, batch_size)
    checked = Feed(network, validation.images, validation.labels, EVALUATION_BATCH) if validation else None
    loss = loss or default_loss(network)
    optimizer = optimizer or SGD(0.05, momentum=0.9)
    loss.build(network)
    optimizer.build(network)
    rates = learning_rates(optimizer.learning_rate, schedule or Constant(), epochs * len(feed))
    run = Run(network, epochs, len(feed), Totals(network))
    callbacks = [Progress(), NaNGuard()] if callbacks is None else callbacks

    with network.backend.active(), ExitStack() as at_end:
        for callback in callbacks:
            callback.on_start(run)
            at_end.callback(callback.on_end, run)
        for epoch in range(epochs):
            run.epoch = epoch + 1
            feed.reorder(random.generator(seed, random.SHUFFLE, epoch).permutation(len(train)))
            epoch_rates = rates[epoch * len(feed) : (epoch + 1) * len(feed)]
            record = _train_epoch(network, feed, loss, optimizer, epoch_rates, run, callbacks)
            if checked:
                result = _evaluate(network, checked, loss)
                record |= {f"validation_{name}": value for name, value in result.items()}
            run.history.append(record)
            for callback in callbacks:
                callback.on_epoch(run, record)
    return run.history


def _train_epoch(
    network: Sequential,
    feed: Feed,
    loss: Loss,
    optimizer: Optimizer,
    rates: Any,
    run: Run,
    callbacks: Sequence[Callback],
) -> dict[str, Any]:
    """One pass over ``feed``; -> the epoch's line of the history."""
    start = time.perf_counter()
    device_rates = network.backend.asarray(rates, dtype=network.dtype)
    run.totals.reset()
    for step, (x, labels) in enumerate(feed):
        y = network.forward(x, training=True)
        losses = loss.forward(y, labels)
        network.backward(loss.backward(len(labels)), input_grad=False)
        optimizer.step(device_rates[step : step + 1])
        run.totals.add(losses, y, labels)
        run.step = step + 1
        for callback in callbacks:
            callback.on_step(run)
    result = run.totals.read()  # waits for the device
    seconds = time.perf_counter() - start
    return {
        "epoch": run.epoch,
        **result,
        "learning_rate": float(rates[-1]),
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
    network.require_built()
    loss = loss or default_loss(network)
    loss.build(network)
    with network.backend.active():
        return _evaluate(network, Feed(network, data.images, data.labels, batch_size), loss)


def predict(network: Sequential, images: Any, batch_size: int = EVALUATION_BATCH) -> Any:
    """What ``network.predict(images)`` gives: host (N, C, H, W) -> probabilities, host (N, classes)."""
    images = np.asarray(images)
    if images.ndim == 0 or not len(images):
        raise ShapeError(
            f"the images are {images.shape}, expected (N, {', '.join(map(str, network.input_shape))})"
        )
    feed = Feed(network, images, np.zeros(len(images), dtype=np.int64), batch_size)
    backend = network.backend
    parts = []
    with backend.active():
        for x, _ in feed:
            y = network.forward(x)
            if not network.ends_in_softmax:
                softmax(backend.xp, y, out=y)
            parts.append(backend.to_host(y).T)
    return np.concatenate(parts)


def default_loss(network: Sequential) -> Loss:
    """CrossEntropy for logits, the notebook's BinaryCrossEntropy for probabilities."""
    return BinaryCrossEntropy() if network.ends_in_softmax else CrossEntropy()


def learning_rates(base: float, schedule: Schedule, steps: int) -> Any:
    """The learning rate of each of ``steps`` steps: the schedule in the middle of each."""
    return np.array([base * schedule((step + 0.5) / steps) for step in range(steps)])


def _evaluate(network: Sequential, feed: Feed, loss: Loss) -> dict[str, float]:
    totals = Totals(network)
    for x, labels in feed:
        y = network.forward(x)
        totals.add(loss.forward(y, labels), y, labels)
    return totals.read()
