"""What ``fit`` does before its loop: check the arguments, choose defaults, and put everything in place."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn.data.augmentation import Augmentation
from cnn.data.dataset import Dataset
from cnn.data.feed import Feed
from cnn.data.notes import notes_on
from cnn.data.preprocessing import Preprocessing, keep_fit
from cnn.data.sharding import Sharding
from cnn.data.sources import is_too_large
from cnn.network import Network
from cnn.support import random
from cnn.support.arguments import flag, instance, shown, whole
from cnn.support.errors import ArgumentError, Notice, OutOfMemory
from cnn.support.version import VERSION
from cnn.training import defaults
from cnn.training.callbacks import Callback, LearningGuard, NaNGuard, Progress
from cnn.training.checkpoints import SavedTraining
from cnn.training.distributed.agreement import Agreement, SharedAgreement
from cnn.training.distributed.communicator import Communicator, digest
from cnn.training.distributed.reducer import Reducer, ShardReducer
from cnn.training.evaluation import feed_of, make_feed, make_loss, require_suitable
from cnn.training.gradients import ClipNorm, GradientTransform, with_loss_scaling
from cnn.training.losses import Loss
from cnn.training.metrics import Metric, Totals, require_measurable, require_metrics
from cnn.training.optimizers import SGD, Optimizer
from cnn.training.run import Run
from cnn.training.schedules import SCHEDULES, Constant, Schedule
from cnn.training.step import TrainingStep
from cnn.training.validation import Validator


@dataclass
class PreparedRun:
    """A training run whose arguments have been checked."""

    network: Network
    train: Dataset
    validation: Dataset | None
    loss: Loss | None
    optimizer: Optimizer
    epochs: int
    batch_size: int
    schedule: Schedule
    seed: int
    callbacks: Sequence[Callback]
    graph: bool
    stream: bool
    saved: SavedTraining | None
    transforms: Sequence[GradientTransform]
    accumulate: int
    normalize: bool
    momentum_schedule: Schedule | None
    augment: Sequence[Augmentation]
    metrics: Sequence[Metric]
    group: Communicator
    sharding: Sharding
    recompute: bool

    def start(self) -> tuple[Run, Validator | None]:
        """Bring the data to the device, and resume from ``saved``; -> the run and its validator."""
        self.group.watchdog.be_patient()
        if self.group.size > 1:
            self.group.require_same({"device": self.network.backend.name.partition(":")[0]})
            self.group.transport(self.network.backend)  # which all processes make together
        with self.group.together():
            run, validator = self._begin()
        if self.group.size > 1:
            self.group.require_same(self._facts(run))
        return run, validator

    def _begin(self) -> tuple[Run, Validator | None]:
        self._describe_data()
        network, train = self.network, self.train
        rates = 1 if self.momentum_schedule is None else 2
        loss = make_loss(network, self.loss, train)
        sizes = self.batch_size, self.stream, self.accumulate
        feed = make_feed(network, train, *sizes, loss, rates, self.augment, self.seed, sharding=self.sharding)
        validator = self._make_validator(loss)
        for data in (train, self.validation):
            if data is not None:
                require_measurable(self.metrics, data)
        if self.group.is_first:
            _warn_of_data(network, train, self.validation)
        if network.parameters and not network.is_trained:
            message = 'all parameters are frozen, so nothing is learned: net.unfreeze("*") changes that'
            warnings.warn(message, Notice, stacklevel=5)  # of who called cnn.fit
        if self.recompute and not network.recomputes:
            message = (
                "recompute changes nothing: the network has no block (a Residual, Parallel or Sequential "
                "inside it) of the library's own layers"
            )
            warnings.warn(message, Notice, stacklevel=5)
        self.optimizer.build(network)
        totals = Totals(network, loss, self.metrics, train.has_accuracy, self.sharding.count)
        reducer, agreement = Reducer(), Agreement()
        if self.sharding.count > 1:
            reducer = ShardReducer(network, loss, self.sharding, self.group, feed.has_parts)
            agreement = SharedAgreement(self.group, self.sharding)
        if self.sharding.count > 1 and any(layer.synchronized for layer in network.walk()):
            self._connect_layers(feed)
        training = TrainingStep(
            network, loss, self.optimizer, feed, totals, self.graph, self.transforms, reducer, agreement
        )
        run = Run(training, self.epochs, self._settings(training), agreement=agreement)
        if train.has_one_class_each:
            run.guess = np.bincount(train.labels).max() / len(train)
        if self.saved is not None:
            self.saved.restore(run)
        return run, validator

    def _connect_layers(self, feed: Feed) -> None:
        """Let layers with ``sync=True`` exchange their moments; ArgumentError if they cannot."""
        count, last = self.sharding.count, len(self.train) % feed.batch_size
        what = "a BatchNorm with sync=True needs"
        if count != self.group.size:
            raise ArgumentError(f"{what} as many processes as shards: start {count}, not {self.group.size}")
        if feed.has_parts:
            raise ArgumentError(f"{what} whole shards: leave accumulate out")
        if 0 < last < count:
            raise ArgumentError(
                f"{what} an image of each batch in each process, but the last batch has {last} for {count}: "
                "take another batch size"
            )
        self.network.context.link.peers = self.group.transport(self.network.backend)

    def disconnect(self) -> None:
        """Let the layers compute for this process alone again."""
        self.network.context.link.peers = None

    def _make_validator(self, loss: Loss) -> Validator | None:
        """What evaluates this process's shards of the validation set; None if there is none."""
        data = self.validation
        if data is None:
            return None
        require_suitable(self.network, data, loss)
        feeds = {
            shard: feed_of(self.network, data.part(first, size))
            for shard, first, size in self.sharding.cut(len(data))
            if size
        }
        totals = Totals(self.network, loss, self.metrics, data.has_accuracy, self.sharding.count)
        return Validator(self.network, loss, feeds, totals, self.graph)

    def _describe_data(self) -> None:
        """Let the network keep the classes of the training set, and how its images are prepared."""
        self.network.check_images(self.train.images)
        if self.saved is not None:
            self.saved.take_description(self.network)
        elif self.normalize:
            self.network.preprocessing = Preprocessing.of(self.train)
        else:
            keep_fit(self.network, self.train.fit)
        if (len(self.train.classes),) == self.network.output_shape:
            self.network.class_names = self.train.classes

    def _facts(self, run: Run) -> dict[str, Any]:
        """What must be the same in all processes, by the name that a message has for it."""
        network = self.network
        backend = network.backend
        everywhere = [type(each).__name__ for each in self.callbacks if each.everywhere]
        return {
            "xpcnn": VERSION,
            "kernels": backend.kernels.name,
            "threads": backend.describe().get("threads"),
            "epochs": self.epochs,
            **run.settings,
            "callbacks that run everywhere": everywhere,
            "validation": self.validation and self.validation.fingerprint,
            "weights and state": digest(backend, run.training.arrays.values()),
        }

    def _settings(self, training: TrainingStep) -> dict[str, Any]:
        """The settings that a resumed training run must share with the run that it resumes.

        Settings that older versions did not have are None if they are not used.
        """
        optimizer = training.optimizer
        return {
            "images": len(self.train),
            "data": self.train.fingerprint,
            "batch_size": self.batch_size,
            "accumulate": self.accumulate if self.accumulate > 1 else None,
            "shards": self.sharding.count if self.sharding.count > 1 else None,
            "steps": len(training.feed),
            "seed": self.seed,
            "dtype": training.network.dtype,
            "loss": training.loss.description,
            "optimizer": type(optimizer).__name__,
            **optimizer.present_settings,
            "schedule": repr(self.schedule),
            "momentum_schedule": repr(self.momentum_schedule) if self.momentum_schedule else None,
            "transforms": [repr(transform) for transform in self.transforms] or None,
            "normalize": self.normalize or None,
            "frozen": list(training.network.frozen_names) or None,
            "augment": [repr(augmentation) for augmentation in self.augment] or None,
            "metrics": [metric.name for metric in self.metrics] or None,
        }

    @contextmanager
    def advice_if_too_large(self) -> Iterator[None]:
        """Let OutOfMemory leave the block with a batch size that should fit."""
        try:
            yield
        except (OutOfMemory, MemoryError) as error:
            from cnn.inspection.memory import advised  # needed in this case alone

            data = self.train, self.validation, self.batch_size
            options = self.stream, self.accumulate, self.recompute
            raise advised(error, self.network, self.optimizer, *data, *options) from error

    def start_epoch(self, run: Run, epoch: int) -> float:
        """Shuffle the data and set the learning rates of an epoch, from 0; -> the last learning rate."""
        run.begin_epoch(epoch + 1)
        order = random.generator(self.seed, random.SHUFFLE, epoch).permutation(len(self.train))
        reduction = self.schedule.reduction(run.history)
        base = self.optimizer.learning_rate * reduction
        rates = learning_rates(base, self.schedule, epoch, self.epochs, run.steps)
        rows = rates
        if self.momentum_schedule is not None:
            momentum = self.optimizer.scheduled_momentum or 0.0
            momenta = learning_rates(momentum, self.momentum_schedule, epoch, self.epochs, run.steps)
            rows = np.stack([rates, momenta], axis=1)
        run.training.feed.start(order, rows, epoch)
        return float(rates[-1])


def prepare(
    network: Network,
    train: Dataset,
    validation: Dataset | None,
    loss: Loss | None,
    optimizer: Optimizer | None,
    epochs: int,
    batch_size: int,
    schedule: Schedule | None,
    seed: int,
    callbacks: Sequence[Callback] | None,
    graph: bool,
    stream: bool | None,
    resume: str | Path | None,
    transforms: Sequence[GradientTransform] | None,
    accumulate: int,
    normalize: bool,
    momentum_schedule: Schedule | None,
    augment: Sequence[Augmentation] | None,
    metrics: Sequence[Metric] | None,
    processes: Communicator | None = None,
    recompute: bool = False,
) -> PreparedRun:
    """The arguments of ``fit``, checked and with its defaults; the network is built."""
    group = Communicator() if processes is None else processes
    instance("processes", group, Communicator, "cnn.distributed.communicator()")
    saved = group.first(lambda: None if resume is None else SavedTraining.read(resume))
    with group.together():
        instance("network", network, Network, "cnn.models.lenet5()")
        instance("train", train, Dataset, "cnn.data.Dataset(images, labels)")
        epochs, batch_size = whole("epochs", epochs), whole("batch_size", batch_size)
        accumulate = whole_parts(accumulate, batch_size)
        sharding = _sharding(group, saved, min(batch_size, len(train)))
        if saved is not None:
            saved.require_data(train)
        if schedule is None:
            schedule = _default_schedule(optimizer, saved)
        instance("schedule", schedule, Schedule, "cnn.schedules.Linear()").require(validation is not None)
        if transforms is None:
            transforms = _default_transforms(optimizer, saved)
        _instances("transforms", transforms, GradientTransform, "cnn.ClipNorm(1)")
        if optimizer is None:
            optimizer = _default_optimizer(saved, batch_size, len(train))
        instance("optimizer", optimizer, Optimizer, "cnn.SGD(0.05)")
        momentum_schedule = _momentum_schedule(momentum_schedule, schedule, optimizer)
        callbacks = [Progress(), NaNGuard(), LearningGuard()] if callbacks is None else callbacks
        _instances("callbacks", callbacks, Callback, "cnn.NaNGuard()")
        seed = whole("seed", seed, least=0)
        flag("graph", graph)
        flag("recompute", recompute)
        normalize = flag("normalize", normalize)
        augment = [] if augment is None else augment
        _instances("augment", augment, Augmentation, "cnn.augment.Shift(2)")
        metrics = require_metrics(() if metrics is None else metrics)
        if not network.built:
            network.build(train.shape, seed=seed)
        transforms = with_loss_scaling(transforms, network)
        if stream is None:
            stream = is_too_large(network.backend, train.samples, network.dtype)
        flag("stream", stream)
        callbacks = [each for each in callbacks if group.is_first or each.everywhere]
        return PreparedRun(
            network, train, validation, loss, optimizer, epochs, batch_size, schedule, seed, callbacks, graph,
            stream, saved, transforms, accumulate, normalize, momentum_schedule, augment, metrics, group,
            sharding, recompute,
        )  # fmt: skip


def _sharding(group: Communicator, saved: SavedTraining | None, batch_size: int) -> Sharding:
    """This process's shards: of as many as asked for, as the run began with, or as there are processes."""
    began_with = None if saved is None else saved.settings.get("shards") or 1
    count = group.shards or began_with or group.size
    if count > batch_size:
        raise ArgumentError(
            f"{count} shards are more than the {batch_size} images of a batch: take larger batches, or fewer "
            "shards or processes"
        )
    return Sharding.of(count, group.rank, group.size)


def _instances(name: str, values: Any, kind: type, example: str) -> None:
    """Raise ArgumentError unless ``values`` is a sequence of objects of this kind."""
    if not isinstance(values, Sequence):
        raise ArgumentError(f"{name} is {shown(values)}, expected a list such as [{example}]")
    for value in values:
        instance(name, value, kind, example)


def learning_rates(base: float, schedule: Schedule, epoch: int, epochs: int, steps: int) -> Any:
    """The learning rate of each of an epoch's ``steps``: the schedule in the middle of each."""
    first, total = epoch * steps, epochs * steps
    schedule = schedule.over(total)
    return np.array([base * schedule((step + 0.5) / total) for step in range(first, first + steps)])


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


def _momentum_schedule(given: Any, schedule: Schedule, optimizer: Optimizer) -> Schedule | None:
    """The schedule of the momentum: the one given, or the one that belongs to ``schedule``."""
    if given is None:
        return schedule.momentum if optimizer.scheduled_momentum else None
    instance("momentum_schedule", given, Schedule, "cnn.schedules.Linear(end=0.9)")
    if not optimizer.scheduled_momentum:
        raise ArgumentError(
            f"momentum_schedule is given, but {type(optimizer).__name__} has no momentum that can change: "
            "leave it out, or take cnn.SGD with momentum"
        )
    return given


def _default_transforms(optimizer: Optimizer | None, saved: SavedTraining | None) -> list[GradientTransform]:
    """None for an optimizer that was chosen, and for ``saved`` if it began so."""
    if optimizer is not None or (saved and not saved.settings.get("transforms")):
        return []
    return [ClipNorm(defaults.CLIP)]


def _normalizes(network: Network) -> bool:
    return network.preprocessing is not None and network.preprocessing.normalizes


def _warn_of_data(network: Network, train: Dataset, validation: Dataset | None) -> None:
    notes = notes_on(train, "training", normalized=_normalizes(network))
    if validation is not None:
        notes += notes_on(validation, "evaluated", train)  # which may be the test set
    for note in notes:
        warnings.warn(note, Notice, stacklevel=6)  # of who called cnn.fit


def whole_parts(accumulate: int, batch_size: int) -> int:
    """``accumulate``, if a batch can be cut into so many parts."""
    parts = whole("accumulate", accumulate)
    if parts > batch_size:
        raise ArgumentError(
            f"accumulate is {parts}, expected at most {batch_size}, the number of images in a batch"
        )
    return parts
