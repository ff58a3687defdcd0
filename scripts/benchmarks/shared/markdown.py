"""Markdown tables, which are also readable in a terminal."""

from collections.abc import Iterator, Sequence

LEFT = (  # columns of words
    "peer", "network", "phase", "fastest mode", "layer", "shape", "pass", "recipe", "data", "machine",
    "part", "outcome", "reason", "fact", "value", "kernels", "section", "products", "library",
)  # fmt: skip


def markdown(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, names: int = 0
) -> str:
    """A table whose columns are aligned in the text too: words on the left, figures on the right.

    If it is wider than ``width`` it is split; each part begins with the first ``names`` columns.
    """
    columns = [list(aligned(column, left=column[0] in LEFT)) for column in zip(headings, *rows, strict=True)]
    parts = [columns[:names]]
    for column in columns[names:]:
        if width and len(parts[-1]) > names and row_width([*parts[-1], column]) > width:
            parts.append(columns[:names])
        parts[-1] = [*parts[-1], column]
    lines = (zip(*part, strict=True) for part in parts)
    return "\n".join("".join(f"| {' | '.join(line)} |\n" for line in part) for part in lines)


def row_width(columns: Sequence[Sequence[str]]) -> int:
    """The columns of a terminal that a row of the table takes."""
    return sum(len(column[0]) + 3 for column in columns) + 1


def aligned(column: Sequence[str], left: bool) -> Iterator[str]:
    """The heading, the line below it and the cells, all of the same width."""
    width = max(map(len, column))
    heading, *cells = (cell.ljust(width) if left else cell.rjust(width) for cell in column)
    yield heading
    yield "-" * width if left else "-" * (width - 1) + ":"
    yield from cells
