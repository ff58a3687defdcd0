"""Text and tables on a terminal: lines are wrapped between words, and tables that are too wide are split.

Lines written to a file or another program are not wrapped.
"""

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from cnn.support.libraries import require
from cnn.support.streams import log
from cnn.support.text import text_width

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.table import Table

USUAL_WIDTH = 80  # columns, if the terminal does not report its width
LINES_ONLY = ("", "dumb", "unknown")  # values of TERM without redrawing
GAP = 2  # spaces between the columns of a table

Lines = Sequence[Sequence[str]]  # of a table, cell by cell


def screen_width(stream: TextIO) -> int | None:
    """The width of the terminal that ``stream`` writes to; None if it writes to a file or a program."""
    try:
        if not stream.isatty():
            return None
        columns = os.environ.get("COLUMNS", "")
        return (
            int(columns)
            if columns.isdecimal()
            else os.get_terminal_size(stream.fileno()).columns or USUAL_WIDTH
        )
    except OSError:  # a terminal without a size
        return USUAL_WIDTH
    except (ValueError, AttributeError):  # a closed stream, or None
        return None


def make_console(stream: TextIO | None = None, width: int | None = None) -> "Console":
    """A console on ``stream``, standard output by default, with colours on a terminal.

    FORCE_COLOR turns colours on for files too; NO_COLOR turns them off and has priority.
    """
    library = require("rich.console", "to print")
    stream = stream or sys.stdout
    plain = bool(os.environ.get("NO_COLOR")) and screen_width(stream) is None
    force = {"force_jupyter": False, "force_terminal": False if plain else None}
    console: Console = library.Console(file=stream, width=width, highlight=False, **force)
    return console


def live_console() -> "Console | None":
    """A console on standard error that can redraw lines; None if there is no such terminal.

    FORCE_COLOR has no effect on this.
    """
    stream = log()
    if screen_width(stream) is None or (os.name != "nt" and os.environ.get("TERM", "").lower() in LINES_ONLY):
        return None
    console = make_console(stream)
    return console if console.is_interactive else None


def write_line(text: str, stream: TextIO | None = None, indent: str = "") -> None:
    """Write a line to ``stream``, standard output by default; it is wrapped on a terminal."""
    stream = stream or sys.stdout
    width = screen_width(stream)
    stream.write(f"{text if width is None else fold(text, width, indent)}\n")
    stream.flush()


def fold(text: str, width: int, indent: str = "") -> str:
    """The text in lines of at most ``width`` columns; added lines begin with ``indent``.

    Lines are broken between fields, which are separated by two spaces, or else between words. A command in
    backquotes counts as one word, so that it can be copied.
    """
    lines = []
    for whole in text.split("\n"):
        line = ""
        for field in re.split(r"(?<=\S)(?=  +\S)", whole):
            fits = text_width(line + field) <= width or text_width(indent + field.strip()) <= width
            for piece in [field] if fits else re.findall(r"\s*(?:`[^`]*`|\S)+", field):
                if line and text_width(line + piece) > width:
                    lines.append(line)
                    line = indent + piece.lstrip()
                else:
                    line += piece
        lines.append(line)
    return "\n".join(lines)


def print_table(headings: Sequence[str], rows: Lines, footer: Sequence[str] = ()) -> None:
    """Print a table on standard output: the first column left-aligned, the others right-aligned.

    If the terminal is too narrow, the table is split by columns; each part begins with the first column.
    """
    lines = [headings, *rows, footer] if footer else [headings, *rows]
    widths = _widths(lines)
    whole = sum(widths) + GAP * len(widths)
    console = make_console(width=whole)
    for part in _parts(widths, screen_width(sys.stdout) or whole):
        console.print(_rich_table(lines, bool(footer), part))


def table_width(headings: Sequence[str], rows: Lines) -> int:
    """The width of a table that :func:`print_table` does not split."""
    return sum(width + GAP for width in _widths([headings, *rows])) - GAP


def _widths(lines: Lines) -> list[int]:
    """The width of each column of a table; a cell may have several lines."""
    columns = zip(*lines, strict=True)
    return [max(text_width(line) for cell in column for line in cell.split("\n")) for column in columns]


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each part of the table, so that each part fits; all parts have the first column."""
    parts: list[list[int]] = []
    for i in range(1, len(widths)):
        if not parts or sum(widths[j] + GAP for j in [*parts[-1], i]) - GAP > width:
            parts.append([0])
        parts[-1].append(i)
    return parts or [[0]]


def _rich_table(lines: Lines, has_footer: bool, part: Sequence[int]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_footer=has_footer
    )
    footer = lines[-1] if has_footer else [""] * len(lines[0])
    for i in part:
        justify: JustifyMethod = "right" if i else "left"
        heading, foot = Text(lines[0][i]), Text(footer[i])
        table.add_column(heading, foot, justify=justify, vertical="bottom", no_wrap=True)
    for row in lines[1 : -1 if has_footer else None]:
        table.add_row(*(Text(row[i]) for i in part))
    return table
