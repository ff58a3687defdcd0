"""What a run is made of, from its settings: data, network, optimizer, loss, schedule and the rest."""

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends import Backend
from backends.text import did_you_mean
from cnn import data, models
from cnn.data import Dataset, augmentation
from cnn.data.augmentation import Augmentation
from cnn.data.pictures import Pictures
from cnn.data.published.fashion_mnist import named_as
from cnn.models import heads
from cnn.network import Network
from cnn.runs.config import OWN_DATA, Config
from cnn.support.errors import ArgumentError, DataError
from cnn.support.text import dimensions, literal, short
from cnn.training import defaults
from cnn.training.averaging import EMA
from cnn.training.gradients import ClipNorm, ClipValue, GradientTransform
from cnn.training.groups import EVERYTHING, Group, is_vector
from cnn.training.losses import CrossEntropy, Loss
from cnn.training.named import OPTIMIZERS
from cnn.training.optimizers import SGD, Optimizer
from cnn.training.schedules import SCHEDULES, OneCycle, Schedule
from cnn.training.stopping import EarlyStopping, MaxTime, Stop, StopAt


def require_valid(config: Config) -> None:
    """Raise ArgumentError for a value that is wrong for any data, before they are loaded."""
    for each in fields(config):
        if check := each.metadata["check"]:
            check(each.name, getattr(config, each.name))
    for name, is_used in (("freeze", config.freeze is not None), ("old_rate", config.old_rate != 1)):
        if is_used and config.base is None:
            flag = name.replace("_", "-")
            raise ArgumentError(f"--{flag} needs --from: say which run or file has the trained network")
    if config.whiten and config.base is not None:
        raise ArgumentError("--whiten cannot be given with --from: it would replace the trained first layer")
    if config.freeze == heads.ALL_BUT_HEAD and config.old_rate != 1:
        raise ArgumentError(
            f"--old-rate has no effect with --freeze {heads.ALL_BUT_HEAD}, which leaves no old "
            "layer to train: leave one of them out"
        )
    make_optimizer(config, images=1)
    make_schedule(config)
    make_stops(config)


def require_suitable(config: Config, network: Network) -> None:
    """Raise ArgumentError for a setting that does not suit the network or its images."""
    changes = [*make_augmentations(config), *augmentation.views(config.tta)]
    augmentation.require_size(changes, network.input_shape)
    for name in ("label_smoothing", "class_weights"):
        if getattr(config, name) and network.gives_probabilities:
            raise ArgumentError(
                f"{name} is {getattr(config, name)}, but {config.model} ends in Softmax, and its loss has no "
                f"{name.replace('_', ' ')}: leave it out"
            )


def load_data(
    config: Config, pictures: Pictures | None = None, names: tuple[str, ...] = ()
) -> tuple[Dataset, Dataset | None, Dataset]:
    """(train, validation, test), with the chosen classes and ``per_class`` training images of each.

    ``pictures`` replaces the settings for pictures. ``names`` are those of the classes in an earlier run
    on the same data.
    ``validation`` is the part of the training set that is held out, or None.
    """
    if config.data == OWN_DATA:
        require_data(config)
    asked = {name: getattr(config, name) for name in ("size", "fit", "channels")}
    asked = {name: value for name, value in asked.items() if value is not None}
    train, test = data.load(config.data, pictures or Pictures(**asked), config.seed, config.transposed)
    if asked and not config.are_pictures(train):
        raise ArgumentError(
            f"--{next(iter(asked))} is for picture files, but {config.data} has images of "
            f"{dimensions(train.shape)}: leave it out"
        )
    train, test = train.only(config.classes, config.per_class), test.only(config.classes)
    if names:
        train, test = named_as(train, names), named_as(test, names)
    if not config.validation:
        return train, None, test
    return *train.split(config.validation, config.seed), test


def require_data(config: Config) -> None:
    """Raise DataError if the run's data are no longer at their path, or have none."""
    if config.data == OWN_DATA:
        raise DataError("the run does not say where its data are: give their path with --data")
    if config.data not in data.NAMES and not Path(config.data).exists():
        raise DataError(f"the run's data are no longer at {config.data}: give their new path with --data")


def make_network(config: Config, shape: tuple[int, ...], classes: int, backend: Backend) -> Network:
    """The model, built for images of ``shape``."""
    return build_network(config, models.make(config.model, classes, shape), shape, backend)


def build_network(config: Config, network: Network, shape: tuple[int, ...], backend: Backend) -> Network:
    """``network``, built for images of ``shape``."""
    network.build(
        shape,
        backend=backend,
        seed=config.seed,
        dtype=config.dtype,
        fuse=config.fuse,
        winograd=config.winograd,
    )
    return network


def freeze_layers(config: Config, network: Network) -> None:
    """Freeze the first layer if it whitens; and of a fine-tuned network what is named, and no others."""
    if config.base is not None:
        network.unfreeze("*")
    if config.freeze is not None:
        heads.freeze(network, config.freeze)
    if config.whiten:
        network.freeze("0")


def make_optimizer(config: Config, images: int, network: Network | None = None) -> Optimizer:
    """The optimizer by name for ``network``, with its defaults for ``images`` training images."""
    if config.optimizer not in OPTIMIZERS:
        expected = f"expected {', '.join(OPTIMIZERS)}{did_you_mean(config.optimizer, OPTIMIZERS)}"
        raise ArgumentError(f"unknown optimizer {config.optimizer!r}: {expected}")
    kind = OPTIMIZERS[config.optimizer]
    given = {name: getattr(config, name) for name in ("learning_rate", "momentum", "weight_decay")}
    arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "momentum" in arguments and "momentum" not in inspect.signature(kind).parameters:
        raise ArgumentError(f"momentum is {config.momentum}, but {config.optimizer} has none: leave it out")
    if config.nesterov:
        if "nesterov" not in inspect.signature(kind).parameters:
            raise ArgumentError(f"{config.optimizer} has no Nesterov momentum: leave --nesterov out")
        arguments["nesterov"] = True
    arguments |= _optimizer_options(config, kind)
    if kind is SGD:
        usual = {"learning_rate": defaults.learning_rate(config.batch_size_for(images), images)}
        arguments = usual | {"momentum": defaults.MOMENTUM} | arguments
    if groups := make_groups(config, network):
        arguments["groups"] = groups
    optimizer = kind(**arguments)
    return EMA(optimizer, config.ema) if config.ema else optimizer


def _optimizer_options(config: Config, kind: type[Optimizer]) -> dict[str, Any]:
    """The further arguments of the optimizer by name."""
    names = set(inspect.signature(kind).parameters) - {"groups"} - {each.name for each in fields(config)}
    if config.optimizer_options and not names:
        raise ArgumentError(f"{config.optimizer} has no further options: leave --optimizer-options out")
    options: dict[str, Any] = {}
    for text in config.optimizer_options or ():
        name, _, value = text.partition("=")
        if name not in names or not value:
            expected = ", ".join(f"{each}=..." for each in sorted(names))
            raise ArgumentError(
                f"--optimizer-options has {short(text, 100)!r} for {config.optimizer}: expected some of "
                f"{expected}{did_you_mean(name, names)}"
            )
        if name in options:
            raise ArgumentError(f"--optimizer-options has {name} twice: leave one of them out")
        values = [literal(part) for part in value.split(":")]
        options[name] = tuple(values) if len(values) > 1 else values[0]
    return options


def make_groups(config: Config, network: Network | None) -> list[Group]:
    """The parameters whose learning rate or decay differs; without a network, only vectors."""
    groups = []
    if config.bias_rate != 1 or not config.decay_biases:
        decay = None if config.decay_biases else 0.0
        groups = [Group(is_vector, config.bias_rate, decay)]
    if config.old_rate == 1 or network is None:
        return groups
    parameters = [network.parameters.get(name) for name in heads.head_names(network)]
    new = [
        replace(next(group for group in [*groups, EVERYTHING] if group.fits(each)), select=each.name)
        for each in parameters
        if each
    ]
    return new + [replace(group, rate=config.old_rate * group.rate) for group in [*groups, EVERYTHING]]


def make_loss(config: Config, train: Dataset) -> Loss | None:
    """The loss, or None for the network's usual one."""
    weights = _balanced(train) if config.class_weights else None
    if not config.label_smoothing and weights is None:
        return None
    return CrossEntropy(label_smoothing=config.label_smoothing, class_weights=weights)


def make_transforms(config: Config) -> list[GradientTransform]:
    """The transforms of the gradient before each update."""
    clip = [ClipNorm(config.clip)] if config.clip else []
    return clip + ([ClipValue(config.clip_value)] if config.clip_value else [])


def make_augmentations(config: Config) -> list[Augmentation]:
    """The augmentations of the training images."""
    return augmentation.parse(config.augment or ())


def make_schedule(config: Config) -> Schedule:
    """The schedule by name."""
    if config.schedule not in SCHEDULES:
        expected = f"expected {', '.join(SCHEDULES)}{did_you_mean(config.schedule, SCHEDULES)}"
        raise ArgumentError(f"unknown schedule {config.schedule!r}: {expected}")
    kind = SCHEDULES[config.schedule]
    usual = 0 if kind is OneCycle else defaults.WARMUP
    return kind(warmup=usual if config.warmup is None else config.warmup)


def make_stops(config: Config) -> list[Stop]:
    """The callbacks that may end the run early."""
    if config.early_stopping is not None and not config.validation:
        raise ArgumentError(
            "--patience (or --early-stopping) needs validation images: hold some out, for example with "
            "--validation 0.1"
        )
    stops: list[Stop] = []
    if config.stop_at is not None:
        stops.append(StopAt(config.stop_at))
    if config.early_stopping is not None:
        stops.append(EarlyStopping(config.early_stopping))
    if config.max_minutes is not None:
        stops.append(MaxTime(config.max_minutes))
    return stops


def _balanced(train: Dataset) -> list[float]:
    """Class weights with which each class counts the same: ``images / (classes * images of the class)``.

    A class without images gets 1.
    """
    train.require_classes("--class-weights")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    return [len(train) / (len(counts) * count) if count else 1.0 for count in counts.tolist()]
