"""Prints a comparison of numbers of processes as tables: the step, and several machines."""

from collections.abc import Callable
from math import nan
from string import ascii_uppercase

from cnn.comparison.results import rate, relative_speed
from cnn.comparison.scaling import EFFICIENCY, Column, Scaling
from cnn.comparison.table import CALM
from cnn.support.terminal import print_table, write_line
from cnn.support.text import figure, milliseconds


def show(scaling: Scaling) -> None:
    """Print the tables. Columns are named by letters, as in a comparison of devices."""
    columns = dict(zip(ascii_uppercase, scaling.columns, strict=False))
    hardware = scaling.device.get("processor") or "unknown hardware"
    write_line(f"{scaling.model}, batch {scaling.batch_size}, {scaling.dtype}: a training step, medians")
    write_line(f"on {hardware}, with {scaling.cores} core{'s' * (scaling.cores > 1)}")
    for letter, column in columns.items():
        write_line(f"  {letter}  {column.name}{_shared(column, scaling.cores)}")
    write_line(f"all give the same weights, bit for bit: {_proof(scaling)}")
    write_line("timed with as many shards as processes, as `cnn train` cuts the batches")
    write_line("\nThe whole step")
    print_table(["", *columns], _steps(scaling))
    write_line("\nSeveral machines like this one, as predicted from the step of A and the bytes")
    headings = ["machines", "network", "exchange, ms", "step, ms", "speed\nrelative to one", _enough()]
    print_table(headings, _predictions(scaling))
    write_line("for p machines: step = the step of A / p + exchange, in which nothing is computed, and")
    write_line("exchange = 2 (p - 1) / p x bytes / bandwidth + 2 ceil(log2 p) x latency")
    disturbed = [letter for letter, each in columns.items() if each.step.high > CALM * each.step.low]
    if disturbed:
        write_line(
            f"{', '.join(disturbed)}: the steps vary a lot, other programs were running: measure again"
        )


def _shared(column: Column, cores: int) -> str:
    """What to say if there are more processes than cores."""
    if column.processes <= cores:
        return ""
    return f", which share {cores} core{'s' * (cores > 1)} and wait for each other's turns"


def _proof(scaling: Scaling) -> str:
    threads = f"{scaling.proof_threads} thread{'s' * (scaling.proof_threads > 1)}"
    return f"after {scaling.steps} steps with {scaling.shards} shards and {threads} in each process"


def _steps(scaling: Scaling) -> list[list[str]]:
    rows = []

    def row(name: str, cell: Callable[[Column], str]) -> None:
        rows.append([name, *map(cell, scaling.columns)])

    def share(seconds: float, column: Column) -> str:
        return "-" if column.processes == 1 else f"{rate(seconds, column.step.median):.0%}"

    first = scaling.columns[0].step.median
    row("milliseconds", lambda column: milliseconds(column.step.median))
    row("  lower quartile", lambda column: milliseconds(column.step.low))
    row("  upper quartile", lambda column: milliseconds(column.step.high))
    row("images per second", lambda column: figure(rate(scaling.batch_size, column.step.median)))
    row("speed relative to A", lambda column: figure(relative_speed(first, column.step.median)))
    row("exchange and waiting for others, ms", lambda column: milliseconds(column.wait.median))
    row("  share of the step", lambda column: share(column.wait.median, column))
    row("  of the process that waits least", lambda column: share(column.least_wait.median, column))
    row("sent by a process, kB", lambda column: figure(column.sent / 1e3 or nan))
    return rows


def _enough() -> str:
    return f"batch size for\n{EFFICIENCY:.0%} efficiency"


def _predictions(scaling: Scaling) -> list[list[str]]:
    return [
        [
            str(each.machines),
            each.link.name,
            milliseconds(each.exchange),
            milliseconds(each.step),
            figure(each.speed),
            f"{each.batch_size:,}",
        ]
        for each in scaling.predictions
    ]
