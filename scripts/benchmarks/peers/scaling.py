"""A picture of what an image costs, over batch size, image size, channels and threads."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnn.support.drawing import COLOURS, MARKERS, style
from cnn.support.files import write_whole
from peers.contenders import CONTENDERS, LOOKED_INTO
from peers.networks import NETWORKS, sized
from peers.task import Setting
from peers.timing import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

BATCH_SIZES = (1, 4, 16, 64, 256)
SIZES = (8, 16, 32, 64)
CHANNELS = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Panel:
    """Settings in which one thing varies."""

    axis: str
    title: str
    settings: dict[int, Setting]  # by the value of what varies


def make_panels(cores: int) -> list[Panel]:
    """The four, on a machine with so many cores."""
    lenet5 = NETWORKS["lenet5"]
    threads = sorted({*(1 << n for n in range(cores.bit_length())), cores})
    return [
        Panel(
            "batch size (images)",
            "LeNet-5",
            {size: Setting(lenet5, size, cores) for size in BATCH_SIZES},
        ),
        Panel(
            "height and width of an image (pixels)",
            "two convolutions of 16 channels, batch 32",
            {size: Setting(sized(16, size), 32, cores) for size in SIZES},
        ),
        Panel(
            "channels",
            "two convolutions on 28x28 pixels, batch 32",
            {channels: Setting(sized(channels, 28), 32, cores) for channels in CHANNELS},
        ),
        Panel("threads", "LeNet-5, batch 128", {n: Setting(lenet5, 128, n) for n in threads}),
    ]


def draw(panels: Sequence[Panel], figures: Sequence[Figure], path: Path) -> list[Path]:
    """Write the picture as PNG to ``path`` and as SVG next to it; -> both paths."""
    paths = [path.with_suffix(".png"), path.with_suffix(".svg")]
    with style():
        drawing = make_drawing(panels, figures)
        for target in paths:
            data, kind = io.BytesIO(), target.suffix[1:]
            undated = {"Date": None} if kind == "svg" else None
            drawing.savefig(data, format=kind, dpi=150, facecolor="white", metadata=undated)
            write_whole(target, data.getvalue())
    return paths


def make_drawing(panels: Sequence[Panel], figures: Sequence[Figure]) -> "Drawing":
    """Panels next to each other, two by two, one legend for all."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(9, 6.5), layout="constrained")
    by_setting = {(f.network, f.batch_size, f.threads, f.peer): f for f in figures}
    for panel, axes in zip(panels, drawing.subplots(2, 2).flat, strict=True):
        for name, colour, marker in zip(LOOKED_INTO, COLOURS, MARKERS, strict=False):
            keys = {v: (s.network.name, s.batch_size, s.threads, name) for v, s in panel.settings.items()}
            points = {value: by_setting[key] for value, key in keys.items() if key in by_setting}
            draw_line(axes, points, CONTENDERS[name].label, colour, marker)
        dress(axes, panel)
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(LOOKED_INTO))
    drawing.suptitle("What an image costs in a training step: medians, shaded from quartile to quartile")
    return drawing


def draw_line(axes: "Axes", points: dict[int, Figure], label: str, colour: str, marker: str) -> None:
    """Microseconds an image, of one contender."""
    if not points:
        return
    middle, low, high = (
        [1e6 * getattr(figure.seconds, which) / figure.batch_size for figure in points.values()]
        for which in ("median", "low", "high")
    )
    axes.plot(list(points), middle, color=colour, marker=marker, label=label)
    axes.fill_between(list(points), low, high, color=colour, alpha=0.2, linewidth=0)


def dress(axes: "Axes", panel: Panel) -> None:
    """Logarithmic axes with the values that were measured below, and names."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(panel.settings), list(map(str, panel.settings)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel(panel.axis)
    axes.set_ylabel("time of an image (µs)")
    axes.set_title(panel.title)
    axes.grid()
