"""A recipe's training step in PyTorch, timed in turns with ours."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from peers.agreement import Job
from peers.contenders import BASELINE, CONTENDERS, OURS, PYTORCH
from peers.networks import Network
from peers.peer import Absent
from peers.processes import Processes
from peers.task import Setting, Training

import cnn
from cnn.data import Dataset
from cnn.runs import build
from cnn.runs.config import Config
from cnn.support.errors import ArgumentError
from recipe_parts.measured import find_backend

ROUNDS = 11


def compare(config: Config, steps: int, train: Dataset, rounds: int = ROUNDS) -> dict[str, Any]:
    """Check that ours and PyTorch compute the same in a step of a recipe, then time it in turns.

    ``steps`` is the number of steps of the whole run. Raises ArgumentError if PyTorch cannot take part, and
    DisagreementError if the two compute different numbers.
    """
    setting = make_setting(config, train)
    job = Job(setting, [OURS, *PYTORCH], ["training"])
    with Processes([setting.threads]) as processes:
        try:
            absent = processes.prove([job])
        except NotImplementedError as error:
            raise ArgumentError(f"--peer cannot compare: {error}") from None
        if all(name in absent for name in PYTORCH) or OURS in absent:
            raise ArgumentError(f"--peer cannot compare: {absent.get(OURS) or absent[PYTORCH[0]]}")
        figures = {figure.peer: figure for figure in processes.measure([job], rounds)}
    ours = figures[OURS]
    fastest = figures[ours.pytorch]
    return {
        "batch_size": setting.batch_size,
        "steps": steps,
        "threads": setting.threads,
        "training": asdict(setting.training),
        "frozen": list(setting.network.frozen),
        "step_seconds": {CONTENDERS[name].label: asdict(each.seconds) for name, each in figures.items()},
        "turns": {CONTENDERS[name].label: each.turns for name, each in figures.items()},
        "absent": {CONTENDERS[name].label: reason for name, reason in absent.items()},
        "fastest": CONTENDERS[fastest.peer].label,
        "times_pytorch": asdict(ours.times_pytorch),
        "our_training_seconds": steps * ours.seconds.median,
        "pytorch_training_seconds": steps * fastest.seconds.median,
    }


def require_pytorch() -> None:
    """Raise ArgumentError unless PyTorch is installed."""
    try:
        CONTENDERS[BASELINE].load("cpu")
    except Absent as reason:
        raise ArgumentError(f"--peer cannot compare: {reason}") from None


def make_setting(config: Config, train: Dataset) -> Setting:
    """The network, batch size and update of a run with these settings."""
    backend = find_backend(config)
    if backend.name != "cpu":
        raise ArgumentError(
            f"--peer measures on the CPU, but the run is on {backend.name}: add -- --device cpu"
        )
    classes = len(train.classes)
    frozen = ("0",) if config.whiten else ()
    make = partial(make_network, config.model, classes, train.shape)
    network = Network(config.model, make, classes, train.shape, frozen)
    threads = backend.describe()["threads"]
    return Setting(
        network, config.batch_size_for(len(train)), threads, training=make_training(config, len(train))
    )


def make_network(model: str, classes: int, shape: Sequence[int]) -> cnn.Sequential:
    """The model with dropout that drops nothing, since each library draws other numbers."""
    network = cnn.models.make(model, classes, tuple(shape))
    for layer in network.walk():
        if isinstance(layer, cnn.Dropout):
            layer.p = 0.0
    return network


def make_training(config: Config, images: int) -> Training:
    """The loss and the update of a run with these settings and so many training images."""
    known = {each.name for each in fields(Training)}
    settings = build.make_optimizer(config, images).present_settings
    return Training(
        optimizer=config.optimizer,
        label_smoothing=config.label_smoothing,
        clip=config.clip,
        **{name: value for name, value in settings.items() if name in known},
    )
