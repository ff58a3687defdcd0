"""Trains as ``cnn.fit`` does, and keeps the folder and the report of the run."""

import inspect
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from backends.text import quoted
from cnn.network import Network
from cnn.runs.config import OWN_DATA, OWN_NETWORK, Config
from cnn.runs.folder import RunFolder
from cnn.runs.log import RunLog
from cnn.runs.report import examine, write_report
from cnn.support.arguments import instance
from cnn.support.errors import Notice
from cnn.support.files import reason_of
from cnn.training import tensorboard
from cnn.training.averaging import EMA
from cnn.training.callbacks import Callback, Dispensable, LearningGuard, NaNGuard, Progress
from cnn.training.distributed import Communicator
from cnn.training.fit import fit
from cnn.training.gradients import ClipNorm, ClipValue
from cnn.training.losses import CrossEntropy
from cnn.training.named import OPTIMIZERS
from cnn.training.optimizers import Optimizer
from cnn.training.preparation import PreparedRun, prepare
from cnn.training.schedules import SCHEDULES


def fit_in_folder(path: Path, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with these arguments of ``fit``, and keep the folder of the run; -> the history."""
    folder = RunFolder(path)
    group = arguments["processes"] or Communicator()
    instance("processes", group, Communicator, "cnn.distributed.communicator()")
    group.first(lambda: folder.require_new("give run another name"))
    arguments["train"].require_classes("run")
    prepared = prepare(**arguments)  # checks the arguments, builds the network and chooses defaults
    callbacks: list[Callback] = [*_usual_callbacks(arguments["callbacks"])]
    callbacks.append(RunLog(folder, _config(prepared), prepared.train.classes))
    if tensorboard.installed() and group.is_first:
        callbacks.append(Dispensable(lambda: tensorboard.TensorBoard(folder.tensorboard), "logs", _warn))
    history = fit(**arguments | {"callbacks": callbacks})
    if not group.is_first:
        return history
    try:
        _test_and_report(folder, prepared)
    except (OSError, ValueError) as error:  # the trained network is worth more than the report
        again = f"`cnn report {quoted(str(path))}` draws it"
        _warn(f"no report: {reason_of(error) if isinstance(error, OSError) else error}; {again}")
    return history


def _usual_callbacks(given: Any) -> Any:
    return [Progress(), NaNGuard(), LearningGuard()] if given is None else given


def _test_and_report(folder: RunFolder, prepared: PreparedRun) -> None:
    validation = prepared.validation
    if validation is not None and validation.has_one_class_each:
        examine(prepared.network, validation, prepared.batch_size).save(folder.evaluation)
    write_report(folder)


def _config(prepared: PreparedRun) -> Config:
    """The settings of the run, as far as ``cnn train`` has them too."""
    network, optimizer = prepared.network, prepared.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)  # of one that averages
    found = inner.present_settings
    limits = {
        type(each): each.limit for each in prepared.transforms if isinstance(each, ClipNorm | ClipValue)
    }
    return Config(
        model=OWN_NETWORK,
        data=OWN_DATA,
        epochs=prepared.epochs,
        batch_size=prepared.batch_size,
        optimizer=_name(inner, OPTIMIZERS),
        optimizer_options=_options(inner),
        learning_rate=found["learning_rate"],
        momentum=found.get("momentum"),
        nesterov=found.get("nesterov", False),
        weight_decay=found.get("weight_decay"),
        ema=optimizer.decay if isinstance(optimizer, EMA) else 0.0,
        label_smoothing=prepared.loss.label_smoothing if isinstance(prepared.loss, CrossEntropy) else 0.0,
        schedule=_name(prepared.schedule, SCHEDULES),
        warmup=prepared.schedule.warmup,
        clip=limits.get(ClipNorm, 0.0),
        clip_value=limits.get(ClipValue, 0.0),
        accumulate=prepared.accumulate,
        shards=prepared.sharding.count if prepared.sharding.count > 1 else None,
        augment=[repr(each) for each in prepared.augment] or None,
        normalize=prepared.normalize,
        seed=prepared.seed,
        graph=prepared.graph,
        recompute=prepared.recompute,
        stream=prepared.stream,
        **_of(network),
    )


def _options(optimizer: Optimizer) -> list[str] | None:
    """The arguments of the optimizer that have no setting of their own, unless they are its defaults."""
    own, found, options = {each.name for each in fields(Config)}, optimizer.present_settings, []
    for name, argument in inspect.signature(type(optimizer)).parameters.items():
        value = found.get(name, argument.default)
        if name not in own | {"groups"} and value != argument.default:
            options.append(f"{name}={_as_option(value)}")
    return options or None


def _as_option(value: Any) -> str:
    """A value as --optimizer-options takes it."""
    if isinstance(value, tuple):
        return ":".join(map(_as_option, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of(network: Network) -> dict[str, Any]:
    """The settings of a network that is built."""
    backend, context = network.backend, network.context
    own = {"device": backend.name, "kernels": backend.kernels.name, "dtype": network.dtype}
    return own | {"fuse": context.fuse, "winograd": context.winograd}


def _name(made: Any, kinds: Any) -> str:
    """The name that the command has for the kind of an object; that of its class for others."""
    names = {kind: name for name, kind in kinds.items()}
    return names.get(type(made), type(made).__name__)


def _warn(text: str) -> None:
    warnings.warn(text, Notice, stacklevel=5)  # of who called cnn.fit
