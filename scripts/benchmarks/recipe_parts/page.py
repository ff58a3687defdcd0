"""The table of all recipes in docs/measurements/recipes.md; the text around it is written by hand."""

from collections.abc import Sequence
from pathlib import Path

from shared.markdown import markdown

from cnn.runs import recipes
from cnn.support.errors import ArgumentError
from cnn.support.files import write_whole
from cnn.support.text import duration, figure
from recipe_parts.record import Record, Times

BEGIN = "<!-- The table below is written by scripts/benchmarks/recipes.py. -->\n"
END = "<!-- The table above is written by scripts/benchmarks/recipes.py. -->\n"
NONE = "No recipe has been measured yet.\n"
HEADINGS = (
    "recipe",
    "data",
    "accuracy",
    "95 % interval",
    "seeds",
    "training",
    "whole command",
    "PyTorch's training, extrapolated: its median step x steps",
    "speed relative to PyTorch",
    "machine",
)


def read_all(folder: Path) -> list[Record]:
    """The records in a folder, in the order of the recipes; ArgumentError if one is damaged."""
    paths = [folder / f"{name}.json" for name in recipes.NAMES]
    return [Record.read(path) for path in paths if path.exists()]


def make_table(records: Sequence[Record]) -> str:
    """A row for each recipe."""
    return markdown(HEADINGS, [row(record) for record in records]) if records else NONE


def row(record: Record) -> list[str]:
    """The cells of a recipe."""
    return [
        record.measured["title"],
        record.measured["data"]["name"],
        *of_runs(record),
        *of_pytorch(record),
        machine(record),
    ]


def of_runs(record: Record) -> list[str]:
    """Accuracy, interval, seeds and times; dashes if nothing was trained."""
    if not record.runs:
        return ["-"] * 5
    accuracy, seeds = record.accuracy, [run.seed for run in record.runs]
    spread = "" if accuracy.deviation is None else f" ± {100 * accuracy.deviation:.2f}"
    interval = "-"
    if accuracy.interval:
        low, high = accuracy.interval
        interval = f"{100 * low:.2f} to {100 * high:.2f} %"
    return [
        f"{100 * accuracy.mean:.2f}{spread} %",
        interval,
        f"{len(seeds)}, from {seeds[0]}",
        times(record.training_seconds),
        times(record.command_seconds),
    ]


def times(found: Times) -> str:
    """The median and the range, as in "3.1 s (3.0 s to 3.4 s)"."""
    return f"{duration(found.median)} ({duration(found.lowest)} to {duration(found.highest)})"


def of_pytorch(record: Record) -> list[str]:
    """PyTorch's time with its fastest mode, and the ratio with its quartiles."""
    found = record.pytorch
    if found is None:
        return ["-", "-"]
    ratio = found["times_pytorch"]
    return [
        f"{duration(found['pytorch_training_seconds'])} ({found['fastest']})",
        f"{figure(ratio['median'])} ({figure(ratio['low'])} to {figure(ratio['high'])})",
    ]


def machine(record: Record) -> str:
    """The processor, the threads, and the width of its vectors."""
    found = record.measured["hardware"]
    parts = [found["processor"]]
    if found["threads"]:
        parts.append(f"{found['threads']} thread{'s' if found['threads'] > 1 else ''}")
    if found["vector_bits"]:
        parts.append(f"vectors of {found['vector_bits']} bits")
    return ", ".join(parts)


def write_table(page: Path, records: Sequence[Record]) -> None:
    """Replace the table in a page; ArgumentError if the page does not show where it is."""
    before, after = around_table(page)
    write_whole(page, f"{before}{BEGIN}\n{make_table(records)}\n{END}{after}".encode())


def around_table(page: Path) -> tuple[str, str]:
    """The text before and after the table."""
    text = page.read_text("utf-8")
    before, begins, rest = text.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not (begins and ends):
        raise ArgumentError(
            f"{page} does not show where the table is: expected the line {BEGIN.strip()!r} before it and "
            f"{END.strip()!r} after it"
        )
    return before, after
