"""The results for several numbers of processes as plain data, and what they predict for several machines."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from math import ceil, log2, nan
from typing import Any

from cnn.inspection.timing import Spread
from cnn.support.outputs import Kind

FORMAT, SCHEMA = "xpcnn comparison of processes", 1
SAVED = Kind("a saved comparison of processes", lambda start: f'"format": "{FORMAT}"'.encode() in start)
EFFICIENCY = 0.8  # the share of the time that machines should compute


@dataclass(frozen=True)
class Link:
    """What connects machines."""

    bandwidth: float  # bits a second
    latency: float  # seconds, in one direction

    @property
    def name(self) -> str:
        """The name, for example "10 Gbit/s, 20 µs"."""
        return f"{self.bandwidth / 1e9:g} Gbit/s, {self.latency * 1e6:g} µs"

    def exchange_seconds(self, machines: int, nbytes: float) -> float:
        """How long it takes to add a vector of so many bytes over all machines, by the usual model.

        Each machine sends ``2 (p - 1) / p`` of the vector in ``2 ceil(log2 p)`` turns, and computes nothing
        meanwhile.
        """
        sent = 2 * (machines - 1) / machines * nbytes
        return 8 * sent / self.bandwidth + 2 * ceil(log2(machines)) * self.latency


LINKS = (Link(1e9, 50e-6), Link(10e9, 20e-6), Link(100e9, 3e-6))
MACHINES = (8, 64)


@dataclass(frozen=True)
class Column:
    """One number of processes; times are in seconds."""

    processes: int
    threads: int  # of each process
    step: Spread
    wait: Spread  # of a step, in the exchange or for slower processes; the mean over the processes
    least_wait: Spread  # the same, of the process that waits least
    sent: float  # bytes that a process sends in a step

    @property
    def name(self) -> str:
        """The name, for example "2 processes, 1 thread each"."""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return (
            f"1 process, {threads}" if self.processes == 1 else f"{self.processes} processes, {threads} each"
        )

    @property
    def share(self) -> float:
        """The share of a step that the exchange takes, with waiting for slower processes."""
        return self.wait.median / self.step.median if self.step.median > 0 else 0.0


@dataclass(frozen=True)
class Prediction:
    """A training step on several machines; times are in seconds."""

    machines: int
    link: Link
    exchange: float
    step: float  # NaN if the batch has fewer images than there are machines
    speed: float  # relative to one machine with the same batch; NaN likewise
    batch_size: int  # with which the machines compute for EFFICIENCY of the time


@dataclass(frozen=True)
class Scaling:
    """The columns of one workload, and the machine on which they were measured."""

    model: str
    batch_size: int
    dtype: str
    steps: int  # after which all numbers of processes had the same weights
    shards: int  # in these steps
    proof_threads: int  # of each process in these steps
    cores: int
    vector: int  # bytes that the processes add up in a step
    machine: dict[str, Any]
    device: dict[str, Any]
    columns: list[Column]

    @property
    def predictions(self) -> list[Prediction]:
        """What several machines like this one would do, each with the step of the first column."""
        return list(self._predict())

    def _predict(self) -> Iterator[Prediction]:
        one = self.columns[0].step.median
        for machines, link in product(MACHINES, LINKS):
            exchange = link.exchange_seconds(machines, self.vector)
            step = one / machines + exchange if machines <= self.batch_size else nan
            images = exchange * EFFICIENCY / (1 - EFFICIENCY) * self.batch_size / one  # of each machine
            enough = max(machines, ceil(images * machines))
            yield Prediction(machines, link, exchange, step, one / step, enough)


def sent_bytes(processes: int, vector: float) -> float:
    """The bytes that each process sends to add up a vector, if it has one shard: as many as in a ring."""
    return 2 * (processes - 1) / processes * vector


def as_plain(scaling: Scaling) -> dict[str, Any]:
    """The contents of a file: all measurements, and what they predict."""
    predictions = [asdict(each) for each in scaling.predictions]
    return {"format": FORMAT, "schema": SCHEMA, **asdict(scaling), "predictions": predictions}
