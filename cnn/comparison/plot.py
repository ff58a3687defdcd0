"""Plots a comparison: images per second by batch size, with the crossover."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from cnn.comparison.results import Comparison, batch_sizes, crossover, rate
from cnn.support.drawing import line_look, require_matplotlib, style
from cnn.support.files import write_whole
from cnn.support.outputs import PNG, SVG, require_output, require_suffix

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_drawing(path: Path) -> list[str]:
    """The messages for after :func:`draw`; ArgumentError if ``path`` cannot be written."""
    require_suffix("plot", path, ".png")
    png, svg = _targets(path)
    written = [require_output(png, PNG), require_output(svg, SVG)]
    require_matplotlib("to draw")
    return written


def draw(comparison: Comparison, path: Path) -> list[Path]:
    """Write the plot as PNG to ``path`` and as SVG next to it; -> both paths."""
    paths = _targets(path)
    with style():
        figure = sweep_figure(comparison)
        for target in paths:
            data, kind = io.BytesIO(), target.suffix[1:]
            undated = {"Date": None} if kind == "svg" else None
            figure.savefig(data, format=kind, dpi=150, facecolor="white", metadata=undated)
            write_whole(target, data.getvalue())
    return paths


def _targets(path: Path) -> list[Path]:
    return [path.with_suffix(".png"), path.with_suffix(".svg")]


def sweep_figure(comparison: Comparison) -> "Figure":
    """The training speed of each column; a dotted line marks where one becomes faster than the first."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    first = comparison.columns[0]
    for number, column in enumerate(comparison.columns):
        look = line_look(number)
        sizes = [point.batch_size for point in column.sweep]
        middle, slow, quick = (
            [rate(point.batch_size, getattr(point.step, which)) for point in column.sweep]
            for which in ("median", "high", "low")
        )
        axes.plot(sizes, middle, **look, label=column.name)
        axes.fill_between(sizes, slow, quick, color=look["color"], alpha=0.2, linewidth=0)
        overtakes = crossover(first, column)
        if overtakes is not None and overtakes > sizes[0]:
            label = f"faster than {first.name} from {overtakes} on"
            axes.axvline(overtakes, color=look["color"], linestyle=":", label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(batch_sizes(comparison.columns), list(map(str, batch_sizes(comparison.columns))))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("batch size (images)")
    axes.set_ylabel("training speed (images/s)")
    axes.set_title(f"{comparison.model}, {comparison.dtype}: medians, shaded from quartile to quartile")
    axes.grid()
    axes.legend()
    return figure
