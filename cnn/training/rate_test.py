"""The learning-rate range test (Smith 2017): which learning rate suits a network and its data."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from cnn.data.augmentation import Augmentation
from cnn.data.dataset import Dataset
from cnn.network import Network
from cnn.support import random
from cnn.support.arguments import instance, number, whole
from cnn.support.errors import ArgumentError
from cnn.training import defaults
from cnn.training.evaluation import make_feed, make_loss
from cnn.training.gradients import GradientTransform, with_loss_scaling
from cnn.training.losses import Loss
from cnn.training.metrics import Totals
from cnn.training.optimizers import SGD, Optimizer
from cnn.training.step import TrainingStep

SMOOTHING = 0.8  # share of the earlier losses in the smoothed loss
EXPLODED = 4.0  # times the lowest loss
BELOW = 10.0  # the suggestion is this many times lower than the rate of the lowest loss


@dataclass(frozen=True)
class RateTest:
    """The result of :func:`find_rate`."""

    rates: tuple[float, ...]  # of each step
    losses: tuple[float, ...]  # of each step's batch
    smoothed: tuple[float, ...]
    suggestion: float  # a tenth of the rate with the lowest smoothed loss


def find_rate(
    network: Network,
    train: Dataset,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    batch_size: int = 128,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 100,
    seed: int = 0,
    transforms: Sequence[GradientTransform] = (),
    augment: Sequence[Augmentation] = (),
) -> RateTest:
    """Train for ``steps`` steps with a learning rate that grows from ``lowest`` to ``highest``.

    The test stops before the loss explodes, and leaves the network and the optimizer as they were.

    Parameters
    ----------
    network : Sequential
        Built, or it is built for the images of ``train`` on the default device.
    train : Dataset
        Shuffled; its batches are repeated if there are fewer than ``steps``.
    optimizer : Optimizer
        Its learning rate does not matter. None: SGD with momentum 0.9.
    loss, batch_size, seed, transforms, augment
        As in :func:`cnn.fit`.

    Raises ArgumentError for arguments out of range.
    """
    instance("network", network, Network, "cnn.models.lenet5()")
    instance("train", train, Dataset, "cnn.data.Dataset(images, labels)")
    lowest, highest = number("lowest", lowest), number("highest", highest)
    steps = whole("steps", steps, least=2)
    if not 0 < lowest < highest:
        raise ArgumentError(f"lowest is {lowest:g} and highest is {highest:g}, expected 0 < lowest < highest")
    if optimizer is None:
        optimizer = SGD(lowest, momentum=defaults.MOMENTUM)
    instance("optimizer", optimizer, Optimizer, "cnn.SGD(0.05, momentum=0.9)")
    if not network.built:
        network.build(train.shape, seed=seed)
    with network.backend.active():
        twin, own = network.copy(), optimizer.fresh()
        own.build(twin)
        measured = make_loss(twin, copy.copy(loss), train)
        feed = make_feed(twin, train, batch_size, loss=measured, augment=augment, seed=seed)
        own_transforms = with_loss_scaling([copy.copy(each) for each in transforms], twin)
        step = TrainingStep(twin, measured, own, feed, Totals(twin, measured), transforms=own_transforms)
        rates = np.geomspace(lowest, highest, steps).tolist()
        losses = _until_it_explodes(step, rates, len(train), seed)
    smoothed = _smoothed(losses)
    best = int(np.argmin(smoothed))
    return RateTest(tuple(rates[: len(losses)]), tuple(losses), tuple(smoothed), rates[best] / BELOW)


def _until_it_explodes(step: TrainingStep, rates: Sequence[float], images: int, seed: int) -> list[float]:
    """The loss of each step, as long as it is finite and not many times the lowest one."""
    losses: list[float] = []
    for value in _losses(step, rates, images, seed):
        smoothed = _smoothed([*losses, value])
        if not isfinite(value) or smoothed[-1] > EXPLODED * min(smoothed):
            break
        losses.append(value)
    if not losses:
        raise ArgumentError("the loss is not finite in the first step: start with other weights or images")
    return losses


def _losses(step: TrainingStep, rates: Sequence[float], images: int, seed: int) -> Iterator[float]:
    feed, totals = step.feed, step.totals
    per_epoch = len(feed)
    for epoch, first in enumerate(range(0, len(rates), per_epoch)):
        some = list(rates[first : first + per_epoch])
        order = random.generator(seed, random.SHUFFLE, epoch).permutation(images)
        feed.start(order, some + [0.0] * (per_epoch - len(some)), epoch)
        for done, _ in enumerate(feed.batches()):
            if done == len(some):
                break
            totals.reset()
            step()
            yield totals.read()["loss"]


def _smoothed(losses: Sequence[float]) -> list[float]:
    """Moving averages of the losses, without the bias of the start."""
    average, weight, found = 0.0, 0.0, []
    for value in losses:
        value = value if isfinite(value) else inf
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + 1 - SMOOTHING
        found.append(average / weight)
    return found
