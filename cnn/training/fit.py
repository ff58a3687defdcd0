"""``fit``: the loop that trains a network."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cnn.data.augmentation import Augmentation
from cnn.data.dataset import Dataset
from cnn.network import Network
from cnn.training.callbacks import Callback, ending
from cnn.training.distributed.communicator import Communicator
from cnn.training.gradients import GradientTransform
from cnn.training.losses import Loss
from cnn.training.metrics import Metric, figures
from cnn.training.optimizers import Optimizer
from cnn.training.preparation import prepare
from cnn.training.run import Run
from cnn.training.schedules import Schedule


def fit(
    network: Network,
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
    accumulate: int = 1,
    normalize: bool = False,
    momentum_schedule: Schedule | None = None,
    augment: Sequence[Augmentation] | None = None,
    metrics: Sequence[Metric] | None = None,
    processes: Communicator | None = None,
    recompute: bool = False,
) -> list[dict[str, Any]]:
    """Train ``network`` on ``train``, in shuffled batches.

    Parameters
    ----------
    network : Sequential
        If it is not built yet, it is built for the images of ``train`` on the default device.
    train, validation : Dataset
        ``validation`` is evaluated at the end of each epoch.
    loss : Loss
        None: CrossEntropy, or BinaryCrossEntropy for a network that ends in Softmax; BCEWithLogits for images
        with several labels, and MeanSquaredError for other targets.
    optimizer : Optimizer
        None: SGD with momentum 0.9 and a learning rate of 0.05 * sqrt(batch_size / 128), at most 0.1. An
        optimizer that was used on this network before continues with its state.
    epochs, batch_size : int
        The last batch of an epoch holds the remaining samples. A few hundred images need many small steps:
        ``cnn train`` takes ``epochs`` and ``batch_size`` of :mod:`cnn.training.defaults` for len(train).
    schedule : Schedule
        Schedule of the learning rate over this call (see :mod:`cnn.schedules`). None: constant; or
        Linear(warmup=100) if ``optimizer`` is None too.
    seed : int
        Seed of the shuffling and of the augmentation.
    callbacks : sequence of Callback
        None: a progress bar, an error if a value is no longer finite, and a warning if the network does not
        learn. ``[]`` is silent.
    graph : bool
        Let the device record a step and repeat it without Python. If a GPU cannot, a warning says so once.
    stream : bool
        Keep the training images on the host and copy batches while the device computes. None: only if the
        images do not fit on the device.
    resume : str or Path
        A checkpoint that :class:`cnn.Checkpoint` wrote in a training run with the same arguments: resume
        from it, on any device. On the same device with the same number of threads, the final weights are
        bit for bit those of an uninterrupted run. ``epochs`` counts from the beginning and may differ.
    transforms : sequence of GradientTransform
        Applied to the gradient before each update, in this order. None: none; or [ClipNorm(1)] if
        ``optimizer`` is None too.
    accumulate : int
        Compute each batch in this many parts, whose gradients are added: the same updates with less memory.
        BatchNorm takes the mean and the variance of each part.
    normalize : bool
        Measure the mean and the standard deviation of each channel of ``train`` first, and keep them as
        ``network.preprocessing``, which predict, evaluate and exports apply too. False: the network's own.
    momentum_schedule : Schedule
        Schedule of the momentum of SGD or Muon. None: the one that belongs to ``schedule``, as for OneCycle,
        otherwise constant.
    augment : sequence of Augmentation
        How images are changed in each epoch (see :mod:`cnn.augment`), such as [cnn.augment.Shift(2)]. The
        changes follow from ``seed``, the epoch and the image.
    metrics : sequence of Metric
        Further measures of each epoch, such as [cnn.metrics.TopK(5)], on the training and the validation
        images. Their numbers become part of the history.
    processes : Communicator
        ``cnn.distributed.communicator()``: train in all processes that a launcher has started, each of which
        calls ``fit`` with the same arguments. Each batch is cut into shards, which they share; the result
        depends on the number of shards, and not on that of the processes. Callbacks run in the first process,
        unless they set ``everywhere``. None: this process alone.
    recompute : bool
        Keep only the input and the output of each block (a Residual, Parallel or Sequential inside the
        network), and compute what is inside it again for the backward pass: the same bits with less memory,
        for about a third more work. Blocks with layers of your own, or with a BatchNorm that has
        ``sync=True``, are not recomputed; if there is no other block, a warning says so.

    Returns
    -------
    list of dict
        One dictionary per epoch, including the epochs before ``resume``: epoch, loss, accuracy,
        images_per_second, seconds, learning_rate and, with ``validation``, validation_loss and
        validation_accuracy. If the images have no single class, there is no accuracy.

    Raises
    ------
    ShapeError, DataError, ArgumentError
        If data and network do not fit, before anything is changed.
    CheckpointError
        If ``resume`` is damaged or belongs to a different training run.
    TrainingError
        From NaNGuard.
    OutOfMemory, DeviceLost
        If the device fails. The former names a batch size that should fit, if that is known.
    """
    prepared = prepare(
        network, train, validation, loss, optimizer, epochs, batch_size, schedule, seed, callbacks, graph,
        stream, resume, transforms, accumulate, normalize, momentum_schedule, augment, metrics, processes,
        recompute,
    )  # fmt: skip
    with prepared.advice_if_too_large(), network.backend.active(), ExitStack() as at_end:
        at_end.callback(prepared.disconnect)
        at_end.enter_context(network.recomputing(prepared.recompute))
        run, validator = prepared.start()
        for callback in prepared.callbacks:
            callback.on_start(run)
            at_end.enter_context(ending(callback, run))
        run.agreement.settle(network, prepared.optimizer)
        for epoch in range(len(run.history), prepared.epochs):
            if run.stop:
                break
            rate = prepared.start_epoch(run, epoch)
            _train_epoch(run, prepared.callbacks)
            if run.stop:
                break
            record = _figures(run, rate)
            if validator is not None:
                with run.training.optimizer.evaluated():
                    result = validator.result(run)
                record |= {f"validation_{name}": value for name, value in figures(result).items()}
            run.history.append(record)
            for callback in prepared.callbacks:
                callback.on_epoch(run, record)
            run.agreement.settle(network, prepared.optimizer)
            if run.stop:
                break
    prepared.optimizer.finish()
    return run.history


def _train_epoch(run: Run, callbacks: Sequence[Callback]) -> None:
    """The rest of an epoch, or less if a callback stops it."""
    run.start_clock()
    for _ in run.training.feed.batches(run.step):
        run.agreement.begin_step()
        run.training()
        run.agreement.end_step(run.totals)
        run.step += 1
        for callback in callbacks:
            callback.on_step(run)
        if run.stop:
            break


def _figures(run: Run, last_rate: float) -> dict[str, Any]:
    """The epoch's line of the history, without validation."""
    run.agreement.collect(run.totals)
    result = figures(run.totals.read())  # waits for the device
    seconds = run.seconds
    return {
        "epoch": run.epoch,
        **result,
        "learning_rate": last_rate,
        "seconds": seconds,
        "images_per_second": run.totals.count / seconds,
    }
