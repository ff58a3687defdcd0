"""The table in which ``cnn evaluate`` prints the results of each class."""

import sys
from collections.abc import Sequence
from typing import Any

from cnn.runs.class_results import MOST_SHOWN, ClassResults
from cnn.support.terminal import GAP, print_table, screen_width, write_line
from cnn.support.text import labels, printable, text_width

FIGURES = 49  # columns of the numbers and gaps in the table of classes
LEAST = 8  # columns of a name in it


def print_classes(confusion: Any, names: Sequence[str], every: bool) -> None:
    """Print the table of the classes; with ``every`` all of them, and which classes were mistaken.

    Otherwise only the classes with the lowest F1 are shown if there are many.
    """
    found = ClassResults(confusion, _labels(names))
    chosen: Sequence[int] = range(len(names))
    if len(names) > MOST_SHOWN and not every:
        chosen = found.hardest(MOST_SHOWN)
        some = f"The {len(chosen)} of {len(names):,} classes with the lowest F1"
        write_line(f"\n{some}, and the mean of all; --all shows all")
    else:
        write_line("")
    rows, means = found.rows, found.means
    print_table(list(means), [list(rows[label].values()) for label in chosen], list(means.values()))
    if every and len(names) <= MOST_SHOWN:
        write_line("\nConfusion matrix: a row for each true class, a column for each predicted class")
        _print_matrix(found)
    elif every:
        write_line("\nMistakes")
        print_table(["true class", "predicted class", "images"], found.mistakes)


def _labels(names: Sequence[str]) -> list[str]:
    """The names, shortened on a terminal so that a row of the table has two of them."""
    width = screen_width(sys.stdout)
    shown = [printable(name) for name in names]
    return shown if width is None else labels(shown, max(LEAST, (width - FIGURES) // 2))


def _print_matrix(found: ClassResults) -> None:
    """Print the confusion matrix, with a dot for 0; on a terminal its columns are narrow."""
    cells = [[f"{count:,}" if count else "." for count in row] for row in found.confusion.tolist()]
    width, headings = screen_width(sys.stdout), found.names
    if width is not None:
        room = (width - max(map(text_width, found.names))) // len(found.names) - GAP
        headings = labels(found.names, max(4, room, *(len(cell) for row in cells for cell in row)))
    print_table(["", *headings], [[name, *row] for name, row in zip(found.names, cells, strict=True)])
