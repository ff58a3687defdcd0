"""A comparison as a picture: images a second over the batch size, with the crossover."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from cnn.comparison.results import Comparison, batch_sizes, crossover
from cnn.files import write_whole
from cnn.libraries import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito 2008
MARKERS = "os^Dv*"


def draw(comparison: Comparison, path: Path) -> list[Path]:
    """Write the picture as PNG to ``path`` and as SVG beside it; -> both paths."""
    matplotlib = require("matplotlib", "to draw")
    figure = sweep_figure(comparison)
    paths = [path.with_suffix(".png"), path.with_suffix(".svg")]
    for target in paths:
        data = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "sweep"}):
            figure.savefig(data, format=target.suffix[1:], dpi=150)
        write_whole(target, data.getvalue())
    return paths


def sweep_figure(comparison: Comparison) -> "Figure":
    """Images a second of each column over the batch size; a dotted line where one overtakes the first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    first, *others = comparison.columns
    for number, column in enumerate(comparison.columns):
        sizes = [point.batch_size for point in column.sweep]
        axes.plot(
            sizes,
            [point.batch_size / point.step.median for point in column.sweep],
            label=column.name,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
        )
        axes.fill_between(
            sizes,
            [point.batch_size / point.step.high for point in column.sweep],
            [point.batch_size / point.step.low for point in column.sweep],
            color=COLOURS[number % len(COLOURS)],
            alpha=0.2,
        )
    for number, column in enumerate(others, 1):
        size = crossover(first, column)
        if size is not None and size > column.sweep[0].batch_size:
            colour = COLOURS[number % len(COLOURS)]
            axes.axvline(size, color=colour, linestyle=":", label=f"faster than {first.name} from {size} on")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    sizes = batch_sizes(comparison.columns)
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("batch size (images)")
    axes.set_ylabel("training speed (images/s)")
    axes.set_title(f"{comparison.model}, {comparison.dtype}: median, band from quartile to quartile")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
