"""Prints a comparison as tables: each layer, the whole step, and the batch sizes."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from string import ascii_uppercase
from typing import NamedTuple

from cnn.comparison.agreement import TOLERANCE
from cnn.comparison.results import (
    Agreement,
    Column,
    Comparison,
    batch_sizes,
    rate,
    relative_speed,
    roofline_seconds,
    timed_in_both,
    wins,
)
from cnn.inspection.timing import LayerTime, Spread
from cnn.support.terminal import USUAL_WIDTH, Lines, print_table, screen_width, table_width, write_line
from cnn.support.text import figure, milliseconds

CALM = 1.5  # a larger ratio of the quartiles means that other programs were running
Columns = dict[str, Column]  # by letter


class Table(NamedTuple):
    """The arguments of :func:`print_table`."""

    headings: Sequence[str]
    rows: Lines
    note: str = ""


def show(comparison: Comparison) -> None:
    """Print the tables. Columns are named by letters, because their names would be too wide."""
    columns = {_letter(number): column for number, column in enumerate(comparison.columns)}
    write_line(
        f"{comparison.model}, batch {comparison.batch_size}, {comparison.dtype}: a training step, medians"
    )
    for letter, column in columns.items():
        write_line(f"  {letter}  {column.name} ({column.hardware})")
    for letter, column in columns.items():
        if column.agreement:
            write_line(f"{letter} agrees with A: {_agreed(comparison, column, column.agreement)}")
    timed = {letter: column for letter, column in columns.items() if column.step}
    if slow := [letter for letter in columns if letter not in timed]:
        write_line(f"{', '.join(slow)}: too slow for this batch size, so timed at small ones only, see below")
    speed = ", and the speed relative to A" if len(timed) > 1 else ""
    for title, table, shown in (
        (f"Layers: forward (fwd) and backward (bwd) in ms{speed}", _times, timed),
        ("Throughput; limit: the share of the speed of a large product or copy", _limits, timed),
        ("The whole step, with its data on the device", _steps, columns),
        ("Images per second by batch size (-: too slow to be timed)", _sweep, columns),
    ):
        write_line(f"\n{title}")
        tables = [table(comparison, part) for part in _parts(shown, partial(table, comparison))]
        for made in tables:
            print_table(made.headings, made.rows)
        if notes := {made.note for made in tables if made.note}:
            write_line("\n".join(notes))
    for letter, column in columns.items():
        if letter != "A":
            write_line(f"{letter} is faster than A, beyond the spread, {_won(columns['A'], column)}")
    if disturbed := _disturbed(columns):
        write_line(
            f"{', '.join(disturbed)}: the steps vary a lot, other programs were running: measure again"
        )


def _letter(number: int) -> str:
    """A to Z, then AA, AB and so on."""
    more, number = divmod(number, 26)
    return (_letter(more - 1) if more else "") + ascii_uppercase[number]


def _parts(columns: Columns, table: Callable[[Columns], Table]) -> list[Columns]:
    """The columns in groups that fit the screen; each group begins with the first column."""
    width = screen_width(sys.stdout) or USUAL_WIDTH
    (letter, first), *others = columns.items()
    size = max(1, len(others))
    while True:
        parts = [{letter: first, **dict(others[i : i + size])} for i in range(0, max(1, len(others)), size)]
        tables = map(table, parts)
        if size == 1 or max(table_width(made.headings, made.rows) for made in tables) <= width:
            return parts
        size -= 1


def _agreed(comparison: Comparison, column: Column, found: Agreement) -> str:
    """A description of how closely a column's results agree with the first one's."""
    parts = {"loss": found.loss, "gradients": found.gradients, "weights": found.weights}
    apart = ", ".join(f"{name} {value:.0e}" for name, value in parts.items() if value is not None)
    steps = f"after {len(column.losses)} steps in float64 {apart} (allowed {TOLERANCE['float64']:.0e})"
    if found.layers is None:
        return steps
    allowed = TOLERANCE[comparison.dtype]
    return f"each layer within {found.layers:.0e} (allowed {allowed:.0e}), {steps}"


def _won(first: Column, other: Column) -> str:
    """A description of the batch sizes at which ``other`` is faster."""
    sizes = [size for size, _, _ in timed_in_both(first, other)]
    won = wins(first, other)
    if not won:
        return "at none of these batch sizes"
    if len(won) == len(sizes):
        return f"at all batch sizes up to {sizes[-1]}"
    if won == sizes[-len(won) :]:
        return f"from batch size {won[0]} on, up to {sizes[-1]}"
    return f"at batch size {', '.join(map(str, won))}"


def _disturbed(columns: Columns) -> list[str]:
    """The columns whose times vary a lot."""
    steps = ((letter, column.step) for letter, column in columns.items() if column.step)
    return [letter for letter, step in steps if step.high > CALM * step.low]


def _times(comparison: Comparison, columns: Columns) -> Table:
    directions = [f"{letter}\n{direction}" for letter in columns for direction in ("fwd", "bwd")]
    rows = []
    for index, work in enumerate(comparison.work):
        times = [column.layers[index] for column in columns.values()]
        cells = [_ms(part) for time in times for part in (time.forward, time.backward)]
        first, *others = map(_total, times)
        rows.append([work.layer, *cells, *(figure(relative_speed(first, other)) for other in others)])
    return Table(["layer", *directions, *(f"{letter}\nspeed" for letter in list(columns)[1:])], rows)


def _limits(comparison: Comparison, columns: Columns) -> Table:
    """The throughput of each layer, and its share of the limit by the device's product and copy speeds."""
    headings = [f"{letter}\n{what}" for letter in columns for what in ("GFLOP/s", "GB/s", "limit")]
    rows, cached = [], False
    for index, work in enumerate(comparison.work):
        flops = work.forward_flops + work.backward_flops
        nbytes = work.forward_bytes + work.backward_bytes
        cells = []
        for column in columns.values():
            seconds = _total(column.layers[index])
            share = rate(roofline_seconds(work, column), seconds)
            cached = cached or share > 1
            figures = rate(flops, seconds) / 1e9, rate(nbytes, seconds) / 1e9
            cells += [*map(figure, figures), f"{share:.1%}" if share > 0 else "-"]
        rows.append([work.layer, *cells])
    above = "above 100%: the data came from a cache, unlike those of the large copy"
    return Table(["layer", *headings], rows, above if cached else "")


def _steps(comparison: Comparison, columns: Columns) -> Table:
    rows = []

    def row(name: str, cell: Callable[[Column], str]) -> None:
        rows.append([name, *map(cell, columns.values())])

    def seconds(column: Column, which: str = "median") -> float:
        return getattr(column.step, which, nan)

    first = seconds(columns["A"])
    row("milliseconds", lambda column: _ms(column.step))
    row("  lower quartile", lambda column: figure(seconds(column, "low") * 1e3))
    row("  upper quartile", lambda column: figure(seconds(column, "high") * 1e3))
    row("images per second", lambda column: figure(rate(comparison.batch_size, seconds(column))))
    row("speed relative to A", lambda column: figure(relative_speed(first, seconds(column))))
    row("building and the first step, ms", lambda column: figure((column.first_step or nan) * 1e3))
    row("moving a batch to the device, µs", lambda column: _us(column.move_batch))
    row("launching one operation, µs", lambda column: _us(column.launch))
    row("a large product, GFLOP/s", lambda column: figure(column.product_flops / 1e9))
    row("a large copy, GB/s", lambda column: figure(column.copy_bytes / 1e9))
    return Table(["", *columns], rows)


def _sweep(comparison: Comparison, columns: Columns) -> Table:
    rows = []
    for size in batch_sizes(list(columns.values())):
        steps = [column.step_at(size) for column in columns.values()]
        rows.append([str(size), *(figure(rate(size, step.median) if step else nan) for step in steps)])
    return Table(["batch size", *columns], rows)


def _total(time: LayerTime) -> float:
    """Forward plus backward, in seconds."""
    return sum(part.median for part in (time.forward, time.backward) if part)


def _ms(spread: Spread | None) -> str:
    return "-" if spread is None else milliseconds(spread.median)


def _us(spread: Spread | None) -> str:
    return "-" if spread is None else figure(1e6 * spread.median)
