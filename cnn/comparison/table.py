"""A comparison as tables for people: a row per layer, the whole step, the batch sizes."""

from collections.abc import Callable
from functools import partial
from math import nan
from string import ascii_uppercase
from typing import TYPE_CHECKING

from cnn.comparison.agreement import TOLERANCE
from cnn.comparison.results import (
    Agreement,
    Column,
    Comparison,
    batch_sizes,
    rate,
    roofline_seconds,
    speedup,
    timed_in_both,
    wins,
)
from cnn.text import figure, milliseconds, print_whole, table_width
from cnn.timing import LayerTime, Spread

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CALM = 1.5  # the upper quartile over the lower: beyond it something else was running
Columns = dict[str, Column]  # by the letter that stands for each


def show(comparison: Comparison) -> None:
    """Print the tables; a letter stands for each column, since names would not fit beside each other."""
    from rich.console import Console

    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    columns = {_letter(number): column for number, column in enumerate(comparison.columns)}
    say(f"{comparison.model}, batch {comparison.batch_size}, {comparison.dtype}: a training step, medians")
    for letter, column in columns.items():
        say(f"  {letter}  {column.name} ({column.hardware})")
    for letter, column in columns.items():
        if column.agreement:
            say(f"{letter} computes what A does: {_agreed(comparison, column.agreement)}")
    for title, table in (
        ("Layers: forward (fwd) and backward (bwd) in ms, and the speed-up over A", _times),
        ("What they reach; roofline is 100% at the speed of a large product or copy", _limits),
        ("The whole step, with its data on the device", _steps),
        ("Images a second, by batch size (-: too slow to be timed)", _sweep),
    ):
        say(f"\n{title}")
        for part in _parts(console, columns, partial(table, comparison)):
            print_whole(console, table(comparison, part))
    for letter, column in columns.items():
        if letter != "A":
            say(f"{letter} is faster than A, beyond the spread, {_won(columns['A'], column)}")
    if disturbed := _disturbed(columns):
        say(f"{', '.join(disturbed)}: the steps differ a lot, something else was running, measure again")


def _letter(number: int) -> str:
    """A to Z, then AA, AB and so on."""
    more, number = divmod(number, 26)
    return (_letter(more - 1) if more else "") + ascii_uppercase[number]


def _parts(console: "Console", columns: Columns, table: Callable[[Columns], "Table"]) -> list[Columns]:
    """The columns in groups that fit the screen beside each other, the first one in each group."""
    (letter, first), *others = columns.items()
    size = max(1, len(others))
    while True:
        parts = [{letter: first, **dict(others[i : i + size])} for i in range(0, max(1, len(others)), size)]
        widest = max(table_width(console, table(part)) for part in parts)
        if size == 1 or widest <= console.width:
            return parts
        size -= 1


def _agreed(comparison: Comparison, found: Agreement) -> str:
    """How near a column's results are to the first one's."""
    parts = {"loss": found.loss, "gradients": found.gradients, "weights": found.weights}
    apart = ", ".join(f"{name} {value:.0e}" for name, value in parts.items() if value is not None)
    steps = f"after {comparison.steps} steps in float64 {apart} (allowed {TOLERANCE['float64']:.0e})"
    if found.layers is None:
        return steps
    allowed = TOLERANCE[comparison.dtype]
    return f"each layer by itself within {found.layers:.0e} (allowed {allowed:.0e}), {steps}"


def _won(first: Column, other: Column) -> str:
    """Where ``other`` wins, in words."""
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
    """The columns whose steps took now this and now that long."""
    return [letter for letter, column in columns.items() if column.step.high > CALM * column.step.low]


def _times(comparison: Comparison, columns: Columns) -> "Table":
    headings = [heading for letter in columns for heading in (f"{letter}\nfwd", "bwd")]
    table = _table("layer", *headings, *(f"{letter}\nspeed-up" for letter in list(columns)[1:]))
    for index, work in enumerate(comparison.work):
        times = [column.layers[index] for column in columns.values()]
        cells = [_ms(part) for time in times for part in (time.forward, time.backward)]
        first, *others = map(_total, times)
        table.add_row(work.layer, *cells, *(figure(speedup(first, other)) for other in others))
    return table


def _limits(comparison: Comparison, columns: Columns) -> "Table":
    """What each layer reaches, and the share of what the device's own product and copy would allow."""
    headings = [heading for letter in columns for heading in (f"{letter}\nGFLOP/s", "GB/s", "roofline")]
    table = _table("layer", *headings)
    cached = False
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
        table.add_row(work.layer, *cells)
    if cached:
        table.caption = "above 100%: its numbers came from a cache, the large copy's did not"
    return table


def _steps(comparison: Comparison, columns: Columns) -> "Table":
    table = _table("", *columns)

    def row(name: str, cell: Callable[[Column], str]) -> None:
        table.add_row(name, *map(cell, columns.values()))

    first = columns["A"].step.median
    row("milliseconds", lambda column: _ms(column.step))
    row("  quartiles", lambda c: f"{figure(c.step.low * 1e3)} to {figure(c.step.high * 1e3)}")
    row("images a second", lambda column: figure(rate(comparison.batch_size, column.step.median)))
    row("times faster than A", lambda column: figure(speedup(first, column.step.median)))
    row("the first step, building included, ms", lambda column: figure(column.first_step * 1e3))
    row("moving a batch to the device, µs", lambda column: _us(column.move_batch))
    row("launching one operation, µs", lambda column: _us(column.launch))
    row("a large product, GFLOP/s", lambda column: figure(column.product_flops / 1e9))
    row("a large copy, GB/s", lambda column: figure(column.copy_bytes / 1e9))
    return table


def _sweep(comparison: Comparison, columns: Columns) -> "Table":
    table = _table("batch size", *columns)
    for size in batch_sizes(list(columns.values())):
        steps = [column.step_at(size) for column in columns.values()]
        table.add_row(str(size), *(figure(rate(size, step.median) if step else nan) for step in steps))
    return table


def _table(first: str, *rest: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")
    table.add_column(first, no_wrap=True)
    for name in rest:
        table.add_column(name, justify="right", vertical="bottom", no_wrap=True)
    return table


def _total(time: LayerTime) -> float:
    """Forward and backward together, in seconds."""
    return sum(part.median for part in (time.forward, time.backward) if part)


def _ms(spread: Spread | None) -> str:
    return "-" if spread is None else milliseconds(spread.median)


def _us(spread: Spread | None) -> str:
    return "-" if spread is None else figure(1e6 * spread.median)
