"""``fit``: the loop that trains a network."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cnn.data.dataset import Dataset
from cnn.network import Network
from cnn.support.errors import OutOfMemory
from cnn.training.callbacks import Callback, ending
from cnn.training.evaluation import totals_of
from cnn.training.gradients import GradientTransform
from cnn.training.losses import Loss
from cnn.training.optimizers import Optimizer
from cnn.training.preparation import Job, prepare
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
) -> list[dict[str, Any]]:
    """Train ``network`` on ``train``, in shuffled batches.

    Parameters
    ----------
    network : Network
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
        A checkpoint that :class:`cnn.Checkpoint` wrote in a training run with the same arguments: resume from
        it, on any device. On the same device with as many threads the weights end up the same, bit for
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
    job = prepare(
        network, train, validation, loss, optimizer, epochs, batch_size, schedule, seed, callbacks, graph,
        stream, resume, transforms,
    )  # fmt: skip
    with _advice_if_too_large(job), network.backend.active(), ExitStack() as at_end:
        run, batches = job.start()
        for callback in job.callbacks:
            callback.on_start(run)
            at_end.enter_context(ending(callback, run))
        for epoch in range(len(run.history), job.epochs):
            rate = job.start_epoch(run, epoch)
            _train_epoch(run, job.callbacks)
            if run.stop:
                break
            record = _figures(run, rate)
            if batches:
                result = totals_of(network, batches, run.training.loss)
                record |= {f"validation_{name}": value for name, value in result.items()}
            run.history.append(record)
            for callback in job.callbacks:
                callback.on_epoch(run, record)
            if run.stop:
                break
    return run.history


def _train_epoch(run: Run, callbacks: Sequence[Callback]) -> None:
    """The rest of an epoch, or less if a callback stops it."""
    run.start_clock()
    for _ in run.training.feed.batches(run.step):
        run.training()
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


@contextmanager
def _advice_if_too_large(job: Job) -> Iterator[None]:
    """Let OutOfMemory leave the block with a batch size that should fit."""
    try:
        yield
    except (OutOfMemory, MemoryError) as error:
        from cnn.inspection.memory import advised  # needed in this case alone

        sizes = job.train, job.validation, job.batch_size, job.stream
        raise advised(error, job.network, job.optimizer, *sizes) from error
