"""Trains as one of the processes that :mod:`cnn.comparison.processes` starts.

``python -m cnn.comparison.worker TASK``, with a :class:`Task` as JSON.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import backends
from cnn.comparison.workload import MOMENTUM, RATE, make_workload
from cnn.support.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceUnavailable,
    OutOfMemory,
    ShapeError,
    TrainingError,
)
from cnn.support.files import write_json
from cnn.training.callbacks import Callback
from cnn.training.distributed import Communicator, communicator
from cnn.training.distributed.communicator import digest
from cnn.training.distributed.start import leave
from cnn.training.fit import fit
from cnn.training.optimizers import SGD
from cnn.training.run import Run

WARM_UP = 2  # steps that are not timed: they record the step
EXPECTED = (
    ArgumentError, CheckpointError, DataError, DeviceUnavailable, OutOfMemory, ShapeError, TrainingError,
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What the processes train; all of them have the same."""

    model: str
    batch_size: int
    dtype: str
    winograd: bool
    shards: int
    threads: int  # of each process
    steps: int  # that are timed
    file: str  # which the first process writes a Trained to, as JSON


@dataclass(frozen=True)
class Trained:
    """What the processes have measured."""

    seconds: float  # of a step, in the first process
    waits: list[float]  # seconds of a step in which each process exchanges, or waits for the others
    vector: int  # bytes of the vector that the processes add up; 0 with a single shard
    weights: str  # a checksum of the weights and the statistics


class Clock(Callback):
    """Times the steps after the first ones."""

    everywhere = True

    def __init__(self, group: Communicator) -> None:
        self._watchdog = group.watchdog

    def on_start(self, run: Run) -> None:
        self.vector = run.training.reducer.size * run.network.flat.grad.itemsize

    def on_step(self, run: Run) -> None:
        if run.step == WARM_UP:
            self._began, self._waited = time.perf_counter(), self._watchdog.waited
        elif run.step == run.steps:
            timed = run.steps - WARM_UP
            self.seconds = (time.perf_counter() - self._began) / timed
            self.waited = (self._watchdog.waited - self._waited) / timed


def train(task: Task, group: Communicator, more: Sequence[Callback] = ()) -> Trained:
    """Train for one epoch, with ``more`` callbacks; every process calls this."""
    backend = backends.get("cpu", threads=task.threads)
    workload = make_workload(task.model, task.batch_size, task.dtype, task.winograd)
    data = workload.batches(task.batch_size, WARM_UP + task.steps)
    network = workload.source.make(len(data.classes), data.shape)
    network.build(data.shape, backend=backend, seed=0, dtype=task.dtype, winograd=task.winograd)
    clock = Clock(group)
    fit(
        network,
        data,
        optimizer=SGD(RATE, momentum=MOMENTUM),
        batch_size=task.batch_size,
        callbacks=[clock, *more],
        processes=group,
    )
    return Trained(
        clock.seconds,
        group.gather(clock.waited),
        clock.vector,
        digest(network.backend, network.arrays.values()),
    )


def main() -> None:
    """Train, and write the result."""
    task = Task(**json.loads(sys.argv[1]))
    try:
        group = communicator(task.shards)
        trained = train(task, group)
        group.first(lambda: write_json(task.file, asdict(trained)))
    except EXPECTED as error:
        sys.stderr.write(f"error: {error}\n")
        leave(2)


if __name__ == "__main__":
    main()
