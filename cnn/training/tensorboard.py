"""Writes logs for TensorBoard, using only the package tensorboard."""

import json
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cnn.support.libraries import require
from cnn.training.callbacks import Callback
from cnn.training.run import Run

SCALARS = {  # TensorBoard's names of an epoch's results
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "validation_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}
BUCKETS = 30  # of a histogram


def installed() -> bool:
    """Whether the package tensorboard is installed, without importing it."""
    spec = find_spec("tensorboard")
    return spec is not None and spec.origin is not None  # a folder of logs has none


class TensorBoard(Callback):
    """Logs loss, accuracy, learning rate, speed and weight histograms of each epoch to ``folder``.

    Each training run adds its own file, which is flushed after each epoch. View the logs with
    ``tensorboard --logdir FOLDER``. Raises ArgumentError if the package tensorboard is missing, OSError if
    the folder cannot be written or the disk is full.

    ``hyperparameters`` are what TensorBoard's tab HParams shows for the run, by name. None: the arguments
    of ``fit`` and the optimizer's settings.
    """

    def __init__(self, folder: str | Path, hyperparameters: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.hyperparameters = hyperparameters

    def on_start(self, run: Run) -> None:
        self._Event = _import("compat.proto.event_pb2").Event
        self._Summary = _import("compat.proto.summary_pb2").Summary
        # not EventFileWriter, whose thread would report a full disk too late
        self._Writer = _import("summary.writer.record_writer").RecordWriter
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"events.out.tfevents.{time.time():.6f}"
        self._append(file_version="brain.Event:2")
        given = run.settings if self.hyperparameters is None else self.hyperparameters
        values = {name: _plain(value) for name, value in given.items() if value is not None}
        self._append(summary=_import("plugins.hparams.summary_v2").hparams_pb(values))

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        values = [
            self._Summary.Value(tag=tag, simple_value=record[name])
            for name, tag in SCALARS.items()
            if name in record
        ]
        values += [
            self._Summary.Value(tag=f"parameters/{name}", histo=histogram(array))
            for name, array in run.network.state_dict().items()
        ]
        self._append(step=run.epoch, summary=self._Summary(value=values))

    def _append(self, **fields: Any) -> None:
        event = self._Event(wall_time=time.time(), **fields)
        try:
            with self._path.open("ab") as file:
                self._Writer(file).write(event.SerializeToString())
        except OSError as error:  # the error of a full disk does not name the file
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def histogram(array: Any) -> dict[str, Any]:
    """TensorBoard's histogram of the finite values in a host array; buckets have their right edges."""
    numbers = array[np.isfinite(array)].astype(np.float64)
    if not numbers.size:
        return {}
    counts, limits = np.histogram(numbers, BUCKETS)
    return {
        "min": numbers.min(),
        "max": numbers.max(),
        "num": numbers.size,
        "sum": numbers.sum(),
        "sum_squares": np.square(numbers).sum(),
        "bucket_limit": limits[1:],
        "bucket": counts,
    }


def _plain(value: Any) -> bool | int | float | str:
    """A hyperparameter as TensorBoard takes it."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, default=repr)


def _import(module: str) -> Any:
    return require(f"tensorboard.{module}", "to write logs for TensorBoard", "tensorboard")
