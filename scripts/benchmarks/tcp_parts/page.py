"""The results as text: in a terminal, and between two lines of docs/measurements/distributed.md."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import Any

from shared.markdown import markdown

from cnn.support.errors import ArgumentError
from cnn.support.files import write_whole
from cnn.support.text import figure, milliseconds
from tcp_parts.measured import Cable, Row

FORMAT, SCHEMA = "xpcnn over TCP", 1
WIDTH = 120  # of the page
BEGIN = "<!-- The text below is written by scripts/benchmarks/bench_tcp.py. -->\n"
END = "<!-- The text above is written by scripts/benchmarks/bench_tcp.py. -->\n"
HEADINGS = (
    "batch",
    "one process, ms",
    "two, ms",
    "quartiles",
    "model, ms",
    "two / model",
    "speed relative to one",
    "exchange and waiting",
    "sent, kB",
    "to send, kB",
)


def make_text(machine: dict[str, Any], cable: Cable, rows: Sequence[Row], rounds: int, steps: int) -> str:
    """What was measured where, and a row for each batch size."""
    delay = f"with {cable.delay * 1e3:g} ms of delay" if cable.delay else "without a delay"
    table = markdown(HEADINGS, list(map(cells, rows)))
    where, day = machine["device"].get("processor"), machine["time"][:10]
    measured = (
        f"Measured on {where}, {day}: {rounds} rounds of {steps} steps. The cable was limited to "
        f"{cable.rate / 1e9:g} Gbit/s {delay}; plain sockets had a round trip of "
        f"{figure(cable.round_trip * 1e6)} µs and {figure(cable.measured_rate / 1e9)} Gbit/s."
    )
    return f"{fill(measured, WIDTH)}\n\n{table}"


def cells(row: Row) -> list[str]:
    """The cells of a batch size."""
    return [
        f"{row.batch_size:,}",
        milliseconds(row.one.median),
        milliseconds(row.two.median),
        f"{milliseconds(row.two.low)} to {milliseconds(row.two.high)}",
        milliseconds(row.predicted),
        figure(row.ratio),
        figure(row.one.median / row.two.median),
        f"{row.wait.median / row.two.median:.0%}",
        figure(row.sent / 1e3),
        figure(row.expected / 1e3),
    ]


def as_plain(
    machine: dict[str, Any], cable: Cable, rows: Sequence[Row], rounds: int, steps: int
) -> dict[str, Any]:
    """Everything, as JSON has it."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "machine": machine,
        "cable": asdict(cable),
        "rounds": rounds,
        "steps": steps,
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
    }


def write_text(page: Path, text: str) -> None:
    """Replace the text in a page; ArgumentError if the page does not show where it is."""
    before, after = around_text(page)
    write_whole(page, f"{before}{BEGIN}\n{text}\n{END}{after}".encode())


def around_text(page: Path) -> tuple[str, str]:
    """What stands before and after the text."""
    try:
        content = page.read_text("utf-8")
    except OSError as error:
        raise ArgumentError(f"{page} cannot be read ({error.strerror}): name the page to write to") from None
    before, begins, rest = content.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (begins and ends):
        raise ArgumentError(
            f"{page} does not show where the text is: expected the line {BEGIN.strip()!r} before it and "
            f"{END.strip()!r} after it"
        )
    return before, after
