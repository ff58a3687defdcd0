"""The results of a comparison as plain data, which can be saved as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from cnn.inspection.timing import LayerTime, Spread


@dataclass(frozen=True)
class Work:
    """The work of a layer for a batch, independent of the device.

    Operations are multiplications and additions; bytes are the minimum that must be read and written:
    each input, output and parameter once.
    """

    layer: str
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int


@dataclass(frozen=True)
class Agreement:
    """The differences of a column from the first one, relative to the largest value of each kind.

    ``layers`` is for each layer separately, given the same input, in the timed dtype. The others are for
    whole training steps in float64 from the same weights. Between machines only the losses are compared.
    """

    loss: float
    gradients: float | None = None
    weights: float | None = None
    layers: float | None = None


@dataclass(frozen=True)
class SweepPoint:
    """A training step at one batch size, in seconds."""

    batch_size: int
    step: Spread


@dataclass(frozen=True)
class Column:
    """One setup's measurements; times are in seconds.

    A slow setup is timed at the sweep's small batch sizes only: it has no ``step``, no ``first_step`` and no
    times of the layers.
    """

    name: str
    device: dict[str, Any]
    losses: list[float]  # of the steps that are compared
    agreement: Agreement | None  # None for the first column
    layers: list[LayerTime]
    step: Spread | None
    first_step: float | None  # including building, in a process that has run such a step before
    move_batch: Spread | None  # a batch of bytes to the device; None if the device uses the host's memory
    launch: Spread  # one operation on a single value
    product_flops: float  # per second, of a large matrix product
    copy_bytes: float  # per second, read and written, of a large copy
    sweep: list[SweepPoint]

    @property
    def hardware(self) -> str:
        """The hardware, for example "NVIDIA H100"."""
        return str(self.device.get("gpu") or self.device.get("processor") or "unknown hardware")

    def step_at(self, batch_size: int) -> Spread | None:
        """The time of a step in the sweep; None if it was not timed."""
        return next((point.step for point in self.sweep if point.batch_size == batch_size), None)


@dataclass(frozen=True)
class Comparison:
    """The columns of one workload, and the machine on which they were measured."""

    model: str
    batch_size: int
    dtype: str
    steps: int  # for which the results were compared; fewer for a slow column
    proof_batch_size: int  # of those steps
    machine: dict[str, Any]
    work: list[Work]
    columns: list[Column]


def relative_speed(first: float, other: float) -> float:
    """The speed of ``other`` seconds relative to ``first`` seconds; NaN if the clock was too coarse."""
    return first / other if other > 0 else nan


def rate(amount: float, seconds: float) -> float:
    """``amount`` per second; NaN if the clock was too coarse."""
    return amount / seconds if seconds > 0 else nan


def roofline_seconds(work: Work, column: Column) -> float:
    """The minimum time of a layer, forward and backward, by the column's product and copy speeds.

    This is the roofline of Williams, Waterman and Patterson (2009). A layer can be faster if its data are in
    a cache, which is faster than the memory used by a large copy.
    """
    return sum(
        max(flops / column.product_flops, nbytes / column.copy_bytes)
        for flops, nbytes in (
            (work.forward_flops, work.forward_bytes),
            (work.backward_flops, work.backward_bytes),
        )
    )


def timed_in_both(first: Column, other: Column) -> list[tuple[int, Spread, Spread]]:
    """(batch size, step of ``first``, step of ``other``), sorted by batch size."""
    steps = ((point.batch_size, first.step_at(point.batch_size), point.step) for point in other.sweep)
    return [(size, before, step) for size, before, step in steps if before is not None]


def wins(first: Column, other: Column) -> list[int]:
    """The batch sizes at which ``other`` is faster even by its slower quartile."""
    return [size for size, before, step in timed_in_both(first, other) if step.high < before.low]


def crossover(first: Column, other: Column) -> int | None:
    """The batch size from which ``other`` is always faster, up to the last common batch size, or None."""
    won = wins(first, other)
    on = None
    for size, _, _ in reversed(timed_in_both(first, other)):
        if size not in won:
            break
        on = size
    return on


def batch_sizes(columns: Sequence[Column]) -> list[int]:
    """All batch sizes at which any column was timed."""
    return sorted({point.batch_size for column in columns for point in column.sweep})
