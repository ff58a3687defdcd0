"""Logs for TensorBoard, written with the package tensorboard alone."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cnn.support.libraries import require
from cnn.training.callbacks import Callback
from cnn.training.run import Run

SCALARS = {  # an epoch's figures, by their names there
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "validation_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}
BUCKETS = 30  # of a histogram


def installed() -> bool:
    """Whether the package tensorboard is there; it is not imported for that."""
    spec = find_spec("tensorboard")
    return spec is not None and spec.origin is not None  # a folder of logs has none


class TensorBoard(Callback):
    """Loss, accuracy, learning rate, speed and histograms of the weights after each epoch, in ``folder``.

    Each training adds a file of its own, and what an epoch gave is on the disk when the epoch is over.
    Look at it with ``tensorboard --logdir FOLDER``. Raises ArgumentError where the package tensorboard
    is missing, OSError where the folder cannot be written or the disk is full.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_start(self, run: Run) -> None:
        self._Event = _import("compat.proto.event_pb2").Event
        self._Summary = _import("compat.proto.summary_pb2").Summary
        # not EventFileWriter, whose thread would meet a full disk and tell this one late
        self._Writer = _import("summary.writer.record_writer").RecordWriter
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"events.out.tfevents.{time.time():.6f}"
        self._append(file_version="brain.Event:2")

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
        except OSError as error:  # a full disk does not say of which file it speaks
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def histogram(array: Any) -> dict[str, Any]:
    """TensorBoard's histogram of the finite numbers in a host array; a bucket has its right limit."""
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


def _import(module: str) -> Any:
    return require(f"tensorboard.{module}", "to write logs for TensorBoard", "tensorboard")
