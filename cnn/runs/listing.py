"""The runs in a folder with their results, read without any weights."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from cnn.runs.config import Config
from cnn.runs.folder import COMPARISON, RunFolder
from cnn.runs.report.record import read_json, read_metrics
from cnn.saving.weights import SavedNetwork, read_metadata
from cnn.support.arguments import shown
from cnn.support.errors import CheckpointError, ShapeError
from cnn.support.reading import read_text
from cnn.support.tensors import METADATA
from cnn.support.text import short

ALWAYS = ("recipe", "model", "data", "epochs")  # settings that each run is listed with
FINISHED, INTERRUPTED, FAILED, RUNNING = "finished", "interrupted", "failed", "running"


@dataclass(frozen=True)
class ListedRun:
    """A run and its results; None for what is not known."""

    path: Path
    config: Config
    state: str
    failure: str | None  # why it failed
    epochs: int  # that are done
    accuracy: float | None  # on the test set
    loss: float | None
    validation_accuracy: float | None
    parameters: int | None
    date: str | None  # of the latest start, in ISO 8601

    @property
    def model(self) -> str:
        """The model, as the run was given it."""
        return self.config.model

    @property
    def data(self) -> str:
        """The data set, as the run was given it."""
        return self.config.data

    @property
    def figures(self) -> dict[str, Any]:
        """Everything as plain data; the settings have an entry of their own."""
        results = {name: value for name, value in vars(self).items() if name not in ("path", "config")}
        about = {"run": str(self.path), "recipe": self.config.recipe, "model": self.model, "data": self.data}
        return about | results | {"settings": dict(vars(self.config))}


def list_runs(folder: Path) -> Iterator[ListedRun | CheckpointError]:
    """The runs in ``folder`` by name, or the run ``folder`` itself; errors stand for what is skipped.

    A comparison that `cnn report` wrote is left out. OSError if the folder cannot be read.
    """
    inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    is_run = RunFolder(folder).config.exists()
    known: dict[str, int | None] = {}
    for path in [folder] if is_run else sorted(inside):
        if path.name == COMPARISON and not RunFolder(path).config.exists():
            continue
        try:
            yield _listed(RunFolder(path), known)
        except CheckpointError as error:
            yield error


def differing(runs: list[ListedRun]) -> list[str]:
    """The names of the hyperparameters that differ between the runs, without those in ``ALWAYS``."""
    settings = [run.config.hyperparameters for run in runs]
    return [
        name
        for name, value in settings[0].items()
        if name not in ALWAYS and any(other[name] != value for other in settings)
    ]


def _listed(folder: RunFolder, known: dict[str, int | None]) -> ListedRun:
    config, _, _ = folder.read()
    _require_plain(folder.config, config)
    history = read_metrics(folder.metrics) if folder.metrics.exists() else []
    test = _tested(folder)
    accuracy, loss = test.get("accuracy"), test.get("loss")
    if not test and history and not config.validation:  # the test set was evaluated after each epoch
        accuracy, loss = (history[-1].get(f"validation_{name}") for name in ("accuracy", "loss"))
    tested = test.get("epoch") or len(history)
    held_out = None
    if config.validation and 0 < tested <= len(history):
        held_out = history[tested - 1].get("validation_accuracy")
    failure = _failure(folder)
    return ListedRun(
        folder.path, config, _state(folder, config, failure), failure, len(history), accuracy, loss, held_out,
        _parameters(folder, known), _date(folder),
    )  # fmt: skip


def _require_plain(path: Path, config: Config) -> None:
    """Raise CheckpointError unless each setting is a value or a list of values, as they are written."""
    for name, value in vars(config).items():
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, str | int | float | None):
                raise CheckpointError(f"{path} has {name} {shown(value)}: it is damaged")


def _tested(folder: RunFolder) -> dict[str, Any]:
    """The accuracy, the loss and the epoch of the test; empty if there was none."""
    if not folder.evaluation.exists():
        return {}
    found = _description(folder.evaluation)
    try:
        accuracy, loss, epoch = float(found["accuracy"]), found["loss"], found.get("epoch")
        if not isfinite(accuracy):
            raise ValueError(f"its accuracy is {accuracy}")
        return {
            "accuracy": accuracy,
            "loss": None if loss is None else float(loss),
            "epoch": None if epoch is None else int(epoch),
        }
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        reason = short(str(error), 200)
        raise CheckpointError(f"{folder.evaluation} is damaged ({reason}): delete it") from None


def _state(folder: RunFolder, config: Config, failure: str | None) -> str:
    if folder.is_in_use:
        return RUNNING
    if failure:
        return FAILED
    is_imported = config.epochs == 0  # which is tested only if its data are given
    return FINISHED if is_imported or folder.evaluation.exists() else INTERRUPTED


def _failure(folder: RunFolder) -> str | None:
    """The reason why the run failed, or None."""
    try:
        return read_text(folder.failure).strip() if folder.failure.exists() else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder.failure} cannot be read ({short(str(error), 200)})") from None


def _parameters(folder: RunFolder, known: dict[str, int | None]) -> int | None:
    """The number of parameters, from the description of the network; ``known`` has those of other runs."""
    if not folder.weights.exists():
        return None
    metadata = read_metadata(folder.weights)
    described = _description(folder.weights)
    try:
        key = json.dumps([described.get("network"), described.get("input_shape")])
    except RecursionError:
        return None  # a damaged file
    if key not in known:
        known[key] = _count(SavedNetwork(folder.weights, {}, metadata), described)
    return known[key]


def _count(saved: SavedNetwork, described: dict[str, Any]) -> int | None:
    try:
        return saved.architecture().count_parameters(tuple(described["input_shape"]))
    except (CheckpointError, ShapeError, ValueError, TypeError, LookupError, MemoryError):
        return None  # a layer of the user's own, or a damaged file


def _description(path: Path) -> dict[str, Any]:
    """The description in the header of a safetensors file."""
    try:
        described = json.loads(read_metadata(path)[METADATA])
        if not isinstance(described, dict):
            raise ValueError("expected a JSON object")
        return described
    except (LookupError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({short(str(error), 200)}): it is damaged") from None


def _date(folder: RunFolder) -> str | None:
    if not folder.environment.exists():
        return None
    date = read_json(folder.environment).get("time")
    return date if isinstance(date, str) else None
