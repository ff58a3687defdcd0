"""What a comparison found, as plain data that JSON can carry from one machine to another."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from cnn.inspection.timing import LayerTime, Spread


@dataclass(frozen=True)
class Work:
    """What a layer has to do for a batch, whoever does it.

    Operations are multiplications and additions; bytes are the least that must be read and written:
    each input, output and parameter once.
    """

    layer: str
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int


@dataclass(frozen=True)
class Agreement:
    """How far a column computes from the first one: differences relative to the largest number of their kind.

    ``layers`` is of each layer by itself, given the same numbers, in the dtype that is timed; the others
    are of whole trainings in float64, after the same steps from the same weights. Between two machines
    only the losses are compared.
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
    """One setup's measurements; times are in seconds."""

    name: str
    device: dict[str, Any]
    losses: list[float]  # of the steps that prove the setups equal
    agreement: Agreement | None  # None: the first column, which the others are compared with
    layers: list[LayerTime]
    step: Spread
    first_step: float  # with building, in a process that has made such a step before
    move_batch: Spread | None  # a batch of bytes to the device; None where it is the host's own memory
    launch: Spread  # one operation on a single number
    product_flops: float  # a second, of a large matrix product
    copy_bytes: float  # a second, read and written, of a large copy
    sweep: list[SweepPoint]

    @property
    def hardware(self) -> str:
        """What it ran on, as in "NVIDIA H100"."""
        return str(self.device.get("gpu") or self.device.get("processor") or "unknown hardware")

    def step_at(self, batch_size: int) -> Spread | None:
        """A step of the sweep; None where it was not timed."""
        return next((point.step for point in self.sweep if point.batch_size == batch_size), None)


@dataclass(frozen=True)
class Comparison:
    """The columns of one workload, and the machine they were measured on."""

    model: str
    batch_size: int
    dtype: str
    steps: int  # that proved the columns equal
    machine: dict[str, Any]
    work: list[Work]
    columns: list[Column]


def relative_speed(first: float, other: float) -> float:
    """The speed of ``other`` seconds if that of ``first`` is 1; NaN if the clock was too coarse to tell."""
    return first / other if other > 0 else nan


def rate(amount: float, seconds: float) -> float:
    """``amount`` a second; NaN where a clock was too coarse to tell."""
    return amount / seconds if seconds > 0 else nan


def roofline_seconds(work: Work, column: Column) -> float:
    """The least time that the column's own product and copy speeds allow a layer, forward and backward.

    The roofline of Williams, Waterman and Patterson (2009). A layer can be quicker where its numbers come
    from a cache that is faster than the memory a large copy runs through.
    """
    return sum(
        max(flops / column.product_flops, nbytes / column.copy_bytes)
        for flops, nbytes in (
            (work.forward_flops, work.forward_bytes),
            (work.backward_flops, work.backward_bytes),
        )
    )


def timed_in_both(first: Column, other: Column) -> list[tuple[int, Spread, Spread]]:
    """(Batch size, a step of ``first``, a step of ``other``), by size."""
    steps = ((point.batch_size, first.step_at(point.batch_size), point.step) for point in other.sweep)
    return [(size, before, step) for size, before, step in steps if before is not None]


def wins(first: Column, other: Column) -> list[int]:
    """The batch sizes at which ``other`` is faster beyond the spread: by its slower quartile too."""
    return [size for size, before, step in timed_in_both(first, other) if step.high < before.low]


def crossover(first: Column, other: Column) -> int | None:
    """The batch size from which on ``other`` is faster, up to the last that both were timed at, or None."""
    won = wins(first, other)
    on = None
    for size, _, _ in reversed(timed_in_both(first, other)):
        if size not in won:
            break
        on = size
    return on


def batch_sizes(columns: Sequence[Column]) -> list[int]:
    """All that any of the columns was timed at."""
    return sorted({point.batch_size for column in columns for point in column.sweep})
