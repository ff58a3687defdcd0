"""The pictures of a report. Each function draws one from plain data; call it inside ``with style():``."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.network import Network
from cnn.runs.report.evaluation import Evaluation
from cnn.runs.report.histogram import Histogram
from cnn.runs.report.record import RunRecord
from cnn.support.drawing import COLOURS, INK, Picture, line_look
from cnn.support.text import labels, milliseconds, percent, short, text_width
from cnn.training.rate_test import RateTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.0  # inches: 9 points are then still 10 pixels on a phone
BLUE, RED = COLOURS[:2]
MOST_PANELS = 24
MOST_FILTERS, MOST_CHANNELS = 32, 8
MOST_WRITTEN = 20  # with more classes the confusion matrix has no numbers, and a curve has no more markers
MOST_NAMED = 12  # classes that are named next to a confusion matrix without numbers


def pictures(record: RunRecord) -> list[Picture]:
    """All pictures for the data of a run."""
    drawn = [curves(record)] if record.epochs else []
    if record.evaluation:
        drawn.append(confusion(record.evaluation, record.class_names))
        if len(record.evaluation.mistakes.labels):
            drawn.append(mistakes(record.evaluation, record.class_names))
    if record.network:
        drawn += filters(record.network) + weights(record.network)
    if record.evaluation:
        drawn += activations(record.evaluation) + layer_times(record.evaluation)
    return drawn


def curves(record: RunRecord) -> Picture:
    """Loss and accuracy by epoch."""
    figure, axes = _curve_axes(len(record.epochs))
    parts = {"training": ("", BLUE, "o", "--")}
    if record.validated:
        parts[record.checked] = ("validation_", RED, "s", "-")
    summary = []
    for kind in axes:
        for part, (prefix, colour, marker, line) in parts.items():
            look = {"color": colour, "marker": marker, "linestyle": line}
            _curve(axes[kind], record, prefix + kind, label=part, **look)
        summary.append(
            f"{kind.capitalize()} by epoch: "
            + ", ".join(f"{part} {_course(record, prefix + kind)}" for part, (prefix, *_) in parts.items())
        )
    figure.legend(*axes["loss"].get_legend_handles_labels(), loc="upper center", ncols=2)
    count = len(record.epochs)
    return Picture("curves", "Loss and accuracy", f"{'. '.join(summary)}. {_plural(count, 'epoch')}.", figure)


def compared_curves(records: dict[str, RunRecord]) -> Picture:
    """The curves of several runs: validation or test as solid lines, training as dashed lines."""
    figure, axes = _curve_axes(max(len(record.epochs) for record in records.values()), len(records))
    summary = []
    for number, (name, record) in enumerate(records.items()):
        if not record.epochs:
            continue
        part, line = (record.checked, "-") if record.validated else ("training", "--")
        look = {**line_look(number), "linestyle": line}
        for kind, field in axes.items():
            if record.validated:
                _curve(field, record, kind, color=look["color"], linestyle="--", alpha=0.5)
            _curve(field, record, record.measured(kind), label=f"{number + 1}: {short(name, 40)}", **look)
        courses = [f"{part} {kind} {_course(record, record.measured(kind))}" for kind in axes]
        summary.append(f"{name}: {', '.join(courses)}")
    figure.legend(*axes["loss"].get_legend_handles_labels(), loc="upper left")
    return Picture("curves", "Loss and accuracy", f"Curves by epoch. {'. '.join(summary)}.", figure)


def learning_rates(found: RateTest) -> Picture:
    """The loss by learning rate, on a logarithmic scale, and the suggested rate."""
    figure, axes = _one_axes(2.8, left=0.62, bottom=0.5, top=0.2)
    axes.plot(found.rates, found.losses, color=BLUE, alpha=0.35, linewidth=1, label="batch")
    axes.plot(found.rates, found.smoothed, color=BLUE, label="smoothed")
    axes.axvline(found.suggestion, color=RED, linestyle="--", linewidth=1.2, label="suggestion")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.legend()
    lowest = min(found.smoothed)
    summary = f"Loss by learning rate: the smoothed loss is lowest, {lowest:.3g}, at {_best_rate(found):.2g}"
    return Picture("learning-rates", "Loss by learning rate", f"{summary}.", figure)


def _best_rate(found: RateTest) -> float:
    return found.rates[int(np.argmin(found.smoothed))]


def confusion(evaluation: Evaluation, names: Sequence[str]) -> Picture:
    """The confusion matrix: blue for the correct share of each class, red for the counts of mistakes."""
    counts = evaluation.confusion
    classes = len(counts)
    figure, axes = _one_axes(4.0, left=0.62, bottom=0.62, top=0.1)
    wrong = counts * (1 - np.eye(classes, dtype=counts.dtype))
    colours = np.zeros((classes, classes, 4))
    colours[..., :3] = _rgb(RED)
    # the square root, because a few pairs of classes have most of the mistakes
    colours[..., 3] = 0.7 * np.sqrt(wrong / max(wrong.max(), 1))
    right = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)  # the share of each class
    colours[np.diag_indices(classes)] = [(*_rgb(BLUE), 0.4 * share) for share in right]
    axes.imshow(colours, interpolation="none")
    if classes <= MOST_WRITTEN:
        letters = len(str(counts.max()))
        size = min(9.0, 72 * 3.2 / classes / letters * 1.4)
        for true, predicted in zip(*np.nonzero(counts), strict=True):
            count = str(counts[true, predicted])
            axes.text(predicted, true, count, ha="center", va="center_baseline", fontsize=size)
    shown = range(0, classes, ceil(classes / MOST_NAMED) if classes > MOST_WRITTEN else 1)
    ticks = labels([names[label] for label in shown], 12)
    axes.set_xticks(shown, ticks, rotation=90 if max(map(text_width, ticks)) > 2 else 0)
    axes.set_yticks(shown, ticks)
    _margins(figure, axes, ticks)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.spines[:].set_visible(True)
    axes.tick_params(length=0)
    summary = (
        f"Confusion matrix of {classes} classes: "
        f"{np.trace(counts):,} of {evaluation.count:,} test images are classified correctly"
    )
    if wrong.any():
        true, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
        summary += (
            f"; the most frequent mistake is {names[true]} taken for {names[predicted]}, "
            f"{_plural(int(wrong.max()), 'time')}"
        )
    return Picture("confusion", "Confusion matrix", f"{summary}.", figure)


def mistakes(evaluation: Evaluation, names: Sequence[str]) -> Picture:
    """The misclassified test images with the lowest probability of the true class."""
    found = evaluation.mistakes
    widest = max(map(text_width, names))
    is_beside = widest > 9  # the names of the classes are next to the image, not below it
    columns = 2 if is_beside else 4
    height = 0.95 if is_beside else 1.42 if widest > 2 else 1.18  # a short name has its probability behind it
    shown, gap = labels(names, 16), " " if widest <= 2 else "\n"
    rows = ceil(len(found.labels) / columns)
    figure, axes = _one_axes(rows * height, left=0.02, bottom=0.02, right=0.02, top=0.02)
    axes.set_axis_off()
    summary = []
    for number, image in enumerate(found.images):
        row, column = divmod(number, columns)
        middle, bottom = (2 * column + 0.42 if is_beside else column + 0.5), row * height + 0.8
        axes.imshow(_shown(image), extent=_place(image.shape, middle, bottom), interpolation="none")
        label, taken = found.labels[number], found.predicted[number]
        right, wrong = (percent(found.probabilities[number][name]) for name in (label, taken))
        text = f"is {shown[label]}:{gap}{right}\nsaid {shown[taken]}:{gap}{wrong}"
        if is_beside:
            text = f"is\n{shown[label]}\n{right}\nsaid\n{shown[taken]}\n{wrong}"
            axes.text(middle + 0.46, bottom - 0.4, text, ha="left", va="center", fontsize=8, linespacing=1.1)
        else:
            axes.text(middle, bottom + 0.04, text, ha="center", va="top", fontsize=8, linespacing=1.1)
        summary.append(f"{names[label]} taken for {names[taken]} with {wrong}")
    axes.set(xlim=(0, 4), ylim=(rows * height, 0), aspect="auto")
    description = f"The {len(summary)} worst mistakes on test images: {'; '.join(summary)}."
    return Picture("mistakes", "Worst mistakes", description, figure)


def filters(network: Network) -> list[Picture]:
    """The weights of the first convolution, if there is one: one tile per filter and channel."""
    layer = next((layer for layer in network.walk() if layer.filters), None)
    if layer is None or layer.filters is None:
        return []
    weight = network.backend.to_host(layer.filters.value).astype(np.float64)
    O, C, KH, KW = weight.shape
    limit = float(np.abs(weight).max()) or 1.0
    shown = weight[:MOST_FILTERS]
    summary = (
        f"{_plural(O, 'filter')} of {KH} by {KW} in {_plural(C, 'channel')} of layer {layer.label}, "
        f"weights from {weight.min():.3g} to {weight.max():.3g}"
    )
    if C == 3:
        tiles = _in_rows([0.5 + filter.transpose(1, 2, 0) / (2 * limit) for filter in shown], 8)
        summary += ", as colours"
    elif C == 1:
        tiles = _in_rows([filter[0] for filter in shown], 8)
    else:  # a column for each filter, a row for each channel
        shown = shown[:16, :MOST_CHANNELS]
        tiles = [[filter[channel] for filter in shown] for channel in range(shown.shape[1])]
        summary += ", a column for each filter, a row for each channel"
    if shown.shape[:2] != (O, C):
        summary += f"; shown are {_plural(len(shown), 'filter')} and {_plural(shown.shape[1], 'channel')}"
    mosaic = _mosaic(tiles)
    bar = 0.0 if C == 3 else 0.55
    height = min(5.0, (WIDTH - 0.1) * mosaic.shape[0] / mosaic.shape[1])
    figure, axes = _one_axes(height + bar + 0.1, left=0.05, bottom=bar + 0.05, right=0.05, top=0.05)
    image = axes.imshow(mosaic, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="none")
    axes.set_axis_off()
    if bar:
        scale = figure.add_axes((0.2, 0.42 / (height + bar + 0.1), 0.6, 0.1 / (height + bar + 0.1)))
        figure.colorbar(image, cax=scale, orientation="horizontal", label="weight")
        scale.set_xticks([-limit, 0, limit], [f"{-limit:.2g}", "0", f"{limit:.2g}"])
    return [Picture("filters", "First-layer filters", f"{summary}.", figure)]


def weights(network: Network) -> list[Picture]:
    """Histograms of the weights of each layer that has weights."""
    to_host = network.backend.to_host
    histograms = [
        Histogram.of(layer.label, to_host(layer.parameters["weight"].value))
        for layer in network.walk()
        if "weight" in layer.parameters
    ]
    if not histograms:
        return []
    return [Picture("weights", "Weights", *_panels(histograms, "weight", "weights"))]


def activations(evaluation: Evaluation) -> list[Picture]:
    """Histograms of the outputs of each layer."""
    if not evaluation.activations:
        return []
    described = _panels(evaluation.activations, "output other than 0", "outputs")
    return [Picture("activations", "Activations", *described)]


def layer_times(evaluation: Evaluation) -> list[Picture]:
    """The time of each layer in a training step; if there are many, only the slowest."""
    if not evaluation.times:
        return []
    times = [(time, [part for part in (time.forward, time.backward) if part]) for time in evaluation.times]
    totals = [sum(part.median for part in parts) for _, parts in times]
    shown = sorted(sorted(range(len(times)), key=lambda index: -totals[index])[:MOST_PANELS])
    figure, axes = _one_axes(0.95 + 0.3 * len(shown), left=0.1, bottom=0.45, top=0.3)
    rows = np.arange(len(shown))
    for direction, colour, shift in (("forward", BLUE, -0.19), ("backward", RED, 0.19)):
        spreads = [getattr(times[index][0], direction) for index in shown]
        middle = np.array([1e3 * spread.median if spread else 0 for spread in spreads])
        low = np.array([1e3 * spread.low if spread else 0 for spread in spreads])
        high = np.array([1e3 * spread.high if spread else 0 for spread in spreads])
        axes.barh(rows + shift, middle, 0.36, color=colour, label=direction)
        axes.hlines(rows + shift, low, high, color=INK, linewidth=1, label="quartiles" if shift > 0 else "_")
    ticks = labels([times[index][0].layer for index in shown], 18)
    axes.set_yticks(rows, ticks)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel=f"ms for a batch of {evaluation.batch_size}")
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    _margins(figure, axes, ticks, x_labels=False)
    lines, *bars = axes.get_legend_handles_labels()[0]  # matplotlib returns lines first
    figure.legend(handles=[*bars, lines], loc="upper center", ncols=3)
    slowest = int(np.argmax(totals))
    summary = (
        f"Time per layer in a training step on {_plural(evaluation.batch_size, 'image')}: "
        f"{milliseconds(sum(totals))} ms in all {_plural(len(times), 'layer')}; the slowest is "
        f"{times[slowest][0].layer} with {milliseconds(totals[slowest])} ms."
    )
    return [Picture("layer_times", "Time per layer", summary, figure)]


# parts of pictures


def _one_axes(
    height: float, left: float, bottom: float, right: float = 0.1, top: float = 0.1
) -> tuple["Figure", "Axes"]:
    """A figure with one pair of axes; margins are in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    place = (left / WIDTH, bottom / height, 1 - (left + right) / WIDTH, 1 - (bottom + top) / height)
    return figure, figure.add_axes(place)


def _margins(figure: "Figure", axes: "Axes", ticks: Sequence[str], x_labels: bool = True) -> None:
    """Set margins for the tick labels on the left, and for rotated ones below."""
    margin = max(map(_inches, ticks)) + 0.35
    height = float(figure.get_figheight())
    box = axes.get_position()
    turned = x_labels and max(map(text_width, ticks)) > 2
    bottom = (margin + 0.1) / height if turned else box.y0
    axes.set_position((margin / WIDTH, bottom, box.x1 - margin / WIDTH, box.y1 - bottom))


def _inches(label: str) -> float:
    """The width of a tick label, also in a browser, which may use wide letters that this font lacks."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    size = 9
    points, _, _ = TextToPath().get_text_width_height_descent(label, FontProperties(size=size), ismath=False)
    return max(float(points), text_width(label) * size / 2) / 72


def _curve_axes(epochs: int, legend_lines: int = 1) -> tuple["Figure", dict[str, "Axes"]]:
    """Two pairs of axes, loss above accuracy, over the same epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    top = 0.12 + 0.19 * legend_lines
    height = 4.0 + top
    figure = Figure(figsize=(WIDTH, height))
    loss, accuracy = figure.subplots(2, sharex=True)
    figure.subplots_adjust(0.19, 0.45 / height, 0.97, 1 - top / height, hspace=0.1)
    loss.set_ylabel("loss")
    accuracy.set_ylabel("accuracy")
    accuracy.set_xlabel("epoch")
    accuracy.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (loss, accuracy):
        axes.grid()
        axes.margins(y=0.08)
        axes.yaxis.set_label_coords(-0.19, 0.5)
    if epochs <= 1:
        accuracy.set_xlim(0.5, 1.5)
    return figure, {"loss": loss, "accuracy": accuracy}


def _curve(axes: "Axes", record: RunRecord, column: str, **look: Any) -> None:
    look["markevery"] = max(1, ceil(len(record.epochs) / MOST_WRITTEN))  # more markers would overlap
    axes.plot([epoch["epoch"] for epoch in record.epochs], [epoch[column] for epoch in record.epochs], **look)


def _course(record: RunRecord, name: str) -> str:
    """A description such as "from 89.30% to 99.17%"."""
    written = percent if name.endswith("accuracy") else "{:.4f}".format
    first, last = (written(record.epochs[index][name]) for index in (0, -1))
    return f"from {first} to {last}" if len(record.epochs) > 1 else last


def _panels(histograms: Sequence[Histogram], x_label: str, numbers: str) -> tuple[str, "Figure"]:
    """(description, figure) with small axes for each histogram, two in a row."""
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(histograms) - 1, min(len(histograms), MOST_PANELS)).round().astype(int)
    rows = ceil(len(chosen) / 2)
    height = 0.95 * rows + 0.3
    figure = Figure(figsize=(WIDTH, height))
    fields = figure.subplots(rows, 2, squeeze=False).flat
    figure.subplots_adjust(0.07, 0.45 / height, 0.97, 1 - 0.2 / height, wspace=0.12, hspace=0.95)
    for axes, index in zip(fields, chosen, strict=False):
        histogram = histograms[index]
        axes.stairs(histogram.counts, histogram.edges, fill=True, color=BLUE)
        zeros = f", {histogram.zeros:.0%} are 0" if histogram.zeros else ""
        axes.set_title(short(histogram.layer, 14 if zeros else 24) + zeros, pad=3)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", labelsize=8, pad=2, length=2)
    for axes in [*figure.axes][len(chosen) :]:
        axes.remove()
    figure.supxlabel(x_label, fontsize=9, y=0.06 / height)
    figure.supylabel("how many", fontsize=9, x=0.005)
    summary = [
        f"{h.layer} from {h.low:.3g} to {h.high:.3g}" + (f", {h.zeros:.0%} are 0" if h.zeros else "")
        for h in (histograms[index] for index in chosen)
    ]
    some = f"{len(chosen)} of {len(histograms)} layers" if len(chosen) < len(histograms) else "each layer"
    return f"Histograms of the {numbers} of {some}: {'; '.join(summary)}.", figure


def _in_rows(tiles: list[Any], length: int) -> list[list[Any]]:
    return [tiles[start : start + length] for start in range(0, len(tiles), length)]


def _mosaic(tiles: list[list[Any]]) -> Any:
    """One image of all tiles with transparent lines between them; colours get an alpha channel."""
    height, width, *colours = tiles[0][0].shape
    rows, columns = len(tiles), max(map(len, tiles))
    shape = (rows * (height + 1) - 1, columns * (width + 1) - 1)
    mosaic = np.zeros((*shape, 4)) if colours else np.full(shape, np.nan)
    for row, line in enumerate(tiles):
        for column, tile in enumerate(line):
            y, x = row * (height + 1), column * (width + 1)
            if colours:
                tile = np.concatenate([tile, np.ones((height, width, 1))], axis=2)
            mosaic[y : y + height, x : x + width] = tile
    return mosaic


def _shown(image: Any) -> Any:
    """An image (C, H, W) as colours (H, W, 3): three channels unchanged, otherwise the mean as grey."""
    if image.dtype == np.uint8:
        numbers = image / 255
    else:
        low, high = float(image.min()), float(image.max())
        numbers = (image.astype(np.float64) - low) / ((high - low) or 1)
    return np.stack(numbers if len(image) == 3 else [numbers.mean(axis=0)] * 3, axis=2)


def _place(shape: tuple[int, ...], middle: float, bottom: float) -> tuple[float, float, float, float]:
    """The extent (left, right, bottom, top) of an image of at most 0.8 in width and height."""
    _, H, W = shape
    height, width = 0.8 * min(1, H / W), 0.8 * min(1, W / H)
    return middle - width / 2, middle + width / 2, bottom, bottom - height


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
